//! Taking records: no more than there are credits for, copied into one chunk while they are
//! borrowed from the consumer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::record::{Chunk, NewRecord, Partition, UnixMs};
use crate::source::SourceEvent;

use super::assignment::Assignment;
use super::{Gone, Poller};

/// A record that came without a credit, as a chunk of one.
pub(super) struct Stash {
    pub(super) partition: Arc<Partition>,
    chunk: Chunk,
}

/// A chunk being filled, and where the last record went: consecutive records mostly come from the
/// same partition, and looking its topic up by name for each would cost more than copying it.
struct Filling {
    chunk: Chunk,
    bytes: usize,
    last: Option<Last>,
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
        Self { chunk: Chunk::with_capacity(now_ms(), records, bytes), bytes: 0, last: None }
    }

    /// Where the record belongs; None if its partition is not ours.
    fn locate(
        &mut self,
        assignment: &Assignment,
        message: &BorrowedMessage<'_>,
    ) -> Option<(usize, u32)> {
        let topic = message.topic_ptr().addr();
        let number = message.partition();
        if let Some(last) = self.last.as_ref().filter(|l| l.topic == topic && l.number == number) {
            return Some((last.assigned, last.index));
        }
        let assigned = assignment.find(message.topic(), number)?;
        let index = self.chunk.partition(assignment.get(assigned));
        self.last = Some(Last { topic, number, assigned, index });
        Some((assigned, index))
    }

    fn push(&mut self, index: u32, message: &BorrowedMessage<'_>) {
        self.bytes += message.payload_len() + message.key_len();
        copy(&mut self.chunk, index, message);
    }
}

/// Puts a record into a chunk; `index` is its partition's there.
pub(super) fn copy(chunk: &mut Chunk, index: u32, message: &BorrowedMessage<'_>) {
    let record = NewRecord {
        place: Some((index, message.offset())),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        payload: message.payload(),
        ..NewRecord::default()
    };
    let Some(headers) = message.headers() else {
        chunk.push(record, []);
        return;
    };
    let pairs = headers.iter().map(|header| (header.key, header.value.unwrap_or_default()));
    // rdkafka panics on a header name that is not UTF-8. One such record must not end the
    // source: it goes on without its headers. What the panic leaves half done in the chunk is
    // a few headers that no record refers to.
    if catch_unwind(AssertUnwindSafe(|| chunk.push(record, pairs))).is_err() {
        let (topic, offset) = (message.topic(), message.offset());
        tracing::warn!(topic, offset, "a header name is not UTF-8: headers left out");
        chunk.push(record, []);
    }
}

impl Poller {
    /// Takes one chunk. While nothing comes, one credit is held, so that an idle source does not
    /// keep the others from theirs.
    pub(super) fn take(&mut self) -> Result<(), Gone> {
        if self.credits.reserve(1) == 0 {
            // A limit on the rate is no sign that nothing is settled.
            if !self.credits.is_held_back() {
                self.port.observed.starved.store(true, Ordering::Release);
            }
            self.credits.wait(self.look());
            return Ok(());
        }
        if let Some(stash) = self.stash.take() {
            return self.send(SourceEvent::Records(stash.chunk));
        }
        let consumer = Arc::clone(&self.consumer);
        let first = match consumer.poll(self.look()) {
            Some(Ok(message)) => message,
            other => {
                self.credits.release(1);
                if let Some(Err(error)) = other {
                    self.apply_poll_error(&error);
                }
                return Ok(());
            }
        };
        let reserved = 1 + self.credits.reserve(self.limits.records - 1);
        let (records, bytes) = self.last_chunk;
        let mut filling = Filling::new(records.min(reserved), bytes);
        let mut unused = reserved;
        let mut next = Some(Ok(first));
        while let Some(Ok(message)) = &next {
            unused -= usize::from(self.put(&mut filling, message)?);
            let full = unused == 0 || filling.bytes >= self.limits.bytes;
            next = if full { None } else { consumer.poll(Duration::ZERO) };
        }
        self.credits.release(unused);
        if let Some(Err(error)) = &next {
            self.apply_poll_error(error);
        }
        self.hand_over(filling.chunk)
    }

    /// Copies a record into the chunk; says whether it did.
    fn put(&mut self, filling: &mut Filling, message: &BorrowedMessage<'_>) -> Result<bool, Gone> {
        let Some(mut place) = filling.locate(&self.assignment, message) else {
            // librdkafka filters what was fetched under an earlier assignment. Whoever owns the
            // partition gets the record.
            let (topic, partition) = (message.topic(), message.partition());
            tracing::warn!(topic, partition, "a record of a partition that is not ours: left");
            return Ok(false);
        };
        if self.assignment.is_rewound(place.0, message.offset()) {
            let before = std::mem::replace(filling, Filling::new(1, 0));
            self.hand_over(before.chunk)?;
            self.renew(message.topic(), message.partition())?;
            let renewed = filling.locate(&self.assignment, message);
            place = renewed.expect("the partition was added again just now");
        }
        filling.push(place.1, message);
        self.assignment.take(place.0, message.offset());
        Ok(true)
    }

    fn hand_over(&mut self, chunk: Chunk) -> Result<(), Gone> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.took_at = Instant::now();
        // The room for the next one follows what was filled, not what was reserved, or it would
        // only ever grow; an eighth more, as no two chunks are quite alike.
        let bytes = chunk.filled_bytes() + chunk.filled_bytes() / 8;
        self.last_chunk = (chunk.len(), bytes.min(self.limits.bytes));
        self.send(SourceEvent::Records(chunk))
    }

    /// The offsets of a partition went back: what was taken before is of another log.
    fn renew(&mut self, topic: &str, number: i32) -> Result<(), Gone> {
        tracing::warn!(topic, number, "the offsets went back: the partition begins anew");
        let before = self.assignment.remove([(topic, number)]);
        self.send(SourceEvent::Lost(before))?;
        let renewed = self.assignment.add(topic, number, None, None);
        self.send(SourceEvent::Assigned(vec![renewed.into()]))
    }

    /// Polls for rebalances, results and statistics while no record may be taken. One that comes
    /// all the same is kept; until there is a credit for it, nothing is polled.
    pub(super) fn poll_without_credit(&mut self, wait: Duration) {
        if self.stash.is_some() {
            self.credits.wait(wait);
            return;
        }
        let consumer = Arc::clone(&self.consumer);
        match consumer.poll(wait) {
            None => {}
            Some(Err(error)) => self.apply_poll_error(&error),
            Some(Ok(message)) => {
                let mut filling = Filling::new(1, message.payload_len() + message.key_len());
                let Some((assigned, index)) = filling.locate(&self.assignment, &message) else {
                    return;
                };
                filling.push(index, &message);
                self.assignment.take(assigned, message.offset());
                let partition = Arc::clone(self.assignment.get(assigned));
                self.stash = Some(Stash { partition, chunk: filling.chunk });
                // A paused consumer yields no records: somebody resumed it.
                self.assert_at = Instant::now();
            }
        }
    }
}

pub(super) fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
