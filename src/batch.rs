//! Rows of one table for one insert.
//!
//! Pure. A batch refers to the records in their chunks and keeps them until the rows are durable:
//! that is what a dead letter, a bisection or a rebuild after a schema change is made from.

use std::sync::Arc;

use crate::ledger::{Slot, Ticket};
use crate::receipt::Outcome;
use crate::record::{Chunk, Record, UnixMs};
use crate::route::RouteId;

/// One row to be: its record's place in the batch's chunks, and its claim in the ledger.
#[derive(Debug)]
struct Row {
    chunk: u32,
    index: u32,
    ticket: Ticket,
    route: RouteId,
    letter: Option<Box<Letter>>,
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
    pub route: RouteId,
}

/// Rows in the order of admission.
#[derive(Debug, Default)]
pub struct Batch {
    chunks: Vec<Arc<Chunk>>,
    rows: Vec<Row>,
    bytes: usize,
    oldest: Option<UnixMs>,
    newest: Option<UnixMs>,
}

impl Batch {
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
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
        Some((self.rows.first()?.ticket.offset(), self.rows.last()?.ticket.offset()))
    }

    /// The slot of its rows, where all have the same.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        self.rows.first().map(|row| row.ticket.slot())
    }

    /// Appends a row.
    pub fn push(&mut self, chunk: &Arc<Chunk>, index: usize, ticket: Ticket, route: RouteId) {
        self.push_row(chunk, index, ticket, route, None);
    }

    /// Appends a row of the dead-letter table.
    pub fn push_letter(&mut self, row: LooseRow, letter: Letter) {
        let LooseRow { chunk, index, ticket, route } = row;
        self.push_row(&chunk, index, ticket, route, Some(Box::new(letter)));
    }

    fn push_row(
        &mut self,
        chunk: &Arc<Chunk>,
        index: usize,
        ticket: Ticket,
        route: RouteId,
        letter: Option<Box<Letter>>,
    ) {
        if !self.chunks.last().is_some_and(|last| Arc::ptr_eq(last, chunk)) {
            self.chunks.push(Arc::clone(chunk));
        }
        let record = chunk.record(index);
        self.bytes += record.bytes();
        let time = record.timestamp().unwrap_or_else(|| record.received_at());
        self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
        self.newest = Some(self.newest.map_or(time, |newest| newest.max(time)));
        let chunk = u32::try_from(self.chunks.len() - 1).expect("fewer chunks than rows");
        let index = u32::try_from(index).expect("a chunk holds few thousand records");
        self.rows.push(Row { chunk, index, ticket, route, letter });
    }

    /// The record of a row.
    #[must_use]
    pub fn record(&self, row: usize) -> Record<'_> {
        let Row { chunk, index, .. } = self.rows[row];
        self.chunks[chunk as usize].record(index as usize)
    }

    #[must_use]
    pub fn route(&self, row: usize) -> RouteId {
        self.rows[row].route
    }

    #[must_use]
    pub fn letter(&self, row: usize) -> Option<&Letter> {
        self.rows[row].letter.as_deref()
    }

    /// The claims and routes of all rows.
    pub fn tickets(&self) -> impl ExactSizeIterator<Item = (Ticket, RouteId)> {
        self.rows.iter().map(|row| (row.ticket, row.route))
    }

    /// The records, claims, routes and letters of all rows that are dead letters.
    pub fn letters(&self) -> impl Iterator<Item = (Record<'_>, Ticket, RouteId, &Letter)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| {
            let letter = row.letter.as_deref()?;
            Some((self.record(index), row.ticket, row.route, letter))
        })
    }

    /// This has become of all rows: those who handed them over and want to hear it are told, each
    /// once for all that were handed over together.
    pub fn tell(&self, outcome: Outcome) {
        if !self.chunks.iter().any(|chunk| chunk.has_receipt()) {
            return;
        }
        for rows in self.rows.chunk_by(|one, next| one.chunk == next.chunk) {
            self.chunks[rows[0].chunk as usize].tell(outcome, rows.len());
        }
    }

    /// Cuts the rows in two halves, in order.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        let middle = self.rows.len() / 2;
        let (mut left, mut right) = (Self::default(), Self::default());
        for (number, row) in self.rows.into_iter().enumerate() {
            let half = if number < middle { &mut left } else { &mut right };
            let chunk = &self.chunks[row.chunk as usize];
            half.push_row(chunk, row.index as usize, row.ticket, row.route, row.letter);
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

    /// Takes out the rows whose claim fulfils `gone`; says how many.
    pub fn forget(&mut self, gone: impl Fn(Ticket) -> bool) -> usize {
        if self.rows.iter().any(|row| gone(row.ticket)) {
            self.split(|row| gone(row.ticket)).len()
        } else {
            0
        }
    }

    fn split(&mut self, mut taken: impl FnMut(&Row) -> bool) -> Vec<LooseRow> {
        let old = std::mem::take(self);
        let mut loose = Vec::new();
        for row in old.rows {
            let chunk = &old.chunks[row.chunk as usize];
            if taken(&row) {
                let (index, ticket, route) = (row.index as usize, row.ticket, row.route);
                loose.push(LooseRow { chunk: Arc::clone(chunk), index, ticket, route });
            } else {
                self.push_row(chunk, row.index as usize, row.ticket, row.route, row.letter);
            }
        }
        loose
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
