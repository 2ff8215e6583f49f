//! Overload without servers: the bridge's own buffers, rates and rule, under a clock of their own.
//!
//! Pure: a [`Simulation`] is a scenario, a seed and the time that has passed in it; the same three
//! give the same numbers, to the last digit, on every machine. It never looks at the real clock,
//! prints nothing and reads no file. What it shows is what `flow`, `rate` and `backpressure` do,
//! because it is them that it runs.

mod advise;
mod bridge;
mod file;
mod plot;
mod report;
mod scenario;
mod shape;
mod share;
mod stream;

use std::time::Duration;

use tokio::time::Instant;

pub use advise::{Advice, Needs, Preset};
pub use file::parse;
pub use plot::plot;
pub use report::{Ages, Event, Point, Summary};
pub use scenario::{BridgePlan, Kind, Scenario, SharePlan, Stall, StreamPlan, built_in};
pub use shape::Shape;

/// How far the clock moves at a time: at a hundred records a second every other step has one, and
/// a minute is 12,000 steps.
const TICK: Duration = Duration::from_millis(5);

/// How often a point of the course is kept: finer than a plot of a minute can show.
const EVERY: Duration = Duration::from_millis(100);

/// What a scenario is made of: it takes steps, and says how it is.
trait World: std::fmt::Debug {
    /// Up to `at` since the beginning, which is `now`.
    fn step(&mut self, at: Duration, now: Instant);
    fn point(&mut self, at: Duration, now: Instant) -> Point;
    fn summary(&mut self, at: Duration, now: Instant) -> Summary;
}

/// A scenario under way.
#[derive(Debug)]
pub struct Simulation {
    world: Box<dyn World>,
    /// Any moment: only differences to it count.
    began: Instant,
    at: Duration,
    ends: Duration,
    points: Vec<Point>,
}

impl Simulation {
    /// One run; a scenario that compares strategies is several, see [`Scenario::runs`].
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let began = Instant::now();
        let world: Box<dyn World> = match &scenario.kind {
            Kind::Stream(plan) => Box::new(stream::Stream::new(plan, seed, began)),
            Kind::Share(plan) => Box::new(share::Sharing::new(plan, seed, began)),
            Kind::Bridge(plan) => Box::new(bridge::Bridge::new(plan, seed)),
        };
        let (at, ends) = (Duration::ZERO, scenario.duration);
        Self { world, began, at, ends, points: Vec::new() }
    }

    /// Moves the clock to `at`, at most to the end.
    pub fn advance(&mut self, at: Duration) {
        while self.at < at.min(self.ends) {
            self.at = (self.at + TICK).min(self.ends);
            self.world.step(self.at, self.began + self.at);
            if self.at.as_nanos().is_multiple_of(EVERY.as_nanos()) {
                let point = self.point();
                self.points.push(point);
            }
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.at >= self.ends
    }

    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// How it is now.
    #[must_use]
    pub fn point(&mut self) -> Point {
        self.world.point(self.at, self.began + self.at)
    }

    /// How it was, ten times a second.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// What came of it so far.
    #[must_use]
    pub fn summary(&mut self) -> Summary {
        self.world.summary(self.at, self.began + self.at)
    }
}

/// Whole records out of a rate and the time of a step; what is left over waits for the next.
#[derive(Debug, Default)]
struct Due(f64);

impl Due {
    fn more(&mut self, rate: f64, time: Duration) -> u64 {
        self.0 += rate * time.as_secs_f64();
        // A hair is added, or ten times a tenth would be less than one.
        let count = whole((self.0 + 1e-9).floor());
        self.0 -= float(count);
        count
    }

    /// Time in which nothing could be done is not saved for later.
    fn forget(&mut self) {
        self.0 = 0.0;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and nothing simulated is negative"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[expect(clippy::cast_precision_loss, reason = "what is simulated counts far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
