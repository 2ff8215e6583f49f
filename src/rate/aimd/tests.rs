//! The limit, alone and before a sink.

use super::super::{Criteria, Judge, Seen};
use super::*;

/// Of the simulation below.
const TICK: Duration = Duration::from_millis(10);

#[test]
fn a_limit_moves_at_most_once_an_interval() {
    let start = Instant::now();
    let mut aimd = Aimd::new(Steps::rate(10.0, 100.0), start);
    assert!(!aimd.apply(Signal::Grow, start + SECOND / 2));
    assert!(aimd.apply(Signal::Grow, start + SECOND));
    assert!(!aimd.apply(Signal::Shrink, start + SECOND * 3 / 2), "it speaks of what was before");
    assert!((aimd.limit() - 11.0).abs() < 1e-9);
    assert!(aimd.apply(Signal::Shrink, start + SECOND * 2));
    assert!((aimd.limit() - 5.5).abs() < 1e-9);
}

#[test]
fn holding_keeps_the_limit_and_the_turn() {
    let start = Instant::now();
    let mut aimd = Aimd::new(Steps::concurrency(4.0, 8.0), start);
    assert!(!aimd.apply(Signal::Hold, start + SECOND));
    assert!(aimd.apply(Signal::Shrink, start + SECOND), "no move, nothing to wait for");
    assert!((aimd.limit() - 3.6).abs() < 1e-9);
}

#[test]
fn a_limit_stays_between_its_bounds() {
    let start = Instant::now();
    let mut aimd = Aimd::new(Steps::concurrency(100.0, 2.0), start);
    assert!((aimd.limit() - 2.0).abs() < 1e-9, "the start too");
    for second in 1..50 {
        aimd.apply(Signal::Shrink, start + SECOND * second);
        assert!(aimd.limit() >= 1.0);
    }
    assert!((aimd.limit() - 1.0).abs() < 1e-9);
    for second in 50..60 {
        aimd.apply(Signal::Grow, start + SECOND * second);
    }
    assert!((aimd.limit() - 2.0).abs() < 1e-9);
    assert!(!aimd.apply(Signal::Grow, start + SECOND * 61), "at the bound nothing moves");
    aimd.retune(Steps::rate(1.0, 1.5));
    assert!((aimd.limit() - 1.5).abs() < 1e-9, "new bounds hold at once");
}

/// Sources that send as fast as they may, into one buffer before a sink of `capacity` a second.
struct Shared {
    sources: Vec<(Aimd, Judge)>,
    capacity: f64,
    buffer: f64,
    depth: f64,
    now: Instant,
}

/// What came of a span of time: the mean limit of each source, and what the sink took a second.
struct Outcome {
    limits: Vec<f64>,
    taken: f64,
}

impl Shared {
    fn new(steps: &[Steps], capacity: f64, buffer: f64) -> Self {
        let now = Instant::now();
        let source = |&steps| (Aimd::new(steps, now), Judge::new(Criteria::default()));
        Self { sources: steps.iter().map(source).collect(), capacity, buffer, depth: 0.0, now }
    }

    fn run(&mut self, time: Duration) -> Outcome {
        let (seconds, ticks) = (TICK.as_secs_f64(), time.as_millis() / TICK.as_millis());
        let mut outcome = Outcome { limits: vec![0.0; self.sources.len()], taken: 0.0 };
        for _ in 0..ticks {
            self.now += TICK;
            let offered: f64 = self.sources.iter().map(|(aimd, _)| aimd.limit() * seconds).sum();
            self.depth = (self.depth + offered).min(self.buffer);
            let taken = self.depth.min(self.capacity * seconds);
            self.depth -= taken;
            outcome.taken += taken / time.as_secs_f64();
            let fill = self.depth / self.buffer;
            for ((aimd, judge), mean) in self.sources.iter_mut().zip(&mut outcome.limits) {
                *mean += aimd.limit() * seconds / time.as_secs_f64();
                let seen = Seen { limit_reached: true, fill, ..Seen::default() };
                aimd.apply(judge.judge(&seen), self.now);
            }
        }
        outcome
    }
}

fn within_a_tenth(value: f64, of: f64) -> bool {
    (value - of).abs() <= of / 10.0
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_limit_finds_the_capacity_of_the_sink_from_below_and_from_above() {
    for start in [1.0, 1_000.0] {
        let mut shared = Shared::new(&[Steps::rate(start, 10_000.0)], 100.0, 2_000.0);
        shared.run(5 * MINUTE);
        for _ in 0..6 {
            // Two of its swings, of which each takes some two minutes.
            let outcome = shared.run(4 * MINUTE);
            assert!(within_a_tenth(outcome.limits[0], 100.0), "{start}: {:?}", outcome.limits);
            assert!(within_a_tenth(outcome.taken, 100.0), "{start}: {}", outcome.taken);
        }
    }
}

#[test]
fn a_limit_follows_a_sink_whose_capacity_changes() {
    let mut shared = Shared::new(&[Steps::rate(100.0, 10_000.0)], 100.0, 2_000.0);
    shared.run(5 * MINUTE);
    for capacity in [40.0, 160.0] {
        shared.capacity = capacity;
        shared.run(5 * MINUTE);
        let outcome = shared.run(10 * MINUTE);
        assert!(within_a_tenth(outcome.limits[0], capacity), "{capacity}: {:?}", outcome.limits);
        assert!(within_a_tenth(outcome.taken, capacity), "{capacity}: {}", outcome.taken);
    }
}

#[test]
fn small_decreases_keep_a_sink_busy_from_a_small_buffer() {
    let gentle = Steps { decrease: 0.9, ..Steps::rate(10.0, 10_000.0) };
    let mut shared = Shared::new(&[gentle], 100.0, 200.0);
    shared.run(5 * MINUTE);
    let outcome = shared.run(10 * MINUTE);
    assert!(within_a_tenth(outcome.limits[0], 100.0), "{:?}", outcome.limits);
    assert!(within_a_tenth(outcome.taken, 100.0), "{}", outcome.taken);
}

#[test]
fn two_sources_share_a_sink_fairly_wherever_they_began() {
    let steps = [Steps::rate(1.0, 10_000.0), Steps::rate(150.0, 10_000.0)];
    let mut shared = Shared::new(&steps, 100.0, 2_000.0);
    let first = shared.run(MINUTE);
    assert!(first.limits[1] > 3.0 * first.limits[0], "it was unfair: {:?}", first.limits);
    shared.run(14 * MINUTE);
    let outcome = shared.run(5 * MINUTE);
    for limit in &outcome.limits {
        assert!(within_a_tenth(*limit, 50.0), "{:?}", outcome.limits);
    }
    assert!(within_a_tenth(outcome.taken, 100.0), "{}", outcome.taken);
}
