//! What is said of the level: how much is held, within which limits, and whether it pauses.

use serde::Serialize;

use super::float_of;
use crate::record::UnixMs;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackpressureStatus {
    pub active: bool,
    /// Why it is active: `level`, `starved`, `breaker`; empty when it is not.
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
    /// What the process may take in memory, where that is planned with.
    pub memory_budget_bytes: Option<usize>,
    pub pause_count: u64,
    pub last_pause: Option<UnixMs>,
    pub last_resume: Option<UnixMs>,
    /// Whole seconds and fractions spent paused, the present episode included.
    pub paused_seconds_total: f64,
    /// Of the present episode; 0 when not active.
    pub paused_seconds: f64,
    /// The present episode is longer than `critical_after`.
    pub critical: bool,
    /// With `thresholds = "auto"`: what was chosen, and why.
    pub auto: Option<AutoStatus>,
}

/// Limits that are chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AutoStatus {
    /// Who says what memory may be taken: a cgroup's file, the machine, the configuration.
    pub memory_budget_from: String,
    /// What a record weighs, as far as is known.
    pub record_bytes: f64,
    pub why: String,
}

impl BackpressureStatus {
    /// `current_buffer` as a share of `max_buffer_size`.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        if self.max_buffer_size == 0 {
            return 0.0;
        }
        float_of(self.current_buffer) / float_of(self.max_buffer_size)
    }
}
