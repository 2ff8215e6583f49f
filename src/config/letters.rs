//! Validates `[dead_letters]`: one destination, only its own keys, and never one that a route reads.

use std::path::{Path, PathBuf};

use super::problem::Problems;
use super::raw_letters::{self as raw, Destination};
use super::route;
use super::units::Size;
use super::{Config, DeadLetters};
use crate::subject::SubjectPattern;

const TABLE: &str = "dead_letters";
/// Small enough to be opened by an editor, large enough that a bad day is a handful of files.
const MAX_FILE: Size = Size::mib(128);
/// A letter carries its record; a smaller file would be set aside for each.
const LEAST_MAX_FILE: Size = Size(64 * 1024);

/// What keeps the letters, if nothing is wrong with it.
pub(super) fn destination(raw: &raw::DeadLetters, problems: &mut Problems) -> Option<DeadLetters> {
    foreign_keys(raw, problems);
    match raw.to {
        Destination::ClickHouse => {
            let table = raw.table.clone().unwrap_or_else(|| TABLE.to_owned());
            route::table("dead_letters.table", &table, problems);
            Some(DeadLetters::ClickHouse { table, create: raw.create.unwrap_or(true) })
        }
        Destination::Kafka => {
            let example = "kafka\" goes to a topic, such as topic = \"dead_letters";
            let topic = needed("topic", raw.topic.as_ref(), example, problems)?;
            route::topic("dead_letters.topic", &topic, problems);
            Some(DeadLetters::Kafka { topic })
        }
        Destination::Nats => {
            let example = "nats\" goes to a subject of a JetStream stream, such as subject = \
                           \"dead.letters";
            let subject = needed("subject", raw.subject.as_ref(), example, problems)?;
            route::subject("dead_letters.subject", &subject, problems);
            if subject.split('.').any(|token| matches!(token, "*" | ">")) {
                let text = "must be one subject, without `*` and `>`: letters are published on it";
                problems.text("dead_letters.subject", &subject, text);
            }
            Some(DeadLetters::Nats { subject })
        }
        Destination::File => {
            let example = "file\" goes to a file, such as path = \"/var/lib/data-bridge/\
                           dead-letters.jsonl";
            let path = needed("path", raw.path.as_ref(), example, problems)?;
            file_name(&path, problems);
            let max = raw.max_file_bytes.unwrap_or(MAX_FILE);
            if max < LEAST_MAX_FILE {
                let text = "must be at least \"64KiB\"; the default is \"128MiB\"";
                problems.text("dead_letters.max_file_bytes", &max.to_string(), text);
            }
            Some(DeadLetters::File { path, max_file_bytes: max.0 as u64 })
        }
    }
}

fn needed<T: Clone>(
    name: &str,
    given: Option<&T>,
    example: &str,
    problems: &mut Problems,
) -> Option<T> {
    if given.is_none() {
        let text = format!("is missing: dead_letters.to = \"{example}\"");
        problems.bare(&format!("dead_letters.{name}"), text);
    }
    given.cloned()
}

fn file_name(path: &Path, problems: &mut Problems) {
    // The name of what is set aside is made from it, and messages show it.
    let named = path.file_name().is_some_and(|name| name.to_str().is_some());
    if !named || path.is_dir() {
        let text = "must be a file's path, such as \"/var/lib/data-bridge/dead-letters.jsonl\"";
        problems.text("dead_letters.path", &path.to_string_lossy(), text);
    }
}

/// A key of another destination would do nothing.
fn foreign_keys(raw: &raw::DeadLetters, problems: &mut Problems) {
    let shown = |path: &PathBuf| path.to_string_lossy().into_owned();
    let keys = [
        ("table", Destination::ClickHouse, raw.table.clone()),
        ("create", Destination::ClickHouse, raw.create.map(|create| create.to_string())),
        ("topic", Destination::Kafka, raw.topic.clone()),
        ("subject", Destination::Nats, raw.subject.clone()),
        ("path", Destination::File, raw.path.as_ref().map(shown)),
        ("max_file_bytes", Destination::File, raw.max_file_bytes.map(|size| size.to_string())),
    ];
    for (key, owner, value) in keys {
        if let Some(value) = value.filter(|_| owner != raw.to) {
            let (owner, to) = (name(owner), name(raw.to));
            let text = format!(
                "is for dead_letters.to = \"{owner}\", and here it is \"{to}\"; leave it out"
            );
            problems.push(&format!("dead_letters.{key}"), value, text);
        }
    }
}

fn name(destination: Destination) -> &'static str {
    match destination {
        Destination::ClickHouse => "clickhouse",
        Destination::Kafka => "kafka",
        Destination::Nats => "nats",
        Destination::File => "file",
    }
}

/// A letter that the bridge reads again would be refused again, for ever.
pub(super) fn no_loop(config: &Config, problems: &mut Problems) {
    let reader = match &config.dead_letters {
        DeadLetters::ClickHouse { .. } | DeadLetters::File { .. } => return,
        DeadLetters::Kafka { topic } => {
            if config.kafka.is_none() {
                let text = "needs a [kafka] table: the letters go to its brokers";
                problems.text("dead_letters.to", "kafka", text);
            }
            let reads = |name: &&super::Route| {
                name.kafka_topics.iter().any(|wide| route::topic_covers(wide, topic))
            };
            config.routes.iter().find(reads).map(|route| ("topic", topic, route))
        }
        DeadLetters::Nats { subject } => {
            if config.nats.is_none() {
                let text = "needs a [nats] table: the letters go to its servers";
                problems.text("dead_letters.to", "nats", text);
            }
            let one: Option<SubjectPattern> = subject.parse().ok();
            let pulls = |wide: &SubjectPattern| one.as_ref().is_some_and(|one| wide.covers(one));
            let reads = |route: &&super::Route| {
                route.nats_subjects.iter().any(|wide| route::subject_covers(wide, subject))
                    || route.jetstream.iter().flat_map(|pulled| &pulled.subjects).any(pulls)
            };
            config.routes.iter().find(reads).map(|route| ("subject", subject, route))
        }
    };
    if let Some((key, place, route)) = reader {
        let text = format!(
            "is read by the route \"{}\": a dead letter would come in again, for ever; choose a \
             {key} that no route takes",
            route.name
        );
        problems.text(&format!("dead_letters.{key}"), place, text);
    }
}
