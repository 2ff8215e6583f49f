//! Snapshots for tests: one in which every number is different, so that none can be mistaken for
//! another.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;
use crate::source::PartitionObserved;

/// 2026-01-01T10:30:15.123Z
pub(crate) const PAUSED_AT: UnixMs = 1_767_263_415_123;

/// Running, healthy, with Kafka and NATS.
pub(crate) fn busy() -> Snapshot {
    Snapshot {
        stage: RunStage::Running,
        turned_at: Some(Instant::now()),
        made_at: PAUSED_AT + 60_000,
        backpressure: BackpressureStatus {
            current_buffer: 812,
            peak_buffer: 43_120,
            pause_threshold: 40_000,
            resume_threshold: 20_000,
            max_buffer_size: 50_000,
            pull_limit: 30_000,
            current_bytes: 190_000,
            max_buffer_bytes: 268_435_456,
            pause_count: 3,
            last_pause: Some(PAUSED_AT),
            last_resume: Some(PAUSED_AT + 46_878),
            paused_seconds_total: 47.1,
            ..BackpressureStatus::default()
        },
        writers: BTreeMap::from([
            (
                "aggregate".to_owned(),
                WriterStatus {
                    buffered: 700,
                    in_flight: 112,
                    inserted: 125_000,
                    inserts: 40,
                    failed_inserts: 2,
                    insert_seconds: 3.25,
                },
            ),
            ("external".to_owned(), WriterStatus::default()),
        ]),
        sources: BTreeMap::from([("kafka".to_owned(), kafka()), ("nats".to_owned(), nats())]),
        routes: BTreeMap::from([(
            "candles".to_owned(),
            RouteStatus {
                received: 125_853,
                inserted: 125_000,
                dead_lettered: 13,
                filtered: 5,
                dropped: 16,
                released: 9,
                held: 810,
                current_rate_limit: None,
                rounded: 17,
                table: Some("aggregates".into()),
                guarantees: BTreeMap::from([("kafka", "at_least_once"), ("nats", "at_most_once")]),
                state: RouteState::Running,
                held_back: false,
                window: Some(WindowStatus {
                    entries: 10_000,
                    entries_per_second: 2.5,
                    covers_seconds: Some(4_000.0),
                }),
            },
        )]),
        dead_letters: DeadLetterStatus {
            written: 13,
            by_reason: BTreeMap::from([(("candles".to_owned(), "bad_json"), 13)]),
            pending: 0,
            newest: vec![Arc::new(letter())],
        },
        rates: Rates { input_records_per_second: 5_012.25, output_records_per_second: 4_998.5 },
        ..Snapshot::default()
    }
}

fn letter() -> LetterSample {
    LetterSample {
        time: PAUSED_AT,
        route: "candles".to_owned(),
        reason: "bad_json",
        outline: "no valid JSON".to_owned(),
        source: "kafka",
        topic_or_subject: "aggregate_archive".to_owned(),
        partition: Some(3),
        offset: Some(4_711),
    }
}

fn kafka() -> SourceStatus {
    let partition = |number, lag, committed| PartitionObserved {
        topic: "aggregate_archive".to_owned(),
        number,
        lag,
        committed,
    };
    SourceStatus {
        connected: true,
        error: None,
        received: 125_835,
        inserted: 125_000,
        dead_lettered: 13,
        filtered: 5,
        released: 6,
        held: 811,
        natively_paused: Some(false),
        uncommitted: 900,
        assigned: Some(6),
        lag: Some(1_234),
        partitions: vec![partition(0, Some(1_200), Some(62_000)), partition(1, None, None)],
        reconnects: 4,
        ..SourceStatus::default()
    }
}

fn nats() -> SourceStatus {
    let reasons = BTreeMap::from([("paused", 7), ("cap", 8)]);
    let seen = SystemSubject { count: 3, last_seen: PAUSED_AT };
    SourceStatus {
        connected: true,
        error: None,
        received: 19,
        filtered: 3,
        held: 1,
        dropped: BTreeMap::from([
            ("market".to_owned(), reasons),
            ("signal".to_owned(), BTreeMap::new()),
            (UNKNOWN_CLASS.to_owned(), BTreeMap::from([(SLOW_CONSUMER, 0)])),
        ]),
        slow_consumer_events: 9,
        dropped_subjects: BTreeMap::from([("market.a.b".to_owned(), 15)]),
        system: BTreeMap::from([("system.health.x".to_owned(), seen)]),
        ..SourceStatus::default()
    }
}
