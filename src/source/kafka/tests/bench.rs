//! A pipeline for the tests: it keeps what comes, answers what it is told to answer, and waits for
//! what it waits for under a time-out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::super::{Options, Running, start};
use crate::config;
use crate::credits::Credits;
use crate::record::{Partition, Position};
use crate::source::{
    Delivery, SourceEvent, SourceHandle, SourceId, SourcePort, Stage, Wanted, connect,
};

/// Each test has a mock broker of its own, so one name does for all groups there.
pub(super) const GROUP: &str = "bench";
/// Longer than anything here takes, on a machine that others use too.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) type Cluster = MockCluster<'static, DefaultProducerContext>;

pub(super) fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

pub(super) fn settings(brokers: &str) -> config::Kafka {
    config::Kafka {
        brokers: vec![brokers.to_owned()],
        group_id: GROUP.to_owned(),
        auto_offset_reset: "earliest".to_owned(),
        commit_interval: Duration::from_millis(100),
        prefetch_bytes: 16 << 20,
        rate_limit: None,
        // The mock broker lets a rebalance wait this long for members that do not answer, and
        // for ones that left.
        client: BTreeMap::from([("session.timeout.ms".to_owned(), "6000".to_owned())]),
    }
}

/// Topics and partitions are looked for this often here.
pub(super) fn look_each_second(config: &mut config::Kafka) {
    let interval = ("topic.metadata.refresh.interval.ms".to_owned(), "1000".to_owned());
    config.client.extend([interval]);
}

pub(super) fn is_told(bench: &Bench, part: &str) -> bool {
    bench.connection.iter().flatten().any(|error| error.contains(part))
}

pub(super) struct Seen {
    pub(super) partition: Arc<Partition>,
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

pub(super) struct Revocation {
    pub(super) partitions: Vec<Arc<Partition>>,
    pub(super) answer: oneshot::Sender<Vec<Position>>,
}

pub(super) struct Bench {
    pub(super) handle: SourceHandle,
    pub(super) credits: Arc<Credits>,
    events: mpsc::Receiver<(SourceId, SourceEvent)>,
    running: Option<Running>,
    pub(super) seen: Vec<Seen>,
    pub(super) chunks: Vec<usize>,
    /// The memory of each.
    pub(super) weights: Vec<usize>,
    pub(super) assigned: Vec<Arc<Partition>>,
    pub(super) revoked: Vec<Revocation>,
    pub(super) lost: Vec<Arc<Partition>>,
    pub(super) committed: Vec<Position>,
    pub(super) commit_errors: Vec<String>,
    pub(super) connection: Vec<Option<String>>,
    /// Assignments are taken up at once.
    pub(super) takes_up: bool,
    /// Revocations are answered at once, with all that was seen.
    pub(super) answers: bool,
    closed: bool,
}

impl Bench {
    pub(super) fn start(config: &config::Kafka, topics: &[&str], credits: usize) -> Self {
        Self::start_with(config, topics, credits, Options::default())
    }

    pub(super) fn start_with(
        config: &config::Kafka,
        topics: &[&str],
        credits: usize,
        options: Options,
    ) -> Self {
        let (events_in, events) = mpsc::channel(16);
        let (handle, port) = connect(SourceId(0), "kafka", Delivery::Pulled, events_in);
        let credits = Arc::new(Credits::new(credits, credits));
        let running = begin(config, topics, port, &credits, options).unwrap();
        Self {
            handle,
            credits,
            events,
            running: Some(running),
            seen: Vec::new(),
            chunks: Vec::new(),
            weights: Vec::new(),
            assigned: Vec::new(),
            revoked: Vec::new(),
            lost: Vec::new(),
            committed: Vec::new(),
            commit_errors: Vec::new(),
            connection: Vec::new(),
            takes_up: true,
            answers: true,
            closed: false,
        }
    }

    fn apply(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Records(chunk) => {
                self.chunks.push(chunk.len());
                self.weights.push(chunk.bytes());
                for record in chunk.records() {
                    let (partition, offset) = record.place().unwrap();
                    assert!(self.assigned.contains(partition), "{partition:?} is not assigned");
                    self.seen.push(Seen {
                        partition: Arc::clone(partition),
                        offset,
                        timestamp: record.timestamp(),
                        key: record.key().map(<[u8]>::to_vec),
                        payload: record.payload().map(<[u8]>::to_vec),
                        headers: record
                            .headers()
                            .map(|(n, v)| (n.to_owned(), v.to_vec()))
                            .collect(),
                    });
                }
            }
            SourceEvent::Assigned(assigned) => {
                self.assigned.extend(assigned.into_iter().map(|assigned| assigned.partition));
                if self.takes_up {
                    self.take_up();
                }
            }
            SourceEvent::Revoked { partitions, answer, .. } => {
                self.assigned.retain(|assigned| !partitions.contains(assigned));
                if self.answers {
                    drop(answer.send(self.all_seen()));
                } else {
                    self.revoked.push(Revocation { partitions, answer });
                }
            }
            SourceEvent::Lost(partitions) => {
                self.assigned.retain(|assigned| !partitions.contains(assigned));
                self.lost.extend(partitions);
            }
            SourceEvent::Committed { positions, error: None } => self.committed.extend(positions),
            SourceEvent::Committed { error: Some(error), .. } => self.commit_errors.push(error),
            SourceEvent::Connection { error } => self.connection.push(error),
            SourceEvent::Closed { error } => {
                assert_eq!(error, None);
                self.closed = true;
            }
            other => panic!("not an event of Kafka: {other:?}"),
        }
    }

    /// Everything that was assigned is known, and what of it has to wait is said.
    pub(super) fn take_up(&self) {
        let last = self.assigned.iter().map(|partition| partition.epoch).max();
        self.handle.want_taken_up(last.unwrap_or_default());
    }

    /// Takes events until `done`, and looks again at least every 20 ms for what is not an event.
    pub(super) async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            let in_time = tokio::time::Instant::now() < end;
            assert!(in_time, "{what}: not within {PATIENCE:?}; {}", self.so_far());
            self.look().await;
        }
    }

    fn so_far(&self) -> String {
        let Self { assigned, lost, committed, commit_errors, connection, .. } = self;
        let (seen, revoked) = (self.seen.len(), self.revoked.len());
        format!(
            "{seen} records, {revoked} revocations to be answered, assigned {assigned:?}, lost \
             {lost:?}, committed {committed:?} with {commit_errors:?}, connection {connection:?}"
        )
    }

    /// Takes the next event, if it comes soon.
    pub(super) async fn look(&mut self) {
        let soon = Duration::from_millis(20);
        if let Ok(event) = tokio::time::timeout(soon, self.events.recv()).await {
            let (_, event) = event.expect("the source is gone");
            self.apply(event);
        }
    }

    pub(super) async fn until_seen(&mut self, count: usize) {
        self.until(&format!("{count} records"), |bench| bench.seen.len() >= count).await;
        assert_eq!(self.seen.len(), count);
    }

    pub(super) fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.handle.wanted.send_modify(change);
    }

    /// For each partition that is ours, the position after the last record seen.
    pub(super) fn all_seen(&self) -> Vec<Position> {
        let mut all: BTreeMap<Arc<Partition>, i64> = BTreeMap::new();
        for seen in &self.seen {
            all.insert(Arc::clone(&seen.partition), seen.offset + 1);
        }
        all.into_iter().map(|(partition, offset)| Position::new(partition, offset)).collect()
    }

    pub(super) fn at(&self, topic: &str, offset: i64) -> Position {
        let partition = self.assigned.iter().find(|partition| partition.topic == topic).unwrap();
        Position::new(Arc::clone(partition), offset)
    }

    pub(super) fn payloads(&self) -> Vec<String> {
        let text = |seen: &Seen| String::from_utf8(seen.payload.clone().unwrap()).unwrap();
        self.seen.iter().map(text).collect()
    }

    pub(super) fn offsets(&self) -> Vec<i64> {
        self.seen.iter().map(|seen| seen.offset).collect()
    }

    pub(super) async fn close(&mut self) {
        self.want(|wanted| wanted.stage = Stage::Closing);
        self.until("the source closes", |bench| bench.closed).await;
        let running = self.running.take().unwrap();
        running.join(tokio::time::Instant::now() + PATIENCE).await.unwrap();
    }
}

pub(super) fn begin(
    config: &config::Kafka,
    topics: &[&str],
    port: SourcePort,
    credits: &Arc<Credits>,
    options: Options,
) -> anyhow::Result<Running> {
    let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    start(config, "test", &topics, port, Arc::clone(credits), options)
}

/// Produces records with these payloads, and waits until the broker has them.
pub(super) fn produce(brokers: &str, topic: &str, partition: i32, payloads: &[String]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for payload in payloads {
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

pub(super) fn produce_rich(brokers: &str, topic: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("abc") })
        .insert(Header::<&str> { key: "empty", value: None });
    let full = BaseRecord::to(topic).key("k").payload("v").timestamp(1_234).headers(headers);
    producer.send(full).map_err(|(error, _)| error).unwrap();
    let tombstone = BaseRecord::<_, ()>::to(topic).key("gone");
    producer.send(tombstone).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

pub(super) fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("n{n}")).collect()
}

fn plain(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .create()
        .unwrap()
}

/// Commits for a group that nobody is in.
pub(super) fn commit(brokers: &str, group: &str, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    plain(brokers, group).commit(&list, CommitMode::Sync).unwrap();
}

/// What the group has committed.
pub(super) fn group_offset(brokers: &str, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let committed = plain(brokers, group).committed_offsets(list, PATIENCE).unwrap();
    match committed.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Another member of the group, which joins, waits until it has partitions, and leaves when told.
pub(super) struct Other {
    leave: Option<std::sync::mpsc::SyncSender<()>>,
    pub(super) has_partitions: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Other {
    pub(super) fn join(brokers: &str, group: &str, topic: &'static str) -> Self {
        let consumer = plain(brokers, group);
        let (leave, told) = std::sync::mpsc::sync_channel(1);
        let has_partitions = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = Arc::clone(&has_partitions);
        let thread = std::thread::spawn(move || {
            consumer.subscribe(&[topic]).unwrap();
            while told.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                drop(consumer.poll(Duration::from_millis(20)));
                let count = consumer.assignment().unwrap().count();
                flag.store(count > 0, std::sync::atomic::Ordering::Release);
            }
        });
        Self { leave: Some(leave), has_partitions, thread: Some(thread) }
    }

    pub(super) fn leave(mut self) {
        drop(self.leave.take());
        self.thread.take().unwrap().join().unwrap();
    }
}
