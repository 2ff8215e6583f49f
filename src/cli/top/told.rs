//! What the bridge tells: the JSON of `/health/stream`, as far as it is shown. A newer bridge may send
//! more, an older one less. Counters count since the start of the process.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::history::Sample;

type Counts = BTreeMap<String, u64>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Now {
    pub(super) verdict: Verdict,
    pub(super) since: String,
    pub(super) sample: Sample,
    pub(super) health: Health,
    pub(super) letters: Vec<Letter>,
}

/// What is to be said first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Verdict {
    pub(super) condition: String,
    pub(super) word: String,
    pub(super) why: String,
    pub(super) remedy: Option<String>,
    /// An anchor of the runbook.
    pub(super) runbook: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Before {
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Configured {
    pub(super) toml: String,
}

/// Without its values: they may be personal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Letter {
    pub(super) time: String,
    pub(super) route: String,
    pub(super) reason: String,
    pub(super) why: String,
    pub(super) topic_or_subject: String,
    pub(super) partition: Option<i32>,
    pub(super) offset: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) version: String,
    pub(super) instance: String,
    pub(super) uptime_seconds: u64,
    pub(super) started_at: String,
    pub(super) needs_person: Vec<String>,
    pub(super) alerts: Vec<Alert>,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) metrics: Metrics,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alert {
    pub(super) id: String,
    pub(super) severity: String,
    pub(super) since: String,
    pub(super) summary: String,
    pub(super) remedy: String,
    pub(super) runbook: String,
}

/// Who is told of alerts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) to: String,
    pub(super) state: String,
    pub(super) since: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) sent: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    pub(super) backpressure: Backpressure,
    pub(super) forecast: Forecast,
    pub(super) breaker: Breaker,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) writers: BTreeMap<String, Writer>,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) routes: BTreeMap<String, Route>,
    pub(super) dead_letters: u64,
    pub(super) dead_letters_by_reason: BTreeMap<String, Counts>,
    pub(super) dropped: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Forecast {
    pub(super) full_in_seconds: Option<f64>,
    pub(super) drained_in_seconds: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Breaker {
    pub(super) state: String,
    pub(super) failures: u64,
    pub(super) openings: u64,
    pub(super) rejects: u64,
    pub(super) probe_at: Option<String>,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) healthy: bool,
    pub(super) reason: Option<String>,
    pub(super) unclear_inserts: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Backpressure {
    pub(super) active: bool,
    pub(super) current_buffer: u64,
    pub(super) pause_threshold: u64,
    pub(super) resume_threshold: u64,
    pub(super) max_buffer_size: u64,
    pub(super) utilization: f64,
    pub(super) pause_count: u64,
    pub(super) paused_seconds_total: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Writer {
    pub(super) buffered: u64,
    pub(super) in_flight: u64,
    pub(super) inserted: u64,
    pub(super) inserts: u64,
    pub(super) failed_inserts: u64,
    pub(super) insert_seconds: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    pub(super) connected: bool,
    pub(super) error: Option<String>,
    pub(super) received: u64,
    pub(super) paused: bool,
    pub(super) held_topics: Vec<String>,
    pub(super) assigned: Option<u64>,
    pub(super) lag: Option<i64>,
    pub(super) held: u64,
    pub(super) uncommitted: u64,
    pub(super) released: u64,
    pub(super) dropped_by_reason: BTreeMap<String, Counts>,
    pub(super) dropped_subjects: Counts,
    pub(super) refused_requests: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Route {
    pub(super) received: u64,
    pub(super) inserted: u64,
    pub(super) dead_lettered: u64,
    pub(super) dropped: u64,
    pub(super) held: u64,
    pub(super) table: Option<String>,
    pub(super) guarantees: BTreeMap<String, String>,
    pub(super) state: String,
    pub(super) held_back: bool,
    pub(super) reason: Option<String>,
}
