//! Taking records: no more than there are credits for, copied into one chunk while they are
//! borrowed from librdkafka.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use crate::record::{Chunk, NewRecord, UnixMs};
use crate::source::SourceEvent;

use super::assignment::Assignment;
use super::queue::{Batch, Unread, View};
use super::rebalance::position_in;
use super::{Gone, Poller};

/// librdkafka answers by itself, without a broker.
const SEEK_WITHIN: Duration = Duration::from_secs(5);

/// A chunk being filled, and where the last record went: consecutive records mostly come from the
/// same partition, and looking its topic up by name for each would cost more than copying it.
struct Filling {
    chunk: Chunk,
    bytes: usize,
    last: Option<Last>,
    /// Partitions that librdkafka takes for further read than they are, and where they go on if
    /// nothing was taken of them.
    ahead: Vec<(String, i32, i64)>,
}

struct Last {
    topic: usize,
    number: i32,
    /// Its place in the assignment, and in the chunk.
    assigned: usize,
    index: u32,
}

impl Filling {
    fn new(records: usize, bytes: usize) -> Self {
        let chunk = Chunk::with_capacity(now_ms(), records, bytes);
        Self { chunk, bytes: 0, last: None, ahead: Vec::new() }
    }

    /// Where the record belongs; None if its partition is not ours.
    fn locate(&mut self, assignment: &Assignment, record: View<'_>) -> Option<(usize, u32)> {
        let (topic, number) = (record.topic_id(), record.partition());
        if let Some(last) = self.last.as_ref().filter(|l| l.topic == topic && l.number == number) {
            return Some((last.assigned, last.index));
        }
        let assigned = assignment.find(record.topic(), number)?;
        let index = self.chunk.partition(assignment.get(assigned));
        self.last = Some(Last { topic, number, assigned, index });
        Some((assigned, index))
    }

    fn push(&mut self, index: u32, record: View<'_>) {
        self.bytes += record.bytes();
        copy(&mut self.chunk, index, record);
    }
}

/// Puts a record into a chunk; `index` is its partition's there.
pub(super) fn copy(chunk: &mut Chunk, index: u32, record: View<'_>) {
    let headers = record.headers().unwrap_or_else(|_| {
        // One such record must not end the source: it goes on without its headers.
        let (topic, offset) = (record.topic(), record.offset());
        tracing::warn!(
            event = "kafka_header_left_out",
            topic,
            offset,
            "a header name is not UTF-8: headers left out"
        );
        Vec::new()
    });
    let record = NewRecord {
        place: Some((index, record.offset())),
        timestamp: record.timestamp(),
        key: record.key(),
        payload: record.payload(),
        ..NewRecord::default()
    };
    chunk.push(record, headers);
}

impl Poller {
    /// Takes as many records as one chunk may have. While nothing comes, one credit is held, so that
    /// an idle source does not keep the others from theirs.
    pub(super) fn take(&mut self) -> Result<(), Gone> {
        if self.credits.reserve(1) == 0 {
            // A limit on the rate is no sign that nothing is settled.
            if !self.credits.is_held_back() {
                self.port.observed.starved.store(true, Ordering::Release);
            }
            self.credits.wait(self.look());
            return Ok(());
        }
        let mut batch = self.queue.take(1, self.look());
        if batch.len() == 0 {
            self.credits.release(1);
            return Ok(());
        }
        let mut unused = 1 + self.credits.reserve(self.limits.records - 1);
        let (records, bytes) = self.last_chunk;
        let mut filling = Filling::new(records.min(unused), bytes);
        loop {
            unused -= self.put_all(&mut filling, batch)?;
            let most = unused.min(self.room(&filling));
            if most == 0 {
                break;
            }
            batch = self.queue.take(most, Duration::ZERO);
            if batch.len() == 0 {
                break;
            }
        }
        self.credits.release(unused);
        self.hand_over(filling.chunk)
    }

    /// How many records fit into the chunk, if they are like those of the last one. What is taken
    /// out of the queue is handed over, so it should not be many large ones.
    fn room(&self, filling: &Filling) -> usize {
        let (records, bytes) = self.last_chunk;
        let of_one = (bytes / records.max(1)).max(1);
        self.limits.bytes.saturating_sub(filling.bytes).div_ceil(of_one)
    }

    /// Copies all of them, and says how many they were. What is more than one chunk may have goes
    /// into others: there is no way back into the queue.
    fn put_all(&mut self, filling: &mut Filling, mut batch: Batch) -> Result<usize, Gone> {
        let mut count = 0;
        while let Some(next) = batch.next() {
            match next {
                Ok(record) => count += usize::from(self.put(filling, record)?),
                Err(unread) => {
                    let Unread { error, reason, place } = *unread;
                    let topic = place.as_ref().map(|(topic, number, _)| (topic.as_str(), *number));
                    self.apply_error(&error, Some(reason), topic);
                    filling.ahead.extend(place);
                }
            }
        }
        for (topic, number, unread) in filling.ahead.drain(..) {
            self.go_back(&topic, number, unread);
        }
        Ok(count)
    }

    /// librdkafka calls a partition read up to where it is not: that would be committed, and a pause
    /// would end there. It forgets when it is told where to go on. Where it refuses, it reads no more
    /// of the partition until it is assigned anew, so that only the position is left to distrust.
    fn go_back(&mut self, topic: &str, number: i32, unread: i64) {
        let Some(index) = self.assignment.find(topic, number) else { return };
        let next = self.assignment.next(index).unwrap_or(unread);
        if next < 0 {
            return; // nothing of it was asked for yet
        }
        if let Err(error) = self.consumer.seek(topic, number, Offset::Offset(next), SEEK_WITHIN) {
            tracing::warn!(
                event = "kafka_partition_given_up",
                topic,
                number,
                next,
                "Kafka's client does not go back to what it could not read: {error}"
            );
            let position = position_in(&self.positions(), topic, number);
            self.assignment.distrust(index, position);
        }
    }

    /// Copies a record into the chunk; says whether it did.
    fn put(&mut self, filling: &mut Filling, record: View<'_>) -> Result<bool, Gone> {
        if filling.bytes >= self.limits.bytes {
            self.begin_anew(filling)?;
        }
        let Some(mut place) = filling.locate(&self.assignment, record) else {
            // librdkafka filters what was fetched under an earlier assignment. Whoever owns the
            // partition gets the record.
            let (topic, partition) = (record.topic(), record.partition());
            tracing::warn!(
                event = "kafka_stray_record",
                topic,
                partition,
                "a record of a partition that is not ours: left"
            );
            return Ok(false);
        };
        if self.assignment.is_rewound(place.0, record.offset()) {
            self.begin_anew(filling)?;
            self.renew(record.topic(), record.partition())?;
            filling.ahead.push((record.topic().to_owned(), record.partition(), record.offset()));
            let renewed = filling.locate(&self.assignment, record);
            place = renewed.expect("the partition was added again just now");
        }
        filling.push(place.1, record);
        self.assignment.take(place.0, record.offset());
        Ok(true)
    }

    fn begin_anew(&mut self, filling: &mut Filling) -> Result<(), Gone> {
        let mut before = std::mem::replace(filling, Filling::new(1, 0));
        filling.ahead.append(&mut before.ahead);
        self.hand_over(before.chunk)
    }

    fn hand_over(&mut self, chunk: Chunk) -> Result<(), Gone> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.took_at = Instant::now();
        self.troubles.are_read(chunk.partitions());
        // The room for the next one follows what was filled, not what was reserved, or it would
        // only ever grow; an eighth more, as no two chunks are quite alike.
        let bytes = chunk.filled_bytes() + chunk.filled_bytes() / 8;
        self.last_chunk = (chunk.len(), bytes.min(self.limits.bytes));
        self.send(SourceEvent::Records(chunk))
    }

    /// The offsets of a partition went back: what was taken before is of another log.
    fn renew(&mut self, topic: &str, number: i32) -> Result<(), Gone> {
        tracing::warn!(
            event = "offsets_went_back",
            topic,
            number,
            "the offsets went back: the partition begins anew"
        );
        let before = self.assignment.remove([(topic, number)]);
        self.send(SourceEvent::Lost(before))?;
        let renewed = self.assignment.add(topic, number, None, None);
        self.send(SourceEvent::Assigned(vec![renewed.into()]))
    }

    /// Serves what is no record: rebalances, errors, statistics.
    pub(super) fn listen(&mut self, wait: Duration) {
        match self.consumer.poll(wait) {
            None => {}
            Some(Err(error)) => {
                let reason = self.consumer.context().take_reason();
                self.apply_error(&error, reason, None);
            }
            // It was taken out of order, and can't be put back: the consumer begins anew behind
            // what is committed.
            Some(Ok(_)) => {
                self.fatal = Some("a record came beside the queue of records".to_owned())
            }
        }
    }
}

pub(super) fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
