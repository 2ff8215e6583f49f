//! The circuit breaker around the sink: whether an insert may start.
//!
//! Pure; owns the count of failures and the state. Closed, everything may go. After
//! `max_failures` failures in a row within [`window`] it opens: nothing may go until
//! `reset_timeout` has passed; then exactly one batch goes as the probe (half-open). Its success
//! closes the breaker, its failure opens it again. It never looks at what an insert holds and
//! starts none: the pipeline asks, and says what became of it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, Retry};
use crate::status::BreakerState;

/// How close together failures must be to count as one row of them: as long as `max_failures`
/// attempts of a single batch take at the most, one after the other. Any shorter, and a server
/// that hangs until `insert_timeout` would never open the breaker; and failures hours apart, of
/// which each has passed before the next, never add up.
#[must_use]
pub fn window(config: &config::Breaker, retry: &Retry, insert_timeout: Duration) -> Duration {
    (insert_timeout + retry.max_delay).saturating_mul(config.max_failures)
}

/// May an insert start?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Go,
    /// It may, alone: what becomes of it decides.
    Probe(Probe),
    /// It waits.
    Reject,
}

/// Names a probe to the breaker that gave it out. One that a success elsewhere has overtaken is
/// an insert like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(u64);

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Too many failures in a row: nothing goes before this moment.
    Opened {
        probe_at: Instant,
    },
    /// The probe failed: the same again.
    Reopened {
        probe_at: Instant,
    },
    Closed,
    None,
}

#[derive(Debug)]
enum State {
    /// The failures since the last success, oldest first; fewer than `max_failures`.
    Closed(VecDeque<Instant>),
    Open {
        probe_at: Instant,
    },
    /// The probe is under way.
    HalfOpen(Probe),
}

#[derive(Debug)]
pub struct Breaker {
    max_failures: usize,
    reset_timeout: Duration,
    window: Duration,
    state: State,
    /// It stands aside: the bridge stops, and tries while it may.
    retired: bool,
    probes: u64,
    openings: u64,
    rejects: u64,
}

impl Breaker {
    #[must_use]
    pub fn new(config: &config::Breaker, window: Duration) -> Self {
        Self {
            max_failures: usize::try_from(config.max_failures).unwrap_or(usize::MAX),
            reset_timeout: config.reset_timeout,
            window,
            state: State::Closed(VecDeque::new()),
            retired: false,
            probes: 0,
            openings: 0,
            rejects: 0,
        }
    }

    /// From the next failure on; a probe that is due already stays due.
    pub fn set_limits(&mut self, config: &config::Breaker, window: Duration) {
        self.max_failures = usize::try_from(config.max_failures).unwrap_or(usize::MAX);
        self.reset_timeout = config.reset_timeout;
        self.window = window;
    }

    /// May an insert start now? [`Permit::Probe`] is given to one alone, until the breaker was
    /// told what became of it.
    #[must_use]
    pub fn ask(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed(_) => Permit::Go,
            State::Open { probe_at } if probe_at <= now => {
                self.probes += 1;
                let probe = Probe(self.probes);
                self.state = State::HalfOpen(probe);
                Permit::Probe(probe)
            }
            State::Open { .. } | State::HalfOpen(_) => Permit::Reject,
        }
    }

    /// An insert was acknowledged, whether it was the probe or one from before the opening: the
    /// sink works.
    pub fn succeeded(&mut self) -> Change {
        match std::mem::replace(&mut self.state, State::Closed(VecDeque::new())) {
            State::Closed(_) => Change::None,
            State::Open { .. } | State::HalfOpen(_) => Change::Closed,
        }
    }

    /// An attempt failed in a way that speaks of the sink as a whole. Of those that began before
    /// the opening nothing more is learned; the probe decides.
    pub fn failed(&mut self, probe: Option<Probe>, now: Instant) -> Change {
        match &mut self.state {
            State::Closed(failures) if !self.retired => {
                failures.retain(|failure| now.saturating_duration_since(*failure) < self.window);
                failures.push_back(now);
                if failures.len() < self.max_failures {
                    return Change::None;
                }
                self.openings += 1;
                Change::Opened { probe_at: self.open(now) }
            }
            State::HalfOpen(under_way) if probe == Some(*under_way) => {
                Change::Reopened { probe_at: self.open(now) }
            }
            State::Closed(_) | State::Open { .. } | State::HalfOpen(_) => Change::None,
        }
    }

    /// The sink refused a table or a row, so it answers. Nothing to a breaker that is closed: a
    /// table's own fault neither adds to a row of failures nor ends it.
    pub fn answered(&mut self, probe: Option<Probe>) -> Change {
        if self.is_under_way(probe) { self.succeeded() } else { Change::None }
    }

    /// The probe did not reach the sink: nothing of it was left to send. The next batch is the
    /// probe.
    pub fn unsent(&mut self, probe: Option<Probe>, now: Instant) {
        if self.is_under_way(probe) {
            self.state = State::Open { probe_at: now };
        }
    }

    fn is_under_way(&self, probe: Option<Probe>) -> bool {
        matches!(self.state, State::HalfOpen(under_way) if Some(under_way) == probe)
    }

    fn open(&mut self, now: Instant) -> Instant {
        let probe_at = now + self.reset_timeout;
        self.state = State::Open { probe_at };
        probe_at
    }

    /// Batches that were due were told to wait.
    pub fn rejected(&mut self, count: u64) {
        self.rejects += count;
    }

    /// The bridge stops: within its grace everything may be tried, and nothing opens it again.
    pub fn retire(&mut self) {
        self.retired = true;
        self.state = State::Closed(VecDeque::new());
    }

    /// Open or half-open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// When the probe may go; None while closed, and while it is under way.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at } => Some(probe_at),
            State::Closed(_) | State::HalfOpen(_) => None,
        }
    }

    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen(_) => BreakerState::HalfOpen,
        }
    }

    /// Failures in a row, while closed; those that are too old by now still count as said.
    #[must_use]
    pub fn failures(&self) -> usize {
        match &self.state {
            State::Closed(failures) => failures.len(),
            State::Open { .. } | State::HalfOpen(_) => self.max_failures,
        }
    }

    #[must_use]
    pub fn openings(&self) -> u64 {
        self.openings
    }

    #[must_use]
    pub fn rejects(&self) -> u64 {
        self.rejects
    }
}

#[cfg(test)]
mod tests;
