//! From real Kafka and real NATS into real ClickHouse while nothing goes wrong: everything is
//! there, once, bit for bit.

use data_bridge::generate::{Kind, Target};

use crate::bridge::Bridge;
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, plan, scale, settled};

/// More than comes over NATS in all, and what may be pulled beside it: a machine that stalls for a
/// second never makes the bridge pause for being full. For any other reason it must not pause.
const ROOMY: &str = "backpressure = { max_buffer_size = 400000, pause_threshold = 300000, \
                     resume_threshold = 20000, pull_limit = 30000 }\n";

/// A day's test sends a tenth of what `DATA_BRIDGE_TEST_SCALE=10` does: 1,000,000 candles and
/// 200,000 records over NATS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_of_an_undisturbed_run_is_there_once_and_exact() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let (candles, each) = (100_000 * scale(), 5_000 * scale());
    let plan = plan(&[
        (Target::Kafka, Kind::Candles, candles),
        (Target::Nats, Kind::Ticks, 2 * each),
        (Target::Nats, Kind::Candles, each),
        (Target::Nats, Kind::External, each / 2),
        (Target::Nats, Kind::Signals, each / 2),
        (Target::Nats, Kind::System, 100),
    ]);
    let over = format!("{ROOMY}{ORDINARY_HEARTBEAT}\n");
    let bridge = lab.start(&lab.profile("kafka nats"), &over).await;
    tokio::join!(lab.send_to_kafka(&plan), lab.send_to_nats(&plan, 5_000));
    let health = bridge
        .wait_until("all of it is stored", |health| {
            settled(health, "kafka", candles) && settled(health, "nats", 4 * each + 100)
        })
        .await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
    assert_eq!(health["metrics"]["dead_letters"], 0, "{health:#}");
    lab.assert_exact(&plan).await;
    assert_eq!(health["metrics"]["backpressure"]["pause_count"], 0, "{health:#}");
    assert_metrics_agree(&bridge, &health).await;
    let log = bridge.log();
    let is_json = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(log.lines().all(|line| is_json(&line)), "not every line is JSON:\n{log}");
    bridge.stop().await;
    let committed = lab.committed(&lab.topic("aggregate_archive")).await;
    let sum: i64 = committed.iter().map(|offset| offset.unwrap_or(0)).sum();
    assert_eq!(sum, i64::try_from(candles).unwrap(), "{committed:?}");
}

/// `/metrics` says what `/health` says.
async fn assert_metrics_agree(bridge: &Bridge, health: &serde_json::Value) {
    let metrics = bridge.metrics().await;
    let mut compared = 0;
    for (source, said) in health["metrics"]["sources"].as_object().unwrap() {
        for (name, key) in [
            ("records_received", "received"),
            ("records_inserted", "inserted"),
            ("records_filtered", "filtered"),
            ("records_dead_lettered", "dead_lettered"),
        ] {
            let line = format!("data_bridge_{name}_total{{source=\"{source}\"}} {}", said[key]);
            assert!(metrics.lines().any(|metric| metric == line), "{line}\n{metrics}");
            compared += 1;
        }
    }
    assert_eq!(compared, 8);
    for name in ["insert_duration_seconds", "batch_rows", "end_to_end_latency_seconds"] {
        let buckets = format!("data_bridge_{name}_bucket");
        assert!(metrics.contains(&buckets), "{buckets}\n{metrics}");
    }
}
