//! Exactly once on a route: what holds, and what an insert for each Kafka partition amounts to. Pure.

use std::time::Duration;

use super::ask::Table;
use super::report::{Condition, Exact, Figures};
use crate::config::{Config, InsertAction, Route};
use crate::schema::exactly_once::exactly_once_problems;
use crate::schema::facts::{TableFacts, Window};
use crate::sink::clickhouse::Session;
use crate::source::nats::probe::streams::StreamSample;
use crate::thousands::thousands;

/// What is known of a route's sources.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow<'a> {
    /// The stream, where it was sampled.
    pub(super) stream: Option<&'a StreamSample>,
    /// Of all its topics.
    pub(super) kafka_partitions: usize,
    /// Records per second, of all its topics.
    pub(super) pace: Option<f64>,
    /// Partitions of the table that one insert touches.
    pub(super) table_partitions: u64,
}

/// None: the table is not known.
pub(super) fn judge(
    config: &Config,
    route: &Route,
    insert: &InsertAction,
    table: &Table,
    letters: Option<&Table>,
    session: &Session,
    flow: Flow<'_>,
) -> Option<Exact> {
    let facts = table.facts.as_ref()?.as_ref().ok()?;
    let mut conditions = Vec::new();
    of_sources(config, route, &mut conditions);
    conditions.extend(flow.stream.and_then(of_stream));
    of_tables(facts, "exactly_once_table", &mut conditions);
    let letters = letters.and_then(|letters| letters.facts.as_ref()?.as_ref().ok());
    if let Some(letters) = letters.filter(|letters| letters.place != facts.place) {
        of_tables(letters, "dead_letters_table", &mut conditions);
    }
    if config.dead_letters.table().is_none() {
        conditions.push(Condition {
            code: "dead_letters_elsewhere",
            holds: true,
            says: format!(
                "a dead letter may come twice in {}, with the same id",
                config.dead_letters.place()
            ),
            sql: None,
        });
    }
    conditions.push(Condition {
        code: "async_insert",
        holds: !session.async_insert,
        says: match session.async_insert {
            true => {
                "the user's settings force async_insert = 1: inserts lose their tokens".to_owned()
            }
            false => "inserts are synchronous".to_owned(),
        },
        sql: session
            .async_insert
            .then(|| format!("ALTER USER {} SETTINGS async_insert = 0", config.clickhouse.user)),
    });
    let figures = (flow.kafka_partitions > 0).then(|| figures(config, insert, facts, flow));
    Some(Exact { conditions, figures })
}

fn of_sources(config: &Config, route: &Route, conditions: &mut Vec<Condition>) {
    let core = config.nats.is_some() && !route.nats_subjects.is_empty();
    conditions.push(Condition {
        code: "core_nats",
        holds: !core,
        says: if core {
            "core NATS keeps nothing, so that what is lost does not come again: give its subjects a \
             route of their own"
                .to_owned()
        } else {
            "every record can be read again".to_owned()
        },
        sql: None,
    });
}

/// One instance reads a stream like a log, and a bucket says which: both must keep what they have.
fn of_stream(stream: &StreamSample) -> Option<Condition> {
    let name = &stream.stream;
    let condition = |holds, says| Some(Condition { code: "jetstream", holds, says, sql: None });
    if stream.deletes_acknowledged {
        let says = format!(
            "stream {name} deletes records by their acknowledgements (retention workqueue or \
             interest), and is read without any: give it the retention limits"
        );
        return condition(false, says);
    }
    let kept = match stream.kept.as_ref()? {
        Ok(kept) => kept,
        Err(why) => return condition(false, format!("what is kept of it is not known: {why}")),
    };
    let bucket = &kept.bucket;
    if let Some(wrong) = &kept.wrong {
        let says = format!(
            "the bucket {bucket} {wrong}: name another one (nats.jetstream.state_bucket), which is \
             made by itself"
        );
        return condition(false, says);
    }
    let until = kept.next.map_or_else(String::new, |next| format!(", up to {next}"));
    let now = match (&kept.owner, kept.replicas) {
        (Some(owner), _) => format!("now {owner}{until}"),
        (None, Some(_)) => format!("now none{until}"),
        (None, None) => "which is made at the start".to_owned(),
    };
    condition(true, format!("one instance at a time reads stream {name} (bucket {bucket}, {now})"))
}

fn of_tables(facts: &TableFacts, code: &'static str, conditions: &mut Vec<Condition>) {
    let problems = exactly_once_problems(facts);
    if problems.is_empty() {
        conditions.push(Condition { code, holds: true, says: remembers(facts), sql: None });
    }
    for problem in problems {
        let (code, says, sql) = (problem.code, problem.what, problem.remedy_sql);
        conditions.push(Condition { code, holds: false, says, sql });
    }
}

/// What a table and those behind its views remember, in words.
pub(super) fn remembers(facts: &TableFacts) -> String {
    let reached = facts.reached();
    let entries = reached.iter().filter_map(|table| table.window).map(|w| w.entries).min();
    let seconds = reached.iter().filter_map(|table| table.window?.seconds).min();
    let entries = thousands(entries.unwrap_or_default());
    let behind = match reached.len() {
        0 | 1 => String::new(),
        2 => ", and the table behind its view too".to_owned(),
        count => format!(", and the {} tables behind its views too", count - 1),
    };
    let for_long = seconds.map_or_else(String::new, |seconds| {
        format!(", for {} at most", span(Duration::from_secs(seconds)))
    });
    format!("{} remembers {entries} inserts{for_long}{behind}", facts.place)
}

/// What one table remembers, in few words.
pub(super) fn window(window: Window) -> String {
    match (window.entries, window.seconds) {
        (0, _) | (_, Some(0)) => "no inserts".to_owned(),
        (entries, None) => format!("{} inserts", thousands(entries)),
        (entries, Some(seconds)) => {
            format!("{} inserts, {}", thousands(entries), span(Duration::from_secs(seconds)))
        }
    }
}

fn figures(config: &Config, insert: &InsertAction, facts: &TableFacts, flow: Flow<'_>) -> Figures {
    let writer = &config.writers[&insert.writer];
    let partitions = flow.kafka_partitions.max(1);
    let rows_max = writer.batch_rows.min(config.backpressure.pull_limit / partitions).max(1);
    let each = flow.pace.map(|pace| pace / float(partitions)).filter(|each| *each > 0.0);
    // At least one record, at most what is cut by number; else what comes while it lingers.
    let rows =
        each.map(|each| (each * writer.linger.as_secs_f64()).clamp(1.0, float(rows_max).max(1.0)));
    let inserts = each.zip(rows).map(|(each, rows)| each / rows * float(partitions));
    let touched = u32::try_from(flow.table_partitions.max(1)).unwrap_or(u32::MAX);
    let entries = inserts.map(|inserts| inserts * f64::from(touched));
    let windows: Vec<_> = facts.reached().iter().filter_map(|table| table.window).collect();
    let window_entries = windows.iter().map(|window| window.entries).min().unwrap_or_default();
    let most = windows.iter().filter_map(|window| window.seconds).min().map(Duration::from_secs);
    let remembered = u32::try_from(window_entries).unwrap_or(u32::MAX);
    let lasts = entries.map(|per_second| {
        // A window that lasts longer than a human life is for ever.
        Duration::from_secs_f64((f64::from(remembered) / per_second).min(1e10))
    });
    Figures {
        kafka_partitions: flow.kafka_partitions,
        rows_per_insert_max: rows_max,
        rows_per_insert: rows,
        entries_per_second: entries,
        window: match (lasts, most) {
            (Some(lasts), Some(most)) => Some(lasts.min(most)),
            (lasts, most) => lasts.or(most),
        },
        window_entries,
    }
}

/// Rows that an insert should have where there is enough to insert: below it ClickHouse merges more
/// than it stores.
const GOOD_ROWS: usize = 1_000;
/// What a night and a morning take, until somebody has mended what was broken.
const GOOD_WINDOW: Duration = Duration::from_secs(86_400);

/// Thresholds that let every Kafka partition have inserts of a good size; None if they do.
pub(super) fn thresholds(
    config: &Config,
    insert: &InsertAction,
    figures: &Figures,
) -> Option<String> {
    let wanted = GOOD_ROWS.min(config.writers[&insert.writer].batch_rows);
    if figures.rows_per_insert_max >= wanted {
        return None;
    }
    let pause = wanted * figures.kafka_partitions;
    Some(format!(
        "{} Kafka partitions share {} records, at most {} rows an insert; ClickHouse wants {} or \
         more: [backpressure] max_buffer_size = {}, pause_threshold = {}, resume_threshold = {}, \
         pull_limit = {}",
        figures.kafka_partitions,
        thousands(config.backpressure.pull_limit as u64),
        thousands(figures.rows_per_insert_max as u64),
        thousands(wanted as u64),
        toml(pause + pause / 4),
        toml(pause),
        toml(pause / 2),
        toml(pause),
    ))
}

/// A window for a day at this pace; None if it is that long already.
pub(super) fn longer_window(
    facts: &TableFacts,
    figures: &Figures,
) -> Option<(String, Vec<String>)> {
    let (lasts, per_second) = (figures.window?, figures.entries_per_second?);
    if lasts >= GOOD_WINDOW {
        return None;
    }
    let a_day = per_second * GOOD_WINDOW.as_secs_f64();
    // In whole tens of thousands, at least what the shipped tables have.
    // More than a million entries cost memory, and time at each insert.
    let steps = (1..=100_u32).find(|steps| f64::from(*steps) * 10_000.0 >= a_day);
    let entries = u64::from(steps.unwrap_or(100)) * 10_000;
    let mut sql = Vec::new();
    for table in facts.reached() {
        let Some(window) = table.window else { continue };
        let place = &table.place;
        let replicated = if table.is_replicated() { "" } else { "non_" };
        if window.entries < entries {
            sql.push(format!(
                "ALTER TABLE {place} MODIFY SETTING {replicated}replicated_deduplication_window = \
                 {entries}"
            ));
        }
        if window.seconds.is_some_and(|seconds| seconds < GOOD_WINDOW.as_secs()) {
            sql.push(format!(
                "ALTER TABLE {place} MODIFY SETTING replicated_deduplication_window_seconds = {}",
                GOOD_WINDOW.as_secs() * 7
            ));
        }
    }
    let text = format!(
        "{} forgets an insert after {} at the observed pace ({per_second:.1} entries a second): \
         after a longer outage `on_uncertain` decides; a larger window remembers a day",
        facts.place,
        span(lasts),
    );
    Some((text, sql))
}

/// As TOML writes large numbers.
fn toml(number: usize) -> String {
    thousands(number as u64).replace(',', "_")
}

fn float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A time span with one unit that suits it.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", thousands(seconds / 86_400)),
    }
}
