//! What is simulated. Valid by its making: from a file through `file`, or built in here.

use std::num::NonZeroU32;
use std::time::Duration;

use super::shape::Shape;
use crate::config;
use crate::flow::{Sampling, Strategy};
use crate::rate::Steps;

/// Something to simulate, by a name.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub duration: Duration,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// A producer, a buffer and a consumer.
    Stream(StreamPlan),
    /// Several producers that share a consumer, each steered by AIMD.
    Share(SharePlan),
    /// Kafka and NATS, the bridge's controller, ClickHouse.
    Bridge(Box<BridgePlan>),
}

/// A time in which nothing is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    pub after: Duration,
    pub lasts: Duration,
}

impl Stall {
    #[must_use]
    pub fn is_on(&self, at: Duration) -> bool {
        at > self.after && at <= self.after.saturating_add(self.lasts)
    }
}

#[derive(Debug, Clone)]
pub struct StreamPlan {
    pub producer: Shape,
    pub consumer: Shape,
    pub stall: Option<Stall>,
    pub capacity: usize,
    /// One at least; several are compared.
    pub strategies: Vec<Strategy>,
    /// Records a second and burst that the producer is held to.
    pub bucket: Option<(f64, u64)>,
    /// How many keys the records have, for samples by key.
    pub keys: u32,
}

#[derive(Debug, Clone)]
pub struct SharePlan {
    /// The first limit of each source.
    pub starts: Vec<f64>,
    pub steps: Steps,
    pub consumer: Shape,
    pub stall: Option<Stall>,
    pub capacity: usize,
}

#[derive(Debug, Clone)]
pub struct BridgePlan {
    pub kafka: Shape,
    pub nats: Shape,
    /// Rows a second that ClickHouse writes.
    pub clickhouse: Shape,
    pub stall: Option<Stall>,
    pub record_bytes: usize,
    pub limits: config::Backpressure,
    pub batch_rows: usize,
    pub linger: Duration,
    pub max_in_flight: usize,
    pub heartbeat: Duration,
}

impl Default for BridgePlan {
    /// The defaults of the configuration, Kafka and core NATS beside each other.
    fn default() -> Self {
        Self {
            kafka: Shape::Steady { rate: 5_000.0 },
            nats: Shape::Steady { rate: 2_000.0 },
            clickhouse: Shape::Steady { rate: 20_000.0 },
            stall: None,
            record_bytes: 500,
            limits: config::Backpressure {
                max_buffer_size: 50_000,
                pause_threshold: 40_000,
                resume_threshold: 20_000,
                pull_limit: 30_000,
                max_buffer_bytes: 256 << 20,
                memory_budget: None,
                warn_after: Duration::from_secs(300),
                critical_after: Duration::from_secs(600),
                repeat_every: Duration::from_secs(60),
                auto: None,
            },
            batch_rows: 10_000,
            linger: Duration::from_secs(1),
            max_in_flight: 2,
            heartbeat: Duration::from_secs(5),
        }
    }
}

impl Scenario {
    /// One scenario a run: a comparison is one for each of its strategies.
    #[must_use]
    pub fn runs(&self) -> Vec<Self> {
        match &self.kind {
            Kind::Stream(plan) if plan.strategies.len() > 1 => {
                let run = |strategy: &Strategy| Self {
                    name: format!("{}/{}", self.name, strategy.name()),
                    kind: Kind::Stream(StreamPlan { strategies: vec![*strategy], ..plan.clone() }),
                    ..self.clone()
                };
                plan.strategies.iter().map(run).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

/// The scenarios that need no file.
#[must_use]
pub fn built_in() -> Vec<Scenario> {
    let minute = Duration::from_secs(60);
    let scenario = |name: &str, about: &str, duration, kind| Scenario {
        name: name.to_owned(),
        about: about.to_owned(),
        duration,
        kind,
    };
    let about = "100/s into a consumer of 10/s: the producer waits, nothing is lost, all gets old";
    let block = scenario("block", about, minute, Kind::Stream(fast_and_slow(Strategy::Block)));
    let about =
        "the same, and the oldest goes: what is delivered is never old, nine in ten are lost";
    let oldest = Kind::Stream(fast_and_slow(Strategy::DropOldest));
    let oldest = scenario("drop-oldest", about, minute, oldest);
    let about = "50-200/s into 30-150/s: AIMD steers the producer to what the consumer takes";
    let adaptive = scenario("adaptive", about, 3 * minute, Kind::Stream(variable()));
    let about = "bursts of 500/s into 50/s: a token bucket lets 200 at once through, then 50/s";
    let bursts = scenario("bursts", about, minute, Kind::Stream(bursts()));
    let about = "two sources before a consumer of 100/s, one begins at 10/s and one at 150/s";
    let fair = scenario("fair-share", about, 15 * minute, Kind::Share(fair_share()));
    let about = "all strategies: bursts of 400/s, a consumer of 120/s that stands still for 10 s";
    let compare = scenario("compare", about, minute, Kind::Stream(comparison()));
    let about = "the bridge's own controller: ClickHouse stands still for 20 s, then catches up";
    let stall = Stall { after: Duration::from_secs(10), lasts: Duration::from_secs(20) };
    let bridge = BridgePlan { stall: Some(stall), ..BridgePlan::default() };
    let bridge = scenario("bridge", about, minute, Kind::Bridge(Box::new(bridge)));
    vec![block, oldest, adaptive, bursts, fair, compare, bridge]
}

fn fast_and_slow(strategy: Strategy) -> StreamPlan {
    StreamPlan {
        producer: Shape::Steady { rate: 100.0 },
        consumer: Shape::Steady { rate: 10.0 },
        stall: None,
        capacity: 100,
        strategies: vec![strategy],
        bucket: None,
        keys: 100,
    }
}

fn variable() -> StreamPlan {
    let every = Duration::from_secs(10);
    StreamPlan {
        producer: Shape::Wander { low: 50.0, high: 200.0, every },
        consumer: Shape::Wander { low: 30.0, high: 150.0, every },
        capacity: 1_000,
        ..fast_and_slow(Strategy::Adaptive(Steps::rate(50.0, 1_000.0)))
    }
}

fn bursts() -> StreamPlan {
    let (every, lasts) = (Duration::from_secs(20), Duration::from_secs(2));
    StreamPlan {
        producer: Shape::Bursts { low: 0.0, high: 500.0, every, lasts },
        consumer: Shape::Steady { rate: 50.0 },
        capacity: 500,
        bucket: Some((50.0, 200)),
        ..fast_and_slow(Strategy::Block)
    }
}

fn fair_share() -> SharePlan {
    SharePlan {
        starts: vec![10.0, 150.0],
        steps: Steps::rate(1.0, 1_000.0),
        consumer: Shape::Steady { rate: 100.0 },
        stall: None,
        capacity: 2_000,
    }
}

fn comparison() -> StreamPlan {
    let (every, lasts) = (Duration::from_secs(15), Duration::from_secs(5));
    let one_in_ten = Sampling::OneIn(NonZeroU32::new(10).expect("ten is not zero"));
    let steps = Steps { increase: 10.0, ..Steps::rate(100.0, 1_000.0) };
    StreamPlan {
        producer: Shape::Bursts { low: 60.0, high: 400.0, every, lasts },
        consumer: Shape::Steady { rate: 120.0 },
        stall: Some(Stall { after: Duration::from_secs(20), lasts: Duration::from_secs(10) }),
        capacity: 500,
        strategies: vec![
            Strategy::Block,
            Strategy::Adaptive(steps),
            Strategy::DropNewest,
            Strategy::DropOldest,
            Strategy::Sliding { keep: 100 },
            Strategy::Sample { sampling: one_in_ten, from: 0.5 },
            Strategy::Disconnect,
        ],
        bucket: None,
        keys: 100,
    }
}
