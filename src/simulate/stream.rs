//! One producer, one buffer, one consumer.
//!
//! The producer's records are due by its rate, whatever happens to them: what the buffer refuses
//! waits with the source, as a topic's backlog does, and is offered again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{Ages, Limits, Point, Summary, occurred};
use super::scenario::{Stall, StreamPlan};
use super::shape::Shape;
use super::{Due, TICK, World, float, millis};
use crate::flow::{Buffer, Reason, Verdict};
use crate::rate::TokenBucket;

#[derive(Debug)]
pub(super) struct Stream {
    producer: Shape,
    consumer: Shape,
    stall: Option<Stall>,
    seed: u64,
    keys: u64,
    strategy: &'static str,
    produce: Due,
    consume: Due,
    bucket: Option<TokenBucket>,
    /// Each record is the millisecond in which it was due.
    waiting: VecDeque<u32>,
    buffer: Buffer<u32>,
    came: u64,
    /// Offered when the consumer was cut off already.
    closed: u64,
    ages: Vec<u32>,
    limits: Limits,
    paused: Duration,
}

impl Stream {
    pub(super) fn new(plan: &StreamPlan, seed: u64, now: Instant) -> Self {
        let strategy = plan.strategies[0];
        Self {
            producer: plan.producer,
            consumer: plan.consumer,
            stall: plan.stall,
            seed,
            keys: u64::from(plan.keys),
            strategy: strategy.name(),
            produce: Due::default(),
            consume: Due::default(),
            bucket: plan.bucket.map(|(rate, burst)| TokenBucket::new(rate, burst, now)),
            waiting: VecDeque::new(),
            buffer: Buffer::new(plan.capacity, strategy, now),
            came: 0,
            closed: 0,
            ages: Vec::new(),
            limits: Limits::default(),
            paused: Duration::ZERO,
        }
    }

    fn offer(&mut self, now: Instant) {
        while let Some(&due) = self.waiting.front() {
            if self.bucket.as_mut().is_some_and(|bucket| !bucket.take(1, now)) {
                return;
            }
            let number = self.came - self.waiting.len() as u64;
            let key = (number % self.keys).to_le_bytes();
            match self.buffer.offer_keyed(due, &key, now) {
                Verdict::Full(_) | Verdict::TooFast(..) => {
                    if let Some(bucket) = &mut self.bucket {
                        bucket.give_back(1);
                    }
                    return;
                }
                Verdict::Closed(_) => self.closed += 1,
                Verdict::Kept
                | Verdict::Replaced(_)
                | Verdict::Dropped(..)
                | Verdict::CutOff(_) => {}
            }
            self.waiting.pop_front();
        }
    }

    fn take(&mut self, at: Duration, now: Instant) {
        let rate = self.consumer.rate(at, self.seed.wrapping_add(1));
        for _ in 0..self.consume.more(rate, TICK) {
            let Some(taken) = self.buffer.take(now) else { return self.consume.forget() };
            self.ages.push(millis(at).saturating_sub(taken.item));
        }
    }

    fn limit(&self, of_buffer: Option<f64>) -> Option<f64> {
        of_buffer.or(self.bucket.as_ref().map(TokenBucket::rate))
    }
}

impl World for Stream {
    fn step(&mut self, at: Duration, now: Instant) {
        let stalled = self.stall.is_some_and(|stall| stall.is_on(at));
        if stalled != self.buffer.is_paused() {
            // What a sliding window lets go is counted by the buffer.
            if stalled { drop(self.buffer.pause()) } else { self.buffer.resume() }
        }
        self.paused += if stalled { TICK } else { Duration::ZERO };
        let due = self.produce.more(self.producer.rate(at, self.seed), TICK);
        self.came += due;
        self.waiting.extend((0..due).map(|_| millis(at)));
        self.offer(now);
        self.take(at, now);
    }

    fn point(&mut self, at: Duration, now: Instant) -> Point {
        let metrics = self.buffer.metrics(now);
        let limits: Vec<_> = self.limit(metrics.current_rate_limit).into_iter().collect();
        self.limits.see(&limits);
        Point {
            seconds: at.as_secs_f64(),
            depth: metrics.current_depth as u64,
            waiting: self.waiting.len() as u64,
            came: self.came,
            admitted: metrics.produced_count,
            dropped: metrics.dropped_count.total() + self.closed,
            delivered: metrics.consumed_count,
            throughput: metrics.throughput_rate,
            rate_limits: limits,
            paused: self.buffer.is_paused(),
        }
    }

    fn summary(&mut self, at: Duration, now: Instant) -> Summary {
        let metrics = self.buffer.metrics(now);
        let reasons = Reason::ALL.map(|reason| (reason.name(), metrics.dropped_count.of(reason)));
        Summary {
            strategy: self.strategy.to_owned(),
            seconds: at.as_secs_f64(),
            came: self.came,
            delivered: metrics.consumed_count,
            dropped: metrics.dropped_count.total() + self.closed,
            dropped_by: occurred(reasons.into_iter().chain([("closed", self.closed)])),
            waiting: self.waiting.len() as u64,
            in_buffer: metrics.current_depth as u64,
            peak_depth: metrics.peak_depth as u64,
            capacity: self.buffer.capacity() as u64,
            throughput: float(metrics.consumed_count) / at.as_secs_f64().max(1e-9),
            backpressure_events: metrics.backpressure_events,
            rate_limits: self.limits.means(),
            age_ms: Ages::of(&self.ages),
            paused_seconds: self.paused.as_secs_f64(),
            events: Vec::new(),
        }
    }
}
