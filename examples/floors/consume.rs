//! librdkafka with the bridge's settings, fetching a topic and throwing it away: by the cheapest
//! of its interfaces, whichever the bridge uses.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use data_bridge::config::Kafka;
use data_bridge::source::kafka::settings;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::cpu::{Meter, Spent, Whose};

const METADATA_WITHIN: Duration = Duration::from_secs(15);
/// Without a record for so long, none will come.
const RECORD_WITHIN: Duration = Duration::from_secs(30);
const BATCH: usize = 10_000;
const WAIT_MS: i32 = 100;

pub(crate) fn run(brokers: &str, topic: &str, records: u64) -> Result<Spent> {
    let config = Kafka {
        brokers: vec![brokers.to_owned()],
        group_id: "floors".to_owned(),
        auto_offset_reset: "earliest".to_owned(),
        commit_interval: Duration::from_secs(1),
        prefetch_bytes: 32 << 20,
        rate_limit: None,
        client: Default::default(),
    };
    let consumer: BaseConsumer = settings::client_config(&config, "floors")?.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_WITHIN)?;
    let found = metadata.topics().first().context("no such topic")?;
    let mut all = TopicPartitionList::new();
    for partition in found.partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    ensure!(all.count() > 0, "topic {topic} has no partitions");
    let mut spent = Spent::default();
    let meter = Meter::start(Whose::WholeProcess)?;
    // No group, so there is no rebalance that the batch interface could swallow.
    consumer.assign(&all)?;
    let queue = Queue::of(&consumer);
    let (mut taken, mut last) = (0, Instant::now());
    while taken < records {
        let (count, bytes) = queue.take()?;
        if count > 0 {
            last = Instant::now();
        } else if last.elapsed() > RECORD_WITHIN {
            bail!("{taken} of {records} records came, and then none for {RECORD_WITHIN:?}");
        }
        taken += count;
        spent.bytes += bytes;
    }
    meter.stop(&mut spent)?;
    Ok(spent)
}

/// The consumer's queue; lives no longer than the consumer.
struct Queue<'a> {
    queue: *mut rd::rd_kafka_queue_t,
    consumer: std::marker::PhantomData<&'a BaseConsumer>,
}

#[expect(unsafe_code, reason = "rdkafka has no batches, and a floor takes the cheapest way")]
impl<'a> Queue<'a> {
    fn of(consumer: &'a BaseConsumer) -> Self {
        // SAFETY: the client lives as long as the consumer; the queue is ours to give back.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self { queue, consumer: std::marker::PhantomData }
    }

    /// How many records came, and their bytes.
    fn take(&self) -> Result<(u64, usize)> {
        let mut messages = [std::ptr::null_mut::<rd::rd_kafka_message_t>(); BATCH];
        // SAFETY: the queue is alive, and there is room for as many messages as we ask for.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue, WAIT_MS, messages.as_mut_ptr(), BATCH)
        };
        let count = usize::try_from(count).context("consuming a batch")?;
        let (mut records, mut bytes) = (0, 0);
        for &message in &messages[..count] {
            // SAFETY: librdkafka has filled so many with messages that are ours; each is read, then
            // destroyed, once.
            let error = unsafe {
                let error = (*message).err;
                if error == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    records += 1;
                    bytes += (*message).len;
                }
                rd::rd_kafka_message_destroy(message);
                error
            };
            // Informational ones, such as a broker that is connected to again, are not the end.
            if error == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
                bail!("the topic is gone");
            }
        }
        Ok((records, bytes))
    }
}

#[expect(unsafe_code, reason = "what was taken from C is given back to C")]
impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `of`, destroyed once, before the consumer.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) };
    }
}
