//! Exactly once, as the pipeline sees it: each batch of a partition is announced before it is sent,
//! and what a last owner had announced is taken up again before anything new.
//!
//! Owns what is known of each such partition. The rules of what is noted are in `intent.rs`; how a
//! batch is encoded, sent and looked for is in `attempt.rs`.

mod ahead;
mod leave;
mod outcome;
mod restore;

pub(super) use self::ahead::AHEAD;

use std::collections::VecDeque;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::Pipeline;
use super::insert::CutBatch;
use crate::batch::{Batch, LooseRow, Refused};
use crate::config::OnUncertain;
use crate::intent::{Intents, Range};
use crate::ledger::Slot;
use crate::record::Position;
use crate::sink::{Insert, Sink};
use crate::source::SourceId;
use crate::writer::CutReason;

/// A partition of which exactly once is promised.
#[derive(Debug)]
pub(super) struct Exact {
    pub(super) source: SourceId,
    table: usize,
    pub(super) on_uncertain: OnUncertain,
    pub(super) intents: Intents,
    /// What the last owner had announced and is to be taken again, in order.
    restoring: VecDeque<Restoring>,
    /// There are credits for that.
    may_restore: bool,
    /// Its revocation began: nothing of it is announced or sent any more.
    pub(super) leaving: bool,
    /// What its last owner noted can't be taken up: nothing of it may be taken. Why, and what to do.
    stuck: Option<String>,
    /// Nobody can tell whether a batch of it landed. Why, and what to do.
    uncertain: Option<String>,
}

/// A range on its way back from the source.
#[derive(Debug)]
struct Restoring {
    noted: Range,
    batch: Batch,
}

/// What a batch is besides rows when it is sent exactly once.
#[derive(Debug)]
pub(super) struct ExactBatch {
    pub(super) slot: Slot,
    first: i64,
    last: i64,
    step: Step,
    /// Of the body, as it was encoded last.
    checksum: u64,
    /// As the range is announced, or was when it was tried last.
    noted: Option<Range>,
    /// Something under its token may have landed although nobody said so.
    doubtful: bool,
    /// Something was sent under its token before, by us or a last owner: that ClickHouse takes it for
    /// known does not prove that its rows are there.
    repeated: bool,
    /// Of its tokens, used up without its rows.
    spent: u32,
    /// Refused while it was encoded; dead letters as soon as the others have landed, or all are
    /// refused: then its range is not divided any more, and they have its token for good.
    rejected: Vec<(LooseRow, Refused)>,
}

/// What is to be done with it next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Encode,
    /// It is not what was noted: whether that landed must be known first.
    Verify,
    Send,
}

impl ExactBatch {
    fn new(slot: Slot, first: i64, last: i64) -> Self {
        Self {
            slot,
            first,
            last,
            step: Step::Encode,
            checksum: xxh3_64(&[]),
            noted: None,
            doubtful: false,
            repeated: false,
            spent: 0,
            rejected: Vec::new(),
        }
    }

    /// The halves of a batch that was refused as a whole: each takes the place of its part, with
    /// the rows of it that were refused before.
    pub(super) fn halves(self, right_from: i64) -> (Self, Self) {
        let mut left = Self::new(self.slot, self.first, right_from - 1);
        let mut right = Self::new(self.slot, right_from, self.last);
        let is_left = |(row, _): &(LooseRow, Refused)| row.ticket.offset() < right_from;
        (left.rejected, right.rejected) = self.rejected.into_iter().partition(is_left);
        (left, right)
    }

    /// These rows were refused while it was encoded.
    pub(super) fn refuse(&mut self, rejected: Vec<(LooseRow, Refused)>) {
        self.rejected.extend(rejected);
    }

    /// It was encoded: notes what tells one body from another. Reads all of it, so the owner is not
    /// to do that.
    pub(super) fn sum_up(&mut self, insert: Option<&Insert>) {
        self.checksum = xxh3_64(insert.map_or(&[], |insert| &insert.body));
    }

    /// An attempt ended without a definite answer.
    pub(super) fn doubt(&mut self) {
        (self.doubtful, self.repeated) = (true, true);
    }

    /// The body does not fit the table any more.
    pub(super) fn encode_again(&mut self) {
        self.step = Step::Encode;
    }
}

impl CutBatch {
    pub(super) fn step(&self) -> Step {
        self.exact.as_ref().map_or(Step::Encode, |exact| exact.step)
    }

    pub(super) fn noted(&self) -> Option<&Range> {
        self.exact.as_ref()?.noted.as_ref()
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.exact.as_ref().is_some_and(|exact| exact.doubtful)
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.exact.as_ref().is_some_and(|exact| exact.repeated)
    }

    /// Rows that it holds, with those that wait to become dead letters.
    fn all_rows(&self) -> usize {
        self.batch.len() + self.exact.as_ref().map_or(0, |exact| exact.rejected.len())
    }

    fn all_bytes(&self) -> usize {
        let rejected = self.exact.as_ref().map_or(0, |exact| bytes_of(&exact.rejected));
        self.batch.bytes() + rejected + self.body_bytes
    }
}

impl<S: Sink> Pipeline<S> {
    /// Makes a cut batch one that is sent exactly once, if its table asks for it.
    pub(super) fn make_exact(&self, cut: &mut CutBatch) {
        if self.tables[cut.table].exactly_once.is_none() {
            return;
        }
        let slot = cut.batch.slot().expect("a batch that is cut has rows");
        let (first, last) = cut.batch.offsets().expect("a batch that is cut has rows");
        self.make_exact_part(cut, ExactBatch::new(slot, first, last));
    }

    pub(super) fn make_exact_part(&self, cut: &mut CutBatch, part: ExactBatch) {
        if let Some(exact) = self.exact.get(&part.slot) {
            cut.token = exact.intents.token(part.first, part.last, part.spent);
        }
        cut.slot = Some(part.slot);
        cut.exact = Some(part);
    }

    /// The configuration changed: what comes of this partition is for this table. What is open is
    /// cut for the one before.
    pub(super) fn fill_from_now_on(&mut self, slot: Slot, table: usize) {
        let fingerprint = self.tables[table].fingerprint();
        let on_uncertain = self.tables[table].exactly_once;
        let Some(exact) = self.exact.get_mut(&slot).filter(|exact| exact.table != table) else {
            return;
        };
        let before = std::mem::replace(&mut exact.table, table);
        exact.on_uncertain = on_uncertain.unwrap_or(exact.on_uncertain);
        exact.intents.reconfigure(fingerprint);
        if let Some(batch) = self.tables[before].buffer.of(Some(slot)).cut() {
            self.cut(before, batch, CutReason::Reload);
        }
    }

    /// It was encoded: send it if it is what was noted; else note it first, unless what was noted
    /// may have landed.
    pub(super) fn encoded(&mut self, mut cut: CutBatch) {
        let batch = cut.exact.as_mut().expect("only such batches are encoded by themselves");
        let now = range_of(batch, cut.insert.as_ref(), &self.tables[cut.table].name);
        let same = |noted: &Range| {
            (&noted.table, noted.rows, noted.checksum) == (&now.table, now.rows, now.checksum)
        };
        match batch.noted.as_ref() {
            Some(noted) if same(noted) => {
                batch.step = Step::Send;
                self.announced(cut);
            }
            Some(noted) if batch.doubtful => {
                self.explain_difference(batch.slot, noted, &now);
                batch.step = Step::Verify;
                self.queue.push_front(cut);
            }
            _ => self.announce(cut),
        }
    }

    fn explain_difference(&self, slot: Slot, noted: &Range, now: &Range) {
        let Some(exact) = self.exact.get(&slot) else { return };
        let reconfigured = exact.intents.was_reconfigured();
        tracing::warn!(
            event = "noted_range_changed",
            topic = exact.intents.partition().topic,
            partition = exact.intents.partition().number,
            first = noted.first,
            last = noted.last,
            noted = noted.rows,
            now = now.rows,
            reconfigured,
            "a batch is not what was noted before the restart: looking whether it landed"
        );
    }

    /// Notes it; it is sent as soon as the source has committed the note.
    pub(super) fn announce(&mut self, mut cut: CutBatch) {
        let batch = cut.exact.as_mut().expect("only such batches are announced");
        batch.doubtful = false;
        let mut range = range_of(batch, cut.insert.as_ref(), &self.tables[cut.table].name);
        range.block = self.tables[cut.table].block;
        range.listed_at = super::wall_clock();
        batch.noted = Some(range.clone());
        self.count_body(&mut cut);
        if let Some(exact) = self.exact.get_mut(&batch_slot(&cut)).filter(|exact| !exact.leaving) {
            if exact.intents.has_room() {
                exact.intents.intend(range);
            }
            self.announcing.push(cut);
            self.commit_at_once = true;
        } else {
            self.release_cut(cut);
        }
    }

    /// The broker has its note: it may be sent.
    fn announced(&mut self, mut cut: CutBatch) {
        let batch = cut.exact.as_mut().expect("only such batches are announced");
        batch.step = Step::Send;
        if cut.insert.is_some() {
            return self.queue.push_front(cut);
        }
        // Every row of it was refused: its dead letters are all that there is to insert.
        let rejected = std::mem::take(&mut batch.rejected);
        if !rejected.is_empty() {
            self.letters_of(&cut, rejected);
        }
    }

    /// The source has committed this: what it announces may be sent.
    pub(super) fn note_committed(&mut self, source: SourceId, position: &Position) {
        let Some(note) = &position.note else { return };
        let Some(slot) = self.sources[source.0].assigned.get(&position.partition) else { return };
        let Some(exact) = self.exact.get_mut(slot) else { return };
        if exact.intents.committed(note) {
            self.send_announced();
        }
    }

    fn send_announced(&mut self) {
        let is_announced = |cut: &mut CutBatch| {
            let batch = cut.exact.as_ref().expect("only such batches are announced");
            let exact = self.exact.get(&batch.slot);
            let listed = exact.and_then(|exact| exact.intents.announced(batch.first, batch.last));
            listed == batch.noted.as_ref() && listed.is_some()
        };
        let announced: Vec<CutBatch> = self.announcing.extract_if(.., is_announced).collect();
        for cut in announced.into_iter().rev() {
            self.announced(cut);
        }
    }

    /// Batches that found no room in the note of their partition, now that it may have some.
    pub(super) fn intend_waiting(&mut self) {
        for cut in &self.announcing {
            let batch = cut.exact.as_ref().expect("only such batches are announced");
            let (Some(exact), Some(range)) = (self.exact.get_mut(&batch.slot), &batch.noted) else {
                continue;
            };
            if !exact.intents.lists(range) && exact.intents.has_room() {
                exact.intents.intend(range.clone());
                self.commit_at_once = true;
            }
        }
    }

    /// What the partition of this slot may commit, with its note. None: nothing, or not any more.
    pub(super) fn commit_of(&mut self, slot: Slot) -> Option<Position> {
        let offset = self.ledger.next_needed(slot)?;
        let exact = self.exact.get_mut(&slot)?;
        let (offset, note) = exact.intents.commit(offset);
        let partition = Arc::clone(exact.intents.partition());
        Some(Position { partition, offset, note: Some(note) })
    }

    /// What became of a range whose records are gone, or which was given up, is known.
    pub(super) fn resolved(&mut self, slot: Slot, first: i64) {
        if let Some(exact) = self.exact.get_mut(&slot) {
            exact.intents.resolve(first);
            self.commit_at_once = true;
        }
    }

    /// What is wrong with partitions of this table, beyond the table itself.
    pub(super) fn exact_troubles(&self, table: usize) -> impl Iterator<Item = &String> {
        let of_table = self.exact.values().filter(move |exact| exact.table == table);
        of_table.flat_map(|exact| exact.stuck.iter().chain(&exact.uncertain))
    }
}

fn bytes_of(rejected: &[(LooseRow, Refused)]) -> usize {
    rejected.iter().map(|(row, _)| row.chunk.record(row.index).bytes()).sum()
}

fn batch_slot(cut: &CutBatch) -> Slot {
    cut.exact.as_ref().expect("only such batches are announced").slot
}

/// The range as the batch is now.
fn range_of(batch: &ExactBatch, insert: Option<&Insert>, table: &str) -> Range {
    Range {
        table: table.to_owned(),
        first: batch.first,
        last: batch.last,
        rows: insert.map_or(0, |insert| insert.rows),
        checksum: batch.checksum,
        block: 0,
        listed_at: 0,
        spent: batch.spent,
    }
}
