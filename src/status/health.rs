//! The body of `/health`: the snapshot as JSON. Users scrape these keys: names and types stay as
//! they are, keys may be added. Times are UTC, RFC 3339 with milliseconds and `Z`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    AutoStatus, BackpressureStatus, BreakerStatus, Condition, EndpointStatus, FleetStatus,
    Forecast, Identity, OverloadStatus, RouteStatus, RunStage, Snapshot, SourceStatus,
    WindowStatus, WriterStatus,
};
use crate::alert;
use crate::record::UnixMs;
use crate::webhook::Tally;

mod config;
mod firing;
mod receiver;

pub use config::{Config, Refusal};
pub use firing::Alert;
pub use receiver::Receiver;

/// Counts by a name: a class, a subject, a reason.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    pub service: &'static str,
    pub version: &'static str,
    pub instance: String,
    pub status: Condition,
    pub uptime_seconds: u64,
    pub started_at: String,
    /// Why the pipeline counts as wedged; null while it turns.
    pub wedged: Option<String>,
    /// What a person must do; empty when nothing.
    pub needs_person: Vec<String>,
    /// What fires, the critical first.
    pub alerts: Vec<Alert>,
    /// Who is told of them, by name.
    pub webhooks: Vec<Receiver>,
    pub config: Config,
    pub metrics: Metrics,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    pub backpressure: Backpressure,
    /// When the bridge is full, or drained, if all goes on as at the last heartbeats.
    pub forecast: Forecast,
    /// The policy for when something must give, and what it has cost.
    pub overload: OverloadStatus,
    /// The other instances, where there is a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
    pub breaker: Breaker,
    /// The ClickHouse servers, in the order of the configuration.
    pub endpoints: Vec<Endpoint>,
    pub writers: BTreeMap<String, Writer>,
    pub sources: BTreeMap<String, Source>,
    pub routes: BTreeMap<String, Route>,
    /// Written durably.
    pub dead_letters: u64,
    pub dead_letters_pending: usize,
    /// By route, then by reason code.
    pub dead_letters_by_reason: BTreeMap<String, Counts>,
    pub filtered: u64,
    pub dropped: u64,
    pub input_records_per_second: f64,
    pub output_records_per_second: f64,
}

/// The first nine keys are what users have scraped since the first release of the predecessor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backpressure {
    pub active: bool,
    pub nats_paused: bool,
    pub kafka_paused: bool,
    pub current_buffer: usize,
    pub pause_threshold: usize,
    pub resume_threshold: usize,
    pub pause_count: u64,
    pub last_pause: Option<String>,
    pub last_resume: Option<String>,
    pub causes: Vec<&'static str>,
    pub max_buffer_size: usize,
    pub pull_limit: usize,
    /// To three digits.
    pub utilization: f64,
    pub current_bytes: usize,
    pub max_buffer_bytes: usize,
    /// What the process may take in memory, in all; only where that is planned with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget_bytes: Option<usize>,
    pub peak_buffer: usize,
    pub paused_seconds: f64,
    pub paused_seconds_total: f64,
    /// Only with `thresholds = "auto"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    pub url: String,
    pub healthy: bool,
    /// Why it is not healthy; null while it is.
    pub reason: Option<String>,
    /// Inserts that wait for it, because it alone can tell whether they landed.
    pub unclear_inserts: usize,
}

/// The circuit breaker around ClickHouse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breaker {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    pub failures: usize,
    pub openings: u64,
    pub rejects: u64,
    /// Null while it is closed, or the probe is under way.
    pub probe_at: Option<String>,
    /// Why it is open; null while it is closed.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Writer {
    pub buffered: usize,
    pub in_flight: usize,
    pub inserted: u64,
    pub inserts: u64,
    pub failed_inserts: u64,
    /// What the acknowledged ones took, in all; to three digits.
    pub insert_seconds: f64,
}

/// A source. Keys that make no sense for its kind are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    pub connected: bool,
    /// Why not, or what it is refused; null when all is well.
    pub error: Option<String>,
    pub received: u64,
    pub paused: bool,
    /// Records per second that it may take; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_rate_limit: Option<f64>,
    /// Topics that wait although the source is not paused: their table is broken and holds its
    /// share, or their route is over its rate.
    pub held_topics: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub natively_paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned: Option<usize>,
    /// Absent without partitions, null while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Option<i64>>,
    pub released: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    pub held: usize,
    /// Received, less everything that became of it; other than 0 is a bug of ours.
    pub accounting_gap: i64,
    pub uncommitted: u64,
    /// By class.
    pub dropped: Counts,
    /// By class, then by reason.
    pub dropped_by_reason: BTreeMap<String, BTreeMap<&'static str, u64>>,
    pub dropped_subjects: Counts,
    pub unrouted: Counts,
    pub reconnects: u64,
    pub slow_consumer_events: u64,
    /// Requests of publishers that were told to come again; absent where nobody publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_requests: Option<u64>,
    pub system: BTreeMap<String, System>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct System {
    pub count: u64,
    pub last_seen: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub released: u64,
    pub held: usize,
    /// As that of a source.
    pub accounting_gap: i64,
    pub rounded: u64,
    pub table: Option<Arc<str>>,
    /// By source: `exactly_once`, `at_least_once`, `at_most_once` or, of what is published,
    /// `as_answered`.
    pub guarantees: BTreeMap<&'static str, &'static str>,
    pub state: &'static str,
    /// It takes nothing: its table is broken while others work, and holds its share.
    pub held_back: bool,
    /// Records per second that it may take; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_rate_limit: Option<f64>,
    /// Why it is in this state; absent when there is nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only where exactly once is promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deduplication_window: Option<WindowStatus>,
}

impl Snapshot {
    /// What `/health` says.
    #[must_use]
    pub fn health(&self, identity: &Identity, firing: &[alert::Alert], now: Instant) -> Health {
        Health {
            service: Identity::SERVICE,
            version: Identity::VERSION,
            instance: identity.instance.clone(),
            status: self.condition(now),
            uptime_seconds: now.saturating_duration_since(identity.started).as_secs(),
            started_at: rfc3339(identity.started_at),
            wedged: self.wedged(now),
            needs_person: self.needs_person.clone(),
            alerts: firing.iter().map(Into::into).collect(),
            webhooks: Vec::new(),
            config: Config::of(&self.config),
            metrics: self.health_metrics(),
        }
    }

    fn health_metrics(&self) -> Metrics {
        let mut dead_letters_by_reason: BTreeMap<String, Counts> = BTreeMap::new();
        for ((route, reason), count) in &self.dead_letters.by_reason {
            let reasons = dead_letters_by_reason.entry(route.clone()).or_default();
            reasons.insert((*reason).to_owned(), *count);
        }
        Metrics {
            backpressure: self.health_backpressure(),
            forecast: self.forecast,
            overload: self.overload.clone(),
            fleet: self.fleet.clone(),
            breaker: (&self.breaker).into(),
            endpoints: self.endpoints.iter().map(Into::into).collect(),
            writers: self.writers.iter().map(|(name, w)| (name.clone(), w.into())).collect(),
            sources: self.sources.iter().map(|(name, s)| (name.clone(), s.into())).collect(),
            routes: self.routes.iter().map(|(name, r)| (name.clone(), r.into())).collect(),
            dead_letters: self.dead_letters.written,
            dead_letters_pending: self.dead_letters.pending,
            dead_letters_by_reason,
            filtered: self.sources.values().map(|s| s.filtered).sum(),
            dropped: self.dropped(),
            input_records_per_second: to_digits(self.rates.input_records_per_second, 10.0),
            output_records_per_second: to_digits(self.rates.output_records_per_second, 10.0),
        }
    }

    fn health_backpressure(&self) -> Backpressure {
        let BackpressureStatus {
            active,
            causes,
            current_buffer,
            peak_buffer,
            pause_threshold,
            resume_threshold,
            max_buffer_size,
            pull_limit,
            current_bytes,
            max_buffer_bytes,
            memory_budget_bytes,
            pause_count,
            last_pause,
            last_resume,
            paused_seconds_total,
            paused_seconds,
            critical: _,
            auto,
        } = &self.backpressure;
        let is_paused = |source: &str| self.sources.get(source).is_some_and(|s| s.paused);
        Backpressure {
            active: *active,
            nats_paused: is_paused("nats"),
            kafka_paused: is_paused("kafka"),
            current_buffer: *current_buffer,
            pause_threshold: *pause_threshold,
            resume_threshold: *resume_threshold,
            pause_count: *pause_count,
            last_pause: last_pause.map(rfc3339),
            last_resume: last_resume.map(rfc3339),
            causes: causes.clone(),
            max_buffer_size: *max_buffer_size,
            pull_limit: *pull_limit,
            utilization: to_digits(self.backpressure.utilization(), 1_000.0),
            current_bytes: *current_bytes,
            max_buffer_bytes: *max_buffer_bytes,
            memory_budget_bytes: *memory_budget_bytes,
            peak_buffer: *peak_buffer,
            paused_seconds: to_digits(*paused_seconds, 1_000.0),
            paused_seconds_total: to_digits(*paused_seconds_total, 1_000.0),
            auto: auto.clone(),
        }
    }
}

impl From<&EndpointStatus> for Endpoint {
    fn from(endpoint: &EndpointStatus) -> Self {
        let EndpointStatus { url, healthy, reason, unclear_inserts } = endpoint.clone();
        Self { url, healthy, reason, unclear_inserts }
    }
}

impl From<&BreakerStatus> for Breaker {
    fn from(breaker: &BreakerStatus) -> Self {
        Self {
            state: breaker.state.name(),
            failures: breaker.failures,
            openings: breaker.openings,
            rejects: breaker.rejects,
            probe_at: breaker.probe_at.map(rfc3339),
            reason: breaker.reason.clone(),
        }
    }
}

impl From<&WriterStatus> for Writer {
    fn from(writer: &WriterStatus) -> Self {
        let &WriterStatus { buffered, in_flight, inserted, inserts, failed_inserts, .. } = writer;
        let insert_seconds = to_digits(writer.insert_seconds, 1_000.0);
        Self { buffered, in_flight, inserted, inserts, failed_inserts, insert_seconds }
    }
}

impl From<&SourceStatus> for Source {
    fn from(source: &SourceStatus) -> Self {
        let seen = |(subject, seen): (&String, &super::SystemSubject)| {
            let system = System { count: seen.count, last_seen: rfc3339(seen.last_seen) };
            (subject.clone(), system)
        };
        Self {
            connected: source.connected,
            error: source.error.clone(),
            received: source.received,
            paused: source.paused,
            current_rate_limit: source.current_rate_limit,
            held_topics: source.held_topics.clone(),
            natively_paused: source.natively_paused,
            assigned: source.assigned,
            lag: source.assigned.map(|_| source.lag),
            released: source.released,
            inserted: source.inserted,
            dead_lettered: source.dead_lettered,
            filtered: source.filtered,
            held: source.held,
            accounting_gap: source.gap(),
            uncommitted: source.uncommitted,
            dropped: source
                .dropped
                .iter()
                .map(|(class, reasons)| (class.clone(), reasons.values().sum()))
                .collect(),
            dropped_by_reason: source.dropped.clone(),
            dropped_subjects: source.dropped_subjects.clone(),
            unrouted: source.unrouted.clone(),
            reconnects: source.reconnects,
            slow_consumer_events: source.slow_consumer_events,
            refused_requests: source.refused_requests,
            system: source.system.iter().map(seen).collect(),
        }
    }
}

impl From<&RouteStatus> for Route {
    fn from(route: &RouteStatus) -> Self {
        Self {
            received: route.received,
            inserted: route.inserted,
            dead_lettered: route.dead_lettered,
            filtered: route.filtered,
            dropped: route.dropped,
            released: route.released,
            held: route.held,
            accounting_gap: route.gap(),
            rounded: route.rounded,
            table: route.table.clone(),
            guarantees: route.guarantees.clone(),
            state: route.state.name(),
            held_back: route.held_back,
            current_rate_limit: route.current_rate_limit,
            reason: route.state.reason().map(str::to_owned),
            deduplication_window: route.window,
        }
    }
}

impl Health {
    /// With the receivers of alerts, which have no part in the snapshot.
    #[must_use]
    pub fn with_webhooks(self, tallies: &[Arc<Tally>]) -> Self {
        Self { webhooks: tallies.iter().map(|tally| (&**tally).into()).collect(), ..self }
    }

    /// 200 while the pipeline turns, also when it is paused or critical; 503 when it is wedged or
    /// going away.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.wedged.is_none() && self.status != Condition::Draining
    }
}

impl RunStage {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// UTC with milliseconds and `Z`. A time that no calendar has (a broken clock) is the epoch.
#[must_use]
pub fn rfc3339(time: UnixMs) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(time).unwrap_or_default())
}

/// For people: 0.016, not 0.016239999999999997.
fn to_digits(value: f64, unit: f64) -> f64 {
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests;
