//! Reads the letters of a topic by assignment: joins no group, commits nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{ANSWER_WITHIN, Topic};
use crate::dead_letter::log::{LINES_AHEAD, Lines, Spot};

/// How long a record may take to come; brokers that are away are given up after it.
const RECORD_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);

impl Topic {
    /// The lines of all partitions up to what is their end now. Records of one id are in one
    /// partition, so that their order is kept.
    pub fn scan(&self) -> Lines {
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        let (mut client, name) = (self.client.clone(), self.name.clone());
        // The client wants a group's name to assign by; nothing joins it, nothing is committed.
        client.set("group.id", "data-bridge-dead-letters-reader");
        for (key, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "earliest"),
            ("queued.max.messages.kbytes", "16384"),
        ] {
            client.set(key, value);
        }
        let mut reader = JoinSet::new();
        reader.spawn_blocking(move || {
            let read = client
                .create()
                .map_err(anyhow::Error::new)
                .and_then(|consumer: BaseConsumer| read(&consumer, &name, &sender));
            if let Err(error) = read {
                // Nobody listens any more: nobody needs to know.
                drop(sender.blocking_send(Err(error.context(format!("reading topic {name}")))));
            }
        });
        Lines { lines, reader }
    }
}

fn read(
    consumer: &BaseConsumer,
    topic: &str,
    lines: &mpsc::Sender<anyhow::Result<(Spot, Bytes)>>,
) -> anyhow::Result<()> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.filter(|found| found.error().is_none()).context("the topic is not there")?;
    let mut ends = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in found.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN)?;
        if low < high {
            ends.insert(partition.id(), high);
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let mut last = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(LOOK) {
            Some(Ok(record)) => {
                last = Instant::now();
                let (partition, offset) = (record.partition(), record.offset());
                if ends.get(&partition).is_none_or(|end| offset >= *end) {
                    continue;
                }
                if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                    ends.remove(&partition);
                }
                let line = Bytes::copy_from_slice(record.payload().unwrap_or_default());
                let spot = (partition, u64::try_from(offset).context("an offset")?);
                if lines.blocking_send(Ok((spot, line))).is_err() {
                    return Ok(());
                }
            }
            // The end may be a control record, or one that was compacted away.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            Some(Err(error)) => tracing::debug!("reading dead letters: {error}"),
            None => {}
        }
        if last.elapsed() > RECORD_WITHIN {
            bail!("no record came within {RECORD_WITHIN:?}");
        }
    }
    Ok(())
}
