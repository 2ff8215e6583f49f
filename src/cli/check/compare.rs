//! Judges: what was configured against what was found. Pure.

use std::collections::BTreeMap;

use super::ask::{Found, table_of};
use super::tables;
use crate::config::{Config, DeadLetters, Kafka, Route};
use crate::source::ProbeError;
use crate::source::kafka::probe::Cluster;
use crate::thousands::thousands;

/// What `check` says.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) servers: Vec<ServerLine>,
    pub(super) routes: Vec<RouteLine>,
    /// In the order of their numbers, which begin with 1.
    pub(super) problems: Vec<String>,
    /// Good to know; nothing is wrong.
    pub(super) notes: Vec<String>,
    pub(super) unreachable: bool,
}

#[derive(Debug)]
pub(super) struct ServerLine {
    pub(super) verdict: Verdict,
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) says: String,
}

#[derive(Debug)]
pub(super) struct RouteLine {
    pub(super) verdict: Verdict,
    pub(super) name: String,
    pub(super) class: String,
    /// A table, or `count`.
    pub(super) into: String,
    /// Topics, where Kafka is configured.
    pub(super) kafka: Vec<String>,
    /// Subjects, where NATS is configured.
    pub(super) nats: Vec<String>,
    /// The same, out of streams.
    pub(super) jetstream: Vec<String>,
}

/// Ordered: what is worse comes later. With the numbers of the problems that say why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) grade: Grade,
    pub(super) problems: Vec<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    #[default]
    Well,
    /// The bridge runs, and waits for something that nobody may have meant to be missing.
    Waits,
    /// A server did not answer: not known.
    Unknown,
    /// A person has to mend something.
    Wrong,
}

impl Verdict {
    fn add(&mut self, grade: Grade, problem: usize) {
        self.grade = self.grade.max(grade);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

impl Report {
    /// 69 before 1: what could not be asked may be wrong as well.
    pub(super) fn exit_code(&self) -> u8 {
        match (self.unreachable, self.problems.is_empty()) {
            (true, _) => super::Failure::UNAVAILABLE,
            (false, false) => 1,
            (false, true) => 0,
        }
    }

    /// The number of this problem; the same words have one number.
    pub(super) fn problem(&mut self, text: String) -> usize {
        match self.problems.iter().position(|known| *known == text) {
            Some(index) => index + 1,
            None => {
                self.problems.push(text);
                self.problems.len()
            }
        }
    }

    pub(super) fn blame(&mut self, route: usize, grade: Grade, problem: usize) {
        self.routes[route].verdict.add(grade, problem);
    }

    /// A server that said nothing of use: its line, and its number.
    fn server_failed(&mut self, name: &'static str, address: String, error: &ProbeError) -> usize {
        let (grade, says, text) = match error {
            ProbeError::Unreachable(why) => {
                self.unreachable = true;
                let text = format!("{name} at {address} cannot be reached: {why}");
                (Grade::Unknown, "cannot be reached", text)
            }
            ProbeError::Refused(why) => (Grade::Wrong, "refuses", format!("{name}: {why}")),
        };
        let number = self.problem(text);
        let mut verdict = Verdict::default();
        verdict.add(grade, number);
        self.servers.push(ServerLine { verdict, name, address, says: says.to_owned() });
        number
    }

    fn server_answered(&mut self, name: &'static str, address: String, says: String) {
        self.servers.push(ServerLine { verdict: Verdict::default(), name, address, says });
    }
}

pub(super) fn compare(config: &Config, found: &Found) -> Report {
    let routes = config.routes.iter().map(|route| line(config, route)).collect();
    let mut report = Report { routes, ..Report::default() };
    clickhouse(config, found, &mut report);
    idle_sources(config, &mut report);
    if let (Some(kafka), Some(found)) = (&config.kafka, &found.kafka) {
        match found {
            Ok(cluster) => topics(config, kafka, cluster, &mut report),
            Err(error) => {
                let number = report.server_failed("Kafka", kafka.brokers.join(", "), error);
                for index in 0..report.routes.len() {
                    if !report.routes[index].kafka.is_empty() {
                        report.blame(index, Grade::Unknown, number);
                    }
                }
            }
        }
    }
    if let (Some(nats), Some(found)) = (&config.nats, &found.nats) {
        let address = nats.servers.join(", ");
        match found {
            Ok(server) => report.server_answered("NATS", address, server.version.clone()),
            Err(error) => {
                let number = report.server_failed("NATS", address, error);
                for index in 0..report.routes.len() {
                    let route = &report.routes[index];
                    if !route.nats.is_empty() || !route.jetstream.is_empty() {
                        report.blame(index, Grade::Unknown, number);
                    }
                }
            }
        }
    }
    letters(found, &mut report);
    report
}

/// Where dead letters go outside ClickHouse. A server that does not answer has its line already.
fn letters(found: &Found, report: &mut Report) {
    match &found.letters {
        None | Some(Err(ProbeError::Unreachable(_))) => {}
        Some(Err(ProbeError::Refused(why))) => {
            report.problem(format!("dead letters: {why}"));
        }
        Some(Ok(caveats)) => {
            report.notes.extend(caveats.iter().map(|caveat| format!("dead letters: {caveat}")));
        }
    }
}

/// A source that no route takes anything from: `run` would not start.
fn idle_sources(config: &Config, report: &mut Report) {
    // Letters that go there are work enough.
    let kafka = config.kafka.is_some() && !matches!(config.dead_letters, DeadLetters::Kafka { .. });
    let nats = config.nats.is_some() && !matches!(config.dead_letters, DeadLetters::Nats { .. });
    if kafka && report.routes.iter().all(|route| route.kafka.is_empty()) {
        let text = "[kafka] is configured, but no route has `kafka_topics`, so `run` would not \
                    start: give a route some, or leave the table out";
        report.problem(text.to_owned());
    }
    let by_nats = |route: &RouteLine| !route.nats.is_empty() || !route.jetstream.is_empty();
    if nats && !report.routes.iter().any(by_nats) {
        let text = "[nats] is configured, but no route has `nats_subjects`, so `run` would not \
                    start: give a route some, or leave the table out";
        report.problem(text.to_owned());
    }
}

fn line(config: &Config, route: &Route) -> RouteLine {
    RouteLine {
        verdict: Verdict::default(),
        name: route.name.clone(),
        class: route.class.clone(),
        into: table_of(route).unwrap_or("count").to_owned(),
        kafka: if config.kafka.is_some() { route.kafka_topics.clone() } else { Vec::new() },
        nats: if config.nats.is_some() { route.nats_subjects.clone() } else { Vec::new() },
        jetstream: config.nats.iter().flat_map(|_| subjects(route)).collect(),
    }
}

/// What the route takes out of streams.
fn subjects(route: &Route) -> Vec<String> {
    let subjects = route.jetstream.iter().flat_map(|jetstream| &jetstream.subjects);
    subjects.map(ToString::to_string).collect()
}

fn clickhouse(config: &Config, found: &Found, report: &mut Report) {
    let settings = &config.clickhouse;
    match &found.clickhouse {
        Ok(warehouse) => {
            let says = format!(
                "{}, database {}, user {}",
                warehouse.version, settings.database, settings.user
            );
            report.server_answered("ClickHouse", settings.addresses(), says);
            tables::compare(config, &warehouse.tables, report);
        }
        Err(error) => {
            let number = report.server_failed("ClickHouse", settings.addresses(), error);
            for (index, route) in config.routes.iter().enumerate() {
                if table_of(route).is_some() {
                    report.blame(index, Grade::Unknown, number);
                }
            }
        }
    }
}

/// Which topics there are. A route waits for one that is missing.
fn topics(config: &Config, kafka: &Kafka, cluster: &Cluster, report: &mut Report) {
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
            report.notes.push(pattern(topic, &matching));
        } else if let Some(why) = cluster.refused.get(*topic) {
            let number = report.problem(format!("Kafka refuses topic {topic}: {why}"));
            routes.iter().for_each(|route| report.blame(*route, Grade::Wrong, number));
        } else if matching.is_empty() {
            missing.push((*topic, routes));
        } else {
            present += 1;
        }
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(topic, _)| *topic).collect();
        let number = report.problem(format!(
            "Kafka has no topic {}: create {}, or correct `kafka_topics`. Until then the bridge \
             runs without, and waits.",
            names.join(", "),
            if names.len() == 1 { "it" } else { "them" },
        ));
        for (_, routes) in missing {
            routes.iter().for_each(|route| report.blame(*route, Grade::Waits, number));
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
