//! Additive increase, multiplicative decrease: the limit creeps up while the sink keeps up and
//! falls by a share when it does not.
//!
//! Owns the present limit, and when it last moved. It never looks at the sink: a [`Signal`] says
//! what became of the last interval. Those who share a sink end up with equal shares of it, because
//! a decrease takes more from whoever has more and an increase gives everybody the same.

use std::time::Duration;

use tokio::time::Instant;

/// What the last interval says about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The limit was reached and the sink kept up: more may be tried.
    Grow,
    /// Nothing is known: the limit was not reached, or the sink is near its own.
    Hold,
    /// The sink does not keep up.
    Shrink,
}

/// How far the limit moves, and between what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Where it begins.
    pub start: f64,
    /// Never below: a limit of nothing would never be reached, and so never grow again.
    pub min: f64,
    pub max: f64,
    /// What an increase adds.
    pub increase: f64,
    /// What a decrease leaves of it: 0.5 halves.
    pub decrease: f64,
    /// No two moves are closer together, so that each is judged by what came of it.
    pub interval: Duration,
}

impl Steps {
    /// For a rate in records per second: +1 a second, x0.5, as TCP does.
    #[must_use]
    pub fn rate(start: f64, max: f64) -> Self {
        Self { start, min: 1.0, max, increase: 1.0, decrease: 0.5, interval: SECOND }
    }

    /// For inserts under way at a time: +1 a second, x0.9. There are few of them, so that half
    /// would be too much to give up for one refusal.
    #[must_use]
    pub fn concurrency(start: f64, max: f64) -> Self {
        Self { start, min: 1.0, max, increase: 1.0, decrease: 0.9, interval: SECOND }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A limit that looks for the sink's capacity.
#[derive(Debug, Clone)]
pub struct Aimd {
    steps: Steps,
    limit: f64,
    moved: Instant,
}

impl Aimd {
    /// A start outside of the bounds is moved to the nearer one.
    ///
    /// # Panics
    ///
    /// When `min` is above `max`, not positive, or the steps would lead in the wrong direction:
    /// what comes from a configuration was validated there.
    #[must_use]
    pub fn new(steps: Steps, now: Instant) -> Self {
        assert!(0.0 < steps.min && steps.min <= steps.max, "the bounds are in order: {steps:?}");
        assert!(steps.increase > 0.0, "an increase increases: {steps:?}");
        assert!(0.0 < steps.decrease && steps.decrease < 1.0, "a decrease decreases: {steps:?}");
        Self { limit: steps.start.clamp(steps.min, steps.max), steps, moved: now }
    }

    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    #[must_use]
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Whether an interval has passed since the last move: a signal counts now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= self.steps.interval
    }

    /// Moves the limit by what was seen; at most once an interval. Says whether it moved.
    ///
    /// A signal that comes too early is forgotten: it speaks of records from before the last move.
    pub fn apply(&mut self, signal: Signal, now: Instant) -> bool {
        if !self.is_due(now) {
            return false;
        }
        let wanted = match signal {
            Signal::Grow => self.limit + self.steps.increase,
            Signal::Hold => self.limit,
            Signal::Shrink => self.limit * self.steps.decrease,
        };
        let wanted = wanted.clamp(self.steps.min, self.steps.max);
        let moves = wanted.total_cmp(&self.limit).is_ne();
        if moves {
            self.limit = wanted;
            self.moved = now;
        }
        moves
    }

    /// Takes other steps, from the limit where it is.
    pub fn retune(&mut self, steps: Steps) {
        self.limit = self.limit.clamp(steps.min, steps.max);
        self.steps = steps;
    }
}

#[cfg(test)]
mod tests;
