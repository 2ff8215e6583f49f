//! Validates the routes: each of them alone, and whether any can be reached.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::columns;
use super::jetstream;
use super::live;
use super::overload;
use super::problem::Problems;
use super::publish;
use super::rate;
use super::raw_route::{self, Format};
use super::suggest;
use super::{
    Action, Delivery, InsertAction, JetStreamRoute, OnUncertain, Route, RouteFormat, Writer,
};
use crate::subject::SubjectPattern;

/// Kafka's limit on the name of a topic.
const TOPIC_CHARS: usize = 249;

pub(super) fn routes(
    raw: &[raw_route::Route],
    group: &str,
    writers: &BTreeMap<String, Writer>,
    problems: &mut Problems,
) -> Vec<Route> {
    if raw.is_empty() {
        let text = "no route is configured, so no record would be stored; add a [[routes]] table \
                    (config/data-bridge.toml has examples)";
        problems.bare("routes", text);
    }
    let mut names = BTreeSet::new();
    let (mut routes, mut by_jetstream) = (Vec::new(), Vec::new());
    for (index, route) in raw.iter().enumerate() {
        let key = format!("routes[{index}]");
        if route.name.trim().is_empty() {
            problems.text(&format!("{key}.name"), &route.name, "must be a name");
        } else if !names.insert(&route.name) {
            let text = "is the name of an earlier route; each needs its own";
            problems.text(&format!("{key}.name"), &route.name, text);
        }
        matching(&key, route, problems);
        publish::of_route(&key, route, problems);
        unreachable(&key, route, &raw[..index], problems);
        let jetstream = jetstream::route(&key, route, group, problems);
        by_jetstream.push(jetstream.clone());
        routes.extend(one(&key, route, jetstream, writers, problems));
    }
    jetstream::disjoint(raw, &by_jetstream, problems);
    routes
}

fn one(
    key: &str,
    raw: &raw_route::Route,
    jetstream: Option<JetStreamRoute>,
    writers: &BTreeMap<String, Writer>,
    problems: &mut Problems,
) -> Option<Route> {
    if raw.class.trim().is_empty() {
        problems.text(&format!("{key}.class"), &raw.class, "must be a name, such as \"market\"");
    }
    let action = match raw.action {
        raw_route::Action::Count => {
            count(key, raw, problems);
            Action::Count
        }
        raw_route::Action::Insert => Action::Insert(insert(key, raw, writers, problems)?),
    };
    Some(Route {
        name: raw.name.clone(),
        kafka_topics: raw.kafka_topics.clone(),
        nats_subjects: raw.nats_subjects.clone(),
        jetstream,
        publish: raw.publish,
        class: raw.class.clone(),
        overload: overload::of_route(key, raw, &action, problems),
        rate_limit: rate::of_route(key, raw, problems),
        live_key: live::key(key, raw.live_key.as_deref(), problems),
        action,
    })
}

/// A `count` route stores nothing: what says how to store would do nothing.
fn count(key: &str, raw: &raw_route::Route, problems: &mut Problems) {
    let stored = [("table", raw.table.as_deref()), ("writer", raw.writer.as_deref())];
    for (name, value) in stored {
        if let Some(value) = value {
            let text = "a route with action = \"count\" stores nothing; leave it out, or set \
                        action = \"insert\"";
            problems.text(&format!("{key}.{name}"), value, text);
        }
    }
    if raw.delivery == Some(raw_route::Delivery::ExactlyOnce) || raw.on_uncertain.is_some() {
        let text = "a route with action = \"count\" stores nothing; leave it out";
        problems.bare(&format!("{key}.delivery"), text);
    }
    if !raw.columns.is_empty() || raw.format.is_some() {
        let name = if raw.columns.is_empty() { "format" } else { "columns" };
        let text = "a route with action = \"count\" stores nothing; leave it out";
        problems.bare(&format!("{key}.{name}"), text);
    }
}

fn insert(
    key: &str,
    raw: &raw_route::Route,
    writers: &BTreeMap<String, Writer>,
    problems: &mut Problems,
) -> Option<InsertAction> {
    let writer = raw.writer.clone().unwrap_or_else(|| "default".to_owned());
    if !writers.contains_key(&writer) {
        let known = writers.keys().map(String::as_str);
        let remedy = match suggest::nearest(known.clone(), &writer) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        };
        let text = format!("no such writer; {remedy} (or add [writers.{writer}])");
        problems.text(&format!("{key}.writer"), &writer, text);
    }
    let format = match raw.format {
        Some(Format::Json) if !raw.columns.is_empty() => {
            let text = "format = \"json\" passes the payload on as it is; leave the columns out, \
                        or the format";
            problems.bare(&format!("{key}.columns"), text);
            return None;
        }
        Some(Format::Json) => Some(RouteFormat::Json),
        None | Some(Format::Columns) => {
            columns::mapping(key, &raw.columns, problems).map(RouteFormat::Columns)
        }
    };
    let Some(table) = raw.table.clone() else {
        let text = "is missing: where to insert; to only count the records set action = \"count\"";
        problems.bare(&format!("{key}.table"), text);
        return None;
    };
    self::table(&format!("{key}.table"), &table, problems);
    let delivery = delivery(key, raw, problems);
    Some(InsertAction { writer, table, format: format?, delivery })
}

/// Exactly once needs a source that gives the same records again, and columns that come out the
/// same then.
fn delivery(key: &str, raw: &raw_route::Route, problems: &mut Problems) -> Delivery {
    if raw.delivery != Some(raw_route::Delivery::ExactlyOnce) {
        if raw.on_uncertain.is_some() {
            let text = "only says something with delivery = \"exactly_once\"; leave it out";
            problems.bare(&format!("{key}.on_uncertain"), text);
        }
        return Delivery::AtLeastOnce;
    }
    if !raw.nats_subjects.is_empty() {
        let text = "\"exactly_once\" is not possible with nats_subjects: core NATS gives no record \
                    twice; move the subjects into a route of their own, or to JetStream";
        problems.bare(&format!("{key}.delivery"), text);
    }
    if let Some(column) = columns::taken_from(&raw.columns, "@received_at") {
        let text = "@received_at is different when a record is read again, so \"exactly_once\" \
                    could not recognise its batch; use @timestamp, or a DEFAULT in ClickHouse";
        problems.bare(&format!("{key}.columns.{column}"), text);
    }
    let on_uncertain = match raw.on_uncertain {
        None | Some(raw_route::OnUncertain::Halt) => OnUncertain::Halt,
        Some(raw_route::OnUncertain::AcceptDuplicates) => OnUncertain::AcceptDuplicates,
        Some(raw_route::OnUncertain::AcceptLoss) => OnUncertain::AcceptLoss,
    };
    Delivery::ExactlyOnce { on_uncertain }
}

/// A table's name goes into SQL as it is.
pub(super) fn table(key: &str, table: &str, problems: &mut Problems) {
    let valid = match table.split_once('.') {
        Some((database, name)) => is_identifier(database) && is_identifier(name),
        None => is_identifier(table),
    };
    if !valid {
        let text = "must be `table` or `database.table`, of letters, digits and `_`";
        problems.text(key, table, text);
    }
}

pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What a route takes.
fn matching(key: &str, raw: &raw_route::Route, problems: &mut Problems) {
    let subjects =
        [("nats_subjects", &raw.nats_subjects), ("jetstream_subjects", &raw.jetstream_subjects)];
    let any_subjects = subjects.iter().any(|(_, subjects)| !subjects.is_empty());
    if raw.kafka_topics.is_empty() && !any_subjects && !raw.publish {
        let text = "takes no records; give kafka_topics or nats_subjects or jetstream_subjects, or \
                    publish = true";
        problems.bare(key, text);
    }
    for (index, topic) in raw.kafka_topics.iter().enumerate() {
        if let Some(wrong) = wrong_topic(topic) {
            problems.text(&format!("{key}.kafka_topics[{index}]"), topic, wrong);
        }
    }
    for (name, subjects) in subjects {
        for (index, subject) in subjects.iter().enumerate() {
            if let Some(wrong) = wrong_subject(subject) {
                problems.text(&format!("{key}.{name}[{index}]"), subject, wrong);
            }
        }
    }
}

/// The name of one topic, to write to.
pub(super) fn topic(key: &str, topic: &str, problems: &mut Problems) {
    if topic.starts_with('^') || wrong_topic(topic).is_some() {
        let text = "not a topic's name (letters, digits, `.`, `_`, `-`)";
        problems.text(key, topic, text);
    }
}

pub(super) fn subject(key: &str, subject: &str, problems: &mut Problems) {
    if let Some(wrong) = wrong_subject(subject) {
        problems.text(key, subject, wrong);
    }
}

fn wrong_topic(topic: &str) -> Option<String> {
    if topic.starts_with('^') {
        let error = Regex::new(topic).err()?.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        return Some(format!("not a regular expression: {reason}"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let valid = !matches!(topic, "" | "." | "..") && topic.chars().all(allowed);
    (!valid || topic.len() > TOPIC_CHARS).then(|| {
        "not a topic's name (letters, digits, `.`, `_`, `-`); a regular expression starts with `^`"
            .to_owned()
    })
}

fn wrong_subject(subject: &str) -> Option<String> {
    let error = subject.parse::<SubjectPattern>().err()?.to_string();
    let said = format!("NATS subject {subject:?}: "); // the message says it already
    Some(error.strip_prefix(&said).unwrap_or(&error).to_owned())
}

/// What an earlier route takes never gets here: mostly a route in the wrong place.
fn unreachable(
    key: &str,
    raw: &raw_route::Route,
    earlier: &[raw_route::Route],
    problems: &mut Problems,
) {
    for before in earlier {
        let move_up = format!(
            "never gets a record: the route \"{}\" before it takes them all; move this one up",
            before.name
        );
        for (index, subject) in raw.nats_subjects.iter().enumerate() {
            if before.nats_subjects.iter().any(|wider| subject_covers(wider, subject)) {
                let key = format!("{key}.nats_subjects[{index}]");
                problems.text(&key, subject, move_up.clone());
            }
        }
        for (index, topic) in raw.kafka_topics.iter().enumerate() {
            if before.kafka_topics.iter().any(|wider| topic_covers(wider, topic)) {
                let key = format!("{key}.kafka_topics[{index}]");
                problems.text(&key, topic, move_up.clone());
            }
        }
    }
}

pub(super) fn subject_covers(wide: &str, narrow: &str) -> bool {
    let pattern = |text: &str| text.parse::<SubjectPattern>().ok();
    pattern(wide).zip(pattern(narrow)).is_some_and(|(wide, narrow)| wide.covers(&narrow))
}

pub(super) fn topic_covers(wide: &str, narrow: &str) -> bool {
    let matches = || !narrow.starts_with('^') && Regex::new(wide).is_ok_and(|w| w.is_match(narrow));
    wide == narrow || (wide.starts_with('^') && matches())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_told_apart_from_a_slip() {
        assert_eq!(wrong_topic("market.external.x"), None);
        assert_eq!(wrong_topic("^market\\..*"), None);
        for bad in ["", "a b", "market.*", "^(", "é"] {
            assert!(wrong_topic(bad).is_some(), "{bad}");
        }
    }
}
