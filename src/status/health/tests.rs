//! The keys that users scrape, to the letter.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::status::samples::{PAUSED_AT, busy};
use crate::status::*;

fn json_of(snapshot: &Snapshot) -> Value {
    let identity = Identity::new("bridge-1");
    serde_json::to_value(snapshot.health(&identity, &[], Instant::now())).unwrap()
}

#[test]
fn the_body_is_as_designed() {
    let health = json_of(&busy());
    assert_eq!(health["service"], "data-bridge");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["instance"], "bridge-1");
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["uptime_seconds"], 0);
    assert_eq!(health["wedged"], Value::Null);
    let metrics = &health["metrics"];
    let expected = json!({
        "active": false, "nats_paused": false, "kafka_paused": false, "current_buffer": 812,
        "pause_threshold": 40_000, "resume_threshold": 20_000, "pause_count": 3,
        "last_pause": "2026-01-01T10:30:15.123Z", "last_resume": "2026-01-01T10:31:02.001Z",
        "causes": [], "max_buffer_size": 50_000, "pull_limit": 30_000, "utilization": 0.016,
        "current_bytes": 190_000, "max_buffer_bytes": 268_435_456, "peak_buffer": 43_120,
        "paused_seconds": 0.0, "paused_seconds_total": 47.1
    });
    assert_eq!(metrics["backpressure"], expected);
    let aggregate = json!({ "buffered": 700, "in_flight": 112, "inserted": 125_000, "inserts": 40,
        "failed_inserts": 2, "insert_seconds": 3.25 });
    assert_eq!(metrics["writers"]["aggregate"], aggregate);
    let external = json!({ "buffered": 0, "in_flight": 0, "inserted": 0, "inserts": 0,
        "failed_inserts": 0, "insert_seconds": 0.0 });
    assert_eq!(metrics["writers"]["external"], external);
    let candles = json!({ "received": 125_853, "inserted": 125_000, "dead_lettered": 13,
        "filtered": 5, "dropped": 16, "released": 9, "held": 810, "accounting_gap": 0,
        "rounded": 17, "state": "running", "held_back": false, "table": "aggregates",
        "guarantees": { "kafka": "at_least_once", "nats": "at_most_once" }, "deduplication_window":
        { "entries": 10_000, "entries_per_second": 2.5, "covers_seconds": 4_000.0 } });
    assert_eq!(metrics["routes"]["candles"], candles);
    let breaker = json!({ "state": "closed", "failures": 0, "openings": 0, "rejects": 0,
        "probe_at": null, "reason": null });
    assert_eq!(metrics["breaker"], breaker);
    assert_eq!(metrics["dead_letters"], 13);
    assert_eq!(metrics["dead_letters_by_reason"], json!({ "candles": { "bad_json": 13 } }));
    assert_eq!(metrics["filtered"], 8);
    assert_eq!(metrics["dropped"], 15);
}

#[test]
fn a_source_has_the_keys_of_its_kind() {
    let health = json_of(&busy());
    let sources = &health["metrics"]["sources"];
    let kafka = &sources["kafka"];
    for (key, value) in [("received", 125_835), ("assigned", 6), ("lag", 1_234), ("released", 6)] {
        assert_eq!(kafka[key], value, "{key}");
    }
    assert_eq!(kafka["natively_paused"], false);
    let nats = &sources["nats"];
    assert_eq!(nats["dropped"], json!({ "market": 15, "signal": 0, "unknown": 0 }));
    assert_eq!(nats["dropped_by_reason"]["market"], json!({ "paused": 7, "cap": 8 }));
    let system = json!({ "system.health.x":
        { "count": 3, "last_seen": "2026-01-01T10:30:15.123Z" } });
    assert_eq!(nats["system"], system);
    for absent in ["natively_paused", "assigned", "lag"] {
        assert!(nats.get(absent).is_none(), "{absent} makes no sense for NATS");
    }
}

#[test]
fn an_unknown_lag_is_null_and_an_absent_source_has_no_key() {
    let mut snapshot = busy();
    snapshot.sources.remove("nats");
    snapshot.sources.get_mut("kafka").unwrap().lag = None;
    let health = json_of(&snapshot);
    let sources = &health["metrics"]["sources"];
    assert!(sources.get("nats").is_none());
    assert_eq!(sources["kafka"].get("lag"), Some(&Value::Null));
    assert_eq!(health["metrics"]["backpressure"]["nats_paused"], false);
}

#[test]
fn the_nine_old_keys_keep_their_types_before_and_during_the_first_pause() {
    let fresh = json_of(&Snapshot::default());
    let backpressure = &fresh["metrics"]["backpressure"];
    for key in ["active", "nats_paused", "kafka_paused"] {
        assert_eq!(backpressure[key], false, "{key}");
    }
    for key in ["current_buffer", "pause_threshold", "resume_threshold", "pause_count"] {
        assert!(backpressure[key].is_u64(), "{key}");
    }
    for key in ["last_pause", "last_resume"] {
        assert_eq!(backpressure.get(key), Some(&Value::Null), "{key}");
    }

    let mut paused = busy();
    paused.backpressure.active = true;
    paused.backpressure.causes = vec!["level"];
    paused.backpressure.last_resume = None;
    paused.backpressure.paused_seconds = 1.234_567;
    for source in paused.sources.values_mut() {
        source.paused = true;
    }
    let health = json_of(&paused);
    let backpressure = &health["metrics"]["backpressure"];
    assert_eq!(health["status"], "degraded");
    for key in ["active", "nats_paused", "kafka_paused"] {
        assert_eq!(backpressure[key], true, "{key}");
    }
    assert_eq!(backpressure["causes"], json!(["level"]));
    assert_eq!(backpressure["last_resume"], Value::Null);
    assert_eq!(backpressure["paused_seconds"], 1.235);
}

#[test]
fn a_route_that_waits_says_why() {
    let mut snapshot = busy();
    let route = snapshot.routes.get_mut("candles").unwrap();
    route.state = RouteState::AwaitingFix("table market.aggregates is missing".into());
    let health = json_of(&snapshot);
    let candles = &health["metrics"]["routes"]["candles"];
    assert_eq!(candles["state"], "awaiting_fix");
    assert_eq!(candles["reason"], "table market.aggregates is missing");
    assert_eq!(health["status"], "critical");
}

#[tokio::test(start_paused = true)]
async fn a_health_serves_unless_it_is_wedged_or_draining() {
    let serving = |change: fn(&mut Snapshot)| {
        let mut snapshot = busy();
        change(&mut snapshot);
        snapshot.health(&Identity::new("x"), &[], Instant::now()).is_serving()
    };
    assert!(serving(|_| ()));
    assert!(serving(|s| s.stage = RunStage::Starting));
    assert!(serving(|s| s.backpressure.active = true));
    assert!(serving(|s| s.backpressure.critical = true));
    assert!(serving(|s| s.needs_person.push("create the table".into())));
    assert!(!serving(|s| s.stage = RunStage::Draining));
    assert!(!serving(|s| s.stage = RunStage::Stopped));
    assert!(!serving(|s| s.overdue = Some("attempt".into())));
    tokio::time::advance(WEDGED_AFTER).await;
    assert!(!serving(|s| s.turned_at = Some(Instant::now() - WEDGED_AFTER * 2)));
}

#[test]
fn times_are_utc_with_milliseconds() {
    assert_eq!(health::rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(health::rfc3339(PAUSED_AT), "2026-01-01T10:30:15.123Z");
    assert_eq!(health::rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
}
