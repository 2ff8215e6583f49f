//! The Kafka source against a real Kafka: what the mock broker cannot show.
//!
//! `scripts/stack up kafka; eval "$(scripts/stack env)"`, then
//! `cargo test kafka::tests::real -- --ignored --test-threads=1`. The one group is shared by all
//! tests, so they run one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::bench::{self, Bench, Other, group_offset, numbered, produce};
use crate::source::Stage;

fn brokers() -> String {
    std::env::var("DATA_BRIDGE_TEST_KAFKA").expect("scripts/stack env says where Kafka is")
}

async fn topic(brokers: &str, partitions: i32) -> &'static str {
    let name = format!("bench-{:016x}", rand::random::<u64>()).leak();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|one| drop(one.unwrap()));
    name
}

#[tokio::test]
#[ignore = "needs a real Kafka"]
async fn a_revocation_under_the_eager_protocol_commits_its_answer() {
    let brokers = brokers();
    let topic = topic(&brokers, 2).await;
    produce(&brokers, topic, 0, &numbered(0, 10));
    produce(&brokers, topic, 1, &numbered(10, 20));
    let mut config = bench::settings(&brokers);
    config.commit_interval = Duration::from_secs(3600);
    let mut bench = Bench::start(&config, &[topic], 100);
    bench.answers = false;
    bench.until_seen(20).await;
    let other = Other::join(&brokers, topic);
    bench.until("a revocation", |bench| !bench.revoked.is_empty()).await;
    let durable = bench.all_seen();
    bench.revoked.pop().unwrap().answer.send(durable.clone()).unwrap();
    bench.until("a new assignment", |bench| bench.assigned.len() == 1).await;
    assert_eq!(bench.committed, durable, "{:?}", bench.commit_errors);
    assert_eq!([0, 1].map(|n| group_offset(&brokers, topic, n)), [Some(10), Some(10)]);
    bench.answers = true;
    other.leave();
    bench.until("all again", |bench| bench.assigned.len() == 2).await;
    bench.close().await;
    assert_eq!(bench.seen.len(), 20, "nothing came twice");
}

async fn two_share_and_nothing_comes_twice(settings: &[(&str, &str)]) {
    let brokers = brokers();
    let topic = topic(&brokers, 4).await;
    let mut config = bench::settings(&brokers);
    config.client.clear();
    config.client.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    for partition in 0..4 {
        produce(&brokers, topic, partition, &numbered(0, 50));
    }
    let mut first = Bench::start(&config, &[topic], 1_000);
    first.until_seen(200).await;
    let mut second = Bench::start(&config, &[topic], 1_000);
    // What is revoked is answered with all that was seen, and committed.
    let done = tokio::time::Instant::now() + Duration::from_secs(60);
    while second.assigned.len() != 2 || first.assigned.len() != 2 {
        assert!(tokio::time::Instant::now() < done, "two each");
        first.look().await;
        second.look().await;
    }
    for partition in 0..4 {
        produce(&brokers, topic, partition, &numbered(50, 60));
    }
    while first.seen.len() + second.seen.len() < 240 {
        assert!(tokio::time::Instant::now() < done, "the rest");
        first.look().await;
        second.look().await;
    }
    let durable = first.all_seen();
    first.want(|wanted| {
        wanted.stage = Stage::Draining;
        wanted.commit = durable;
    });
    first.close().await;
    second.until("all four", |bench| bench.assigned.len() == 4).await;
    let durable = second.all_seen();
    second.want(|wanted| wanted.commit = durable);
    second.close().await;
    assert_eq!(first.seen.len() + second.seen.len(), 240, "nothing came twice");
    assert_eq!([0, 1, 2, 3].map(|n| group_offset(&brokers, topic, n)), [Some(60); 4]);
}

#[tokio::test]
#[ignore = "needs a real Kafka"]
async fn two_share_under_the_eager_protocol() {
    two_share_and_nothing_comes_twice(&[]).await;
}

#[tokio::test]
#[ignore = "needs a real Kafka"]
async fn two_share_under_the_cooperative_protocol() {
    let sticky = ("partition.assignment.strategy", "cooperative-sticky");
    two_share_and_nothing_comes_twice(&[sticky]).await;
}

#[tokio::test]
#[ignore = "needs a real Kafka"]
async fn two_share_under_the_new_group_protocol() {
    two_share_and_nothing_comes_twice(&[("group.protocol", "consumer")]).await;
}

#[tokio::test]
#[ignore = "needs a real Kafka"]
async fn control_records_do_not_hold_up_the_lag() {
    let brokers = brokers();
    let topic = topic(&brokers, 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("transactional.id", topic)
        .create()
        .unwrap();
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).unwrap();
    for abort in [false, true] {
        producer.begin_transaction().unwrap();
        for payload in numbered(0, 5) {
            let record = BaseRecord::<(), _>::to(topic).payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        let end = if abort {
            producer.flush(patience).unwrap();
            producer.abort_transaction(patience)
        } else {
            producer.commit_transaction(patience)
        };
        end.unwrap();
    }
    let mut bench = Bench::start(&bench::settings(&brokers), &[topic], 100);
    bench.until_seen(5).await;
    let durable = bench.all_seen();
    assert_eq!(durable[0].offset, 5);
    bench.want(|wanted| wanted.commit = durable);
    bench.until("no lag", |bench| bench.handle.observed.lag.load(Ordering::Acquire) == 0).await;
    // Five records, a commit marker, five aborted ones, an abort marker.
    assert_eq!(group_offset(&brokers, topic, 0), Some(12));
    bench.close().await;
}

#[tokio::test]
#[ignore = "needs a real Kafka, and DATA_BRIDGE_TEST_STACK to kill it"]
async fn a_killed_broker_is_waited_for_and_nothing_is_lost() {
    let brokers = brokers();
    let topic = topic(&brokers, 2).await;
    produce(&brokers, topic, 0, &numbered(0, 10));
    let mut config = bench::settings(&brokers);
    config.client.insert("session.timeout.ms".to_owned(), "45000".to_owned());
    let mut bench = Bench::start(&config, &[topic], 1_000);
    bench.until_seen(10).await;
    stack("kill");
    // What becomes durable meanwhile is committed when the broker is back.
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("an error", |bench| bench.connection.iter().any(Option::is_some)).await;
    stack("start");
    bench.until("the commit", |bench| !bench.committed.is_empty()).await;
    produce(&brokers, topic, 1, &numbered(10, 20));
    bench.until("more", |bench| bench.seen.len() >= 20).await;
    bench.until("a connection", |bench| bench.connection.last() == Some(&None)).await;
    let observed = Arc::clone(&bench.handle.observed);
    assert!(observed.connected.load(Ordering::Acquire));
    assert_eq!(bench.seen.len(), 20, "nothing came twice");
    bench.close().await;
}

fn stack(command: &str) {
    let script =
        std::env::var("DATA_BRIDGE_TEST_STACK").expect("the command line of scripts/stack");
    let words = format!("{script} {command} kafka");
    let status = std::process::Command::new("sh").args(["-c", &words]).status().unwrap();
    assert!(status.success(), "{words}");
}
