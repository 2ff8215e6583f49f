//! What sampled records and the keeping of topics lead to.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cli::check::json::json;
use crate::cli::check::report::{Kept, Letters, Sample};
use crate::record::{Chunk, NewRecord, Partition};
use crate::source::kafka::probe::sample::{Keeping, TopicSample};
use crate::source::nats::probe::streams::{ConsumerFacts, StreamSample};

const NOW: i64 = 1_700_000_000_000;

/// Ten records of 100 bytes, kept for a week, ten a second over two partitions.
fn topic() -> TopicSample {
    let mut records = Chunk::with_capacity(NOW, 10, 1_000);
    let partition = Partition { topic: "candles".to_owned(), number: 0, epoch: 0 };
    let index = records.partition(&Arc::new(partition));
    let payload = [b'x'; 100];
    for offset in 0..10 {
        let record = NewRecord {
            place: Some((index, offset)),
            timestamp: Some(NOW - 5),
            payload: Some(&payload),
            ..NewRecord::default()
        };
        records.push(record, []);
    }
    TopicSample {
        partitions: 2,
        records,
        records_read_at: NOW,
        pace: Some(10.0),
        lag: Some(7),
        lost: 0,
        keeping: Some(Keeping {
            time: Some(Duration::from_secs(604_800)),
            bytes: None,
            compacts: false,
            stamped_by_broker: false,
        }),
    }
}

fn found_with(topic: TopicSample, sample: Option<Sample>) -> Found {
    let mut found = well();
    found.topics = Some(Ok([("candles".to_owned(), topic)].into()));
    found.samples = sample.into_iter().map(|sample| (0, sample)).collect();
    found
}

fn landed(land: usize) -> Sample {
    Sample { records: 10, land, partitions: Some(1), ..Sample::default() }
}

fn codes(report: &Report) -> Vec<(&'static str, Severity)> {
    let of_topics =
        |code: &str| !["core_nats_unsampled", "topic_pattern", "replay_doubles"].contains(&code);
    let codes = report.findings.iter().map(|finding| (finding.code, finding.severity));
    codes.filter(|(code, _)| of_topics(code)).collect()
}

#[test]
fn a_topic_has_a_line_with_its_pace_and_what_lands() {
    let report = compare(&config(), &found_with(topic(), Some(landed(10))));
    assert_eq!((report.exit_code(), codes(&report)), (0, vec![]));
    let text = render(&report);
    let line = "candles           2       10.0    7  7 days    10: all land";
    assert!(text.lines().any(|shown| shown == line), "{text}");
}

#[test]
fn a_topic_that_forgets_before_anybody_is_alerted_is_wrong() {
    let mut short = topic();
    short.keeping.as_mut().unwrap().time = Some(Duration::from_secs(300));
    let report = compare(&config(), &found_with(short, Some(landed(10))));
    assert_eq!(codes(&report), [("retention_short", Severity::Error)]);
    assert_eq!(grades(&report)[0], Grade::Wrong);

    // By size: 500 bytes a second in each partition, 5 MB of them are less than three hours.
    let mut small = topic();
    small.keeping.as_mut().unwrap().bytes = Some(5_000_000);
    let report = compare(&config(), &found_with(small, Some(landed(10))));
    assert_eq!(codes(&report), [("retention_short", Severity::Warning)]);
    assert_eq!(report.topics[0].kept, Kept::For(Duration::from_secs(10_000)));
    assert!(
        report.findings.iter().any(|f| f.text.contains("keeps records for 2 h (retention.bytes"))
    );
}

#[test]
fn lost_and_compacted_records_and_clocks_ahead_are_warned_of() {
    let mut bad = topic();
    (bad.lost, bad.records_read_at) = (1_234, NOW - 60_000);
    bad.keeping.as_mut().unwrap().compacts = true;
    let mut found = found_with(bad, Some(landed(10)));
    found.clickhouse.as_mut().unwrap().clock = Clock { ahead_ms: -9_000, within_ms: 40 };
    let report = compare(&config(), &found);
    let warned = ["clock_skew", "records_lost", "topic_compacted", "records_from_the_future"];
    assert_eq!(codes(&report), warned.map(|code| (code, Severity::Warning)));
    let text = render(&report);
    let words: Vec<&str> = text.split_whitespace().collect();
    let words = words.join(" ");
    for wanted in [
        "the clock of ClickHouse is 9 s behind ours",
        "1,234 records were deleted before group data-bridge had read them",
        "a record is stamped 59 s ahead of our clock, by a producer",
    ] {
        assert!(words.contains(wanted), "no {wanted:?} in {text}");
    }
    // A slow answer says nothing about the clock.
    found.clickhouse.as_mut().unwrap().clock = Clock { ahead_ms: -9_000, within_ms: 8_000 };
    assert!(!codes(&compare(&config(), &found)).contains(&("clock_skew", Severity::Warning)));
}

#[test]
fn dead_letters_to_be_are_counted_with_their_reason() {
    let letters = |count| {
        let error = "column price: \"x\" is no number".to_owned();
        vec![Letters { reason: "wrong_type", count, error }]
    };
    let some = Sample { letters: letters(2), ..landed(8) };
    let report = compare(&config(), &found_with(topic(), Some(some)));
    assert_eq!(codes(&report), [("dead_letters_expected", Severity::Warning)]);
    let text = "route candles: 2 of 10 sampled records would become dead letters: 2 wrong_type \
                (column price: \"x\" is no number)";
    assert!(texts(&report, Severity::Warning).contains(&text), "{report:?}");
    assert!(render(&report).contains("10: 8 land, 2 dead letters"));

    let none = Sample { letters: letters(10), ..landed(0) };
    let report = compare(&config(), &found_with(topic(), Some(none)));
    assert_eq!((report.exit_code(), grades(&report)[0]), (1, Grade::Wrong));
    assert_eq!(codes(&report), [("no_record_lands", Severity::Error)]);
}

#[test]
fn keys_and_columns_that_go_nowhere_are_named_and_not_too_many() {
    let keys = (0..20).map(|n| (format!("key{n}"), 10)).collect();
    let unfilled = vec![("vwap".to_owned(), "NULL"), ("bid".to_owned(), "NULL")];
    let sample = Sample { unused_keys: keys, unfilled, rounded: 3, ..landed(10) };
    let report = compare(&config(), &found_with(topic(), Some(sample)));
    assert_eq!(report.exit_code(), 0);
    let notes = texts(&report, Severity::Info).join("\n");
    for wanted in [
        "key6, key7 and 12 more",
        "no sampled record has a value for vwap, bid: NULL is stored",
        "3 values of 10 sampled records lose digits",
    ] {
        assert!(notes.contains(wanted), "no {wanted:?} in {notes}");
    }
}

#[test]
fn a_batch_over_too_many_partitions_is_foreseen() {
    let many = |partitions| Sample { partitions: Some(partitions), ..landed(10) };
    let mut found = found_with(topic(), Some(many(8)));
    let report = compare(&config(), &found);
    assert_eq!(codes(&report), [("too_many_partitions", Severity::Warning)]);
    found.samples = [(0, many(3))].into();
    assert_eq!(codes(&compare(&config(), &found)), []);
    found.samples = [(0, many(101))].into();
    assert_eq!(codes(&compare(&config(), &found)), [("too_many_partitions", Severity::Error)]);
    // Where the server has no limit there is nothing to refuse.
    found.clickhouse.as_mut().unwrap().session.max_partitions = 0;
    assert_eq!(codes(&compare(&config(), &found)), []);
}

#[test]
fn what_was_not_sampled_is_said() {
    let mut found = well();
    found.topics = Some(Err("no answer within 12s".to_owned()));
    let report = compare(&config(), &found);
    assert_eq!(codes(&report), [("topic_unread", Severity::Warning)]);
    let notes = texts(&report, Severity::Info);
    assert!(notes.iter().any(|note| note.contains("core NATS keeps nothing")), "{notes:?}");
}

#[test]
fn a_stream_that_loses_records_and_a_consumer_that_does_not_wait_are_told() {
    let config = by_stream("");
    let stream = StreamSample {
        max_age: Some(Duration::from_secs(7_200)),
        overwrites: true,
        in_memory: true,
        consumer: Some(ConsumerFacts { acknowledges: false, max_deliver: Some(5), pending: 9 }),
        ..stream()
    };
    let mut found = well();
    found.streams = [(0, Ok(stream))].into();
    found.samples = [(0, landed(10))].into();
    let report = compare(&config, &found);
    assert_eq!(
        codes(&report),
        [
            ("retention_short", Severity::Warning),
            ("stream_overwrites", Severity::Warning),
            ("stream_in_memory", Severity::Warning),
            ("consumer_acknowledges_nothing", Severity::Error),
            ("consumer_gives_up", Severity::Warning),
        ]
    );
    assert_eq!(grades(&report), [Grade::Wrong]);
    let line = "S (stream)           1          ?    9  2 h       10: all land";
    let text = render(&report);
    assert!(text.lines().any(|shown| shown == line), "{text}");

    found.streams = [(0, Err("no stream has the subject s.>".to_owned()))].into();
    let report = compare(&config, &found);
    assert_eq!(codes(&report), [("stream_unread", Severity::Warning)]);
}

#[test]
fn machines_get_the_same() {
    let some = Sample { unused_keys: vec![("k".to_owned(), 3)], ..landed(10) };
    let mut found = found_with(topic(), Some(some));
    tables(&mut found).get_mut("aggregates").unwrap().may_insert = Some(false);
    let report = compare(&config(), &found);
    let value: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    assert_eq!(value["format"], 1);
    assert_eq!((&value["verdict"], &value["exit_code"]), (&"mismatch".into(), &1.into()));
    let route = &value["routes"][0];
    assert_eq!(route["state"], "wrong");
    assert_eq!(route["sources"][1]["guarantee"], "at_most_once");
    assert_eq!(route["sample"]["unused_keys"][0]["key"], "k");
    let index = route["findings"][0].as_u64().unwrap();
    let finding = &value["findings"][usize::try_from(index).unwrap()];
    assert_eq!(finding["code"], "insert_not_permitted");
    assert_eq!(finding["sql"][0], "GRANT SELECT, INSERT ON market.* TO default");
    assert_eq!(finding["routes"][0], "candles");
    assert_eq!(value["topics"][0]["kept_seconds"], 604_800);
    assert!(!value.to_string().contains("geheim"));
}

#[test]
fn the_report_for_machines_promises_what_the_route_does() {
    for (more, promised) in [("", "at_least_once"), ("delivery = 'exactly_once'", "exactly_once")] {
        let report = compare(&by_stream(more), &found_with_pace(10.0));
        let value: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
        let source = &value["routes"][0]["sources"][0];
        assert_eq!(
            (source["kind"].as_str(), source["guarantee"].as_str()),
            (Some("jetstream"), Some(promised))
        );
    }
}

#[test]
fn every_code_is_explained() {
    let explained = include_str!("../../../../docs/check.md");
    for code in crate::cli::check::codes::ALL {
        assert!(explained.contains(&format!("| `{code}` |")), "docs/check.md: no {code}");
    }
}

/// All is well, at this pace.
pub(super) fn found_with_pace(pace: f64) -> Found {
    found_with(TopicSample { pace: Some(pace), ..topic() }, Some(landed(10)))
}

/// A route by JetStream; `more` are its keys.
pub(super) fn by_stream(more: &str) -> Config {
    let text = format!(
        "[nats]\n[nats.jetstream]\n[clickhouse]\ndatabase = 'market'\n[[routes]]\n\
         name = 'candles'\njetstream_subjects = ['s.>']\ntable = 'aggregates'\n{more}\n"
    );
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::load(&[file.path().to_owned()]).unwrap()
}

/// Its stream, when all is well.
pub(super) fn stream() -> StreamSample {
    StreamSample {
        stream: "S".to_owned(),
        records: topic().records,
        records_read_at: NOW,
        max_age: None,
        overwrites: false,
        deletes_acknowledged: false,
        in_memory: false,
        replicas: 1,
        kept: None,
        consumer: None,
    }
}
