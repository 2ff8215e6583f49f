//! What moves through the bridge, and its place in the source.
//!
//! Owns nothing that runs. A [`Chunk`] is what one poll of a source took: the payloads, keys and
//! headers lie in one arena, so that taking a thousand records costs a handful of allocations and
//! sharing them costs one reference count. A [`Record`] is a view into it.

use std::sync::Arc;

use crate::receipt::{Outcome, Receipt};

/// Milliseconds since the Unix epoch, UTC.
pub type UnixMs = i64;

/// The header by which a producer gives its record an id of its own, a UUID as text.
pub const ID_HEADER: &str = "message-id";

/// One assignment of one partition to this instance.
///
/// The epoch is different for each assignment of the same partition: what belongs to an earlier
/// assignment can be recognised, and is never committed under a later one.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Kafka's topic; `STREAM/CONSUMER` for JetStream, where each route has a consumer of its own.
    pub topic: String,
    /// Kafka's partition number; 0 for a consumer, which has all of its stream.
    pub number: i32,
    /// Which assignment this is, counted from 1 within the process.
    pub epoch: u64,
}

impl Partition {
    /// It is a stream of JetStream, as one consumer has it: no topic has a `/` in it.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.topic.contains('/')
    }
}

/// A place in a partition: what can be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub partition: Arc<Partition>,
    /// The offset of a record; as something to commit, the offset of the next one to read.
    pub offset: i64,
    /// What is committed beside the offset (`intent.rs`). None where nothing is said.
    pub note: Option<Arc<str>>,
}

impl Position {
    /// A position with nothing said beside it.
    #[must_use]
    pub fn new(partition: Arc<Partition>, offset: i64) -> Self {
        Self { partition, offset, note: None }
    }
}

/// A record to be put into a [`Chunk`]; everything is borrowed and copied once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// The subject, for records that have no partition to take a topic from.
    pub subject: &'a str,
    /// The partition's index from [`Chunk::partition`], and the offset. None for core NATS: there
    /// is nothing to commit, ever.
    pub place: Option<(u32, i64)>,
    /// What the source calls the record, where that is not its offset: JetStream delivers some
    /// records again, out of order, so their place is a count of arrivals, and this the number in
    /// the stream. All records of a chunk have one, or none has.
    pub sequence: Option<i64>,
    /// When the producer or the broker says the record was made.
    pub timestamp: Option<UnixMs>,
    pub key: Option<&'a [u8]>,
    /// None is a tombstone.
    pub payload: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Meta {
    subject: Span,
    place: Option<(u32, i64)>,
    timestamp: Option<UnixMs>,
    key: Option<Span>,
    payload: Option<Span>,
    headers_start: u32,
    headers_len: u32,
}

/// The records that one poll of a source took, in the order in which they came.
#[derive(Debug)]
pub struct Chunk {
    received_at: UnixMs,
    arena: Vec<u8>,
    partitions: Vec<Arc<Partition>>,
    records: Vec<Meta>,
    /// [`NewRecord::sequence`] of each record; empty where a record's offset says it all. Beside
    /// the records, so that those of Kafka do not carry its weight.
    sequences: Vec<i64>,
    headers: Vec<(Span, Span)>,
    receipt: Option<Arc<dyn Receipt>>,
}

impl Chunk {
    /// An empty chunk; `records` and `bytes` are the sizes to make room for.
    #[must_use]
    pub fn with_capacity(received_at: UnixMs, records: usize, bytes: usize) -> Self {
        Self {
            received_at,
            arena: Vec::with_capacity(bytes),
            partitions: Vec::new(),
            records: Vec::with_capacity(records),
            sequences: Vec::new(),
            headers: Vec::new(),
            receipt: None,
        }
    }

    /// Whoever handed the records over hears what becomes of them.
    #[must_use]
    pub fn with_receipt(self, receipt: Arc<dyn Receipt>) -> Self {
        Self { receipt: Some(receipt), ..self }
    }

    /// Of a copy whose end nobody waits for.
    #[must_use]
    pub fn without_receipt(self) -> Self {
        Self { receipt: None, ..self }
    }

    /// Somebody wants to hear what becomes of its records.
    #[must_use]
    pub fn has_receipt(&self) -> bool {
        self.receipt.is_some()
    }

    /// This has become of so many of its records.
    pub fn tell(&self, outcome: Outcome, records: usize) {
        if let Some(receipt) = self.receipt.as_ref().filter(|_| records > 0) {
            receipt.note(outcome, records);
        }
    }

    /// The index of this partition within the chunk, for [`NewRecord::place`].
    pub fn partition(&mut self, partition: &Arc<Partition>) -> u32 {
        let known = self.partitions.iter().rposition(|p| Arc::ptr_eq(p, partition));
        let index = known.unwrap_or_else(|| {
            self.partitions.push(Arc::clone(partition));
            self.partitions.len() - 1
        });
        u32::try_from(index).expect("a chunk has fewer partitions than records")
    }

    /// The partitions that its records are of.
    #[must_use]
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// Appends a record, copying what it borrows.
    pub fn push<'a>(
        &mut self,
        record: NewRecord<'_>,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) {
        let headers_start = self.headers.len();
        for (name, value) in headers {
            let pair = (self.store(name.as_bytes()), self.store(value));
            self.headers.push(pair);
        }
        let meta = Meta {
            subject: self.store(record.subject.as_bytes()),
            place: record.place,
            timestamp: record.timestamp,
            key: record.key.map(|key| self.store(key)),
            payload: record.payload.map(|payload| self.store(payload)),
            headers_start: index_u32(headers_start),
            headers_len: index_u32(self.headers.len() - headers_start),
        };
        self.sequences.extend(record.sequence);
        self.records.push(meta);
        debug_assert!(
            self.sequences.is_empty() || self.sequences.len() == self.records.len(),
            "all records of a chunk have a sequence, or none has"
        );
    }

    fn store(&mut self, bytes: &[u8]) -> Span {
        let start = index_u32(self.arena.len());
        self.arena.extend_from_slice(bytes);
        Span { start, len: index_u32(bytes.len()) }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What its keys, payloads and headers take, in bytes: the room that a chunk like it needs.
    #[must_use]
    pub fn filled_bytes(&self) -> usize {
        self.arena.len()
    }

    /// The memory that the chunk keeps alive, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.capacity()
            + self.records.capacity() * size_of::<Meta>()
            + self.sequences.capacity() * size_of::<i64>()
            + self.headers.capacity() * size_of::<(Span, Span)>()
    }

    /// The record at `index`; panics past the end, like a slice.
    #[must_use]
    pub fn record(&self, index: usize) -> Record<'_> {
        Record { chunk: self, meta: &self.records[index], index }
    }

    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.records.iter().enumerate().map(|(index, meta)| Record { chunk: self, meta, index })
    }

    /// A chunk of its own with copies of the records at `indices`, so that few rows that stay
    /// long do not keep the memory of many.
    #[must_use]
    pub fn extract(&self, indices: &[usize]) -> Self {
        let bytes = indices.iter().map(|&index| self.record(index).bytes()).sum();
        let mut extracted = Self::with_capacity(self.received_at, indices.len(), bytes);
        extracted.receipt.clone_from(&self.receipt);
        for &index in indices {
            let record = self.record(index);
            let place = record.place().map(|(p, offset)| (extracted.partition(p), offset));
            let copy = NewRecord {
                subject: record.subject().unwrap_or_default(),
                place,
                sequence: self.sequences.get(index).copied(),
                timestamp: record.timestamp(),
                key: record.key(),
                payload: record.payload(),
            };
            extracted.push(copy, record.headers());
        }
        extracted
    }

    fn slice(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        &self.arena[start..start + span.len as usize]
    }
}

fn index_u32(n: usize) -> u32 {
    u32::try_from(n).expect("a chunk is a few MiB: sources bound what one poll takes")
}

/// One record of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    chunk: &'a Chunk,
    meta: &'a Meta,
    index: usize,
}

impl<'a> Record<'a> {
    /// Where the record came from, and its offset there: what is settled and committed. None for
    /// core NATS.
    #[must_use]
    pub fn place(&self) -> Option<(&'a Arc<Partition>, i64)> {
        let (index, offset) = self.meta.place?;
        Some((&self.chunk.partitions[index as usize], offset))
    }

    /// What the source calls the record, in `@offset`, in dead letters, in audits: its offset, or
    /// its number in a stream.
    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        let sequence = self.chunk.sequences.get(self.index).copied();
        sequence.or_else(|| self.meta.place.map(|(_, offset)| offset))
    }

    /// The topic; None for a record that came on a subject.
    #[must_use]
    pub fn topic(&self) -> Option<&'a str> {
        if self.meta.subject.len > 0 {
            return None;
        }
        self.place().map(|(partition, _)| partition.topic.as_str())
    }

    /// The subject; None for a record that came on a topic.
    #[must_use]
    pub fn subject(&self) -> Option<&'a str> {
        let subject = self.chunk.slice(self.meta.subject);
        if subject.is_empty() { None } else { str::from_utf8(subject).ok() }
    }

    /// Topic or subject, whichever it came on.
    #[must_use]
    pub fn topic_or_subject(&self) -> &'a str {
        self.topic().or_else(|| self.subject()).unwrap_or_default()
    }

    /// None is a tombstone.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.meta.payload.map(|span| self.chunk.slice(span))
    }

    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.meta.key.map(|span| self.chunk.slice(span))
    }

    /// When the producer or the broker says the record was made.
    #[must_use]
    pub fn timestamp(&self) -> Option<UnixMs> {
        self.meta.timestamp
    }

    /// When this process took it.
    #[must_use]
    pub fn received_at(&self) -> UnixMs {
        self.chunk.received_at
    }

    /// What the record weighs in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let span = |span: Option<Span>| span.map_or(0, |span| span.len as usize);
        let headers: usize =
            self.headers().map(|(name, value)| name.len() + value.len() + 16).sum();
        size_of::<Meta>()
            + self.meta.subject.len as usize
            + span(self.meta.key)
            + span(self.meta.payload)
            + headers
    }

    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> {
        let chunk = self.chunk;
        let start = self.meta.headers_start as usize;
        chunk.headers[start..start + self.meta.headers_len as usize].iter().map(|&(name, value)| {
            let name = str::from_utf8(chunk.slice(name)).expect("pushed as a str");
            (name, chunk.slice(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_stream_keeps_its_number_apart_from_its_place_also_when_it_is_copied() {
        let consumer =
            Arc::new(Partition { topic: "TICKS/bridge".to_owned(), number: 0, epoch: 1 });
        let mut chunk = Chunk::with_capacity(0, 2, 0);
        let index = chunk.partition(&consumer);
        for (arrival, sequence) in [(7, 900), (8, 12)] {
            let place = Some((index, arrival));
            let record = NewRecord {
                subject: "ticks",
                place,
                sequence: Some(sequence),
                ..NewRecord::default()
            };
            chunk.push(record, []);
        }
        let copy = chunk.extract(&[1]);
        for record in [chunk.record(1), copy.record(0)] {
            assert_eq!(record.place().map(|(_, arrival)| arrival), Some(8));
            assert_eq!(record.offset(), Some(12));
        }
    }
}
