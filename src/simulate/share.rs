//! Several sources that send as fast as they may, each with a limit of its own, into one buffer
//! before one consumer: do they find what it can take, and do they share it fairly?

use std::time::Duration;

use tokio::time::Instant;

use super::report::{Limits, Point, Summary};
use super::scenario::{SharePlan, Stall};
use super::shape::Shape;
use super::{Due, TICK, World, float, whole};
use crate::flow::{Buffer, Strategy, Verdict};
use crate::rate::{Aimd, Criteria, Judge, Seen, TokenBucket};

#[derive(Debug)]
struct Source {
    aimd: Aimd,
    judge: Judge,
    bucket: TokenBucket,
}

#[derive(Debug)]
pub(super) struct Sharing {
    sources: Vec<Source>,
    consumer: Shape,
    stall: Option<Stall>,
    seed: u64,
    consume: Due,
    buffer: Buffer<()>,
    limits: Limits,
    /// Whose turn it is to be first: nobody shall win by standing first in a list.
    first: usize,
}

impl Sharing {
    pub(super) fn new(plan: &SharePlan, seed: u64, now: Instant) -> Self {
        let source = |&start: &f64| {
            let aimd = Aimd::new(crate::rate::Steps { start, ..plan.steps }, now);
            let bucket = TokenBucket::new(aimd.limit(), burst(aimd.limit()), now);
            Source { aimd, judge: Judge::new(Criteria::default()), bucket }
        };
        Self {
            sources: plan.starts.iter().map(source).collect(),
            consumer: plan.consumer,
            stall: plan.stall,
            seed,
            consume: Due::default(),
            buffer: Buffer::new(plan.capacity, Strategy::Block, now),
            limits: Limits::default(),
            first: 0,
        }
    }

    fn send(&mut self, now: Instant) {
        let count = self.sources.len();
        self.first = (self.first + 1) % count;
        for turn in 0..count {
            let source = &mut self.sources[(self.first + turn) % count];
            while source.bucket.take(1, now) {
                if let Verdict::Full(()) = self.buffer.offer((), now) {
                    source.bucket.give_back(1);
                    break;
                }
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let fill = float(self.buffer.len() as u64) / float(self.buffer.capacity() as u64);
        for Source { aimd, judge, bucket } in &mut self.sources {
            let seen = Seen { limit_reached: true, fill, ..Seen::default() };
            if aimd.apply(judge.judge(&seen), now) {
                bucket.retune(aimd.limit(), burst(aimd.limit()), now);
            }
        }
    }

    fn rates(&self) -> Vec<f64> {
        self.sources.iter().map(|source| source.aimd.limit()).collect()
    }
}

/// What comes due within two steps of the clock, so that nothing of the rate is lost between them.
fn burst(limit: f64) -> u64 {
    whole((limit * TICK.as_secs_f64() * 2.0).ceil()) + 1
}

impl World for Sharing {
    fn step(&mut self, at: Duration, now: Instant) {
        self.send(now);
        let stalled = self.stall.is_some_and(|stall| stall.is_on(at));
        let rate = if stalled { 0.0 } else { self.consumer.rate(at, self.seed) };
        for _ in 0..self.consume.more(rate, TICK) {
            if self.buffer.take(now).is_none() {
                self.consume.forget();
                break;
            }
        }
        self.look(now);
    }

    fn point(&mut self, at: Duration, now: Instant) -> Point {
        let metrics = self.buffer.metrics(now);
        let rate_limits = self.rates();
        self.limits.see(&rate_limits);
        Point {
            seconds: at.as_secs_f64(),
            depth: metrics.current_depth as u64,
            waiting: 0,
            came: metrics.produced_count,
            admitted: metrics.produced_count,
            dropped: 0,
            delivered: metrics.consumed_count,
            throughput: metrics.throughput_rate,
            rate_limits,
            paused: self.stall.is_some_and(|stall| stall.is_on(at)),
        }
    }

    fn summary(&mut self, at: Duration, now: Instant) -> Summary {
        let metrics = self.buffer.metrics(now);
        Summary {
            strategy: "aimd".to_owned(),
            seconds: at.as_secs_f64(),
            came: metrics.produced_count,
            delivered: metrics.consumed_count,
            dropped: 0,
            dropped_by: Default::default(),
            waiting: 0,
            in_buffer: metrics.current_depth as u64,
            peak_depth: metrics.peak_depth as u64,
            capacity: self.buffer.capacity() as u64,
            throughput: float(metrics.consumed_count) / at.as_secs_f64().max(1e-9),
            backpressure_events: metrics.backpressure_events,
            rate_limits: self.limits.means(),
            age_ms: None,
            paused_seconds: 0.0,
            events: Vec::new(),
        }
    }
}
