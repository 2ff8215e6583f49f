//! Taking up what the last owner of a partition had noted: its ranges are collected exactly as they
//! were, whatever the settings are now, before anything new is mixed with them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Exact, ExactBatch, Restoring, Step};
use crate::batch::Batch;
use crate::intent::{Intents, Note, Range};
use crate::ledger::{Slot, Ticket};
use crate::pipeline::Pipeline;
use crate::record::Chunk;
use crate::sink::Sink;
use crate::source::{Assigned, SourceId};
use crate::writer::CutReason;

impl<S: Sink> Pipeline<S> {
    /// A partition became ours: if its table promises exactly once, take up what was noted.
    pub(in crate::pipeline) fn take_up(
        &mut self,
        source: SourceId,
        slot: Slot,
        assigned: &Assigned,
    ) {
        let partition = &assigned.partition;
        let route = self.router.route_of_topic(&partition.topic);
        let table = route.and_then(|route| self.routes[route.index()].table);
        let Some((table, on_uncertain)) =
            table.and_then(|table| Some((table, self.tables[table].exactly_once?)))
        else {
            return;
        };
        let config = self.tables[table].fingerprint();
        let (topic, number) = (&partition.topic, partition.number);
        let note = assigned.note.as_deref().map_or(Ok(None), Note::parse);
        let limit = self.config.backpressure.pull_limit;
        let stuck = match &note {
            Err(error) => Some(format!(
                "what the last owner of {topic}/{number} committed beside its offset cannot be \
                 read: {error:#}; run the version that wrote it until it has stopped cleanly"
            )),
            Ok(note) => note.as_ref().and_then(|note| oversized(note, limit)),
        };
        if let Some(what) = &stuck {
            tracing::error!(event = "needs_person", topic, number, "needs a person: {what}");
        }
        let partition = Arc::clone(partition);
        let mut restoring = VecDeque::new();
        let intents = match note.ok().flatten() {
            Some(note) => {
                tracing::debug!(
                    topic,
                    number,
                    ranges = note.ranges.len(),
                    "taking up what was noted"
                );
                let again =
                    |noted: &Range| Restoring { noted: noted.clone(), batch: Batch::default() };
                restoring.extend(note.ranges.iter().map(again));
                Intents::restore(partition, note, config)
            }
            None => Intents::new(partition, incarnation(), config),
        };
        let exact = Exact {
            source,
            table,
            on_uncertain,
            intents,
            restoring,
            may_restore: false,
            leaving: false,
            stuck,
            uncertain: None,
        };
        self.exact.insert(slot, exact);
    }

    /// A row of a partition that is being restored: into the range that it was noted in, or else
    /// into the partition's open batch.
    pub(in crate::pipeline) fn push_restoring(
        &mut self,
        table: usize,
        chunk: &Arc<Chunk>,
        index: usize,
        ticket: Ticket,
        now: Instant,
    ) {
        let (slot, offset) = (ticket.slot(), ticket.offset());
        while let Some(front) = self.restoring(slot) {
            if offset < front.noted.first {
                break;
            }
            if offset > front.noted.last {
                self.restored(table, slot);
                continue;
            }
            let ends = offset == front.noted.last;
            let begins = front.batch.is_empty();
            front.batch.push(chunk, index, ticket);
            self.tables[table].restoring += 1;
            if begins {
                self.cut_open_of(table, slot);
            }
            if ends {
                self.restored(table, slot);
            } else {
                self.look_for_credits(slot);
            }
            return;
        }
        let full = self.tables[table].buffer.of(Some(slot)).push(chunk, index, ticket, now);
        if let Some((batch, reason)) = full {
            self.cut(table, batch, reason);
        }
    }

    fn restoring(&mut self, slot: Slot) -> Option<&mut Restoring> {
        self.exact.get_mut(&slot)?.restoring.front_mut()
    }

    /// A noted range that has taken every credit, and is not whole, never will be: those of its records
    /// that were refused are not counted in the note.
    fn look_for_credits(&mut self, slot: Slot) {
        let limit = self.config.backpressure.pull_limit;
        // An idle source holds one credit.
        let for_others = self.sources.len().saturating_sub(1);
        let Some(exact) = self.exact.get_mut(&slot) else { return };
        let Some(Restoring { noted, batch }) = exact.restoring.front() else { return };
        if batch.len() + for_others < limit || exact.stuck.is_some() {
            return;
        }
        let what = beyond_the_credits(noted, "rows, and of records that were refused,", limit);
        let partition = exact.intents.partition();
        let (topic, number) = (&partition.topic, partition.number);
        tracing::error!(event = "needs_person", topic, number, "needs a person: {what}");
        exact.stuck = Some(what);
    }

    /// What lies before a noted range must not be mixed with what lies behind it.
    fn cut_open_of(&mut self, table: usize, slot: Slot) {
        if let Some(batch) = self.tables[table].buffer.of(Some(slot)).cut() {
            self.cut(table, batch, CutReason::Restored);
        }
    }

    /// All of a noted range was read again: it is encoded, and compared with what was noted.
    fn restored(&mut self, table: usize, slot: Slot) {
        let exact = self.exact.get_mut(&slot).expect("it is being restored");
        let Restoring { noted, batch } = exact.restoring.pop_front().expect("it is being restored");
        let (first, last) = (noted.first, noted.last);
        exact.stuck = None;
        if batch.is_empty() {
            exact.intents.miss(first);
        }
        if exact.restoring.is_empty() {
            self.want_held();
        }
        let writer = self.writer_name(table);
        self.metrics.batch_cut(writer, CutReason::Restored, batch.len());
        self.tables[table].restoring -= batch.len();
        self.tables[table].in_flight += batch.len();
        let missing = batch.is_empty();
        let mut cut = self.new_cut(table, batch);
        self.trace(&mut cut, CutReason::Restored);
        let mut again = ExactBatch::new(slot, first, last);
        again.spent = noted.spent;
        again.noted = Some(noted);
        again.doubt();
        again.step = if missing { Step::Verify } else { Step::Encode };
        self.make_exact_part(&mut cut, again);
        self.queue.push_back(cut);
    }

    /// Records stop coming: what was noted and is not whole yet can't become so any more. It is
    /// still noted, so its partitions are let go as they were found.
    pub(in crate::pipeline) fn give_back_restoring(&mut self, now: Instant) {
        let unfinished = self.exact.values().filter(|exact| !exact.restoring.is_empty());
        let unfinished: Vec<_> =
            unfinished.map(|exact| (exact.source, Arc::clone(exact.intents.partition()))).collect();
        for (source, partition) in unfinished {
            self.revoked(source, &[partition], now, None);
        }
    }

    /// Lets as many partitions take up their noted ranges as have room beside each other: all of
    /// them could hold every credit, and none would ever be whole. One that may begin is not made
    /// to wait again: the others would miss what it holds by then.
    pub(in crate::pipeline) fn let_restore(&mut self) {
        let limit = self.config.backpressure.pull_limit;
        let (begun, mut waiting): (Vec<_>, Vec<_>) =
            self.exact.values_mut().partition(|exact| exact.may_restore);
        let begun: usize = begun.iter().map(|exact| exact.restoring_records(limit)).sum();
        let mut free = limit.saturating_sub(begun);
        waiting.sort_unstable_by(|a, b| a.intents.partition().cmp(b.intents.partition()));
        for exact in waiting {
            let records = exact.restoring_records(limit);
            if exact.stuck.is_none() && records <= free {
                exact.may_restore = true;
                free -= records;
            }
        }
    }

    /// Its noted ranges have to wait for those of others, or can't be read.
    pub(in crate::pipeline) fn must_wait(&self, slot: Slot) -> bool {
        self.exact.get(&slot).is_some_and(|exact| !exact.may_restore)
    }
}

impl Exact {
    /// What the last owner noted is not whole again yet.
    pub(in crate::pipeline) fn is_restoring(&self) -> bool {
        !self.restoring.is_empty()
    }

    /// As many records as it may hold before one of its noted ranges is whole: they come one after
    /// the other. Not its rows: what will be refused is read as well. One with gaps (compaction,
    /// transactions) is taken for larger than it is, and waits until it has all credits for itself.
    fn restoring_records(&self, limit: usize) -> usize {
        let largest = self.restoring.iter().map(|restoring| restoring.noted.offsets()).max();
        largest.map_or(0, |offsets| offsets.min(limit))
    }
}

/// A noted range is larger than all credits there are: it can never be read as a whole.
fn oversized(note: &Note, limit: usize) -> Option<String> {
    let largest = note.ranges.iter().max_by_key(|range| range.rows)?;
    (largest.rows > limit).then(|| beyond_the_credits(largest, "rows", limit))
}

fn beyond_the_credits(noted: &Range, what: &str, limit: usize) -> String {
    let Range { first, last, rows, .. } = noted;
    let enough = noted.offsets();
    format!(
        "a batch of {rows} {what} was noted before the restart ({first}-{last}), and pull_limit is \
         {limit} now: run once with backpressure.pull_limit above {enough}"
    )
}

/// Never used before: 64 random bits, as a partition has few lives.
fn incarnation() -> String {
    format!("{:016x}", rand::random::<u64>())
}
