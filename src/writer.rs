//! A writer's buffer: for each of its tables the open batches, and when they are cut.
//!
//! Pure. Linger is a deadline that the pipeline's timer watches: a batch is cut also when nothing
//! arrives any more.

use std::sync::Arc;

use tokio::time::Instant;

use crate::batch::{Batch, Letter, LooseRow};
use crate::config;
use crate::ledger::{Slot, Ticket};
use crate::record::Chunk;

/// Why a batch was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    Rows,
    Bytes,
    Linger,
    /// No credit was left and nothing was under way that would give one back.
    Credits,
    /// A partition goes away, or the bridge stops.
    Drain,
    /// It was noted before a restart, or lies before what was.
    Restored,
    /// The dead letters of one batch that is sent exactly once.
    Letters,
    /// No route fills its table that way any more.
    Reload,
}

impl CutReason {
    /// The name under which it is counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Linger => "linger",
            Self::Credits => "credits",
            Self::Drain => "drain",
            Self::Restored => "restored",
            Self::Letters => "letters",
            Self::Reload => "reload",
        }
    }
}

/// The open batches of one table in one writer: one for all of its rows, or one for each partition
/// where a batch may not mix them.
#[derive(Debug)]
pub struct OpenBatches {
    limits: config::Writer,
    /// Few: as many as partitions are assigned.
    of: Vec<(Option<Slot>, TableBuffer)>,
}

impl OpenBatches {
    #[must_use]
    pub fn new(limits: config::Writer) -> Self {
        Self { limits, of: Vec::new() }
    }

    /// From now on; an open batch that is fuller than that is cut with its next row.
    pub fn set_limits(&mut self, limits: config::Writer) {
        self.limits = limits;
        self.of.iter_mut().for_each(|(_, buffer)| buffer.limits = limits);
    }

    /// The batch of these rows; None: of all.
    pub fn of(&mut self, slot: Option<Slot>) -> &mut TableBuffer {
        let found = self.of.iter().position(|(of, _)| *of == slot);
        let index = found.unwrap_or_else(|| {
            self.of.push((slot, TableBuffer::new(self.limits)));
            self.of.len() - 1
        });
        &mut self.of[index].1
    }

    /// Rows in all open batches.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.of.iter().map(|(_, buffer)| buffer.rows()).sum()
    }

    /// Rows in the largest.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.of.iter().map(|(_, buffer)| buffer.rows()).max().unwrap_or_default()
    }

    /// When linger cuts the first of them; None while all are empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.of.iter().filter_map(|(_, buffer)| buffer.deadline()).min()
    }

    /// Those whose linger is over.
    pub fn cut_lingering(&mut self, now: Instant) -> Vec<Batch> {
        let due = |buffer: &TableBuffer| buffer.deadline().is_some_and(|deadline| deadline <= now);
        let due = self.of.iter_mut().filter(|(_, buffer)| due(buffer));
        due.filter_map(|(_, buffer)| buffer.cut()).collect()
    }

    pub fn cut_all(&mut self) -> Vec<Batch> {
        self.of.iter_mut().filter_map(|(_, buffer)| buffer.cut()).collect()
    }

    pub fn cut_largest(&mut self) -> Option<Batch> {
        self.of.iter_mut().max_by_key(|(_, buffer)| buffer.rows())?.1.cut()
    }

    /// Drops the rows of the slots that are `gone`; says how many rows and bytes.
    pub fn forget(&mut self, gone: impl Fn(Slot) -> bool) -> (usize, usize) {
        let forgotten = self.of.iter_mut().map(|(_, buffer)| buffer.forget(&gone));
        let sum = forgotten.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        self.of.retain(|(slot, buffer)| slot.is_none() || buffer.rows() > 0);
        sum
    }
}

/// One open batch.
#[derive(Debug)]
pub struct TableBuffer {
    limits: config::Writer,
    open: Batch,
    first_at: Option<Instant>,
}

impl TableBuffer {
    #[must_use]
    pub fn new(limits: config::Writer) -> Self {
        Self { limits, open: Batch::default(), first_at: None }
    }

    /// Rows in the open batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.open.len()
    }

    /// Adds a row; returns the batch if that made it full.
    #[must_use]
    pub fn push(
        &mut self,
        chunk: &Arc<Chunk>,
        index: usize,
        ticket: Ticket,
        now: Instant,
    ) -> Option<(Batch, CutReason)> {
        self.open.push(chunk, index, ticket);
        self.pushed(now)
    }

    /// Adds a dead letter; returns the batch if that made it full.
    #[must_use]
    pub fn push_letter(
        &mut self,
        row: &LooseRow,
        letter: Letter,
        now: Instant,
    ) -> Option<(Batch, CutReason)> {
        self.open.push_letter(row, letter);
        self.pushed(now)
    }

    fn pushed(&mut self, now: Instant) -> Option<(Batch, CutReason)> {
        self.first_at.get_or_insert(now);
        let reason = if self.open.len() >= self.limits.batch_rows {
            CutReason::Rows
        } else if self.open.bytes() >= self.limits.batch_bytes {
            CutReason::Bytes
        } else {
            return None;
        };
        Some((self.cut()?, reason))
    }

    /// When linger cuts the open batch; None while it is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.first_at.map(|first_at| first_at + self.limits.linger)
    }

    /// The open batch, if it holds anything.
    #[must_use]
    pub fn cut(&mut self) -> Option<Batch> {
        self.first_at = None;
        let batch = std::mem::take(&mut self.open);
        (!batch.is_empty()).then_some(batch)
    }

    /// Drops the rows of the slots that are `gone` from the open batch; says how many rows and bytes.
    pub fn forget(&mut self, gone: impl Fn(Slot) -> bool) -> (usize, usize) {
        let before = self.open.bytes();
        let rows = self.open.forget(gone);
        if self.open.is_empty() {
            self.first_at = None;
        }
        (rows, before - self.open.bytes())
    }
}
