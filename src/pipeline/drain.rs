//! The stop, as the pipeline sees it. The whole story, with what comes before and after, is in
//! `app.rs`.

use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, RouteTally};
use crate::sink::Sink;
use crate::source::{SourceId, Stage};
use crate::status::{RunStage, UNKNOWN_CLASS};
use crate::writer::CutReason;

/// What the process was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stop {
    #[default]
    Run,
    /// First signal: drain within the grace period.
    Drain,
    /// Second signal: at once.
    Abort,
}

/// How far the stop is.
#[derive(Debug)]
pub(super) enum Phase {
    Running,
    /// Waiting until nothing is held.
    Draining {
        deadline: Instant,
        pushed_deadline: Instant,
    },
    /// Waiting until the sources have committed and left.
    Closing {
        deadline: Instant,
    },
    Ended,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Records that were held when it stopped waiting.
    pub abandoned: usize,
    /// Every source committed and left in time.
    pub closed: bool,
    pub aborted: bool,
}

/// What a pushed source has to hand over what was delivered, with a margin over its own 2 s.
const PUSHED_DRAIN: Duration = Duration::from_millis(2_500);
/// What the final commit and leaving the group may take; part of the grace period.
const CLOSE: Duration = Duration::from_secs(5);
/// The same after a second signal.
const CLOSE_ON_ABORT: Duration = Duration::from_secs(1);

impl Phase {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Running | Self::Ended => None,
            Self::Draining { deadline, pushed_deadline } => Some(*deadline.min(pushed_deadline)),
            Self::Closing { deadline } => Some(*deadline),
        }
    }
}

impl<S: Sink> Pipeline<S> {
    pub(super) fn stop_requested(&mut self, stop: Stop) {
        match (stop, &self.phase) {
            (Stop::Drain, Phase::Running) => self.start_draining(),
            (Stop::Abort, Phase::Running | Phase::Draining { .. }) => {
                self.aborted = true;
                self.close(CLOSE_ON_ABORT);
            }
            (Stop::Abort, Phase::Closing { .. }) => {
                self.aborted = true;
                self.phase = Phase::Ended;
            }
            _ => {}
        }
    }

    fn start_draining(&mut self) {
        let now = Instant::now();
        let grace = self.config.shutdown.grace;
        let waiting = grace.saturating_sub(self.close_reserve());
        self.phase =
            Phase::Draining { deadline: now + waiting, pushed_deadline: now + PUSHED_DRAIN };
        tracing::info!(event = "draining", held = self.held, ?grace, "stopping: draining");
        self.publish(RunStage::Draining);
        self.release_for_shutdown(now);
        self.give_back_restoring(now);
        self.credits.set_open(false);
        // Whoever stops it wants what is held to be stored if that can be at all: a breaker that
        // stays open for longer than the grace period would throw it away. There is not much to
        // protect ClickHouse from any more, and the backoff stays.
        self.breaker.retire();
        // One more try at once: what waits out a long backoff may work by now.
        self.waiting.iter_mut().for_each(|cut| cut.due = now);
        for source in &self.sources {
            source.handle.want_stage(Stage::Draining);
        }
    }

    /// What of the grace period is kept for leaving.
    fn close_reserve(&self) -> Duration {
        CLOSE.min(self.config.shutdown.grace / 3)
    }

    /// Goes on with the stop as far as it can; nothing while running.
    pub(super) fn drain_step(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining { deadline, pushed_deadline } => {
                self.cut_everything(CutReason::Drain);
                if pushed_deadline <= now {
                    self.sources.iter_mut().for_each(|source| source.drained = true);
                    // Met: the next deadline is that of the whole drain.
                    self.phase = Phase::Draining { deadline, pushed_deadline: deadline };
                }
                let drained = self.sources.iter().all(|source| source.drained);
                // `used` also counts what pulled sources have reserved and not handed over yet.
                if drained && self.held == 0 && self.credits.used() == 0 {
                    tracing::info!(event = "drained", "stopping: nothing is held any more");
                    let left = deadline.saturating_duration_since(now) + self.close_reserve();
                    self.close(CLOSE.min(left));
                } else if deadline <= now {
                    self.close(self.close_reserve());
                }
            }
            Phase::Closing { deadline } => {
                if deadline <= now || self.sources.iter().all(|source| source.closed) {
                    self.phase = Phase::Ended;
                }
            }
            Phase::Running | Phase::Ended => {}
        }
    }

    /// Final commit, leave; what is still held is abandoned.
    fn close(&mut self, within: Duration) {
        self.publish_commits();
        self.abandon();
        for source in &self.sources {
            source.handle.want_stage(Stage::Closing);
        }
        self.phase = Phase::Closing { deadline: Instant::now() + within };
    }

    fn abandon(&mut self) {
        self.abandoned = self.held;
        if self.held == 0 {
            return;
        }
        self.jobs.abort_all();
        // As long as it is known what is noted of them: without its note a position would say that
        // nothing is under way.
        for revocation in std::mem::take(&mut self.revocations) {
            self.let_partitions_go(revocation);
        }
        tracing::error!(
            event = "records_abandoned",
            abandoned = self.abandoned,
            "stopping: gave up waiting for what is held"
        );
        for (index, source) in self.sources.iter_mut().enumerate() {
            let by_route = self.ledger.give_up(SourceId(index));
            let held = by_route.total() as u64;
            if held == 0 {
                continue;
            }
            let again = source.handle.delivery.comes_again();
            for (route, records) in by_route.iter() {
                let RouteTally { released, dropped, .. } = &mut self.routes[route];
                *(if again { released } else { dropped }) += records as u64;
            }
            let name = source.handle.name;
            if again {
                source.tally.released += held;
                tracing::error!(
                    event = "records_abandoned",
                    source = name,
                    records = held,
                    "abandoned; they come again after the restart"
                );
            } else {
                source.tally.drop_records(UNKNOWN_CLASS, "abandoned", held);
                tracing::error!(
                    event = "records_lost",
                    source = name,
                    records = held,
                    "abandoned; they are lost"
                );
            }
        }
        self.forget_everything();
    }

    /// Nothing is held from here on; what comes back from a job is of no interest.
    fn forget_everything(&mut self) {
        self.queue.clear();
        self.waiting.clear();
        self.announcing.clear();
        self.exact.clear();
        self.forget_waiting();
        for table in &mut self.tables {
            drop(table.buffer.cut_all());
            table.in_flight = 0;
            table.kept = 0;
            table.restoring = 0;
        }
        self.held = 0;
        self.bytes = 0;
    }

    pub(super) fn closed(&mut self, source: SourceId, error: Option<String>) {
        let source = &mut self.sources[source.0];
        source.closed = true;
        source.drained = true;
        match error {
            Some(error) => {
                self.close_failed = true;
                tracing::error!(
                    event = "source_failed",
                    source = source.handle.name,
                    "closed with an error: {error}"
                );
            }
            None => tracing::info!(event = "source_closed", source = source.handle.name, "closed"),
        }
        if matches!(self.phase, Phase::Running) {
            // A bridge without its source looks healthy and does nothing: better to end, with what
            // is held made durable, and be started again.
            self.close_failed = true;
            source.ended_by_itself = true;
            tracing::error!(
                event = "source_failed",
                source = source.handle.name,
                "the source ended by itself: stopping"
            );
            self.start_draining();
        }
    }

    /// Nothing is waited for any more but the sources: what is admitted now, or comes back from a
    /// job, could not become durable any more.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Ended)
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    pub(super) fn ending(&self) -> Ending {
        let closed = !self.close_failed && self.sources.iter().all(|source| source.closed);
        Ending { abandoned: self.abandoned, closed, aborted: self.aborted }
    }
}
