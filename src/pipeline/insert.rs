//! Inserts: from a cut batch to an acknowledged insert, with as many attempts as it takes. What an
//! attempt is made of is in `attempt.rs`. The body is encoded once; every attempt sends the same
//! bytes with the same token.

use std::sync::Arc;

use tokio::time::Instant;

use super::Pipeline;
use super::attempt::{self, Attempt, Job, Outcome, Place};
use super::exact::{ExactBatch, Step};
use super::slots::{self, Claim};
use super::table::LETTERS;
use crate::batch::{Batch, LooseRow, Refused};
use crate::breaker::Probe;
use crate::encode::{self, Rounded};
use crate::ledger::Slot;
use crate::retry;
use crate::sink::{Insert, InsertError, Refusal, Sink};
use crate::status::RouteState;
use crate::trace::{self, Trace};
use crate::writer::CutReason;

/// An unchanged schema that an insert keeps complaining about needs a person.
const SCHEMA_REFUSALS_TOLERATED: u32 = 2;

/// Parts are merged in seconds to minutes, and each attempt takes some of that time from
/// ClickHouse: the first pause is as long as the fifth would be otherwise (up to 1.6 s).
const ATTEMPTS_OF_A_CROWDED_TABLE: u32 = 5;

/// A batch that was cut and is not durable yet.
#[derive(Debug)]
pub(super) struct CutBatch {
    number: u64,
    pub(super) table: usize,
    pub(super) batch: Batch,
    /// The same for every attempt at the same rows, different for any others.
    pub(super) token: String,
    /// Where all of it is of one partition, and goes with it.
    pub(super) slot: Option<Slot>,
    /// Where exactly once is promised.
    pub(super) exact: Option<ExactBatch>,
    pub(super) insert: Option<Insert>,
    /// Bytes of the body that are counted as held: once it waits for another attempt. Of those
    /// under way for the first time there are at most `max_in_flight`.
    pub(super) body_bytes: usize,
    pub(super) rounded: Rounded,
    attempts: u32,
    schema_refusals: u32,
    /// When to try again; meaningful while it waits.
    pub(super) due: Instant,
    /// It waits for something that passes by itself or concerns all tables, so a success elsewhere
    /// is a reason to try.
    waits_for_the_sink: bool,
    /// The outcome of an attempt is unknown, and nothing has been acknowledged since.
    uncertain: bool,
    /// It was due, and the circuit breaker told it to wait.
    pub(super) rejected: bool,
    pub(super) trace: Trace,
}

impl CutBatch {
    /// Its body may have been sent: it may be in ClickHouse.
    pub(super) fn is_encoded(&self) -> bool {
        self.insert.is_some()
    }

    /// It may be in ClickHouse, also if it has to be encoded anew. Its rows stay together under its
    /// token: a row less, and the others would be taken for known and dropped.
    pub(super) fn may_have_landed(&self) -> bool {
        self.uncertain || self.is_encoded()
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The next job on it asks ClickHouse for something; else it is only encoded.
    pub(super) fn sends(&self) -> bool {
        self.exact.is_none() || self.step() != Step::Encode
    }
}

/// A job at work on a batch.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) number: u64,
    pub(super) table: usize,
    pub(super) began: Instant,
    /// It has a slot for inserts; else it only encodes.
    pub(super) sends: bool,
    /// It is what the circuit breaker waits for.
    pub(super) probe: Option<Probe>,
    pub(super) slot: Option<Slot>,
}

impl UnderWay {
    pub(super) fn is_of(&self, cut: &CutBatch) -> bool {
        self.number == cut.number
    }
}

impl<S: Sink> Pipeline<S> {
    /// Puts a cut batch into the queue.
    pub(super) fn cut(&mut self, table: usize, batch: Batch, reason: CutReason) {
        self.metrics.batch_cut(self.writer_name(table), reason, batch.len());
        self.tables[table].in_flight += batch.len();
        let mut cut = self.new_cut(table, batch);
        self.trace(&mut cut, reason);
        self.make_exact(&mut cut);
        self.queue.push_back(cut);
    }

    pub(super) fn new_cut(&mut self, table: usize, batch: Batch) -> CutBatch {
        self.next_batch += 1;
        CutBatch {
            number: self.next_batch,
            table,
            batch,
            token: format!("{}-{}", self.run_id, self.next_batch),
            slot: None,
            exact: None,
            insert: None,
            body_bytes: 0,
            rounded: Rounded::default(),
            attempts: 0,
            schema_refusals: 0,
            due: Instant::now(),
            waits_for_the_sink: false,
            uncertain: false,
            rejected: false,
            trace: Trace::default(),
        }
    }

    pub(super) fn cut_lingering(&mut self, now: Instant) {
        for table in 0..self.tables.len() {
            for batch in self.tables[table].cut_lingering(now) {
                self.cut(table, batch, CutReason::Linger);
            }
        }
    }

    pub(super) fn cut_everything(&mut self, reason: CutReason) {
        for table in 0..self.tables.len() {
            for batch in self.tables[table].buffer.cut_all() {
                self.cut(table, batch, reason);
            }
        }
    }

    /// The position in the queue of the batch that goes next; None while there is none or no room.
    /// `unasked`: of those that the circuit breaker is not asked about.
    pub(super) fn next_to_insert(&self, unasked: bool) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        let claim = |table: &super::Table| Claim { under_way: 0, broken: table.is_broken() };
        let mut claims: Vec<Claim> = self.tables.iter().map(claim).collect();
        for under_way in self.under_way.iter().filter(|one| one.sends) {
            claims[under_way.table].under_way += 1;
        }
        let ready = |cut: &CutBatch| {
            let known = self.tables[cut.table].program.is_some();
            let may_go = known && cut.sends() && !(unasked && self.asks_the_sink(cut));
            may_go.then_some(cut.table)
        };
        slots::next(self.queue.iter().map(ready), &claims, self.in_flight_limit())
    }

    /// Batches that have a slot for inserts.
    pub(super) fn inserting(&self) -> usize {
        self.under_way.iter().filter(|one| one.sends).count()
    }

    /// The next job on it asks the sink that the circuit breaker guards: it is neither only encoded,
    /// nor kept by something else.
    fn asks_the_sink(&self, cut: &CutBatch) -> bool {
        cut.sends() && !self.tables[cut.table].apart
    }

    /// Starts inserts while there is room and the circuit breaker lets them.
    pub(super) fn start_inserts(&mut self, now: Instant) {
        let mut rejected = false;
        while let Some(position) = self.next_to_encode().or_else(|| self.next_to_insert(rejected)) {
            let asks = self.asks_the_sink(&self.queue[position]);
            let probe = match if asks { self.ask_breaker(now) } else { Ok(None) } {
                Ok(probe) => probe,
                Err(()) => {
                    rejected = true;
                    continue;
                }
            };
            let mut cut = self.queue.remove(position).expect("the position was just found");
            cut.rejected = false;
            let table = &self.tables[cut.table];
            let program = Arc::clone(table.program.as_ref().expect("ready says that it is there"));
            let naming = encode::Naming {
                table: table.name.clone(),
                instance: self.config.instance.clone(),
                token: cut.token.clone(),
                noted: cut.slot.is_some(),
                routes: self.route_names(&cut.batch),
            };
            let place = cut.exact.as_ref().and_then(|batch| self.exact.get(&batch.slot));
            let place = place.map(|exact| Place {
                partition: Arc::clone(exact.intents.partition()),
                on_uncertain: exact.on_uncertain,
                streams: table.streams,
            });
            let (number, table, slot, sends) = (cut.number, cut.table, cut.slot, cut.sends());
            self.under_way.push(UnderWay { number, table, began: now, probe, slot, sends });
            self.jobs.spawn(attempt::run(Arc::clone(&self.sink), program, cut, naming, place, now));
        }
        self.note_in_flight_limit();
    }

    /// Dead letters name their route; other batches do not need the names.
    fn route_names(&self, batch: &Batch) -> Vec<String> {
        if !batch.is_of_letters() {
            return Vec::new();
        }
        self.routes.iter().map(|route| route.name.clone()).collect()
    }

    /// Batches whose time to wait is over join the queue.
    pub(super) fn retry_due(&mut self, now: Instant) {
        self.queue.extend(self.waiting.extract_if(.., |cut| cut.due <= now));
    }

    /// Something was accepted: what waits for the same need not wait longer. `recovered`: it had
    /// been refused before, so that what waits for bad weather to pass may try as well. A table
    /// that works all the time is no such sign: a table that has too much to do would be asked
    /// again at each of its inserts.
    pub(super) fn hurry_waiting(&mut self, table: usize, recovered: bool) {
        let now = Instant::now();
        for cut in &mut self.waiting {
            if recovered && cut.waits_for_the_sink || cut.table == table {
                cut.due = now;
            }
        }
    }

    /// What waits until ClickHouse as a whole works is tried then, unless it is due before.
    pub(super) fn hurry_those_that_wait_for_the_sink(&mut self, then: Instant) {
        for cut in self.waiting.iter_mut().filter(|cut| cut.waits_for_the_sink) {
            cut.due = cut.due.min(then);
        }
    }

    pub(super) fn job_done(&mut self, job: Job) {
        // An insert may end in the moment in which it is given up: its rows were counted as
        // abandoned, and are not held any more.
        if self.is_leaving() {
            return;
        }
        match job {
            Job::Batch(attempt) => self.attempted(*attempt),
            Job::Schema { table, result } => self.schema_read(&table, result),
            Job::Window { table, result } => self.window_seen(table, result),
            Job::AskedEndpoints | Job::Aborted => {}
        }
    }

    fn attempted(&mut self, attempt: Attempt) {
        let Attempt { mut cut, rejected, outcome, took } = attempt;
        self.tell_breaker_of(&cut, &outcome);
        self.adapt(&cut, &outcome, took);
        cut.trace.rejected(rejected.len());
        if let Some(batch) = cut.exact.as_mut() {
            batch.refuse(rejected);
        } else {
            self.tables[cut.table].in_flight -= rejected.len();
            self.report_rejected(cut.table, &rejected);
            for (row, refused) in rejected {
                self.dead_letter(row, refused);
            }
            if cut.batch.is_empty() {
                return cut.trace.becomes(trace::Outcome::DeadLettered);
            }
        }
        if self.has_left(&cut) && !matches!(outcome, Outcome::Durable) {
            return self.release_cut(cut);
        }
        if let Outcome::Durable | Outcome::Refused(_) = &outcome {
            let ok = matches!(outcome, Outcome::Durable);
            self.metrics.insert_finished(self.writer_name(cut.table), took, ok);
            if let Some(writer) = self.tables[cut.table].writer.filter(|_| ok) {
                self.writers[writer].insert_seconds += took.as_secs_f64();
            }
        }
        match outcome {
            Outcome::Durable if cut.exact.is_some() => self.exactly_durable(cut),
            Outcome::Durable => self.durable(cut),
            Outcome::Refused(error) => self.refused(cut, error),
            Outcome::Encoded => self.encoded(cut),
            Outcome::NeverLanded => self.never_landed(cut),
            Outcome::Spent => self.token_is_spent(cut),
            Outcome::GivenUp(why) => self.given_up(cut, &why),
            Outcome::Uncertain(what) => {
                cut.attempts = cut.attempts.saturating_add(1);
                self.uncertain(cut, what);
            }
        }
    }

    pub(super) fn report_rejected(&self, table: usize, rejected: &[(LooseRow, Refused)]) {
        if let Some((row, first)) = rejected.first() {
            let route = &self.routes[row.ticket.route().index()].name;
            let table = &self.tables[table].name;
            let (count, reason) = (rejected.len(), first.reason);
            tracing::warn!(
                event = "dead_letters",
                table,
                route,
                count,
                reason,
                "dead letters: {}",
                first.outline
            );
        }
    }

    /// An attempt was not acknowledged: what its refusal says is to be done.
    fn refused(&mut self, mut cut: CutBatch, error: InsertError) {
        let table = cut.table;
        if let Some(writer) = self.tables[table].writer {
            self.writers[writer].failed_inserts += 1;
        }
        cut.attempts = cut.attempts.saturating_add(1);
        if cut.is_encoded() && error.may_have_landed() {
            cut.uncertain = true;
            if let Some(batch) = cut.exact.as_mut() {
                batch.doubt();
            }
        }
        let text = error.refusal().to_string();
        self.tables[table].own_fault = error.is_about_the_table();
        self.tables[table].crowded = error.is_too_many_parts();
        if self.tables[table].crowded {
            cut.attempts = cut.attempts.max(ATTEMPTS_OF_A_CROWDED_TABLE);
        }
        cut.waits_for_the_sink = !self.tables[table].apart
            && (matches!(error, InsertError::Retry(_)) || error.is_about_the_sink());
        match error {
            InsertError::Retry(_) => self.wait(cut, RouteState::Retrying(text)),
            InsertError::AwaitFix(_) => {
                let unfit = !cut.is_encoded() && cut.step() == Step::Encode;
                self.wait(cut, RouteState::AwaitingFix(text));
                if unfit {
                    self.forget_program(table);
                }
            }
            InsertError::Reject(refusal) if table == LETTERS => {
                let why = refusal.outline();
                let text =
                    format!("the dead-letter table refuses a row ({why}); correct its columns");
                self.wait(cut, RouteState::AwaitingFix(text));
            }
            InsertError::Reject(refusal) => self.bisect(cut, &refusal),
            InsertError::SchemaChanged(_) => {
                cut.schema_refusals += 1;
                cut.insert = None;
                if let Some(batch) = cut.exact.as_mut() {
                    batch.encode_again();
                }
                let state = if cut.schema_refusals > SCHEMA_REFUSALS_TOLERATED {
                    RouteState::AwaitingFix(text)
                } else {
                    RouteState::Retrying(text)
                };
                self.wait(cut, state);
                self.forget_program(table);
            }
        }
    }

    /// No attempt before the schema was read again: built by the old one it would be refused again.
    fn forget_program(&mut self, table: usize) {
        self.tables[table].program = None;
        let name = self.tables[table].name.clone();
        self.read_schema_again(&name);
    }

    /// Its body waits, and takes memory: it counts.
    pub(super) fn count_body(&mut self, cut: &mut CutBatch) {
        let body_bytes = cut.insert.as_ref().map_or(0, |insert| insert.body.len());
        self.bytes = self.bytes + body_bytes - cut.body_bytes;
        cut.body_bytes = body_bytes;
    }

    fn wait(&mut self, cut: CutBatch, state: RouteState) {
        self.set_table_state(cut.table, state);
        self.wait_on(cut);
    }

    /// Waits for the next attempt, without a word on the state of the table.
    pub(super) fn wait_on(&mut self, mut cut: CutBatch) {
        self.count_body(&mut cut);
        cut.due = Instant::now() + retry::delay(&self.config.retry, cut.attempts);
        if let Some(probe_at) = self.breaker.probe_at().filter(|_| cut.waits_for_the_sink) {
            cut.due = cut.due.min(probe_at);
        }
        self.waiting.push(cut);
    }

    /// Some row in it will never go in. Halves find it with two inserts a level, and the good
    /// rows beside it land.
    fn bisect(&mut self, mut cut: CutBatch, refusal: &Refusal) {
        self.bytes -= std::mem::take(&mut cut.body_bytes);
        if cut.batch.len() == 1 {
            let refused = Refused {
                reason: "refused_by_clickhouse",
                error: refusal.to_string(),
                outline: refusal.outline(),
            };
            if cut.exact.is_some() {
                return self.all_refused(cut, refused);
            }
            self.tables[cut.table].in_flight -= 1;
            let row = cut.batch.take(&[0]).pop().expect("it has one row");
            let rejected = [(row, refused)];
            cut.trace.rejected(1);
            cut.trace.becomes(trace::Outcome::DeadLettered);
            self.report_rejected(cut.table, &rejected);
            let [(row, refused)] = rejected;
            self.dead_letter(row, refused);
            return;
        }
        let (left, right) = cut.batch.halves();
        let right_from = right.offsets().map_or(0, |(first, _)| first);
        let parts = cut.exact.map(|whole| whole.halves(right_from));
        let mut right = self.new_cut(cut.table, right);
        let mut left = self.new_cut(cut.table, left);
        cut.trace.becomes(trace::Outcome::Halved);
        for half in [&mut left, &mut right] {
            self.trace_within(&cut.trace, half, "halved");
        }
        if let Some((left_part, right_part)) = parts {
            self.make_exact_part(&mut left, left_part);
            self.make_exact_part(&mut right, right_part);
        }
        self.queue.push_front(right);
        self.queue.push_front(left);
    }
}
