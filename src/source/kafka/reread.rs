//! Reads stretches of a topic again, whatever was committed: a plain assignment to offsets, never a
//! member of the group, nothing stored, nothing committed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::queue::View;
use super::{settings, take};
use crate::config;
use crate::record::{Chunk, Partition};
use crate::source::ProbeError;

/// Without anything new for so long the brokers count as gone. librdkafka tries again meanwhile.
const SILENCE: Duration = Duration::from_secs(20);
/// How long one poll waits.
const LOOK: Duration = Duration::from_millis(500);
/// So many records go in one chunk, or so many bytes.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// What to read of one topic: for each partition the stretches, in order.
#[derive(Debug, Clone, Default)]
pub struct Stretches {
    pub topic: String,
    pub of: BTreeMap<i32, VecDeque<Range<i64>>>,
}

/// Hands over every record that is there within the stretches, and maybe a few beside them. When it
/// returns, every stretch was read to its end.
///
/// # Errors
/// When the brokers fall silent or refuse us. Nothing, when nobody receives any more.
pub async fn reread(
    config: &config::Kafka,
    instance: &str,
    stretches: Stretches,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), ProbeError> {
    let refused = |error: anyhow::Error| ProbeError::Refused(format!("{error:#}"));
    let mut client = settings::client_config(config, instance).map_err(refused)?;
    // The end of a partition is said, or a stretch that ends in control records would never end.
    client.set("enable.partition.eof", "true").set("statistics.interval.ms", "0");
    // What retention took meanwhile is not there: go on with what is.
    client.set("auto.offset.reset", "earliest");
    let reading =
        tokio::task::spawn_blocking(move || Rereading::new(&client, chunks)?.all(stretches));
    reading.await.unwrap_or_else(|error| Err(ProbeError::Refused(format!("Kafka: {error}"))))
}

struct Rereading {
    consumer: BaseConsumer,
    chunks: mpsc::Sender<Chunk>,
    chunk: Chunk,
}

/// The stretches that are read at a time: one of each partition that has any left.
struct Wave {
    topic: String,
    open: BTreeMap<i32, (Arc<Partition>, Range<i64>)>,
}

impl Rereading {
    fn new(client: &ClientConfig, chunks: mpsc::Sender<Chunk>) -> Result<Self, ProbeError> {
        let consumer = client.create().map_err(settings::refused);
        let consumer = consumer.map_err(|error| ProbeError::Refused(format!("{error:#}")))?;
        Ok(Self { consumer, chunks, chunk: new_chunk() })
    }

    fn all(mut self, mut stretches: Stretches) -> Result<(), ProbeError> {
        while let Some(wave) = next_wave(&mut stretches) {
            if self.chunks.is_closed() {
                break;
            }
            self.read(wave)?;
        }
        self.hand_over();
        Ok(())
    }

    fn read(&mut self, mut wave: Wave) -> Result<(), ProbeError> {
        let mut list = TopicPartitionList::new();
        for (number, (_, range)) in &wave.open {
            list.add_partition_offset(&wave.topic, *number, Offset::Offset(range.start))
                .map_err(|error| unreachable(&error))?;
        }
        self.consumer.assign(&list).map_err(|error| unreachable(&error))?;
        // A partition that was left stays paused, also when it is assigned again.
        self.consumer.resume(&list).map_err(|error| unreachable(&error))?;
        let mut heard = Instant::now();
        while !wave.open.is_empty() {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    if let Some(done) = keep(&mut self.chunk, &mut wave, &message) {
                        self.leave(&wave.topic, done);
                    }
                    heard = Instant::now();
                }
                // Of this topic: no other is assigned.
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    wave.open.remove(&number);
                    heard = Instant::now();
                }
                Some(Err(error)) if heard.elapsed() > SILENCE => return Err(unreachable(&error)),
                None if heard.elapsed() > SILENCE => {
                    let said = format!("Kafka says nothing of {} for {SILENCE:?}", wave.topic);
                    return Err(ProbeError::Unreachable(said));
                }
                Some(Err(error)) => tracing::debug!("librdkafka: {error}"),
                None => {}
            }
            if self.chunk.len() >= CHUNK_RECORDS || self.chunk.filled_bytes() >= CHUNK_BYTES {
                self.hand_over();
            }
            if self.chunks.is_closed() {
                break;
            }
        }
        Ok(())
    }

    /// Nothing more of a partition whose stretch was read; the others go on.
    fn leave(&self, topic: &str, number: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, number);
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!(topic, number, "reads on in vain: {error}");
        }
    }

    fn hand_over(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, new_chunk());
        // Nobody receives any more: the reading ends at the next look.
        drop(self.chunks.blocking_send(chunk));
    }
}

fn next_wave(stretches: &mut Stretches) -> Option<Wave> {
    let topic = &stretches.topic;
    let open = stretches.of.iter_mut().filter_map(|(number, ranges)| {
        let partition = Partition { topic: topic.clone(), number: *number, epoch: 0 };
        Some((*number, (Arc::new(partition), ranges.pop_front()?)))
    });
    let open: BTreeMap<_, _> = open.collect();
    (!open.is_empty()).then(|| Wave { topic: topic.clone(), open })
}

/// Keeps the record if it lies within; says which stretch it is the end of.
fn keep(chunk: &mut Chunk, wave: &mut Wave, message: &BorrowedMessage<'_>) -> Option<i32> {
    let number = message.partition();
    let (partition, range) = wave.open.get(&number)?;
    if range.contains(&message.offset()) {
        let index = chunk.partition(partition);
        take::copy(chunk, index, View::of(message));
    }
    let done = message.offset() + 1 >= range.end;
    done.then(|| wave.open.remove(&number)).flatten().map(|_| number)
}

fn new_chunk() -> Chunk {
    Chunk::with_capacity(take::now_ms(), CHUNK_RECORDS, 0)
}

fn unreachable(error: &KafkaError) -> ProbeError {
    ProbeError::Unreachable(error.to_string())
}
