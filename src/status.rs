//! The snapshot: everything that the bridge says of itself, made by the pipeline's owner and
//! published whole by `watch`. `/health`, `/metrics`, the heartbeat line and the alerts all read
//! the same one, so they cannot disagree. Plain data; what follows from it alone is in `condition`,
//! what it looks like as JSON in `health`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Action, Config, Route};
use crate::overload::Overload;
use crate::record::UnixMs;
use crate::route::RouteId;

pub mod accounting;
pub mod ahead;
pub mod backpressure;
pub mod condition;
pub mod config;
pub mod fleet;
pub mod forecast;
pub mod health;
pub mod overload;
mod route;
pub mod verdict;

pub use backpressure::{AutoStatus, BackpressureStatus};
pub use condition::{Condition, WEDGED_AFTER};
pub use config::{ConfigStatus, Refusal};
pub use fleet::FleetStatus;
pub use forecast::Forecast;
pub use overload::{AdaptiveStatus, OverloadStatus, TierStatus};
pub use route::{RouteState, RouteStatus, WindowStatus};
pub use verdict::Verdict;

/// How the snapshot is published. Shared, so that a slow reader never makes the owner wait.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// One consistent view of the bridge. Counters count since the start of the process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub stage: RunStage,
    /// The source that ended by itself, which is why it drains; None where it was told to stop.
    pub source_ended: Option<&'static str>,
    pub config: ConfigStatus,
    pub backpressure: BackpressureStatus,
    pub overload: OverloadStatus,
    /// None: it is in no fleet.
    pub fleet: Option<FleetStatus>,
    pub breaker: BreakerStatus,
    /// In the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
    /// By the writer's name; every configured writer is there.
    pub writers: BTreeMap<String, WriterStatus>,
    /// By the source's name; a source that is not configured is absent.
    pub sources: BTreeMap<String, SourceStatus>,
    /// By the route's name.
    pub routes: BTreeMap<String, RouteStatus>,
    pub dead_letters: DeadLetterStatus,
    /// Messages of the live feed that its subscribers lost, since the start.
    pub subscriber_drops: u64,
    /// Over the last heartbeat interval.
    pub rates: Rates,
    /// From the last heartbeats.
    pub forecast: Forecast,
    /// The furthest that a record which became durable in the last five minutes was ahead of this
    /// clock.
    pub record_ahead_seconds: f64,
    /// What needs a person, in words that say what to do; empty when nothing does.
    pub needs_person: Vec<String>,
    /// When the owner loop made this snapshot, for people.
    pub made_at: UnixMs,
    /// The same moment by the monotonic clock, for the watchdog: a wall clock that is set must not
    /// restart the bridge. None until the loop runs; a running bridge without it is wedged.
    pub turned_at: Option<Instant>,
    /// A timer or an attempt is overdue by so much that the pipeline counts as wedged; which.
    pub overdue: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStage {
    #[default]
    Starting,
    Running,
    Draining,
    Stopped,
}

/// The circuit breaker around ClickHouse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// Failures in a row that speak of ClickHouse as a whole.
    pub failures: usize,
    pub openings: u64,
    /// Batches that were due and had to wait for it.
    pub rejects: u64,
    /// When the next probe may go; None while it is closed, or the probe is under way.
    pub probe_at: Option<UnixMs>,
    /// Why it is open; None while it is closed.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BreakerState {
    #[default]
    Closed,
    /// No insert starts.
    Open,
    /// One insert is under way, and decides.
    HalfOpen,
}

impl BreakerState {
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One of the ClickHouse servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointStatus {
    pub url: String,
    /// The last request was answered, or none was made yet.
    pub healthy: bool,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Inserts of which only this server can tell whether they landed; they wait for it.
    pub unclear_inserts: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriterStatus {
    /// Rows in open batches.
    pub buffered: usize,
    /// Rows in batches cut and not yet durable (queued, being inserted, waiting for a retry).
    pub in_flight: usize,
    /// Rows durable.
    pub inserted: u64,
    /// Inserts acknowledged.
    pub inserts: u64,
    /// Attempts that were not acknowledged.
    pub failed_inserts: u64,
    /// What the acknowledged ones took, in all.
    pub insert_seconds: f64,
}

/// The accounting closes in every snapshot:
/// received = inserted + dead_lettered + filtered + dropped + released + held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceStatus {
    pub connected: bool,
    /// What stands in its way: why it is not connected, or what a server refuses it.
    pub error: Option<String>,
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    /// Tombstones, `count` routes, records that no route takes, `system` records without a table.
    pub filtered: u64,
    /// By class, and by reason within it.
    pub dropped: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Given back to the source; they come again.
    pub released: u64,
    pub held: usize,
    pub paused: bool,
    /// Records per second that it may take; None without a limit.
    pub current_rate_limit: Option<f64>,
    /// Of these it takes nothing, although it is not paused: their table is broken and holds all
    /// that it may, or their route took more than its rate allows.
    pub held_topics: Vec<String>,
    /// None for a source that has no native pause.
    pub natively_paused: Option<bool>,
    /// Admitted and not below a committed position; would come again after a crash.
    pub uncommitted: u64,
    /// Assigned partitions; None for a source without partitions.
    pub assigned: Option<usize>,
    /// None for a source without partitions, or while unknown.
    pub lag: Option<i64>,
    pub partitions: Vec<crate::source::PartitionObserved>,
    pub reconnects: u64,
    /// Times the client reported that it dropped records because nobody took them fast enough.
    /// Events, not records: those are among `dropped`.
    pub slow_consumer_events: u64,
    /// Requests of publishers for which there was no room; None for a source that cannot refuse.
    pub refused_requests: Option<u64>,
    /// Drops by subject, at most 1,000 subjects, then `other`.
    pub dropped_subjects: BTreeMap<String, u64>,
    /// Records of class `system`, by subject, at most 1,000 subjects, then `other`.
    pub system: BTreeMap<String, SystemSubject>,
    /// Records that no route takes, by topic or subject, at most 1,000, then `other`.
    pub unrouted: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemSubject {
    pub count: u64,
    pub last_seen: UnixMs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterStatus {
    /// Written durably.
    pub written: u64,
    /// By route and reason code.
    pub by_reason: BTreeMap<(String, &'static str), u64>,
    /// Not durable yet; part of `current_buffer`.
    pub pending: usize,
    /// The newest of each route and reason.
    pub newest: Vec<Arc<LetterSample>>,
}

/// A dead letter, as far as a person wants to see it at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterSample {
    /// When it was refused.
    pub time: UnixMs,
    pub route: String,
    pub reason: &'static str,
    /// Quotes nothing of the record.
    pub outline: String,
    pub source: &'static str,
    pub topic_or_subject: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
}

/// How fast records come and go, in records per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    pub input_records_per_second: f64,
    pub output_records_per_second: f64,
}

impl Rates {
    /// The rates between two snapshots taken `interval` apart.
    #[must_use]
    pub fn between(earlier: &Snapshot, later: &Snapshot, interval: Duration) -> Self {
        let per_second = |before: u64, after: u64| {
            let seconds = interval.as_secs_f64();
            if seconds > 0.0 { float(after.saturating_sub(before)) / seconds } else { 0.0 }
        };
        Self {
            input_records_per_second: per_second(earlier.received(), later.received()),
            output_records_per_second: per_second(earlier.inserted(), later.inserted()),
        }
    }
}

/// Who answers: what does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Identity {
    pub instance: String,
    pub started_at: UnixMs,
    pub started: Instant,
}

impl Identity {
    pub const SERVICE: &'static str = "data-bridge";
    pub const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    /// This process, started now.
    #[must_use]
    pub fn new(instance: impl Into<String>) -> Self {
        let started_at = jiff::Timestamp::now().as_millisecond();
        Self { instance: instance.into(), started_at, started: Instant::now() }
    }
}

impl Snapshot {
    /// What there is to say before the pipeline turns: everything configured, at zero. Every
    /// configured writer, source and route is there from the first answer on.
    #[must_use]
    pub fn starting(config: &Config) -> Self {
        let limits = &config.backpressure;
        let ids: Vec<RouteId> = (0..).map(RouteId).take(config.routes.len()).collect();
        let source = |natively_paused, assigned, reads: fn(&Route) -> bool| SourceStatus {
            natively_paused,
            assigned,
            dropped: droppable(&config.routes, reads),
            ..SourceStatus::default()
        };
        let kafka = config.kafka.iter().map(|_| {
            ("kafka".to_owned(), source(Some(false), Some(0), |r| !r.kafka_topics.is_empty()))
        });
        let nats = config.has_core_nats().then(|| {
            let mut nats = source(None, None, |r| !r.nats_subjects.is_empty());
            let by_client = BTreeMap::from([(SLOW_CONSUMER, 0)]);
            nats.dropped.insert(UNKNOWN_CLASS.to_owned(), by_client);
            ("nats".to_owned(), nats)
        });
        let jetstream = config.nats.iter().filter_map(|nats| nats.jetstream.as_ref()).map(|_| {
            ("jetstream".to_owned(), source(Some(false), Some(0), |r| r.jetstream.is_some()))
        });
        let live = config
            .has_live()
            .then(|| source(None, None, |route| route.publish))
            .map(|live| SourceStatus { refused_requests: Some(0), ..live })
            .map(|live| ("live".to_owned(), live));
        let routes = config.routes.iter().map(|route| {
            // A `count` route waits for no table.
            let state = match route.action {
                Action::Insert(_) => RouteState::Starting,
                Action::Count => RouteState::Running,
            };
            let table = route.table().map(Arc::from);
            let guarantees = route.guarantees().collect();
            (route.name.clone(), RouteStatus { state, table, guarantees, ..RouteStatus::default() })
        });
        Self {
            backpressure: BackpressureStatus {
                pause_threshold: limits.pause_threshold,
                resume_threshold: limits.resume_threshold,
                max_buffer_size: limits.max_buffer_size,
                pull_limit: limits.pull_limit,
                max_buffer_bytes: limits.max_buffer_bytes,
                ..BackpressureStatus::default()
            },
            overload: OverloadStatus {
                tiers: Overload::new(config, &ids).tiers().collect(),
                adaptive: None,
            },
            writers: config
                .writers
                .keys()
                .map(|name| (name.clone(), WriterStatus::default()))
                .collect(),
            sources: kafka.chain(nats).chain(jetstream).chain(live).collect(),
            routes: routes.collect(),
            ..Self::default()
        }
    }

    /// Records received, over all sources.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.sources.values().map(|s| s.received).sum()
    }

    /// Rows durable, over all writers.
    #[must_use]
    pub fn inserted(&self) -> u64 {
        self.writers.values().map(|w| w.inserted).sum()
    }

    /// Records dropped, over all sources, classes and reasons.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sources.values().map(SourceStatus::dropped_total).sum()
    }
}

/// Every class that a source may have to drop, at nothing, so that `/health` has its key before the
/// first drop. `system` is never dropped.
fn droppable(
    routes: &[Route],
    reads: fn(&Route) -> bool,
) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
    let classes = routes.iter().filter(|route| reads(route)).map(|route| route.class.clone());
    classes.filter(|class| class != "system").map(|class| (class, BTreeMap::new())).collect()
}

/// The class of records that nobody has looked at.
pub const UNKNOWN_CLASS: &str = "unknown";
/// Why records are dropped: the client had no room for them.
pub const SLOW_CONSUMER: &str = "slow_consumer";

impl SourceStatus {
    /// Records that its client dropped, for good.
    #[must_use]
    pub fn dropped_by_client(&self) -> u64 {
        let reasons = self.dropped.get(UNKNOWN_CLASS);
        reasons.and_then(|reasons| reasons.get(SLOW_CONSUMER)).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().flat_map(BTreeMap::values).sum()
    }
}

/// A count as a float, for rates and ratios.
#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 may lose their last digits here")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 may lose their last digits here")]
pub(crate) fn float_of(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod samples;
