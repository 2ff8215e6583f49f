//! The Kafka source against librdkafka's in-process broker.

mod bench;
mod noted;
mod real;
mod refusals;
mod sharing;
#[path = "../../../tests/it/stack.rs"]
#[allow(dead_code, reason = "the integration tests need more of it")]
mod stack;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{ChunkLimits, Options, settings};
use crate::credits::Credits;
use crate::source::{Delivery, SourceId, Stage, connect};
use bench::{Bench, GROUP, Other, begin, cluster, group_offset, numbered, produce, produce_rich};

#[tokio::test]
async fn records_come_with_keys_headers_and_tombstones() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce_rich(&brokers, "t");
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(2).await;
    let full = &bench.seen[0];
    assert_eq!((full.partition.topic.as_str(), full.partition.number), ("t", 0));
    assert_eq!((full.offset, full.timestamp), (0, Some(1_234)));
    assert_eq!(full.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(full.payload.as_deref(), Some(&b"v"[..]));
    let headers = [("trace".to_owned(), b"abc".to_vec()), ("empty".to_owned(), Vec::new())];
    assert_eq!(full.headers, headers);
    let tombstone = &bench.seen[1];
    assert_eq!(
        (tombstone.payload.as_deref(), tombstone.key.as_deref()),
        (None, Some(&b"gone"[..]))
    );
    bench.close().await;
}

#[tokio::test]
async fn no_more_is_taken_than_there_are_credits() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 100));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 30);
    let starved = |bench: &Bench| bench.handle.observed.starved.load(Ordering::Acquire);
    bench.until("credits run out", |bench| starved(bench) && bench.seen.len() >= 30).await;
    assert_eq!((bench.seen.len(), bench.credits.used()), (30, 30));
    bench.credits.release(20);
    bench.until_seen(50).await;
    bench.handle.observed.starved.store(false, Ordering::Release);
    bench.until("they run out again", starved).await;
    assert_eq!((bench.seen.len(), bench.credits.used()), (50, 30));
    bench.credits.release(30);
    bench.until_seen(80).await;
    bench.credits.release(30);
    bench.until_seen(100).await;
    assert_eq!(bench.payloads(), numbered(0, 100));
    // One is held while the source waits for the next record, never more.
    assert!(bench.credits.used() <= 21, "{}", bench.credits.used());
    bench.close().await;
    assert_eq!(bench.credits.used(), 20);
}

#[tokio::test]
async fn a_chunk_is_bounded_in_bytes_and_records() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    let large: Vec<String> = (0..40).map(|_| "x".repeat(1_000)).collect();
    produce(&brokers, "t", 0, &large);
    let limits = ChunkLimits { records: 100, bytes: 4_500 };
    let options = Options { limits, ..Options::default() };
    let mut bench = Bench::start_with(&bench::settings(&brokers), &["t"], 1_000, options);
    bench.until_seen(40).await;
    assert!(bench.chunks.iter().all(|len| *len <= 5), "{:?}", bench.chunks);
    bench.close().await;
}

#[tokio::test]
async fn chunks_do_not_grow_one_by_one() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &vec!["x".repeat(100); 1_000]);
    let limits = ChunkLimits { records: 10, bytes: 1 << 20 };
    let options = Options { limits, ..Options::default() };
    let mut bench = Bench::start_with(&bench::settings(&brokers), &["t"], 1_000, options);
    bench.until_seen(1_000).await;
    // 1 KB of payloads, as much again around them, and room.
    assert!(bench.weights.iter().all(|weight| *weight < 4_000), "{:?}", bench.weights);
    bench.close().await;
}

#[tokio::test]
async fn only_what_is_durable_is_committed_and_a_restart_goes_on_from_there() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(10).await;
    let durable = vec![bench.at("t", 4)];
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    assert_eq!(bench.committed, durable);
    // A step back is not followed: the next commit is the one further on.
    let back = vec![bench.at("t", 2)];
    bench.want(|wanted| wanted.commit = back);
    let further = vec![bench.at("t", 6)];
    bench.want(|wanted| wanted.commit = further.clone());
    bench.until("the next", |bench| bench.committed.len() > 1).await;
    assert_eq!(bench.committed[1..], further);
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), Some(6));
    bench.close().await;
    let mut again = Bench::start(&bench::settings(&brokers), &["t"], 100);
    again.until_seen(4).await;
    assert_eq!(again.offsets(), [6, 7, 8, 9]);
    again.close().await;
}

#[tokio::test]
async fn nothing_is_ever_committed_by_itself() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 1_000));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(100).await;
    bench.close().await;
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), None);
}

#[tokio::test]
async fn the_final_commit_is_made_at_closing() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut config = bench::settings(&brokers);
    config.commit_interval = Duration::from_secs(3600);
    let mut bench = Bench::start(&config, &["t"], 100);
    bench.until_seen(10).await;
    let durable = bench.all_seen();
    bench.want(|wanted| {
        wanted.stage = Stage::Draining;
        wanted.commit = durable;
    });
    bench.close().await;
    assert_eq!(bench.committed.len(), 1);
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), Some(10));
}

#[tokio::test]
async fn nothing_is_handed_over_while_draining() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(10).await;
    bench.want(|wanted| wanted.stage = Stage::Draining);
    let durable = bench.all_seen();
    produce(&brokers, "t", 0, &numbered(10, 20));
    bench.want(|wanted| wanted.commit = durable.clone());
    // Commits go on.
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    bench.until("lag", |bench| bench.handle.observed.lag.load(Ordering::Acquire) == 10).await;
    bench.close().await;
    assert_eq!((bench.seen.len(), bench.credits.used()), (10, 10));
    assert_eq!(bench.committed, durable, "a record that was not taken is not committed");
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), Some(10));
}

#[tokio::test]
async fn a_failed_commit_is_tried_again() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(10).await;
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refused, refused]);
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    assert_eq!(bench.commit_errors.len(), 2, "{:?}", bench.commit_errors);
    assert_eq!(bench.committed, durable);
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), Some(10));
    bench.close().await;
}

#[tokio::test]
async fn a_native_pause_outlasts_a_rebalance() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until("both partitions", |bench| bench.assigned.len() == 2).await;
    let paused = |bench: &Bench| bench.handle.observed.natively_paused.load(Ordering::Acquire);
    bench.want(|wanted| wanted.native_pause = true);
    bench.until("a native pause", paused).await;
    let other = Other::join(&brokers, GROUP, "t");
    let has = Arc::clone(&other.has_partitions);
    bench
        .until("the other's share", |b| has.load(Ordering::Acquire) && b.assigned.len() == 1)
        .await;
    other.leave();
    bench.until("both again", |bench| bench.assigned.len() == 2).await;
    produce(&brokers, "t", 0, &numbered(0, 5));
    produce(&brokers, "t", 1, &numbered(5, 10));
    // The broker has them, and the source knows.
    bench.until("lag", |bench| bench.handle.observed.lag.load(Ordering::Acquire) == 10).await;
    assert!(bench.seen.is_empty() && paused(&bench));
    bench.want(|wanted| wanted.native_pause = false);
    bench.until_seen(10).await;
    assert!(!paused(&bench));
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable);
    bench.until("no lag", |bench| bench.handle.observed.lag.load(Ordering::Acquire) == 0).await;
    bench.close().await;
}

#[tokio::test]
async fn a_partition_that_comes_back_is_not_still_paused() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until("both partitions", |bench| bench.assigned.len() == 2).await;
    bench.want(|wanted| wanted.native_pause = true);
    let paused = |bench: &Bench| bench.handle.observed.natively_paused.load(Ordering::Acquire);
    bench.until("a native pause", paused).await;
    let other = Other::join(&brokers, GROUP, "t");
    let has = Arc::clone(&other.has_partitions);
    bench
        .until("the other's share", |b| has.load(Ordering::Acquire) && b.assigned.len() == 1)
        .await;
    bench.want(|wanted| wanted.native_pause = false);
    bench.until("the end of the pause", |bench| !paused(bench)).await;
    other.leave();
    bench.until("both again", |bench| bench.assigned.len() == 2).await;
    produce(&brokers, "t", 0, &numbered(0, 5));
    produce(&brokers, "t", 1, &numbered(5, 10));
    bench.until_seen(10).await;
    bench.close().await;
}

#[tokio::test]
async fn a_revocation_waits_for_its_answer_before_it_commits() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut config = bench::settings(&brokers);
    config.commit_interval = Duration::from_secs(3600);
    // It waits for half of this, and we look at the group meanwhile.
    config.client.insert("session.timeout.ms".to_owned(), "12000".to_owned());
    let mut bench = Bench::start(&config, &["t"], 100);
    bench.answers = false;
    bench.until_seen(10).await;
    let other = Other::join(&brokers, GROUP, "t");
    bench.until("a revocation", |bench| !bench.revoked.is_empty()).await;
    assert!(!other.has_partitions.load(Ordering::Acquire));
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), None);
    assert!(bench.committed.is_empty() && bench.commit_errors.is_empty());
    let revoked = bench.revoked.pop().unwrap();
    assert_eq!(revoked.partitions.len(), 2, "eager: all of them");
    revoked.answer.send(bench.all_seen()).unwrap();
    bench.until("a new assignment", |bench| bench.assigned.len() == 1).await;
    assert!(bench.assigned[0].epoch > 2, "a new epoch");
    // Unlike Kafka (see the tests in `real`) the mock broker refuses commits in a rebalance.
    assert_eq!(bench.commit_errors.len(), 1, "{:?}", bench.commit_errors);
    bench.answers = true;
    bench.close().await;
    other.leave();
}

#[tokio::test]
async fn a_revocation_that_is_not_answered_ends_at_its_deadline() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.answers = false;
    bench.until_seen(10).await;
    let other = Other::join(&brokers, GROUP, "t");
    bench.until("a revocation", |bench| !bench.revoked.is_empty()).await;
    bench.until("a new assignment", |bench| bench.assigned.len() == 1).await;
    let revoked = bench.revoked.pop().unwrap();
    assert!(revoked.answer.send(Vec::new()).is_err(), "nobody waits any more");
    assert_eq!(group_offset(&brokers, GROUP, "t", 0), None);
    bench.answers = true;
    bench.close().await;
    other.leave();
}

#[tokio::test]
async fn topics_match_a_regular_expression() {
    let cluster = cluster(&[("bars.a", 1), ("bars.b", 1), ("other", 1)]);
    let brokers = cluster.bootstrap_servers();
    for topic in ["bars.a", "bars.b", "other"] {
        produce(&brokers, topic, 0, &numbered(0, 3));
    }
    let mut bench = Bench::start(&bench::settings(&brokers), &["^bars[.][ab]$"], 100);
    bench.until_seen(6).await;
    assert!(bench.seen.iter().all(|seen| seen.partition.topic.starts_with("bars.")));
    bench.close().await;
}

#[tokio::test]
async fn a_broker_that_is_down_is_waited_for() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    cluster.broker_down(-1).unwrap();
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until("an error", |bench| bench.connection.iter().any(Option::is_some)).await;
    assert!(!bench.handle.observed.connected.load(Ordering::Acquire));
    cluster.broker_up(-1).unwrap();
    bench.until_seen(10).await;
    bench.until("a connection", |bench| bench.connection.last() == Some(&None)).await;
    assert!(bench.handle.observed.connected.load(Ordering::Acquire));
    bench.close().await;
}

#[test]
fn settings_that_cannot_work_fail_at_the_start() {
    let fails = |key: &str, value: &str, topic: &str| {
        let mut config = bench::settings("localhost:1");
        config.client.insert(key.to_owned(), value.to_owned());
        let (events, _kept) = tokio::sync::mpsc::channel(1);
        let (_handle, port) = connect(SourceId(0), "kafka", Delivery::Pulled, events);
        let credits = Arc::new(Credits::new(1, 1));
        let started = begin(&config, &[topic], port, &credits, Options::default());
        format!("{:#}", started.unwrap_err())
    };
    let message = fails("fetch.wait.max.mss", "5", "t");
    assert!(message.contains("fetch.wait.max.mss") && message.contains("\"5\""), "{message}");
    let message = fails("session.timeout.ms", "soon", "t");
    assert!(message.contains("session.timeout.ms") && message.contains("soon"), "{message}");
    let message = fails("ssl.key.password.x", "hunter2", "t");
    assert!(!message.contains("hunter2"), "{message}");
    let message = fails("enable.auto.commit", "true", "t");
    assert!(message.contains("enable.auto.commit cannot be set"), "{message}");
    let message = fails("debug", "generic", r"^t\d+$");
    assert!(message.contains("[0-9]"), "{message}");
}

#[test]
fn the_new_group_protocol_gets_no_classic_settings() {
    let mut config = bench::settings("localhost:1");
    assert_eq!(config.group_id, GROUP);
    config.client.clear();
    config.client.insert("group.protocol".to_owned(), "consumer".to_owned());
    let client = settings::client_config(&config, "i").unwrap();
    assert_eq!(client.get("session.timeout.ms"), None);
    assert_eq!(client.get("partition.assignment.strategy"), None);
}

#[test]
fn however_little_is_prefetched_a_consumer_can_be_made() {
    for (prefetch_bytes, largest_record) in [(64 * 1024, None), (1 << 20, Some("16000000"))] {
        let mut config = bench::settings("localhost:1");
        config.prefetch_bytes = prefetch_bytes;
        let largest_record = largest_record.map(str::to_owned);
        config.client.extend(largest_record.map(|bytes| ("message.max.bytes".to_owned(), bytes)));
        let client = settings::client_config(&config, "i").unwrap();
        client.create::<BaseConsumer>().expect("librdkafka compares its limits only now");
    }
}
