//! The snapshot: everything that the bridge says of itself, made by the pipeline's owner and
//! published whole by `watch`. `/health`, `/metrics`, the heartbeat line and the alerts all read
//! the same one, so they cannot disagree. Plain data.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::UnixMs;

/// One consistent view of the bridge. Counters count since the start of the process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub stage: RunStage,
    pub backpressure: BackpressureStatus,
    /// By the writer's name; every configured writer is there.
    pub writers: BTreeMap<String, WriterStatus>,
    /// By the source's name; a source that is not configured is absent.
    pub sources: BTreeMap<String, SourceStatus>,
    /// By the route's name.
    pub routes: BTreeMap<String, RouteStatus>,
    pub dead_letters: DeadLetterStatus,
    /// What needs a person, in words that say what to do; empty when nothing does.
    pub needs_person: Vec<String>,
    /// When the owner loop made this snapshot, and whether something in it is overdue by so much
    /// that the pipeline counts as wedged.
    pub made_at: UnixMs,
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

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackpressureStatus {
    pub active: bool,
    /// Why it is active: `level`, `starved`; empty when it is not.
    pub causes: Vec<&'static str>,
    /// Records held now: rows buffered and in flight of all writers, and pending dead letters.
    pub current_buffer: usize,
    pub peak_buffer: usize,
    pub pause_threshold: usize,
    pub resume_threshold: usize,
    pub max_buffer_size: usize,
    pub pull_limit: usize,
    pub current_bytes: usize,
    pub max_buffer_bytes: usize,
    pub pause_count: u64,
    pub last_pause: Option<UnixMs>,
    pub last_resume: Option<UnixMs>,
    /// Whole seconds and fractions spent paused, the present episode included.
    pub paused_seconds_total: f64,
    /// Of the present episode; 0 when not active.
    pub paused_seconds: f64,
    /// The present episode is longer than `critical_after`.
    pub critical: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
}

/// The accounting closes at every quiet moment:
/// received = inserted + dead_lettered + filtered + dropped + released + held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceStatus {
    pub connected: bool,
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

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteStatus {
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    /// Values rounded half-even to the column's scale or precision.
    pub rounded: u64,
    pub state: RouteState,
}

/// What a route is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RouteState {
    #[default]
    /// Its table's schema has not been read yet.
    Starting,
    Running,
    /// Its last insert failed in a way that passes by itself; the reason in one line.
    Retrying(String),
    /// Something must be mended by a person; what, and how.
    AwaitingFix(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterStatus {
    /// Written durably.
    pub written: u64,
    /// By route and reason code.
    pub by_reason: BTreeMap<(String, &'static str), u64>,
    /// Not durable yet; part of `current_buffer`.
    pub pending: usize,
}
