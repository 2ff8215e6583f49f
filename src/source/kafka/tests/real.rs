//! The Kafka source against a real Kafka: what the mock broker cannot show.
//!
//! `scripts/test`, or `scripts/stack up kafka; set -a; eval "$(scripts/stack env)"` and then
//! `cargo test kafka::tests::real`. Topic and group are each test's own: they run side by side, and
//! again on the same broker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::bench::{self, Bench, Other, group_offset, is_told, look_each_second, numbered};
use super::stack::{Stack, is_apache_kafka, shared, unique};
use crate::config;
use crate::source::Stage;

const GROUPS: &str = "two members of one group, and how they share its partitions";

/// A topic and a group on one broker, and the settings of a source that reads the one as the other.
struct Place {
    config: config::Kafka,
    topic: &'static str,
}

impl Place {
    /// On the broker that all share.
    async fn new(partitions: i32) -> Self {
        Self::at(&shared("KAFKA"), partitions).await
    }

    async fn at(brokers: &str, partitions: i32) -> Self {
        let topic: &'static str = unique("source").leak();
        let mut config = bench::settings(brokers);
        topic.clone_into(&mut config.group_id);
        let place = Self { config, topic };
        place.create(partitions).await;
        place
    }

    async fn create(&self, partitions: i32) {
        let topic = NewTopic::new(self.topic, partitions, TopicReplication::Fixed(1));
        let made = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|one| drop(one.unwrap()));
    }

    async fn grow(&self, partitions: usize) {
        let more = NewPartitions::new(self.topic, partitions);
        let made = self.admin().create_partitions([&more], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|one| drop(one.unwrap()));
    }

    async fn delete(&self) {
        let gone = self.admin().delete_topics(&[self.topic], &AdminOptions::new()).await.unwrap();
        gone.into_iter().for_each(|one| drop(one.unwrap()));
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.brokers());
        client
    }

    fn brokers(&self) -> &str {
        &self.config.brokers[0]
    }

    fn start(&self, credits: usize) -> Bench {
        Bench::start(&self.config, &[self.topic], credits)
    }

    fn produce(&self, partition: i32, payloads: &[String]) {
        bench::produce(self.brokers(), self.topic, partition, payloads);
    }

    /// What the group has committed.
    fn committed(&self, partition: i32) -> Option<i64> {
        group_offset(self.brokers(), &self.config.group_id, self.topic, partition)
    }
}

#[tokio::test]
async fn a_revocation_under_the_eager_protocol_commits_its_answer() {
    if !is_apache_kafka(GROUPS) {
        return;
    }
    let mut place = Place::new(2).await;
    place.produce(0, &numbered(0, 10));
    place.produce(1, &numbered(10, 20));
    place.config.commit_interval = Duration::from_secs(3600);
    let mut bench = place.start(100);
    bench.answers = false;
    bench.until_seen(20).await;
    let other = Other::join(place.brokers(), &place.config.group_id, place.topic);
    bench.until("a revocation", |bench| !bench.revoked.is_empty()).await;
    let durable = bench.all_seen();
    bench.revoked.pop().unwrap().answer.send(durable.clone()).unwrap();
    bench.until("a new assignment", |bench| bench.assigned.len() == 1).await;
    assert_eq!(bench.committed, durable, "{:?}", bench.commit_errors);
    assert_eq!([0, 1].map(|n| place.committed(n)), [Some(10), Some(10)]);
    bench.answers = true;
    other.leave();
    bench.until("all again", |bench| bench.assigned.len() == 2).await;
    bench.close().await;
    assert_eq!(bench.seen.len(), 20, "nothing came twice");
}

async fn two_share_and_nothing_comes_twice(settings: &[(&str, &str)]) {
    if !is_apache_kafka(GROUPS) {
        return;
    }
    let mut place = Place::new(4).await;
    let client = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    place.config.client = client.collect();
    for partition in 0..4 {
        place.produce(partition, &numbered(0, 50));
    }
    let mut first = place.start(1_000);
    first.until_seen(200).await;
    let mut second = place.start(1_000);
    // What is revoked is answered with all that was seen, and committed.
    let done = tokio::time::Instant::now() + Duration::from_secs(60);
    while second.assigned.len() != 2 || first.assigned.len() != 2 {
        assert!(tokio::time::Instant::now() < done, "two each");
        first.look().await;
        second.look().await;
    }
    for partition in 0..4 {
        place.produce(partition, &numbered(50, 60));
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
    assert_eq!([0, 1, 2, 3].map(|n| place.committed(n)), [Some(60); 4]);
}

#[tokio::test]
async fn two_share_under_the_eager_protocol() {
    two_share_and_nothing_comes_twice(&[]).await;
}

#[tokio::test]
async fn two_share_under_the_cooperative_protocol() {
    let sticky = ("partition.assignment.strategy", "cooperative-sticky");
    two_share_and_nothing_comes_twice(&[sticky]).await;
}

#[tokio::test]
async fn two_share_under_the_new_group_protocol() {
    two_share_and_nothing_comes_twice(&[("group.protocol", "consumer")]).await;
}

#[tokio::test]
async fn partitions_that_come_later_are_read_from_their_beginning() {
    if !is_apache_kafka("partitions that are added to a topic") {
        return;
    }
    let mut place = Place::new(1).await;
    look_each_second(&mut place.config);
    place.produce(0, &numbered(0, 10));
    let mut bench = place.start(100);
    bench.until_seen(10).await;
    place.grow(3).await;
    place.produce(1, &numbered(10, 20));
    place.produce(2, &numbered(20, 30));
    bench.until_seen(30).await;
    assert_eq!(bench.assigned.len(), 3);
    let mut payloads = bench.payloads();
    payloads.sort_unstable();
    let mut all = numbered(0, 30);
    all.sort_unstable();
    assert_eq!(payloads, all, "all of them, and nothing came twice");
    bench.close().await;
}

/// What librdkafka takes for the position stays as high as it was.
#[tokio::test]
async fn a_topic_that_is_made_anew_is_read_and_committed_from_its_beginning() {
    if !is_apache_kafka("topics that are deleted and made again") {
        return;
    }
    let mut place = Place::new(1).await;
    place.config.client.insert("session.timeout.ms".to_owned(), "45000".to_owned());
    place.produce(0, &numbered(0, 20));
    let mut bench = place.start(1_000);
    bench.until_seen(20).await;
    let before = Arc::clone(&bench.assigned[0]);
    place.delete().await;
    place.create(1).await;
    place.produce(0, &numbered(20, 25));
    bench.until_seen(25).await;
    println!("{:?} {:?} {:?}", bench.assigned, bench.lost, bench.offsets());
    let durable = bench.all_seen().into_iter().filter(|p| p.partition != before).collect();
    bench.want(|wanted| wanted.commit = durable);
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    assert_eq!(place.committed(0), Some(5));
    let paused = |bench: &Bench| bench.handle.observed.natively_paused.load(Ordering::Acquire);
    bench.want(|wanted| wanted.native_pause = true);
    bench.until("a native pause", paused).await;
    place.produce(0, &numbered(25, 60));
    bench.want(|wanted| wanted.native_pause = false);
    bench.until_seen(60).await;
    assert_eq!(bench.payloads(), numbered(0, 60));
    bench.close().await;
}

#[tokio::test]
async fn a_refused_login_is_told() {
    // A listener without SASL: as good as a wrong password, and needs no broker of its own.
    if !is_apache_kafka("how it answers to SASL where there is none") {
        return;
    }
    let mut place = Place::new(1).await;
    for (key, value) in [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "somebody"),
        ("sasl.password", "hunter2"),
    ] {
        place.config.client.insert(key.to_owned(), value.to_owned());
    }
    let mut bench = place.start(100);
    bench.until("a refusal", |bench| is_told(bench, "SASL PLAIN mechanism handshake failed")).await;
    assert!(!is_told(&bench, "hunter2"));
    assert!(!bench.handle.observed.connected.load(Ordering::Acquire));
    bench.close().await;
}

#[tokio::test]
async fn control_records_do_not_hold_up_the_lag() {
    if !is_apache_kafka("transactions") {
        return;
    }
    let place = Place::new(1).await;
    let mut client = place.client();
    let producer: BaseProducer = client.set("transactional.id", place.topic).create().unwrap();
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).unwrap();
    for abort in [false, true] {
        producer.begin_transaction().unwrap();
        for payload in numbered(0, 5) {
            let record = BaseRecord::<(), _>::to(place.topic).payload(&payload);
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
    let mut bench = place.start(100);
    bench.until_seen(5).await;
    let durable = bench.all_seen();
    assert_eq!(durable[0].offset, 5);
    bench.want(|wanted| wanted.commit = durable);
    bench.until("no lag", |bench| bench.handle.observed.lag.load(Ordering::Acquire) == 0).await;
    // Five records, a commit marker, five aborted ones, an abort marker.
    assert_eq!(place.committed(0), Some(12));
    bench.close().await;
}

#[tokio::test]
async fn a_killed_broker_is_waited_for_and_nothing_is_lost() {
    if !is_apache_kafka("a broker that keeps its data when it is killed") {
        return;
    }
    let stack = Stack::up(&["kafka"]);
    let mut place = Place::at(&stack.address("KAFKA"), 2).await;
    place.produce(0, &numbered(0, 10));
    place.config.client.insert("session.timeout.ms".to_owned(), "45000".to_owned());
    let mut bench = place.start(1_000);
    bench.until_seen(10).await;
    stack.kill("kafka");
    // What becomes durable meanwhile is committed when the broker is back.
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("an error", |bench| bench.connection.iter().any(Option::is_some)).await;
    stack.start("kafka");
    bench.until("the commit", |bench| !bench.committed.is_empty()).await;
    place.produce(1, &numbered(10, 20));
    bench.until("more", |bench| bench.seen.len() >= 20).await;
    bench.until("a connection", |bench| bench.connection.last() == Some(&None)).await;
    let observed = Arc::clone(&bench.handle.observed);
    assert!(observed.connected.load(Ordering::Acquire));
    assert_eq!(bench.seen.len(), 20, "nothing came twice");
    bench.close().await;
}
