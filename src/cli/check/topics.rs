//! Judges the topics and what was sampled of them: do records land, and how long may the bridge be
//! away? Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ask::{Clock, Found, by_route};
use super::exact::span;
use super::report::{Grade, Kept, Report, Sample, TopicLine};
use super::sampled::MAX_NAMES;
use crate::config::{Action, Config};
use crate::source::kafka::probe::sample::{TopicSample, newest_time};
use crate::thousands::thousands;

/// A night and a morning, until somebody has mended what was broken.
const GOOD_RETENTION: Duration = Duration::from_secs(86_400);

/// Clocks that are kept by NTP differ by less; what the bridge stamps and what ClickHouse stamps is
/// compared by people to a second.
const GOOD_CLOCK_MS: i64 = 2_000;

pub(super) fn compare(config: &Config, found: &Found, report: &mut Report) {
    for (index, sample) in &found.samples {
        landing(config, *index, sample, report);
    }
    left_out(config, &found.samples, report);
    kafka(config, found, report);
    for (index, stream) in &found.streams {
        super::streams::judge(config, *index, stream, found.samples.get(index), report);
    }
}

fn kafka(config: &Config, found: &Found, report: &mut Report) {
    let topics = match &found.topics {
        Some(Ok(topics)) => topics,
        Some(Err(why)) => {
            report.warn("topic_unread", format!("Kafka: no record was sampled: {why}"), Vec::new());
            return;
        }
        None => return,
    };
    let routes = by_route(config, topics.keys());
    for (index, names) in &routes {
        let siblings = names.len() + usize::from(found.streams.contains_key(index));
        for name in names {
            let sample = &topics[*name];
            keeping(config, *index, name, sample, report);
            future(name, sample, report);
            report.topics.push(line(name, sample, found.samples.get(index), siblings));
        }
    }
}

pub(super) fn clock(name: &str, clock: Clock, report: &mut Report) {
    if clock.ahead_ms.abs() - clock.within_ms > GOOD_CLOCK_MS {
        let side = if clock.ahead_ms > 0 { "ahead of" } else { "behind" };
        let seconds = span(Duration::from_millis(clock.ahead_ms.unsigned_abs()));
        let text = format!(
            "the clock of {name} is {seconds} {side} ours: times made by the bridge (@received_at, \
             dead letters) and by ClickHouse (now(), TTL) do not agree; let NTP keep both"
        );
        report.warn("clock_skew", text, Vec::new());
    }
}

/// What becomes of the records of a route.
fn landing(config: &Config, index: usize, sample: &Sample, report: &mut Report) {
    let name = &config.routes[index].name;
    let decoded = sample.records - sample.tombstones;
    if let Some(first) = sample.letters.first() {
        let reasons: Vec<String> = sample
            .letters
            .iter()
            .map(|letters| format!("{} {} ({})", letters.count, letters.reason, letters.error))
            .collect();
        let text = if sample.land == 0 {
            format!(
                "route {name}: none of {decoded} sampled records would land: {}",
                reasons.join("; ")
            )
        } else {
            let lost: usize = sample.letters.iter().map(|letters| letters.count).sum();
            format!(
                "route {name}: {lost} of {decoded} sampled records would become dead letters: {}",
                reasons.join("; ")
            )
        };
        debug_assert!(first.count > 0);
        if sample.land == 0 {
            let finding = report.error("no_record_lands", text);
            report.blame(index, Grade::Wrong, finding);
        } else {
            let finding = report.warn("dead_letters_expected", text, Vec::new());
            report.blame(index, Grade::Warned, finding);
        }
    }
    if sample.rounded > 0 {
        let text = format!(
            "route {name}: {} values of {} sampled records lose digits beyond their column's scale",
            sample.rounded, sample.land
        );
        let finding = report.info("values_rounded", text);
        report.concern(index, finding);
    }
    partitions(config, index, sample, report);
}

/// Keys without a column, and columns without a value. Routes that are alike share a line.
fn left_out(config: &Config, samples: &BTreeMap<usize, Sample>, report: &mut Report) {
    let mut alike: BTreeMap<(&'static str, String), Vec<usize>> = BTreeMap::new();
    for (index, sample) in samples {
        let mut note = |code, text| alike.entry((code, text)).or_default().push(*index);
        if !sample.unused_keys.is_empty() {
            let names = listed(sample.unused_keys.iter().map(|(key, _)| key.as_str()));
            note("keys_unused", format!("keys of the payload that go into no column: {names}"));
        }
        let mut instead: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (column, without) in &sample.unfilled {
            instead.entry(without).or_default().push(column);
        }
        for (without, columns) in instead {
            let names = listed(columns.into_iter());
            let text = format!("no sampled record has a value for {names}: {without} is stored");
            note("columns_unfilled", text);
        }
    }
    for ((code, text), indices) in alike {
        let names: Vec<&str> =
            indices.iter().map(|index| config.routes[*index].name.as_str()).collect();
        let text = match names[..] {
            [name] => format!("route {name}: {text}"),
            _ => format!("routes {}: {text}", names.join(", ")),
        };
        let finding = report.info(code, text);
        for index in indices {
            report.concern(index, finding);
        }
    }
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let mut listed = names.take(MAX_NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        listed.push_str(&format!(" and {more} more"));
    }
    listed
}

/// Whether a batch would touch more partitions than ClickHouse takes at once.
fn partitions(config: &Config, index: usize, sample: &Sample, report: &mut Report) {
    let Action::Insert(insert) = &config.routes[index].action else { return };
    let (Some(touched), Some(limit)) = (sample.partitions, report.max_partitions) else { return };
    let route = &config.routes[index].name;
    let rows = config.writers[&insert.writer].batch_rows as u64;
    let land = sample.land as u64;
    let head = format!(
        "route {route}: {land} sampled records lie in {touched} partitions of table {}; ClickHouse \
         refuses an insert into more than {limit} (max_partitions_per_insert_block)",
        insert.table
    );
    let advice = "partition it by month, or by nothing: each partition is a part for each insert";
    if limit > 0 && touched > limit {
        let finding = report.error("too_many_partitions", format!("{head}: {advice}"));
        report.blame(index, Grade::Wrong, finding);
    } else if limit > 0 && touched > 2 && touched * 2 > land && rows > limit {
        let text = format!("{head}, and a batch has up to {} rows: {advice}", thousands(rows));
        let finding = report.warn("too_many_partitions", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
}

/// How long the bridge may be away before records are deleted unread.
fn keeping(config: &Config, index: usize, topic: &str, sample: &TopicSample, report: &mut Report) {
    if sample.lost > 0 {
        let text = format!(
            "topic {topic}: {} records were deleted before group {} had read them",
            thousands(sample.lost),
            config.kafka.as_ref().map_or("", |kafka| &kafka.group_id)
        );
        let finding = report.warn("records_lost", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
    let Some(keeping) = &sample.keeping else { return };
    if keeping.compacts {
        let text = format!(
            "topic {topic} is compacted: of records with the same key the older ones vanish, unread \
             if the bridge is away for longer than min.compaction.lag.ms"
        );
        let finding = report.warn("topic_compacted", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
    let Kept::For(kept) = kept(sample) else { return };
    if kept < GOOD_RETENTION {
        let why = match keeping.time {
            Some(time) if time <= kept => "retention.ms".to_owned(),
            _ => format!(
                "retention.bytes at {:.1} records a second, the busiest of the last day",
                sample.pace.unwrap_or_default()
            ),
        };
        kept_long_enough(config, index, &format!("topic {topic}"), kept, &why, report);
    }
}

/// Whether a pause may be as long as it takes a person to mend what is broken.
pub(super) fn kept_long_enough(
    config: &Config,
    index: usize,
    place: &str,
    kept: Duration,
    why: &str,
    report: &mut Report,
) {
    if kept >= GOOD_RETENTION {
        return;
    }
    let text =
        format!("{place} keeps records for {} ({why}): a longer pause loses some", span(kept));
    // Alerts come later than the loss: nobody can do anything about it.
    if kept < config.backpressure.critical_after {
        let finding = report.error("retention_short", text);
        report.blame(index, Grade::Wrong, finding);
    } else {
        let finding = report.warn("retention_short", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
}

/// The shorter of what time and size allow. By size at the pace that was observed, of records as
/// large as the sampled ones, uncompressed: it may be longer.
fn kept(sample: &TopicSample) -> Kept {
    let Some(keeping) = &sample.keeping else { return Kept::Unknown };
    let records = sample.records.len();
    let bytes: usize = sample
        .records
        .records()
        .map(|record| record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len))
        .sum();
    let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let per_second = sample.pace.unwrap_or_default() / float(sample.partitions.max(1))
        * (float(bytes) / float(records.max(1)));
    let by_size = keeping.bytes.filter(|_| per_second > 0.0).map(|limit| {
        let mib = f64::from(u32::try_from(limit >> 20).unwrap_or(u32::MAX)) * 1_048_576.0;
        let limit = u32::try_from(limit).map_or(mib, f64::from);
        Duration::from_secs_f64((limit / per_second).min(1e10))
    });
    match (keeping.time, by_size) {
        (Some(time), Some(size)) => Kept::For(time.min(size)),
        (Some(kept), None) | (None, Some(kept)) => Kept::For(kept),
        (None, None) => Kept::Forever,
    }
}

fn future(topic: &str, sample: &TopicSample, report: &mut Report) {
    let ahead = newest_time(sample).map_or(0, |time| time - sample.records_read_at);
    let by_broker = sample.keeping.as_ref().is_some_and(|keeping| keeping.stamped_by_broker);
    ahead_of_us(
        &format!("topic {topic}"),
        ahead,
        if by_broker { "the brokers" } else { "a producer" },
        report,
    );
}

/// A record from the future: somebody's clock is ahead.
pub(super) fn ahead_of_us(of: &str, ahead: i64, whose: &str, report: &mut Report) {
    if ahead > GOOD_CLOCK_MS {
        let text = format!(
            "{of}: a record is stamped {} ahead of our clock, by {whose}: retention and \
             @timestamp go by it; let NTP keep all clocks",
            span(Duration::from_millis(ahead.unsigned_abs()))
        );
        report.warn("records_from_the_future", text, Vec::new());
    }
}

fn line(
    topic: &str,
    sample: &TopicSample,
    of_route: Option<&Sample>,
    siblings: usize,
) -> TopicLine {
    TopicLine {
        name: topic.to_owned(),
        partitions: sample.partitions,
        pace: sample.pace,
        lag: sample.lag,
        kept: kept(sample),
        sampled: in_words(sample.records.len(), of_route, siblings),
    }
}

/// What became of so many sampled records.
pub(super) fn in_words(count: usize, of_route: Option<&Sample>, siblings: usize) -> String {
    match of_route {
        _ if count == 0 => "empty".to_owned(),
        None => format!("{count}, not decoded"),
        Some(verdict) if verdict.land == verdict.records => format!("{count}: all land"),
        // The verdict is the route's: which topic it was is not told apart.
        Some(_) if siblings > 1 => format!("{count}: see the route"),
        Some(verdict) => {
            let letters: usize = verdict.letters.iter().map(|letters| letters.count).sum();
            let mut words = vec![format!("{} land", verdict.land)];
            if letters > 0 {
                let s = if letters == 1 { "" } else { "s" };
                words.push(format!("{letters} dead letter{s}"));
            }
            if verdict.tombstones > 0 {
                let s = if verdict.tombstones == 1 { "" } else { "s" };
                words.push(format!("{} tombstone{s}", verdict.tombstones));
            }
            format!("{count}: {}", words.join(", "))
        }
    }
}
