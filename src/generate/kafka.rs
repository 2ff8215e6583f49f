//! Sends to Kafka. Here alone the generator uses rdkafka.
//!
//! Idempotent, so that a retry by the client does not look like a duplicate by the bridge; a
//! record counts as sent when the broker has acknowledged it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::address::{Address, on_kafka};
use super::run::{Item, Tally};
use crate::config::Kafka;
use crate::source::kafka::settings;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// While the client's queue is full; it holds 100,000 records, so it is not empty after this.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

pub(super) struct KafkaSender {
    producer: ThreadedProducer<Deliveries>,
    topics: Topics,
    /// By topic.
    partitions: HashMap<String, u64>,
}

/// Where records go.
#[derive(Debug)]
pub(super) enum Topics {
    /// Each to the topic of its address.
    Profile(Vec<String>),
    /// To these in turn, whatever the address says.
    Given(Vec<String>),
}

impl Topics {
    pub(super) fn new(profile: &[&str], given: &[String]) -> Self {
        if given.is_empty() {
            Self::Profile(profile.iter().map(|&topic| topic.to_owned()).collect())
        } else {
            Self::Given(given.to_vec())
        }
    }

    fn names(&self) -> &[String] {
        let (Self::Profile(names) | Self::Given(names)) = self;
        names
    }

    /// A topic gets as many records in a row as it has partitions, so that all of them get some.
    fn of<'a>(&'a self, address: &Address, seq: u64, partitions: &HashMap<String, u64>) -> &'a str {
        match self {
            Self::Profile(_) => address.topic,
            Self::Given(topics) => {
                let row = topics.first().and_then(|topic| partitions.get(topic));
                let turn = seq / row.copied().unwrap_or(1);
                let count = u64::try_from(topics.len()).unwrap_or(1).max(1);
                usize::try_from(turn % count).ok().and_then(|at| topics.get(at)).map_or("", |t| t)
            }
        }
    }
}

/// Counts what the broker acknowledged and what it did not.
struct Deliveries {
    tally: Arc<Tally>,
    first_error: OnceLock<KafkaError>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// The stream's index, and whether the record is bad.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (stream, bad) = (opaque >> 1, opaque & 1 == 1);
        match result {
            Ok(_) => self.tally.sent(stream, bad),
            Err((error, _)) => {
                self.tally.failed(stream);
                self.first_error.get_or_init(|| error.clone());
            }
        }
    }
}

impl KafkaSender {
    /// Connects, and creates the topics that are missing.
    pub(super) async fn connect(
        config: &Kafka,
        topics: Topics,
        partitions: i32,
        tally: Arc<Tally>,
    ) -> Result<Self> {
        let brokers = config.brokers.join(",");
        let client = settings::connection(config, "data-bridge-generate");
        create_topics(&client, topics.names(), partitions)
            .await
            .with_context(|| format!("creating topics on Kafka at {brokers}"))?;
        let deliveries = Deliveries { tally, first_error: OnceLock::new() };
        let producer: ThreadedProducer<Deliveries> = producer_config(client)
            .create_with_context(deliveries)
            .context("making a Kafka producer")?;
        let (asking, names) = (producer.clone(), topics.names().to_vec());
        let partitions = tokio::task::spawn_blocking(move || count_partitions(&asking, &names))
            .await
            .context("asking Kafka for its topics")??;
        Ok(Self { producer, topics, partitions })
    }

    pub(super) async fn send(&mut self, item: Item<'_>) -> Result<()> {
        let address = on_kafka(item.stream.kind, item.seq).context("Kafka does not carry this")?;
        let topic = self.topics.of(&address, item.seq, &self.partitions);
        let partitions = self.partitions.get(topic).copied().unwrap_or(1);
        let partition = i32::try_from(address.lane % partitions).context("a partition number")?;
        let opaque = item.stream.index << 1 | usize::from(item.bad);
        let mut record = BaseRecord::with_opaque_to(topic, opaque)
            .key(address.key)
            .payload(item.payload)
            .partition(partition);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    tokio::time::sleep(QUEUE_FULL_WAIT).await;
                }
                Err((error, _)) => return Err(error).context("handing a record to Kafka's client"),
            }
        }
    }

    /// Waits until everything is acknowledged, or has failed for good.
    pub(super) async fn finish(self) -> Result<()> {
        let flushing = tokio::task::spawn_blocking(move || {
            let flushed = self.producer.flush(FLUSH_TIMEOUT);
            (flushed, self.producer.context().first_error.get().cloned())
        });
        let (flushed, first_error) = flushing.await.context("flushing Kafka's producer")?;
        flushed.context("Kafka has not acknowledged everything in two minutes")?;
        match first_error {
            Some(error) => Err(error).context("Kafka did not take every record; the first error"),
            None => Ok(()),
        }
    }
}

fn producer_config(mut client: ClientConfig) -> ClientConfig {
    client.set("enable.idempotence", "true");
    client.set("compression.type", "lz4");
    // Large requests rather than early ones: a load generator wants throughput.
    client.set("linger.ms", "20");
    client.set("batch.size", "262144");
    client.set("queue.buffering.max.messages", "100000");
    client.set("queue.buffering.max.kbytes", "65536");
    client.set("message.timeout.ms", "120000");
    client
}

/// Creates what is missing; a topic that is there keeps the partitions it has.
async fn create_topics(client: &ClientConfig, topics: &[String], partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client.create().context("making a client")?;
    // -1: what the cluster takes for right.
    let wanted: Vec<_> = topics
        .iter()
        .map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)))
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT));
    for result in admin.create_topics(&wanted, &options).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("topic {topic}: {code}"),
        }
    }
    Ok(())
}

fn count_partitions(
    producer: &ThreadedProducer<Deliveries>,
    topics: &[String],
) -> Result<HashMap<String, u64>> {
    let mut counts = HashMap::new();
    for topic in topics {
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .with_context(|| format!("asking Kafka for the partitions of {topic}"))?;
        let count = metadata.topics().first().map_or(0, |found| found.partitions().len());
        // A topic made a moment ago may not be known to every broker yet; partition 0 will be.
        counts.insert(topic.clone(), u64::try_from(count).unwrap_or(1).max(1));
    }
    Ok(counts)
}
