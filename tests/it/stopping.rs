//! The stop, by signals, with real servers: what was taken is stored and committed exactly, and
//! what could not be stored comes again.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use crate::lab::{Lab, assert_accounts, number, settled};

const NATS: u64 = 10_000_000;

fn inserted(health: &Json, source: &str) -> u64 {
    number(&health["metrics"]["sources"][source]["inserted"])
}

fn is_paused(health: &Json) -> bool {
    health["metrics"]["backpressure"]["active"] == true
}

/// What is committed is what is stored, partition by partition, and no record is stored twice.
async fn assert_committed_is_stored(lab: &Lab, kafka: &Range<u64>) -> u64 {
    let (count, different) = lab.stored_numbers(kafka).await;
    assert_eq!(count, different, "something is stored twice");
    let committed = lab.committed(&lab.topic("numbers")).await;
    for (partition, offset) in committed.iter().enumerate() {
        let stored = lab
            .clickhouse
            .row(&format!(
                "SELECT count() AS rows, ifNull(max(_offset), -1) + 1 AS end FROM numbers \
                 WHERE _partition = {partition}"
            ))
            .await;
        let committed = u64::try_from(offset.unwrap_or(0)).unwrap();
        assert_eq!(number(&stored["rows"]), committed, "partition {partition}: {stored}");
        assert_eq!(number(&stored["end"]), committed, "partition {partition}: {stored}");
    }
    count
}

/// A new bridge stores the rest, and nothing twice.
async fn assert_the_rest_comes(lab: &Lab, config: &str, kafka: &Range<u64>) {
    let bridge = lab.start(config, "").await;
    lab.clickhouse
        .until(&format!("SELECT count() FROM numbers WHERE n < {}", kafka.end), kafka.end)
        .await;
    let health = bridge.wait_until("nothing is held", |h| settled(h, "kafka", 0)).await;
    assert_accounts(&health);
    assert_eq!(lab.stored_numbers(kafka).await, (kafka.end, kafka.end));
    bridge.stop().await;
    assert_eq!(assert_committed_is_stored(lab, kafka).await, kafka.end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_stores_and_commits_all_that_was_taken() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let kafka = 0..100_000;
    let config = lab.numbers("kafka nats");
    let mut bridge = lab.start(&config, "").await;
    let stop = async {
        bridge.wait_until("it is at work", |health| inserted(health, "kafka") > 20_000).await;
        assert_eq!(bridge.terminate().await, 0, "{}", bridge.log_tail());
    };
    tokio::join!(
        lab.numbers_to_kafka(kafka.clone(), 20_000),
        lab.numbers_to_nats(NATS..NATS + 20_000, 5_000),
        stop
    );
    let stored = assert_committed_is_stored(&lab, &kafka).await;
    assert!(stored > 0 && stored < kafka.end, "it was stopped in the middle: {stored}");
    let (count, different) = lab.stored_numbers(&(NATS..u64::MAX)).await;
    assert_eq!(count, different, "NATS");
    assert_the_rest_comes(&lab, &config, &kafka).await;
}

/// No stop at all: what was not committed comes again, so nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_bridge_loses_nothing_from_kafka() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let (config, kafka) = (lab.numbers("kafka nats"), 0..60_000);
    let mut bridge = lab.start(&config, "").await;
    let kill = async {
        bridge.wait_until("it is at work", |health| inserted(health, "kafka") > 10_000).await;
        bridge.kill().await;
    };
    tokio::join!(lab.numbers_to_kafka(kafka.clone(), 15_000), kill);
    let bridge = lab.start(&config, "").await;
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", kafka.end).await;
    let health = bridge.wait_until("nothing is held", |h| settled(h, "kafka", 0)).await;
    assert_accounts(&health);
    let (count, _) = lab.stored_numbers(&kafka).await;
    // committed each second, and an insert or two under way
    assert!(count < kafka.end + 45_000, "{count}");
    bridge.stop().await;
}

/// One of two instances stops: the other one has all, over NATS too. All of it together is less than
/// the 40,000 above which core NATS is dropped: a machine that stalls loses nothing by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_stops_hands_its_work_to_the_other() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let (kafka, nats) = (0..10_000, NATS..NATS + 20_000);
    let config = lab.numbers("kafka nats");
    let (one, other) = (lab.start(&config, "").await, lab.start(&config, "").await);
    let load = async {
        tokio::join!(
            lab.numbers_to_kafka(kafka.clone(), 2_000),
            lab.numbers_to_nats(nats.clone(), 4_000)
        )
    };
    let stop = async {
        one.wait_until("both work", |health| inserted(health, "nats") > 1_000).await;
        one.stop().await;
    };
    tokio::join!(load, stop);
    let sum = (kafka.end - kafka.start) + (nats.end - nats.start);
    lab.clickhouse.until("SELECT count() FROM numbers", sum).await;
    let health = other.wait_until("nothing is held", |h| settled(h, "nats", 0)).await;
    assert_accounts(&health);
    assert_eq!(lab.stored_numbers(&kafka).await, (kafka.end, kafka.end));
    assert_eq!(lab.stored_numbers(&nats).await, (20_000, 20_000));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_paused_ends_well_when_clickhouse_comes_back() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let config = lab.numbers("kafka nats");
    let mut bridge = lab.start(&config, "shutdown.grace = \"80s\"").await;
    lab.numbers_to_kafka(0..5_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 5_000).await;
    lab.kill_clickhouse().await;
    let (kafka, nats) = (0..60_000, NATS..NATS + 60_000);
    tokio::join!(
        lab.numbers_to_kafka(5_000..60_000, 20_000),
        lab.numbers_to_nats(nats.clone(), 10_000)
    );
    let health = bridge
        .wait_until("it is paused and has seen all of NATS", |health| {
            is_paused(health)
                && health["metrics"]["sources"]["kafka"]["natively_paused"] == true
                && number(&health["metrics"]["sources"]["nats"]["received"]) == 60_000
        })
        .await;
    let dropped = number(&health["metrics"]["dropped"]);
    bridge.signal("TERM");
    bridge.wait_for_log("BACKPRESSURE RELEASED").await;
    assert_eq!(bridge.status("/readyz").await.unwrap(), 503);
    assert_eq!(bridge.health().await["status"], "draining");
    lab.start_clickhouse().await;
    assert_eq!(bridge.ended(Duration::from_secs(80)).await, 0, "{}", bridge.log_tail());
    assert_resumed_before_the_end(&bridge.log());
    let landed = 60_000 - dropped;
    assert_eq!(lab.stored_numbers(&nats).await, (landed, landed), "NATS");
    let stored = assert_committed_is_stored(&lab, &kafka).await;
    assert!((5_000..kafka.end).contains(&stored), "{stored}");
    assert_the_rest_comes(&lab, &config, &kafka).await;
}

fn assert_resumed_before_the_end(log: &str) {
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("not logged: {text}\n{log}"));
    let drained = at("nothing is held any more");
    for text in ["Kafka subscriber resumed for shutdown", "NATS subscriber resumed for shutdown"] {
        assert!(at(text) < drained, "{log}");
    }
    assert_eq!(log.matches("Kafka subscriber resumed").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_without_clickhouse_says_what_it_abandons_and_kafka_sends_it_again() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let config = lab.numbers("kafka nats");
    let mut bridge = lab.start(&config, "shutdown.grace = \"6s\"").await;
    lab.kill_clickhouse().await;
    let kafka = 0..10_000;
    tokio::join!(
        lab.numbers_to_kafka(kafka.clone(), u64::MAX),
        lab.numbers_to_nats(NATS..NATS + 700, 1_000)
    );
    let all = |h: &Json| number(&h["metrics"]["backpressure"]["current_buffer"]) == 10_700;
    bridge.wait_until("all of it is held", all).await;
    let signalled = Instant::now();
    assert_eq!(bridge.terminate().await, 1, "{}", bridge.log_tail());
    // well below the 30 s that it would have without being told
    assert!(signalled.elapsed() < Duration::from_secs(25), "{:?}", signalled.elapsed());
    let log = bridge.log_lines();
    let abandoned = |source: &str, part: &str| {
        let line = log.iter().find(|line| {
            line["source"] == source && line["message"].as_str().is_some_and(|m| m.contains(part))
        });
        number(&line.unwrap_or_else(|| panic!("{}", bridge.log_tail()))["records"])
    };
    assert_eq!(abandoned("kafka", "abandoned; they come again"), 10_000);
    assert_eq!(abandoned("nats", "abandoned; they are lost"), 700);
    lab.start_clickhouse().await;
    assert_eq!(assert_committed_is_stored(&lab, &kafka).await, 0);
    assert_the_rest_comes(&lab, &config, &kafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let mut bridge = lab.start(&lab.numbers("kafka nats"), "shutdown.grace = \"5m\"").await;
    lab.kill_clickhouse().await;
    lab.numbers_to_kafka(0..1_000, u64::MAX).await;
    let all = |h: &Json| number(&h["metrics"]["backpressure"]["current_buffer"]) == 1_000;
    bridge.wait_until("all of it is held", all).await;
    bridge.signal("TERM");
    bridge.wait_for_log("stopping: draining").await;
    // long after the 200 ms in which a signal counts as the same one: this is about time
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bridge.health().await["status"], "draining");
    let signalled = Instant::now();
    assert_eq!(bridge.terminate().await, 1, "{}", bridge.log_tail());
    assert!(signalled.elapsed() < Duration::from_secs(60), "{:?}", signalled.elapsed());
    assert_eq!(bridge.logged("SIGTERM again").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_is_a_stop_like_any_other() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let mut bridge = lab.start(&lab.numbers("kafka nats"), "").await;
    lab.numbers_to_kafka(0..1_000, u64::MAX).await;
    bridge.wait_until("it is at work", |h| settled(h, "kafka", 1_000)).await;
    bridge.signal("INT");
    assert_eq!(bridge.ended(Duration::from_secs(30)).await, 0, "{}", bridge.log_tail());
    assert_eq!(assert_committed_is_stored(&lab, &(0..1_000)).await, 1_000);
}
