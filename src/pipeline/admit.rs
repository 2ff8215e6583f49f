//! Admission: what becomes of a record when it comes in.
//!
//! Credits of pulled records were reserved before they were taken; pushed records need one now,
//! and what gets none is dropped, counted by class, subject and reason.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::Pipeline;
use super::layout::numbers;
use crate::batch::{LooseRow, Refused};
use crate::ledger::{Slot, Ticket};
use crate::live::RouteTopic;
use crate::overload::{Arrival, Loss};
use crate::receipt::Outcome;
use crate::record::{Chunk, Partition, Record};
use crate::route::RouteId;
use crate::sink::Sink;
use crate::source::{Delivery, SourceId};
use crate::status::UNKNOWN_CLASS;

/// Beyond the cap there is room for this many rows of class `system`.
const SYSTEM_RESERVE_ROWS: usize = 1_000;

/// A chunk is copied apart for a table that gets less than this share of it: else few slow rows
/// would keep the memory of many.
const SHARE_WORTH_KEEPING: usize = 4;

/// Records of the chunk that got in, side by side.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    /// Of the first.
    index: usize,
    ticket: Ticket,
    records: u32,
    table: usize,
    bytes: usize,
}

impl Admitted {
    fn indices(self) -> Range<usize> {
        self.index..self.index + self.records as usize
    }

    fn tickets(self) -> impl Iterator<Item = Ticket> {
        (0..self.records).map(move |n| self.ticket.nth(n))
    }
}

/// What is to be done with a record.
enum Fate {
    Admit(RouteId, usize),
    Filter,
    Drop(RouteId, &'static str),
    /// It waits among the latest of its route.
    Keep(RouteId),
}

/// Into which batch rows of a partition go.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// That of all partitions.
    Mixed,
    /// That of their partition: exactly once is promised.
    Own,
    /// The ranges that were noted of their partition, and what lies between them.
    Restoring,
}

/// What goes on from record to record of one chunk.
struct Intake {
    source: SourceId,
    delivery: Delivery,
    now: Instant,
    /// Credits at hand: reserved by a pulled source, taken in advance for a pushed one.
    credits: usize,
    /// The partition of the last record, which is mostly that of the next.
    last: Option<(Arc<Partition>, Option<Slot>, Option<RouteId>)>,
    admitted: Vec<Admitted>,
    /// How many records that is, and what they weigh.
    records: usize,
    bytes: usize,
}

impl Intake {
    fn new(source: SourceId, delivery: Delivery, credits: usize) -> Self {
        let now = Instant::now();
        let (last, admitted, records, bytes) = (None, Vec::new(), 0, 0);
        Self { source, delivery, now, credits, last, admitted, records, bytes }
    }

    fn admit(&mut self, index: usize, ticket: Ticket, table: usize, bytes: usize) {
        self.credits -= 1;
        self.records += 1;
        self.bytes += bytes;
        if let Some(last) = self.admitted.last_mut()
            && (last.indices().end, last.ticket.nth(last.records)) == (index, ticket)
            && last.table == table
        {
            last.records += 1;
            last.bytes += bytes;
            return;
        }
        self.admitted.push(Admitted { index, ticket, records: 1, table, bytes });
    }
}

impl<S: Sink> Pipeline<S> {
    /// The live feed follows the routes.
    pub(super) fn lay_tap(&mut self) {
        let ids = numbers(&self.config, &self.routes);
        let topics = self.config.routes.iter().map(RouteTopic::of);
        self.tap.lay_routes(ids.into_iter().zip(topics));
    }

    /// Takes what a source hands over.
    pub(super) fn take(&mut self, source: SourceId, chunk: Chunk) {
        if self.is_leaving() {
            return self.take_too_late(source, &chunk);
        }
        let delivery = self.sources[source.0].handle.delivery;
        let credits = if delivery.has_credits() { chunk.len() } else { 0 };
        let mut intake = Intake::new(source, delivery, credits);
        self.sources[source.0].tally.received += chunk.len() as u64;
        for (index, record) in chunk.records().enumerate() {
            self.take_record(&mut intake, index, &chunk, &record);
        }
        self.credits.release(intake.credits);
        self.held += intake.records;
        self.peak_held = self.peak_held.max(self.held);
        if let Some(auto) = &mut self.auto {
            auto.admitted(intake.records, intake.bytes);
        }
        chunk.tell(Outcome::Admitted, intake.records);
        self.buffer(chunk, &intake.admitted);
    }

    /// A record that its source calls poisoned: a dead letter, unless its route would not store it.
    pub(super) fn take_poisoned(&mut self, source: SourceId, chunk: Chunk, why: String) {
        if self.is_leaving() {
            return self.take_too_late(source, &chunk);
        }
        let delivery = self.sources[source.0].handle.delivery;
        let mut intake = Intake::new(source, delivery, 1);
        self.sources[source.0].tally.received += 1;
        self.take_record(&mut intake, 0, &chunk, &chunk.record(0));
        self.credits.release(intake.credits);
        if let Some(Admitted { ticket, bytes, .. }) = intake.admitted.pop() {
            self.held += 1;
            self.peak_held = self.peak_held.max(self.held);
            self.bytes += bytes;
            let row = LooseRow { chunk: Arc::new(chunk), index: 0, ticket };
            let (reason, outline) = ("delivered_too_often", why.clone());
            self.dead_letter(row, Refused { reason, error: why, outline });
        }
    }

    /// The final commit was asked for, and nothing can become durable any more: what was pulled
    /// comes again, the rest is lost.
    fn take_too_late(&mut self, source: SourceId, chunk: &Chunk) {
        let count = chunk.len() as u64;
        let source = &mut self.sources[source.0];
        source.tally.received += count;
        if source.handle.delivery.comes_again() {
            source.tally.released += count;
        } else {
            source.tally.drop_records(UNKNOWN_CLASS, "abandoned", count);
        }
        self.abandoned += chunk.len();
    }

    fn take_record(
        &mut self,
        intake: &mut Intake,
        index: usize,
        chunk: &Chunk,
        record: &Record<'_>,
    ) {
        let Some((slot, route)) = self.locate(intake, record) else {
            // Its partition was let go before the record got here: it comes again.
            self.sources[intake.source.0].tally.released += 1;
            return;
        };
        let offset = record.place().map_or(0, |(_, offset)| offset);
        match self.fate(intake, record, route, chunk.len() - index) {
            Fate::Admit(route, table) => {
                let ticket = self.ledger.admit(slot, offset, route);
                intake.admit(index, ticket, table, record.bytes());
            }
            Fate::Filter => {
                self.sources[intake.source.0].tally.filtered += 1;
                chunk.tell(Outcome::Filtered, 1);
                self.pass(slot, record);
            }
            Fate::Keep(route) => {
                intake.credits -= 1;
                let ticket = self.ledger.admit(slot, offset, route);
                let chunk = Arc::new(chunk.extract(&[index]));
                self.tap.admitted(&chunk, std::iter::once((0..1, route)));
                self.keep(LooseRow { chunk, index: 0, ticket });
            }
            Fate::Drop(route, reason) => {
                self.lose(intake.source, route, record.topic_or_subject(), reason);
                chunk.tell(Outcome::Dropped, 1);
                self.pass(slot, record);
            }
        }
    }

    /// It needs nothing more: its partition may be committed beyond it.
    fn pass(&mut self, slot: Slot, record: &Record<'_>) {
        if let Some((_, offset)) = record.place() {
            self.ledger.pass(slot, offset);
        }
    }

    /// The slot in the ledger and the route; None for a partition that is not ours any more.
    fn locate(
        &mut self,
        intake: &mut Intake,
        record: &Record<'_>,
    ) -> Option<(Slot, Option<RouteId>)> {
        let source = &self.sources[intake.source.0];
        let Some((partition, _)) = record.place() else {
            return Some((source.slot, self.router.route(record)));
        };
        if let Some((_, slot, route)) =
            intake.last.as_ref().filter(|(last, ..)| Arc::ptr_eq(last, partition))
        {
            return Some(((*slot)?, *route));
        }
        let slot = source.assigned.get(partition).copied();
        // A record on a topic is routed by the topic; one of a stream by its own subject.
        let route = self.router.route(record);
        if record.topic().is_some() {
            intake.last = Some((Arc::clone(partition), slot, route));
        }
        Some((slot?, route))
    }

    fn fate(
        &mut self,
        intake: &mut Intake,
        record: &Record<'_>,
        route: Option<RouteId>,
        remaining: usize,
    ) -> Fate {
        let Some(id) = route else {
            let tally = &mut self.sources[intake.source.0].tally;
            *tally.unrouted.entry(record.topic_or_subject()) += 1;
            return Fate::Filter;
        };
        let route = &mut self.routes[id.index()];
        route.received += 1;
        let system = route.is_system();
        if system {
            let tally = &mut self.sources[intake.source.0].tally;
            tally.saw_system(record.topic_or_subject(), record.received_at());
        }
        let table = route.table.filter(|_| record.payload().is_some());
        let loss = if system { None } else { self.loss(intake, record, id, table) };
        let may_wait = intake.delivery == Delivery::Pushed && table.is_some();
        let keep = loss.is_some() && may_wait && self.keeps_latest(id);
        if let Some(loss) = loss.filter(|_| !keep) {
            self.lost_by_policy(id, loss);
            return Fate::Drop(id, loss.reason());
        }
        match intake.delivery {
            Delivery::Pulled | Delivery::Offered => self.limits.came(id),
            Delivery::Pushed if !system && !self.limits.lets_pass(id, intake.now) => {
                return Fate::Drop(id, "rate");
            }
            Delivery::Pushed => {}
        }
        let Some(table) = table else {
            self.routes[id.index()].filtered += 1;
            return Fate::Filter;
        };
        if keep {
            self.slide(id, record.bytes());
        }
        let full = self.bytes + intake.bytes >= self.config.backpressure.max_buffer_bytes;
        if full && intake.delivery == Delivery::Pushed && !system {
            return Fate::Drop(id, "cap");
        }
        if intake.delivery == Delivery::Pushed && !system && self.tables[table].held_back {
            return Fate::Drop(id, "table");
        }
        if intake.credits == 0 {
            let (want, reserve) = if system { (1, SYSTEM_RESERVE_ROWS) } else { (remaining, 0) };
            intake.credits = self.credits.admit(want, reserve);
        }
        if intake.credits == 0 {
            return Fate::Drop(id, if system { "reserve" } else { "cap" });
        }
        if keep { Fate::Keep(id) } else { Fate::Admit(id, table) }
    }

    /// Whether the policy lets this record go, and why.
    fn loss(
        &mut self,
        intake: &Intake,
        record: &Record<'_>,
        route: RouteId,
        table: Option<usize>,
    ) -> Option<Loss> {
        self.look_at_tiers(intake.records);
        self.overload.decide(Arrival {
            route,
            name: record.topic_or_subject(),
            pushed: intake.delivery == Delivery::Pushed,
            paused: self.backpressure.paused(intake.source.0),
            stored: table.is_some(),
        })
    }

    /// Puts what got in into the buffers of its tables.
    fn buffer(&mut self, chunk: Chunk, admitted: &[Admitted]) {
        let chunk = Arc::new(chunk);
        self.tap.admitted(&chunk, admitted.iter().map(|run| (run.indices(), run.ticket.route())));
        let mut weights = vec![0; self.tables.len()];
        for run in admitted {
            weights[run.table] += run.bytes;
        }
        for (table, weight) in weights.into_iter().enumerate().filter(|(_, weight)| *weight > 0) {
            self.bytes += weight;
            let runs = admitted.iter().filter(|run| run.table == table);
            let tickets = runs.clone().flat_map(|run| run.tickets());
            let indices = runs.flat_map(|run| run.indices());
            if weight * SHARE_WORTH_KEEPING < chunk.bytes() {
                let own = Arc::new(chunk.extract(&indices.collect::<Vec<usize>>()));
                self.buffer_rows(table, &own, tickets.enumerate());
            } else {
                self.buffer_rows(table, &chunk, indices.zip(tickets));
            }
        }
    }

    fn buffer_rows(
        &mut self,
        table: usize,
        chunk: &Arc<Chunk>,
        rows: impl Iterator<Item = (usize, Ticket)>,
    ) {
        let now = Instant::now();
        let mut last: Option<(Slot, Way)> = None;
        for (index, ticket) in rows {
            let slot = ticket.slot();
            let way = match last {
                Some((before, way)) if before == slot => way,
                _ => last.insert((slot, self.way(table, slot))).1,
            };
            let own = match way {
                Way::Mixed => None,
                Way::Own => Some(slot),
                Way::Restoring => {
                    self.push_restoring(table, chunk, index, ticket, now);
                    continue;
                }
            };
            let open = self.tables[table].buffer.of(own);
            let full = open.push(chunk, index, ticket, now);
            if let Some((batch, reason)) = full {
                self.cut(table, batch, reason);
            }
        }
    }

    fn way(&self, table: usize, slot: Slot) -> Way {
        let exactly_once = self.tables[table].exactly_once.is_some();
        match self.exact.get(&slot).filter(|_| exactly_once) {
            None => Way::Mixed,
            Some(exact) if exact.is_restoring() => Way::Restoring,
            Some(_) => Way::Own,
        }
    }
}
