//! Settling: rows become durable, partitions come and go, commits are asked for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::insert::CutBatch;
use super::table::LETTERS;
use super::{Pipeline, wall_clock};
use crate::batch::{Letter, LooseRow, Refused, Row};
use crate::ledger::Slot;
use crate::receipt::Outcome;
use crate::record::{Partition, Position, UnixMs};
use crate::sink::Sink;
use crate::source::{Assigned, SourceId};
use crate::status::{RouteState, SLOW_CONSUMER, UNKNOWN_CLASS};
use crate::trace;
use crate::writer::CutReason;

/// Partitions that go away as soon as what they hold is durable, or at the deadline.
#[derive(Debug)]
pub(super) struct Revocation {
    source: SourceId,
    partitions: Vec<(Arc<Partition>, Slot)>,
    pub(super) deadline: Instant,
    answer: Option<oneshot::Sender<Vec<Position>>>,
}

impl<S: Sink> Pipeline<S> {
    /// An insert was acknowledged: its rows are held no longer.
    pub(super) fn durable(&mut self, mut cut: CutBatch) {
        let rows = cut.batch.len();
        self.let_go(rows, cut.batch.bytes() + cut.body_bytes);
        self.settled += rows as u64;
        let table = &mut self.tables[cut.table];
        let apart = table.apart;
        if !apart {
            self.last_success = Some(Instant::now());
        }
        table.in_flight -= rows;
        if let Some(writer) = table.writer {
            self.writers[writer].inserted += rows as u64;
            self.writers[writer].inserts += 1;
            self.rows_inserted(&cut);
            cut.batch.tell(Outcome::Inserted);
            cut.trace.becomes(trace::Outcome::Inserted);
        } else {
            self.dead_letters_written(&cut);
            cut.batch.tell(Outcome::DeadLettered);
            cut.trace.becomes(trace::Outcome::DeadLettered);
        }
        if let Some(times) = cut.batch.times() {
            let now = wall_clock();
            let millis = |time: i64| Duration::from_millis(time.max(0).unsigned_abs());
            let age = |time: UnixMs| millis(now - time).as_secs_f64();
            self.ahead.see(millis(times.1 - now), Instant::now());
            let writer = self.writer_name(cut.table);
            self.metrics.durable(writer, age(times.1), age(times.0), rows);
        }
        let recovered = !apart && self.tables[cut.table].state != RouteState::Running;
        self.set_table_state(cut.table, RouteState::Running);
        self.hurry_waiting(cut.table, recovered);
    }

    /// The writer's name, for the metrics; dead letters have a name of their own.
    pub(super) fn writer_name(&self, table: usize) -> &str {
        self.tables[table].writer.map_or("dead_letters", |writer| &self.writers[writer].name)
    }

    fn rows_inserted(&mut self, cut: &CutBatch) {
        for (ticket, rows) in cut.batch.tickets() {
            let source = self.ledger.source(ticket.slot());
            if self.ledger.settle(ticket, rows)
                && let Some(source) = source
            {
                self.sources[source.0].tally.inserted += u64::from(rows);
                self.routes[ticket.route().index()].inserted += u64::from(rows);
            }
        }
        for (route, count) in cut.rounded.iter() {
            self.routes[route.index()].rounded += count;
        }
    }

    fn dead_letters_written(&mut self, cut: &CutBatch) {
        for Row { record, ticket, letter } in cut.batch.rows() {
            let source = self.ledger.source(ticket.slot());
            let route = &mut self.routes[ticket.route().index()];
            if self.ledger.settle(ticket, 1)
                && let Some(source) = source
            {
                self.sources[source.0].tally.dead_lettered += 1;
                route.dead_lettered += 1;
            }
            if let Some(letter) = letter {
                route.letter_written(letter, &record);
            }
        }
    }

    /// The record can't become a row of its table: it becomes one of the dead letters, and is
    /// held until that one is durable.
    pub(super) fn dead_letter(&mut self, row: LooseRow, refused: Refused) {
        let table = LETTERS;
        let row = row.detached();
        // A partition that was let go has no source any more; the letter is written all the same.
        let source = self.ledger.source(row.ticket.slot());
        let source = source.map_or("", |id| self.sources[id.0].handle.name);
        let letter = Letter { refused, time: wall_clock(), source };
        let open = self.tables[table].buffer.of(None);
        if let Some((batch, reason)) = open.push_letter(&row, letter, Instant::now()) {
            self.cut(table, batch, reason);
        }
    }

    /// Records are not held any more.
    pub(super) fn let_go(&mut self, rows: usize, bytes: usize) {
        self.held -= rows;
        self.bytes -= bytes;
        self.credits.release(rows);
    }

    pub(super) fn assigned(&mut self, source: SourceId, all: Vec<Assigned>) {
        let last = all.iter().map(|assigned| assigned.partition.epoch).max();
        for assigned in all {
            let slot = self.ledger.open(source, Some(Arc::clone(&assigned.partition)));
            self.take_up(source, slot, &assigned);
            self.sources[source.0].assigned.insert(assigned.partition, slot);
        }
        self.want_held();
        self.sources[source.0].handle.want_taken_up(last.unwrap_or_default());
    }

    pub(super) fn revoked(
        &mut self,
        source: SourceId,
        partitions: &[Arc<Partition>],
        deadline: Instant,
        answer: Option<oneshot::Sender<Vec<Position>>>,
    ) {
        let assigned = &mut self.sources[source.0].assigned;
        let partitions: Vec<_> =
            partitions.iter().filter_map(|p| assigned.remove_entry(p)).collect();
        let slots: Vec<Slot> = partitions.iter().map(|(_, slot)| *slot).collect();
        self.leave(&slots);
        self.want_held();
        if answer.is_some() {
            self.cut_everything(CutReason::Drain);
        }
        self.revocations.push(Revocation { source, partitions, deadline, answer });
    }

    /// Lets partitions go whose records are durable, or whose time is up.
    pub(super) fn finish_revocations(&mut self, now: Instant) {
        let mut revocations = std::mem::take(&mut self.revocations);
        let at_rest = |slot: Slot| {
            if self.exact.contains_key(&slot) {
                self.is_at_rest(slot)
            } else {
                self.ledger.held(slot) == 0
            }
        };
        let finished = |revocation: &mut Revocation| {
            let at_rest = revocation.partitions.iter().all(|(_, slot)| at_rest(*slot));
            at_rest || revocation.deadline <= now
        };
        let finished: Vec<Revocation> = revocations.extract_if(.., finished).collect();
        self.revocations = revocations;
        for revocation in finished {
            self.let_partitions_go(revocation);
        }
    }

    pub(super) fn let_partitions_go(&mut self, revocation: Revocation) {
        let Revocation { source, partitions, answer, .. } = revocation;
        let mut durable = Vec::with_capacity(partitions.len());
        for (_, slot) in &partitions {
            durable.extend(match self.exact.contains_key(slot) {
                true => self.commit_of(*slot),
                false => self.ledger.committable(*slot),
            });
        }
        let mut released = 0;
        for (_, slot) in &partitions {
            self.exact.remove(slot);
            let of_slot = self.ledger.release(*slot);
            released += of_slot.total();
            for (route, records) in of_slot.iter() {
                self.routes[route].released += records as u64;
            }
        }
        if released > 0 {
            self.sources[source.0].tally.released += released as u64;
            let count = partitions.len();
            tracing::info!(
                event = "partitions_released",
                released,
                count,
                "partitions let go before all was durable; the rest comes again"
            );
            self.forget_rows(&partitions.iter().map(|(_, slot)| *slot).collect());
        }
        if let Some(answer) = answer
            && answer.send(durable).is_err()
        {
            tracing::warn!(
                event = "revocation_late",
                "the source did not wait for what to commit; it comes again"
            );
        }
    }

    /// Rows of slots that were let go are not worth inserting, unless they are encoded already:
    /// those may be in ClickHouse, and their insert goes on.
    fn forget_rows(&mut self, slots: &HashSet<Slot>) {
        let gone = |slot| slots.contains(&slot);
        let (mut rows, mut bytes) = (0, 0);
        for table in &mut self.tables {
            let (forgotten, weight) = table.buffer.forget(gone);
            rows += forgotten;
            bytes += weight;
        }
        for cut in
            self.queue.iter_mut().chain(&mut self.waiting).filter(|cut| !cut.may_have_landed())
        {
            let before = cut.batch.bytes();
            let forgotten = cut.batch.forget(gone);
            self.tables[cut.table].in_flight -= forgotten;
            rows += forgotten;
            bytes += before - cut.batch.bytes();
        }
        self.queue.retain(|cut| !cut.batch.is_empty());
        self.waiting.retain(|cut| !cut.batch.is_empty());
        self.let_go(rows, bytes);
    }

    /// Tells the sources how far they may commit.
    pub(super) fn publish_commits(&mut self) {
        let now = !self.announcing.is_empty();
        let slots: Vec<(Slot, SourceId)> =
            self.exact.iter().map(|(slot, exact)| (*slot, exact.source)).collect();
        for index in 0..self.sources.len() {
            let source = SourceId(index);
            let mut positions = self.ledger.take_committable(source);
            for (slot, _) in slots.iter().filter(|(_, of)| *of == source) {
                let leaving = self.exact[slot].leaving;
                let partition = Arc::clone(self.exact[slot].intents.partition());
                positions.retain(|position| position.partition != partition);
                if !leaving {
                    positions.extend(self.commit_of(*slot));
                }
            }
            self.sources[index].handle.want_commit(positions, now);
        }
        self.commit_at_once = false;
    }

    pub(super) fn committed(
        &mut self,
        source: SourceId,
        positions: &[Position],
        error: Option<String>,
    ) {
        if let Some(error) = error {
            let name = self.sources[source.0].handle.name;
            tracing::warn!(
                event = "commit_failed",
                source = name,
                "commit failed, tried again with the next: {error}"
            );
            return;
        }
        for position in positions {
            self.ledger.committed(position);
            self.note_committed(source, position);
        }
    }

    pub(super) fn dropped_by_client(&mut self, source: SourceId, count: u64) {
        let source = &mut self.sources[source.0];
        source.tally.received += count;
        // Not acknowledged, so they come again.
        if source.handle.delivery.comes_again() {
            source.tally.released += count;
        } else {
            source.tally.drop_records(UNKNOWN_CLASS, SLOW_CONSUMER, count);
        }
        tracing::warn!(
            event = "slow_consumer",
            source = source.handle.name,
            count,
            "records dropped by the client: too slow"
        );
    }

    pub(super) fn connection(&mut self, source: SourceId, error: Option<String>) {
        self.sources[source.0].tally.connection_error = error;
    }
}
