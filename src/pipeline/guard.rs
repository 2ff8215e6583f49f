//! The circuit breaker as the pipeline acts on it: whom it asks, what it is told, what is logged
//! and paused. The rules are in `breaker.rs`.

use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::{Job, Outcome};
use super::exact::Step;
use super::insert::CutBatch;
use super::table::Table;
use super::{Pipeline, wall_clock};
use crate::breaker::{Change, Permit, Probe};
use crate::sink::{InsertError, Sink};
use crate::status::BreakerStatus;

impl<S: Sink> Pipeline<S> {
    /// The circuit breaker hears how ClickHouse answered, if it was asked.
    pub(super) fn tell_breaker_of(&mut self, cut: &CutBatch, outcome: &Outcome) {
        let now = Instant::now();
        let mut ended = self.under_way.extract_if(.., |one| one.is_of(cut));
        let probe = ended.next().and_then(|one| one.probe);
        drop(ended);
        if self.tables[cut.table].apart {
            return; // it was not asked either
        }
        let unsent = !cut.is_encoded() && cut.step() == Step::Encode;
        match outcome {
            Outcome::Encoded => self.breaker.unsent(probe, now),
            _ if unsent => self.breaker.unsent(probe, now),
            Outcome::Refused(error) => self.tell_breaker(probe, &Err(error.clone()), now),
            _ => self.tell_breaker(probe, &Ok(()), now),
        }
    }

    /// Asks whether an insert may start. If not, each batch that is due is counted as rejected,
    /// once, and waits in the queue.
    pub(super) fn ask_breaker(&mut self, now: Instant) -> Result<Option<Probe>, ()> {
        match self.breaker.ask(now) {
            Permit::Go => Ok(None),
            Permit::Probe(probe) => {
                tracing::debug!("circuit breaker: one batch goes as the probe");
                Ok(Some(probe))
            }
            Permit::Reject => {
                let tables = &self.tables;
                let asks = |cut: &&mut CutBatch| {
                    tables[cut.table].program.is_some() && !tables[cut.table].apart
                };
                let due = self.queue.iter_mut().filter(asks);
                let counted = due.map(|cut| u64::from(!std::mem::replace(&mut cut.rejected, true)));
                self.breaker.rejected(counted.sum());
                Err(())
            }
        }
    }

    /// Tells what became of an attempt that reached the sink.
    pub(super) fn tell_breaker(
        &mut self,
        probe: Option<Probe>,
        result: &Result<(), InsertError>,
        now: Instant,
    ) {
        let change = match result {
            Ok(()) => self.breaker.succeeded(),
            // One server of several that fails is left to the others; the sink as a whole works.
            Err(error) if error.is_about_the_sink() && !self.sink.is_for_others_to_do(error) => {
                self.breaker_reason = error.refusal().to_string();
                self.breaker.failed(probe, now)
            }
            Err(_) => self.breaker.answered(probe),
        };
        let why = &self.breaker_reason;
        match change {
            Change::Opened { probe_at } => {
                let failures = self.breaker.failures();
                let probe_in = probe_at - now;
                tracing::warn!(
                    event = "breaker_open",
                    failures,
                    "circuit breaker open after {failures} failed inserts in a row; no insert \
                     starts, one is tried in {probe_in:?}: {why}"
                );
                self.breaker_opened(probe_at, now);
            }
            Change::Reopened { probe_at } => {
                let probe_in = probe_at - now;
                tracing::info!(
                    event = "breaker_probe_failed",
                    "circuit breaker: the probe failed, the next in {probe_in:?}: {why}"
                );
                self.breaker_opened(probe_at, now);
            }
            Change::Closed => {
                tracing::info!(
                    event = "breaker_closed",
                    "circuit breaker closed: ClickHouse answers"
                );
                self.backpressure.breaker_closed();
                self.hurry_those_that_wait_for_the_sink(now);
            }
            Change::None => {}
        }
    }

    /// What waits longer than the breaker is due with the probe; sources that can wait pause.
    fn breaker_opened(&mut self, probe_at: Instant, now: Instant) {
        self.hurry_those_that_wait_for_the_sink(probe_at);
        let before = self.paused_sources();
        let sources = self.sources.iter().enumerate();
        let waits = sources.filter(|(_, source)| source.handle.delivery.has_credits());
        let waits: Vec<usize> = waits.map(|(index, _)| index).collect();
        let change = self.backpressure.breaker_opened(&waits, now, wall_clock());
        self.pressure_changed(change, before, "");
    }

    /// It is time for the probe, and no batch is left that could be it (its partitions went away):
    /// then the pause must not wait for one. The next batch that comes is the probe.
    pub(super) fn do_not_wait_for_a_probe(&mut self, now: Instant) {
        let due = self.breaker.probe_at().is_some_and(|probe_at| probe_at <= now);
        if due && self.under_way.is_empty() {
            let mut cut = self.queue.iter().chain(&self.waiting);
            let could_be = |table: &Table| table.program.is_some() && !table.apart;
            if !cut.any(|cut| could_be(&self.tables[cut.table])) {
                self.backpressure.breaker_closed();
            }
        }
    }

    /// Without anything to insert nobody would find out that a server works again.
    pub(super) fn ask_failed_endpoints(&mut self) {
        if self.sink.endpoints().iter().any(|endpoint| !endpoint.healthy) {
            let sink = Arc::clone(&self.sink);
            self.jobs.spawn(async move {
                sink.ask_failed_endpoints().await;
                Job::AskedEndpoints
            });
        }
    }

    pub(super) fn breaker_status(&self) -> BreakerStatus {
        let now = Instant::now();
        let until_probe = |at: Instant| {
            let millis = at.saturating_duration_since(now).as_millis();
            wall_clock().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX))
        };
        BreakerStatus {
            state: self.breaker.state(),
            failures: self.breaker.failures(),
            openings: self.breaker.openings(),
            rejects: self.breaker.rejects(),
            probe_at: self.breaker.probe_at().map(until_probe),
            reason: self.breaker.is_open().then(|| self.breaker_reason.clone()),
        }
    }
}
