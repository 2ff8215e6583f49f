//! Judges: what was configured against what was found. Pure.

use std::collections::BTreeMap;

use super::ask::{Found, Warehouse, by_route, table_of};
use super::exact::{self, Flow};
use super::report::{Grade, Report, RouteLine, Severity, Verdict};
use super::{tables, topics};
use crate::config::{Action, Config, DeadLetters, Kafka, Route};
use crate::source::ProbeError;
use crate::source::kafka::probe::Cluster;
use crate::thousands::thousands;

pub(super) fn compare(config: &Config, found: &Found) -> Report {
    compare_with(config, found, &Route::is_exactly_once)
}

/// `promises`: whether a route is configured to insert no record twice.
pub(super) fn compare_with(
    config: &Config,
    found: &Found,
    promises: &dyn Fn(&Route) -> bool,
) -> Report {
    let line = |route| RouteLine { exactly_once: promises(route), ..line(config, route) };
    let routes = config.routes.iter().map(line).collect();
    let mut report = Report { routes, ..Report::default() };
    clickhouse(config, found, &mut report);
    idle_sources(config, &mut report);
    kafka(config, found, &mut report);
    nats(config, found, &mut report);
    for (index, sample) in &found.samples {
        report.routes[*index].sample = Some(sample.clone());
    }
    letters(found, &mut report);
    topics::compare(config, found, &mut report);
    if let Ok(warehouse) = &found.clickhouse {
        exactly_once(config, found, warehouse, &mut report);
    }
    report
}

fn kafka(config: &Config, found: &Found, report: &mut Report) {
    let (Some(kafka), Some(found)) = (&config.kafka, &found.kafka) else { return };
    match found {
        Ok(cluster) => topic_names(config, kafka, cluster, report),
        Err(error) => {
            let finding = report.server_failed("Kafka", kafka.brokers.join(", "), error);
            for index in 0..report.routes.len() {
                if !report.routes[index].kafka.is_empty() {
                    report.blame(index, Grade::Unknown, finding);
                }
            }
        }
    }
}

fn nats(config: &Config, found: &Found, report: &mut Report) {
    let (Some(nats), Some(found)) = (&config.nats, &found.nats) else { return };
    let address = nats.servers.join(", ");
    match found {
        Ok(server) => {
            report.server_answered("NATS", address, server.version.clone());
            if report.routes.iter().any(|route| !route.nats.is_empty() && route.table.is_some()) {
                let text = "core NATS keeps nothing, so its records cannot be sampled: what they \
                            would become shows only when they come";
                report.info("core_nats_unsampled", text.to_owned());
            }
        }
        Err(error) => {
            let finding = report.server_failed("NATS", address, error);
            for index in 0..report.routes.len() {
                if by_nats(&report.routes[index]) {
                    report.blame(index, Grade::Unknown, finding);
                }
            }
        }
    }
}

/// Where dead letters go outside ClickHouse. A server that does not answer has its line already.
fn letters(found: &Found, report: &mut Report) {
    match &found.letters {
        None | Some(Err(ProbeError::Unreachable(_))) => {}
        Some(Err(ProbeError::Refused(why))) => {
            report.error("dead_letters_refused", format!("dead letters: {why}"));
        }
        Some(Ok(caveats)) => {
            for caveat in caveats {
                report.info("dead_letters_forgotten", format!("dead letters: {caveat}"));
            }
        }
    }
}

/// A source that no route takes anything from: `run` would not start.
fn idle_sources(config: &Config, report: &mut Report) {
    let idle = |section: &str, key: &str| {
        format!(
            "[{section}] is configured, but no route has `{key}`, so `run` would not start: give a \
             route some, or leave the table out"
        )
    };
    // Letters that go there are work enough.
    let kafka = config.kafka.is_some() && !matches!(config.dead_letters, DeadLetters::Kafka { .. });
    let nats = config.nats.is_some() && !matches!(config.dead_letters, DeadLetters::Nats { .. });
    if kafka && report.routes.iter().all(|route| route.kafka.is_empty()) {
        report.error("source_without_routes", idle("kafka", "kafka_topics"));
    }
    if nats && !report.routes.iter().any(by_nats) {
        report
            .error("source_without_routes", idle("nats", "nats_subjects` or `jetstream_subjects"));
    }
}

fn by_nats(route: &RouteLine) -> bool {
    !route.nats.is_empty() || !route.jetstream.is_empty()
}

/// What the route takes out of streams.
fn subjects(route: &Route) -> Vec<String> {
    let subjects = route.jetstream.iter().flat_map(|jetstream| &jetstream.subjects);
    subjects.map(ToString::to_string).collect()
}

fn line(config: &Config, route: &Route) -> RouteLine {
    RouteLine {
        verdict: Verdict::default(),
        name: route.name.clone(),
        class: route.class.clone(),
        table: table_of(route).map(str::to_owned),
        kafka: if config.kafka.is_some() { route.kafka_topics.clone() } else { Vec::new() },
        nats: if config.nats.is_some() { route.nats_subjects.clone() } else { Vec::new() },
        jetstream: config.nats.iter().flat_map(|_| subjects(route)).collect(),
        publish: route.publish,
        exactly_once: false,
        exact: None,
        sample: None,
    }
}

fn clickhouse(config: &Config, found: &Found, report: &mut Report) {
    let settings = &config.clickhouse;
    match &found.clickhouse {
        Ok(warehouse) => {
            let says = format!(
                "{}, database {}, user {}",
                warehouse.session.version, settings.database, settings.user
            );
            report.server_answered("ClickHouse", settings.addresses(), says);
            report.max_partitions = Some(warehouse.session.max_partitions);
            topics::clock("ClickHouse", warehouse.clock, report);
            if warehouse.session.async_insert {
                let text = "ClickHouse collects inserts although the bridge says async_insert = 0: \
                            a repeated one may be stored twice, or a different one not at all";
                let sql = format!("ALTER USER {} SETTINGS async_insert = 0", settings.user);
                report.find("async_insert", Severity::Error, text.to_owned(), vec![sql]);
            }
            tables::compare(config, warehouse, report);
        }
        Err(error) => {
            let finding = report.server_failed("ClickHouse", settings.addresses(), error);
            for (index, route) in config.routes.iter().enumerate() {
                if table_of(route).is_some() {
                    report.blame(index, Grade::Unknown, finding);
                }
            }
        }
    }
}

/// Which topics there are. A route waits for one that is missing.
fn topic_names(config: &Config, kafka: &Kafka, cluster: &Cluster, report: &mut Report) {
    let mut topics: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        for topic in &route.kafka_topics {
            topics.entry(topic).or_default().push(index);
        }
    }
    let (mut partitions, mut present, mut missing) = (0, 0, Vec::new());
    for (topic, routes) in &topics {
        let matching = cluster.matching(topic);
        partitions += matching.iter().map(|name| cluster.topics[*name]).sum::<usize>();
        if topic.starts_with('^') {
            present += 1;
            report.info("topic_pattern", pattern(topic, &matching));
        } else if let Some(why) = cluster.refused.get(*topic) {
            let text = format!("Kafka refuses topic {topic}: {why}");
            let finding = report.error("topic_refused", text);
            routes.iter().for_each(|route| report.blame(*route, Grade::Wrong, finding));
        } else if matching.is_empty() {
            missing.push((*topic, routes));
        } else {
            present += 1;
        }
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(topic, _)| *topic).collect();
        let text = format!(
            "Kafka has no topic {}: create {}, or correct `kafka_topics`. Until then the bridge \
             runs without, and waits.",
            names.join(", "),
            if names.len() == 1 { "it" } else { "them" },
        );
        let finding = report.error("topic_missing", text);
        for (_, routes) in missing {
            routes.iter().for_each(|route| report.blame(*route, Grade::Waits, finding));
        }
    }
    let says = format!(
        "{} broker{}; {present} of {} topics, {} partitions",
        cluster.brokers,
        if cluster.brokers == 1 { "" } else { "s" },
        topics.len(),
        thousands(partitions as u64)
    );
    report.server_answered("Kafka", kafka.brokers.join(", "), says);
}

fn pattern(topic: &str, matching: &[&str]) -> String {
    /// More would hide the rest.
    const NAMED: usize = 5;
    let named = matching.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match matching.len() {
        0 => format!("topics {topic}: none matches now; those to come are taken up"),
        count if count > NAMED => format!("topics {topic}: {count} match now: {named}, …"),
        count => format!("topics {topic}: {count} match now: {named}"),
    }
}

/// Whether each route could insert no record twice; where one promises it, it has to hold.
fn exactly_once(config: &Config, found: &Found, warehouse: &Warehouse, report: &mut Report) {
    let letters = config.dead_letters.table().and_then(|table| warehouse.tables.get(table));
    for (index, route) in config.routes.iter().enumerate() {
        let Action::Insert(insert) = &route.action else { continue };
        let Some(table) = warehouse.tables.get(&insert.table) else { continue };
        let flow = flow(config, found, index);
        let judged = exact::judge(config, route, insert, table, letters, &warehouse.session, flow);
        let Some(judged) = judged else { continue };
        if report.routes[index].exactly_once {
            promised(config, index, table, &judged, report);
        }
        report.routes[index].exact = Some(judged);
    }
}

fn flow<'a>(config: &Config, found: &'a Found, index: usize) -> Flow<'a> {
    let stream = found.streams.get(&index).and_then(|stream| stream.as_ref().ok());
    let Some(Ok(topics)) = &found.topics else { return Flow { stream, ..Flow::default() } };
    let routes = by_route(config, topics.keys());
    let of_route = || routes.get(&index).into_iter().flatten().map(|name| &topics[*name]);
    let paces: Vec<f64> = of_route().filter_map(|topic| topic.pace).collect();
    Flow {
        stream,
        kafka_partitions: of_route().map(|topic| topic.partitions).sum(),
        pace: (!paces.is_empty()).then(|| paces.iter().sum()),
        table_partitions: found.samples.get(&index).and_then(|s| s.partitions).unwrap_or(1),
    }
}

/// A promise that does not hold is refused; one that holds may be costly.
fn promised(
    config: &Config,
    index: usize,
    table: &super::ask::Table,
    judged: &super::report::Exact,
    report: &mut Report,
) {
    let route = &config.routes[index];
    for broken in judged.conditions.iter().filter(|condition| !condition.holds) {
        let text = format!(
            "route {}: delivery = \"exactly_once\" would be a lie: {}",
            route.name, broken.says
        );
        let sql = broken.sql.iter().cloned().collect();
        let finding = report.find("exactly_once_refused", Severity::Error, text, sql);
        report.blame(index, Grade::Wrong, finding);
    }
    let Action::Insert(insert) = &route.action else { return };
    let Some(Ok(facts)) = &table.facts else { return };
    let stream_only = route.kafka_topics.is_empty();
    let (located, columns) = match stream_only {
        true => (facts.positions.locate_stream(), "_topic, _offset"),
        false => (facts.positions.locate_kafka(), "_topic, _partition, _offset"),
    };
    if !located || table.may_select == Some(false) {
        let text = format!(
            "route {}: after an outage longer than its window, rows could only be found again by \
             columns {columns} (from = \"@topic\", …) and a SELECT grant on {}; \
             without them only system.query_log can tell, and where it cannot, `on_uncertain` decides",
            route.name, facts.place
        );
        let finding = report.warn("cannot_verify", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
    let Some(figures) = &judged.figures else { return };
    if let Some(text) = exact::thresholds(config, insert, figures) {
        let finding = report.warn("small_inserts", format!("route {}: {text}", route.name), vec![]);
        report.blame(index, Grade::Warned, finding);
    }
    // Where there is no window at all, that is what has to be mended first.
    if judged.is_possible()
        && let Some((text, sql)) = exact::longer_window(facts, figures)
    {
        let finding = report.warn("window_short", format!("route {}: {text}", route.name), sql);
        report.blame(index, Grade::Warned, finding);
    }
}
