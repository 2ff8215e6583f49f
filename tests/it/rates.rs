//! Rates as limits: what is pulled waits, what is pushed is dropped and counted; in memory, and on
//! real servers.

use std::time::Duration;

use data_bridge::status::Snapshot;
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::bridge::PATIENCE;
use crate::lab::{Lab, ORDINARY_HEARTBEAT, number, settled};
use crate::rig::{Rig, Sources, config, config_edited};

const OF_NATS: &str = "[nats]\nrate_limit = { records_per_second = 100, burst = 50 }\n";

fn dropped_for_rate(now: &Snapshot, class: &str) -> u64 {
    now.sources["nats"].dropped[class].get("rate").copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn core_nats_over_its_rate_is_dropped_by_class_and_system_never_is() {
    let mut rig = Rig::nats_alone(OF_NATS);
    rig.nats().push("market.a", 70).await;
    rig.nats().push("external.a", 10).await;
    rig.nats().push("system.stored.a", 200).await;
    let now = rig.drained().await;
    assert_eq!(rig.sink.rows("candles"), 50);
    assert_eq!((dropped_for_rate(&now, "market"), dropped_for_rate(&now, "external")), (20, 10));
    assert_eq!(rig.sink.rows("system"), 200);
    assert_eq!(now.sources["nats"].current_rate_limit, Some(100.0));
    rig.after(Duration::from_secs(10)).await;
    rig.nats().push("market.a", 60).await;
    let now = rig.drained().await;
    assert_eq!(rig.sink.rows("candles"), 100, "no more is saved up than the burst");
    assert_eq!(now.routes["candles"].dropped, 30);
}

#[tokio::test(start_paused = true)]
async fn a_route_over_its_rate_drops_what_nats_brings_and_no_other_route_does() {
    let limited = (
        "nats_subjects = [\"market.>\"]\n",
        "nats_subjects = [\"market.>\"]\nrate_limit = { records_per_second = 10 }\n",
    );
    let edits = [("kafka_topics = [\"candles\"]\n", ""), limited];
    let mut rig = Rig::start(&config_edited(Sources::Nats, &edits, ""));
    rig.nats().push("market.a", 30).await;
    rig.nats().push("external.a", 30).await;
    let now = rig.drained().await;
    assert_eq!((rig.sink.rows("candles"), rig.sink.rows("external")), (10, 30));
    assert_eq!(dropped_for_rate(&now, "market"), 20);
    assert_eq!(rig.health()["metrics"]["routes"]["candles"]["current_rate_limit"], 10.0);
    assert_eq!(rig.health()["metrics"]["routes"]["external"].get("current_rate_limit"), None);
}

#[tokio::test(start_paused = true)]
async fn a_limit_changes_with_the_configuration() {
    let mut rig = Rig::nats_alone(OF_NATS);
    rig.nats().push("market.a", 60).await;
    rig.moment().await;
    rig.change_to(&config(Sources::Nats, "")).await.unwrap();
    rig.nats().push("market.a", 500).await;
    let now = rig.drained().await;
    assert_eq!((rig.sink.rows("candles"), now.dropped()), (550, 10));
    assert_eq!(now.sources["nats"].current_rate_limit, None);
}

#[tokio::test(start_paused = true)]
async fn a_route_over_its_rate_lets_kafka_wait_and_loses_nothing() {
    let edits = [(
        "nats_subjects = [\"market.>\"]\n",
        "rate_limit = { records_per_second = 100, burst = 100 }\n",
    )];
    let mut rig = Rig::start(&config_edited(Sources::Kafka, &edits, ""));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    let began = Instant::now();
    let (mut taken, mut waited) = (0, false);
    while began.elapsed() < Duration::from_secs(60) {
        if rig.kafka().is_held(&candles) {
            waited = true;
        } else {
            taken += rig.kafka().poll(&candles, 100).await;
        }
        assert!(!rig.kafka().is_held(&external), "another topic does not wait");
        rig.after(Duration::from_millis(100)).await;
        // On average the rate; what was on its way when it was told to wait comes on top.
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let over = taken as f64 - (100.0 * seconds + 100.0);
        assert!(over <= 200.0, "{taken} after {seconds} s");
    }
    assert!(waited && taken >= 5_700, "{taken} of 6,000");
    let now = rig.drained().await;
    assert_eq!((now.inserted(), now.dropped()), (taken as u64, 0));
    assert_eq!(now.backpressure.pause_count, 0, "a limit is no backpressure");
}

/// A backlog in Kafka comes at the rate and no faster; lifted, at once; and of NATS the rest is
/// dropped, counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_comes_at_the_rate_until_the_limit_is_lifted() {
    const RATE: u64 = 500;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    lab.numbers_to_kafka(0..20_000, 20_000).await;
    let limits = format!(
        "{ORDINARY_HEARTBEAT}\n[http]\ntoken = \"t0ken\"\n\
         [kafka]\nrate_limit = {{ records_per_second = {RATE}, burst = 100 }}\n\
         [nats]\nrate_limit = {{ records_per_second = 100 }}\n"
    );
    let over = lab.file("over.toml", &limits);
    let files = [lab.file("config.toml", &lab.numbers("kafka nats")), over.clone()];
    let began = std::time::Instant::now();
    let bridge = crate::bridge::Bridge::spawn(lab.file("bridge.log", ""), &files).ready().await;
    let received = |health: &Json| number(&health["metrics"]["sources"]["kafka"]["received"]);
    let some = |health: &Json| received(health) >= 3_000;
    let health = bridge.wait_until("some of it has come", some).await;
    let most = began.elapsed().as_millis() * u128::from(RATE) / 1_000 + 100;
    assert!(u128::from(received(&health)) <= most, "more than {most}: {health:#}");
    assert_eq!(health["metrics"]["sources"]["kafka"]["current_rate_limit"], 500.0);
    assert_eq!(health["metrics"]["backpressure"]["pause_count"], 0, "{health:#}");
    lab.numbers_to_nats(20_000..21_000, 5_000).await;
    let dropped = |health: &Json| {
        let reasons = &health["metrics"]["sources"]["nats"]["dropped_by_reason"]["market"];
        reasons["rate"].as_u64().unwrap_or_default()
    };
    let all = |health: &Json| number(&health["metrics"]["sources"]["nats"]["received"]) == 1_000;
    let health = bridge.wait_until("all of NATS has come", all).await;
    // In the fifth of a second in which they came, a second's worth and a fifth may pass; on a busy
    // machine it takes longer.
    assert!((1..=900).contains(&dropped(&health)), "{health:#}");
    std::fs::write(&over, format!("{ORDINARY_HEARTBEAT}\n[http]\ntoken = \"t0ken\"\n")).unwrap();
    bridge.signal("HUP");
    let arrived = |health: &Json| settled(health, "kafka", 20_000);
    let health = bridge.wait_until_within(PATIENCE, "all of Kafka is stored", arrived).await;
    let of_nats = 1_000 - dropped(&health);
    let stored = lab.stored_numbers(&(0..21_000)).await;
    assert_eq!(stored, (20_000 + of_nats, 20_000 + of_nats), "{health:#}");
    bridge.stop().await;
}
