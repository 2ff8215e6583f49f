//! Rows of one table for one insert.
//!
//! Pure. A batch refers to the records in their chunks and keeps them until the rows are durable:
//! that is what a dead letter, a bisection or a rebuild after a schema change is made from.

use std::sync::Arc;

use crate::ledger::{Slot, Ticket};
use crate::receipt::Outcome;
use crate::record::{Chunk, Record, UnixMs};

/// Rows side by side: their records follow each other in one chunk, their claims in the ledger.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Rows of the batch before it.
    before: usize,
    rows: u32,
    chunk: u32,
    /// Of its first row.
    index: u32,
    ticket: Ticket,
}

impl Run {
    /// Of each row the chunk, the place in it, and the claim.
    fn each(self) -> impl Iterator<Item = (usize, usize, Ticket)> {
        let (chunk, index) = (self.chunk as usize, self.index);
        (0..self.rows).map(move |n| (chunk, (index + n) as usize, self.ticket.nth(n)))
    }
}

/// One row to be.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub record: Record<'a>,
    pub ticket: Ticket,
    /// Why it is a row of the dead-letter table.
    pub letter: Option<&'a Letter>,
}

/// Why a record can't become a row of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A stable code.
    pub reason: &'static str,
    /// For the dead letter: may quote the record.
    pub error: String,
    /// For the log: quotes nothing of it.
    pub outline: String,
}

/// What a row of the dead-letter table says besides its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub refused: Refused,
    /// When it was refused.
    pub time: UnixMs,
    /// The source's name.
    pub source: &'static str,
}

/// A row taken out of a batch, able to live by itself.
#[derive(Debug)]
pub struct LooseRow {
    pub chunk: Arc<Chunk>,
    pub index: usize,
    pub ticket: Ticket,
}

/// Rows in the order of admission.
#[derive(Debug, Default)]
pub struct Batch {
    chunks: Vec<Arc<Chunk>>,
    runs: Vec<Run>,
    /// Of each row; none at all in a batch of another table.
    letters: Vec<Letter>,
    rows: usize,
    bytes: usize,
    oldest: Option<UnixMs>,
    newest: Option<UnixMs>,
}

impl Batch {
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What the rows' records weigh, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest and the newest time of a record in it.
    #[must_use]
    pub fn times(&self) -> Option<(UnixMs, UnixMs)> {
        self.oldest.zip(self.newest)
    }

    /// The offsets of its first and its last row; of one partition's rows they ascend.
    #[must_use]
    pub fn offsets(&self) -> Option<(i64, i64)> {
        let last = self.runs.last()?;
        Some((self.runs.first()?.ticket.offset(), last.ticket.nth(last.rows - 1).offset()))
    }

    /// The slot of its rows, where all have the same.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        self.runs.first().map(|run| run.ticket.slot())
    }

    /// Appends a row.
    pub fn push(&mut self, chunk: &Arc<Chunk>, index: usize, ticket: Ticket) {
        let record = chunk.record(index);
        self.rows += 1;
        self.bytes += record.bytes();
        let time = record.timestamp().unwrap_or_else(|| record.received_at());
        self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
        self.newest = Some(self.newest.map_or(time, |newest| newest.max(time)));
        let index = u32::try_from(index).expect("a chunk holds few thousand records");
        let known = self.chunks.last().is_some_and(|last| Arc::ptr_eq(last, chunk));
        if known
            && let Some(run) = self.runs.last_mut()
            && (run.index + run.rows, run.ticket.nth(run.rows)) == (index, ticket)
        {
            run.rows += 1;
            return;
        }
        if !known {
            self.chunks.push(Arc::clone(chunk));
        }
        let chunk = u32::try_from(self.chunks.len() - 1).expect("fewer chunks than rows");
        self.runs.push(Run { before: self.rows - 1, rows: 1, chunk, index, ticket });
    }

    /// Appends a row of the dead-letter table.
    pub fn push_letter(&mut self, row: &LooseRow, letter: Letter) {
        self.push_row(row, Some(letter));
    }

    /// The record of a row; panics past the end, like a slice.
    #[must_use]
    pub fn record(&self, row: usize) -> Record<'_> {
        let run = &self.runs[self.runs.partition_point(|run| run.before <= row) - 1];
        let index = run.index as usize + (row - run.before);
        self.chunks[run.chunk as usize].record(index)
    }

    /// All rows are dead letters.
    #[must_use]
    pub fn is_of_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// All rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let each = self.runs.iter().flat_map(|run| run.each()).enumerate();
        each.map(|(row, (chunk, index, ticket))| {
            let (record, letter) = (self.chunks[chunk].record(index), self.letters.get(row));
            Row { record, ticket, letter }
        })
    }

    /// The claims of all rows: the first of those side by side, and how many these are.
    pub fn tickets(&self) -> impl Iterator<Item = (Ticket, u32)> {
        self.runs.iter().map(|run| (run.ticket, run.rows))
    }

    /// This has become of all rows: those who handed them over and want to hear it are told, each
    /// once for all that were handed over together.
    pub fn tell(&self, outcome: Outcome) {
        if !self.chunks.iter().any(|chunk| chunk.has_receipt()) {
            return;
        }
        for runs in self.runs.chunk_by(|one, next| one.chunk == next.chunk) {
            let rows: u32 = runs.iter().map(|run| run.rows).sum();
            self.chunks[runs[0].chunk as usize].tell(outcome, rows as usize);
        }
    }

    /// Cuts the rows in two halves, in order.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        let middle = self.rows / 2;
        let (mut left, mut right) = (Self::default(), Self::default());
        for (number, (row, letter)) in self.into_rows().enumerate() {
            let half = if number < middle { &mut left } else { &mut right };
            half.push_row(&row, letter);
        }
        (left, right)
    }

    /// Takes out the rows at these indices, which ascend.
    pub fn take(&mut self, indices: &[usize]) -> Vec<LooseRow> {
        let mut wanted = indices.iter().copied().peekable();
        let mut number = 0;
        self.split(|_| {
            let taken = wanted.next_if_eq(&number).is_some();
            number += 1;
            taken
        })
    }

    /// Takes out the rows of the slots that are `gone`; says how many. Rows side by side are of one
    /// slot.
    pub fn forget(&mut self, gone: impl Fn(Slot) -> bool) -> usize {
        if self.runs.iter().any(|run| gone(run.ticket.slot())) {
            self.split(|ticket| gone(ticket.slot())).len()
        } else {
            0
        }
    }

    fn split(&mut self, mut taken: impl FnMut(Ticket) -> bool) -> Vec<LooseRow> {
        let mut loose = Vec::new();
        for (row, letter) in std::mem::take(self).into_rows() {
            if taken(row.ticket) {
                loose.push(row);
            } else {
                self.push_row(&row, letter);
            }
        }
        loose
    }

    fn push_row(&mut self, row: &LooseRow, letter: Option<Letter>) {
        self.push(&row.chunk, row.index, row.ticket);
        self.letters.extend(letter);
        debug_assert!(self.letters.is_empty() || self.letters.len() == self.rows, "all or none");
    }

    fn into_rows(self) -> impl Iterator<Item = (LooseRow, Option<Letter>)> {
        let Self { chunks, runs, letters, .. } = self;
        let mut letters = letters.into_iter();
        runs.into_iter().flat_map(Run::each).map(move |(chunk, index, ticket)| {
            let chunk = Arc::clone(&chunks[chunk]);
            (LooseRow { chunk, index, ticket }, letters.next())
        })
    }
}

impl LooseRow {
    /// Copies the record into a chunk of its own, so that one row does not keep a large chunk
    /// alive.
    #[must_use]
    pub fn detached(self) -> Self {
        let chunk = Arc::new(self.chunk.extract(&[self.index]));
        Self { chunk, index: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::record::{NewRecord, Partition};
    use crate::route::RouteId;
    use crate::source::SourceId;

    /// Records of a partition with these offsets, and their tickets; every other one of 30 and more
    /// takes another route.
    fn admitted(ledger: &mut Ledger, number: i32, offsets: &[i64]) -> (Arc<Chunk>, Vec<Ticket>) {
        let partition = Arc::new(Partition { topic: "t".to_owned(), number, epoch: 1 });
        let slot = ledger.open(SourceId(0), Some(Arc::clone(&partition)));
        let mut chunk = Chunk::with_capacity(0, offsets.len(), 100);
        let of = chunk.partition(&partition);
        let mut tickets = Vec::new();
        for &offset in offsets {
            let payload = offset.to_string();
            let place = Some((of, offset));
            let payload = Some(payload.as_bytes());
            chunk.push(NewRecord { place, payload, ..NewRecord::default() }, []);
            let route = RouteId(u16::from(offset >= 30 && offset % 2 == 1));
            tickets.push(ledger.admit(slot, offset, route));
        }
        (Arc::new(chunk), tickets)
    }

    fn rows(batch: &Batch) -> Vec<(i64, Ticket)> {
        let rows: Vec<_> =
            batch.rows().map(|row| (row.record.offset().unwrap(), row.ticket)).collect();
        for (number, (offset, ticket)) in rows.iter().enumerate() {
            assert_eq!(batch.record(number).offset(), Some(*offset));
            assert_eq!(ticket.offset(), *offset);
        }
        rows
    }

    #[test]
    fn rows_keep_their_claims_over_gaps_routes_and_chunks() {
        // A gap in the offsets, one in the chunk (11 is left out), and routes that take turns.
        let mut ledger = Ledger::default();
        let offsets = [1, 2, 3, 7, 8, 9, 10, 11, 12, 30, 31, 32];
        let (chunk, tickets) = admitted(&mut ledger, 0, &offsets);
        let (other, of_other) = admitted(&mut ledger, 1, &[20, 21]);
        let mut batch = Batch::default();
        let mut wanted = Vec::new();
        for (index, &ticket) in tickets.iter().enumerate().filter(|(index, _)| *index != 7) {
            batch.push(&chunk, index, ticket);
            wanted.push((ticket.offset(), ticket));
        }
        for (index, &ticket) in of_other.iter().enumerate() {
            batch.push(&other, index, ticket);
            wanted.push((ticket.offset(), ticket));
        }
        assert_eq!(rows(&batch), wanted);
        let claims: Vec<_> = batch.tickets().map(|(first, rows)| (first.offset(), rows)).collect();
        assert_eq!(claims, [(1, 3), (7, 4), (12, 1), (30, 1), (31, 1), (32, 1), (20, 2)]);
        assert_eq!(batch.offsets(), Some((1, 21)));

        let taken: Vec<i64> =
            batch.take(&[0, 4, 11]).iter().map(|row| row.ticket.offset()).collect();
        assert_eq!(taken, [1, 8, 20]);
        wanted.retain(|(offset, _)| !taken.contains(offset));
        assert_eq!(rows(&batch), wanted);
        let gone = of_other[1].slot();
        assert_eq!(batch.forget(|slot| slot == gone), 1);
        assert_eq!(batch.forget(|slot| slot == gone), 0);
        wanted.retain(|(offset, _)| *offset != 21);
        let (left, right) = batch.halves();
        assert_eq!([rows(&left), rows(&right)].concat(), wanted);
        assert_eq!(left.len(), wanted.len() / 2);
    }
}
