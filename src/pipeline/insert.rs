//! Inserts: from a cut batch to an acknowledged insert, with as many attempts as it takes.
//!
//! A job owns its batch while it runs and gives it back with what became of it. The body is
//! encoded once; every attempt sends the same bytes with the same token.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::slots::{self, Claim};
use crate::batch::{Batch, LooseRow, Refused};
use crate::breaker::Probe;
use crate::encode::{self, Program, Rounded};
use crate::retry;
use crate::schema::TableSchema;
use crate::sink::{Insert, InsertError, Refusal, Sink};
use crate::status::{RouteState, WEDGED_AFTER};
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
    insert: Option<Insert>,
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
}

/// An attempt that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    number: u64,
    table: usize,
    began: Instant,
    /// It is what the circuit breaker waits for.
    probe: Option<Probe>,
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
}

/// What a job gives back.
#[derive(Debug)]
pub(super) enum Job {
    Inserted(Box<Attempt>),
    Schema {
        table: String,
        result: Result<TableSchema, InsertError>,
    },
    /// Servers that had failed were asked; the sink keeps what they said.
    AskedEndpoints,
    /// It was stopped because the bridge gives up.
    Aborted,
}

/// One attempt, finished.
#[derive(Debug)]
pub(super) struct Attempt {
    cut: CutBatch,
    rejected: Vec<(LooseRow, Refused)>,
    result: Result<(), InsertError>,
    took: Duration,
}

impl<S: Sink> Pipeline<S> {
    /// Puts a cut batch into the queue.
    pub(super) fn cut(&mut self, table: usize, batch: Batch, reason: CutReason) {
        self.metrics.batch_cut(self.writer_name(table), reason, batch.len());
        self.tables[table].in_flight += batch.len();
        let cut = self.new_cut(table, batch);
        self.queue.push_back(cut);
    }

    fn new_cut(&mut self, table: usize, batch: Batch) -> CutBatch {
        self.next_batch += 1;
        CutBatch {
            number: self.next_batch,
            table,
            batch,
            insert: None,
            body_bytes: 0,
            rounded: Rounded::default(),
            attempts: 0,
            schema_refusals: 0,
            due: Instant::now(),
            waits_for_the_sink: false,
            uncertain: false,
            rejected: false,
        }
    }

    pub(super) fn cut_lingering(&mut self, now: Instant) {
        for table in 0..self.tables.len() {
            if self.tables[table].linger_deadline().is_some_and(|deadline| deadline <= now) {
                self.cut_table(table, CutReason::Linger);
            }
        }
    }

    pub(super) fn cut_everything(&mut self, reason: CutReason) {
        for table in 0..self.tables.len() {
            self.cut_table(table, reason);
        }
    }

    fn cut_table(&mut self, table: usize, reason: CutReason) {
        if let Some(batch) = self.tables[table].buffer.cut() {
            self.cut(table, batch, reason);
        }
    }

    /// No credit is left and nothing is under way that would give one back: the largest open
    /// batch goes now rather than at its linger.
    pub(super) fn cut_when_stuck(&mut self) {
        let idle = self.inserting.is_empty() && self.queue.is_empty() && self.waiting.is_empty();
        if idle && self.credits.used() >= self.config.backpressure.pull_limit {
            let largest = (0..self.tables.len()).max_by_key(|&t| self.tables[t].buffer.rows());
            if let Some(table) = largest {
                self.cut_table(table, CutReason::Credits);
            }
        }
    }

    /// The position in the queue of the batch that goes next; None while there is none or no room.
    /// `only_apart`: of those that the circuit breaker is not asked about.
    pub(super) fn next_to_insert(&self, only_apart: bool) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        let claim = |table: &super::Table| Claim { under_way: 0, broken: table.is_broken() };
        let mut claims: Vec<Claim> = self.tables.iter().map(claim).collect();
        for under_way in &self.inserting {
            claims[under_way.table].under_way += 1;
        }
        let ready = |cut: &CutBatch| {
            let table = &self.tables[cut.table];
            (table.program.is_some() && (table.apart || !only_apart)).then_some(cut.table)
        };
        slots::next(self.queue.iter().map(ready), &claims, self.config.clickhouse.max_in_flight)
    }

    /// Starts inserts while there is room and the circuit breaker lets them.
    pub(super) fn start_inserts(&mut self, now: Instant) {
        let mut rejected = false;
        while let Some(position) = self.next_to_insert(rejected) {
            let apart = self.tables[self.queue[position].table].apart;
            let probe = match if apart { Ok(None) } else { self.ask_breaker(now) } {
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
                token: format!("{}-{}", self.run_id, cut.number),
                routes: self.route_names(&cut.batch),
            };
            let (number, table) = (cut.number, cut.table);
            self.inserting.push(UnderWay { number, table, began: now, probe });
            self.jobs.spawn(attempt(Arc::clone(&self.sink), program, cut, naming, now));
        }
    }

    /// Dead letters name their route; other batches do not need the names.
    fn route_names(&self, batch: &Batch) -> Vec<String> {
        if batch.letters().next().is_none() {
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
            Job::Inserted(attempt) => self.attempted(*attempt),
            Job::Schema { table, result } => self.schema_read(&table, result),
            Job::AskedEndpoints | Job::Aborted => {}
        }
    }

    fn attempted(&mut self, attempt: Attempt) {
        let Attempt { cut, rejected, result, took } = attempt;
        let now = Instant::now();
        let under_way = self.inserting.extract_if(.., |under_way| under_way.number == cut.number);
        let probe = under_way.last().and_then(|under_way| under_way.probe);
        if self.tables[cut.table].apart {
            // It was not asked either.
        } else if cut.is_encoded() {
            self.tell_breaker(probe, &result, now);
        } else {
            self.breaker.unsent(probe, now);
        }
        self.tables[cut.table].in_flight -= rejected.len();
        self.report_rejected(cut.table, &rejected);
        for (row, refused) in rejected {
            self.dead_letter(row, refused);
        }
        if cut.batch.is_empty() {
            return;
        }
        self.metrics.insert_finished(self.writer_name(cut.table), took, result.is_ok());
        match result {
            Ok(()) => self.durable(cut),
            Err(error) => self.refused(cut, error),
        }
    }

    fn report_rejected(&self, table: usize, rejected: &[(LooseRow, Refused)]) {
        if let Some((row, first)) = rejected.first() {
            let route = &self.routes[row.route.index()].name;
            let table = &self.tables[table].name;
            let (count, reason) = (rejected.len(), first.reason);
            tracing::warn!(table, route, count, reason, "dead letters: {}", first.error);
        }
    }

    /// An attempt was not acknowledged: what its refusal says is to be done.
    fn refused(&mut self, mut cut: CutBatch, error: InsertError) {
        let table = cut.table;
        if let Some(writer) = self.tables[table].writer {
            self.writers[writer].failed_inserts += 1;
        }
        cut.attempts = cut.attempts.saturating_add(1);
        cut.uncertain |= cut.is_encoded() && error.may_have_landed();
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
                let unfit = !cut.is_encoded();
                self.wait(cut, RouteState::AwaitingFix(text));
                if unfit {
                    self.forget_program(table);
                }
            }
            InsertError::Reject(refusal) if table + 1 == self.tables.len() => {
                let text =
                    format!("the dead-letter table refuses a row ({refusal}); correct its columns");
                self.wait(cut, RouteState::AwaitingFix(text));
            }
            InsertError::Reject(refusal) => self.bisect(cut, &refusal),
            InsertError::SchemaChanged(_) => {
                cut.schema_refusals += 1;
                cut.insert = None;
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

    fn wait(&mut self, mut cut: CutBatch, state: RouteState) {
        let body_bytes = cut.insert.as_ref().map_or(0, |insert| insert.body.len());
        self.bytes = self.bytes + body_bytes - cut.body_bytes;
        cut.body_bytes = body_bytes;
        cut.due = Instant::now() + retry::delay(&self.config.retry, cut.attempts);
        if let Some(probe_at) = self.breaker.probe_at().filter(|_| cut.waits_for_the_sink) {
            cut.due = cut.due.min(probe_at);
        }
        self.set_table_state(cut.table, state);
        self.waiting.push(cut);
    }

    /// Some row in it will never go in. Halves find it with two inserts a level, and the good
    /// rows beside it land.
    fn bisect(&mut self, mut cut: CutBatch, refusal: &Refusal) {
        self.bytes -= std::mem::take(&mut cut.body_bytes);
        if cut.batch.len() == 1 {
            self.tables[cut.table].in_flight -= 1;
            let row = cut.batch.take(&[0]).pop().expect("it has one row");
            let refused = Refused { reason: "refused_by_clickhouse", error: refusal.to_string() };
            let rejected = [(row, refused)];
            self.report_rejected(cut.table, &rejected);
            let [(row, refused)] = rejected;
            self.dead_letter(row, refused);
            return;
        }
        let (left, right) = cut.batch.halves();
        for half in [right, left] {
            let half = self.new_cut(cut.table, half);
            self.queue.push_front(half);
        }
    }

    /// What is overdue by so much that the pipeline counts as wedged. A refused attempt is
    /// progress; one that neither ends nor times out is not.
    pub(super) fn overdue(&self) -> Option<String> {
        let now = Instant::now();
        let attempt_limit = self.config.clickhouse.insert_timeout + WEDGED_AFTER;
        let stuck = self.inserting.iter().find(|attempt| attempt.began + attempt_limit < now);
        if let Some(UnderWay { number, .. }) = stuck {
            return Some(format!("the insert of batch {number} neither ends nor times out"));
        }
        (self.next_deadline() + WEDGED_AFTER < now).then(|| "a timer was not served".to_owned())
    }

    /// The writer's name, for the metrics; dead letters have a name of their own.
    pub(super) fn writer_name(&self, table: usize) -> &str {
        self.tables[table].writer.map_or("dead_letters", |writer| &self.writers[writer].name)
    }
}

/// Encodes the batch if that has not been done, and sends it once.
async fn attempt<S: Sink>(
    sink: Arc<S>,
    program: Arc<Program>,
    mut cut: CutBatch,
    naming: encode::Naming,
    started: Instant,
) -> Job {
    let mut rejected = Vec::new();
    if cut.insert.is_none() {
        // Encoding a large batch takes milliseconds of pure computing: not on the async threads.
        let encoding = tokio::task::spawn_blocking(move || {
            let encoded = encode::encode(&mut cut.batch, &program, naming);
            (cut, encoded)
        });
        let (returned, encoded) = match encoding.await {
            Ok(encoded) => encoded,
            // The batch is gone with it: the process must end, see `job_result`.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Job::Aborted,
        };
        cut = returned;
        match encoded {
            Ok(encoded) => {
                cut.rounded = encoded.rounded;
                cut.insert = encoded.insert;
                rejected = encoded.rejected;
            }
            Err(message) => {
                let refused = InsertError::AwaitFix(Refusal { code: None, message });
                return Job::finished(cut, rejected, Err(refused), started);
            }
        }
    }
    let result = match &cut.insert {
        Some(insert) => sink.insert(insert.clone()).await,
        None => Ok(()),
    };
    Job::finished(cut, rejected, result, started)
}

impl Job {
    fn finished(
        cut: CutBatch,
        rejected: Vec<(LooseRow, Refused)>,
        result: Result<(), InsertError>,
        started: Instant,
    ) -> Self {
        Self::Inserted(Box::new(Attempt { cut, rejected, result, took: started.elapsed() }))
    }
}
