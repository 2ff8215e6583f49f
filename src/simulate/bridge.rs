//! The bridge's own controller before a ClickHouse that stalls: the rule of backpressure, the
//! credits of the pulled source, the flag of the pushed one, batches, inserts under way.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{Event, Point, Summary, occurred};
use super::scenario::BridgePlan;
use super::{Due, TICK, World, float};
use crate::backpressure::{Backpressure, Change, Level, Thresholds};
use crate::credits::Credits;
use crate::rate::SlidingWindow;
use crate::thousands::thousands;

/// The sources, as the controller numbers them.
const KAFKA: usize = 0;
const NATS: usize = 1;

/// As many as one poll of Kafka brings at most.
const CHUNK: usize = 10_000;

#[derive(Debug)]
pub(super) struct Bridge {
    plan: BridgePlan,
    seed: u64,
    kafka: Due,
    nats: Due,
    rows: Due,
    credits: Credits,
    backpressure: Backpressure,
    /// In Kafka, due and not taken.
    lag: usize,
    came: u64,
    /// Admitted and in no batch yet, and since when.
    open: usize,
    open_since: Duration,
    /// Rows of each batch that is being inserted, oldest first.
    under_way: VecDeque<usize>,
    /// Of the oldest, written already.
    written: usize,
    held: usize,
    peak: usize,
    settled: u64,
    settled_before: u64,
    asked_in_vain: bool,
    dropped_paused: u64,
    dropped_cap: u64,
    throughput: Option<SlidingWindow>,
    events: Vec<Event>,
}

impl Bridge {
    pub(super) fn new(plan: &BridgePlan, seed: u64) -> Self {
        let limits = &plan.limits;
        Self {
            seed,
            kafka: Due::default(),
            nats: Due::default(),
            rows: Due::default(),
            credits: Credits::new(limits.pull_limit, limits.max_buffer_size),
            backpressure: Backpressure::new(Thresholds::new(limits), 2),
            lag: 0,
            came: 0,
            open: 0,
            open_since: Duration::ZERO,
            under_way: VecDeque::new(),
            written: 0,
            held: 0,
            peak: 0,
            settled: 0,
            settled_before: 0,
            asked_in_vain: false,
            dropped_paused: 0,
            dropped_cap: 0,
            throughput: None,
            events: Vec::new(),
            plan: plan.clone(),
        }
    }

    /// What NATS pushed: admitted up to the cap, or dropped and counted.
    fn push(&mut self, count: u64) {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        if self.backpressure.paused(NATS) {
            self.dropped_paused += count;
            return;
        }
        let admitted = self.credits.admit(wanted, 0);
        self.dropped_cap += (wanted - admitted) as u64;
        self.admit(admitted);
    }

    /// Kafka gives as much as there are credits for.
    fn pull(&mut self) {
        while self.lag > 0 {
            let taken = self.credits.reserve(self.lag.min(CHUNK));
            if taken == 0 {
                self.asked_in_vain = true;
                return;
            }
            self.lag -= taken;
            self.admit(taken);
        }
    }

    fn admit(&mut self, count: usize) {
        self.open += count;
        self.held += count;
        self.peak = self.peak.max(self.held);
    }

    /// Batches are cut by rows and by age.
    fn cut(&mut self, at: Duration) {
        if self.open == 0 {
            self.open_since = at;
        }
        while self.under_way.len() < self.plan.max_in_flight && self.open > 0 {
            let due = at.saturating_sub(self.open_since) >= self.plan.linger;
            if self.open < self.plan.batch_rows && !due {
                return;
            }
            let rows = self.open.min(self.plan.batch_rows);
            self.under_way.push_back(rows);
            self.open -= rows;
            self.open_since = at;
        }
    }

    /// ClickHouse writes, and acknowledges whole batches.
    fn write(&mut self, at: Duration, now: Instant) {
        if self.plan.stall.is_some_and(|stall| stall.is_on(at)) || self.under_way.is_empty() {
            return self.rows.forget();
        }
        let rate = self.plan.clickhouse.rate(at, self.seed.wrapping_add(2));
        self.written += usize::try_from(self.rows.more(rate, TICK)).unwrap_or(usize::MAX);
        while let Some(&rows) = self.under_way.front() {
            if self.written < rows {
                return;
            }
            self.written -= rows;
            self.under_way.pop_front();
            self.held -= rows;
            self.credits.release(rows);
            self.settled += rows as u64;
            self.seen(now).add(rows as u64, now);
        }
        self.written = 0;
    }

    fn look(&mut self, at: Duration, now: Instant) {
        let level = Level { held: self.held, bytes: self.held * self.plan.record_bytes };
        let change = self.backpressure.look(level, now, wall(at));
        self.note(change, at);
        self.credits.set_open(!self.backpressure.level_paused());
        if at.as_nanos().is_multiple_of(self.plan.heartbeat.as_nanos()) {
            let starves = std::mem::take(&mut self.asked_in_vain)
                && self.settled == self.settled_before
                && self.held > 0;
            self.settled_before = self.settled;
            if starves {
                let change = self.backpressure.starve(KAFKA, now, wall(at));
                self.note(change, at);
            }
        }
    }

    fn note(&mut self, change: Change, at: Duration) {
        let (held, cap) = (thousands(self.held), thousands(self.plan.limits.max_buffer_size));
        let causes = self.backpressure.causes().join(",");
        let text = match change {
            Change::None => return,
            Change::Began => {
                format!("BACKPRESSURE ACTIVE: Buffer high ({held}/{cap}), cause {causes}")
            }
            Change::Joined => format!("another cause joins: {causes} ({held}/{cap})"),
            Change::Ended => format!("BACKPRESSURE RELEASED: Buffer normal ({held}/{cap})"),
        };
        self.events.push(Event { seconds: at.as_secs_f64(), text });
    }

    fn seen(&mut self, now: Instant) -> &mut SlidingWindow {
        self.throughput.get_or_insert_with(|| SlidingWindow::new(Duration::from_secs(10), now))
    }
}

fn wall(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

impl World for Bridge {
    fn step(&mut self, at: Duration, now: Instant) {
        let kafka = self.kafka.more(self.plan.kafka.rate(at, self.seed), TICK);
        let nats = self.nats.more(self.plan.nats.rate(at, self.seed.wrapping_add(1)), TICK);
        self.came += kafka + nats;
        self.lag += usize::try_from(kafka).unwrap_or(usize::MAX);
        self.push(nats);
        self.pull();
        self.cut(at);
        self.write(at, now);
        self.look(at, now);
    }

    fn point(&mut self, at: Duration, now: Instant) -> Point {
        let dropped = self.dropped_paused + self.dropped_cap;
        Point {
            seconds: at.as_secs_f64(),
            depth: self.held as u64,
            waiting: self.lag as u64,
            came: self.came,
            admitted: self.came - self.lag as u64,
            dropped,
            delivered: self.settled,
            throughput: self.seen(now).rate(now),
            rate_limits: Vec::new(),
            paused: self.backpressure.active(),
        }
    }

    fn summary(&mut self, at: Duration, now: Instant) -> Summary {
        Summary {
            strategy: "pause and resume".to_owned(),
            seconds: at.as_secs_f64(),
            came: self.came,
            delivered: self.settled,
            dropped: self.dropped_paused + self.dropped_cap,
            dropped_by: occurred([("paused", self.dropped_paused), ("cap", self.dropped_cap)]),
            waiting: self.lag as u64,
            in_buffer: self.held as u64,
            peak_depth: self.peak as u64,
            capacity: self.plan.limits.max_buffer_size as u64,
            throughput: float(self.settled) / at.as_secs_f64().max(1e-9),
            backpressure_events: self.backpressure.pause_count(),
            rate_limits: Vec::new(),
            age_ms: None,
            paused_seconds: self.backpressure.paused_total(now).as_secs_f64(),
            events: self.events.clone(),
        }
    }
}
