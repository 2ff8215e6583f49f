//! What a simulation says: how it was at a moment, and what came of it.

use std::collections::BTreeMap;

use serde::Serialize;

/// One moment. Counts are from the beginning on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Point {
    pub seconds: f64,
    /// Records in the buffer, or held by the bridge.
    pub depth: u64,
    /// Records that are due and still with their source.
    pub waiting: u64,
    pub came: u64,
    /// Of these, let into the buffer or dropped at it.
    pub admitted: u64,
    pub dropped: u64,
    pub delivered: u64,
    /// Records delivered a second, over the last ten.
    pub throughput: f64,
    /// Records a second that each source may send at most; empty: as many as it likes.
    pub rate_limits: Vec<f64>,
    pub paused: bool,
}

/// How old records were when they were delivered, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ages {
    pub p50: u32,
    pub p99: u32,
    pub max: u32,
}

impl Ages {
    /// None of nothing.
    pub(super) fn of(ages: &[u32]) -> Option<Self> {
        let mut ages = ages.to_vec();
        ages.sort_unstable();
        let max = *ages.last()?;
        let at = |percent: usize| ages[(ages.len() - 1) * percent / 100];
        Some(Self { p50: at(50), p99: at(99), max })
    }
}

/// Something that is worth a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub seconds: f64,
    pub text: String,
}

/// A whole run. came = delivered + dropped + waiting + in_buffer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub strategy: String,
    pub seconds: f64,
    pub came: u64,
    pub delivered: u64,
    pub dropped: u64,
    /// By reason; those that did not occur are left out.
    pub dropped_by: BTreeMap<&'static str, u64>,
    /// Still with the source at the end.
    pub waiting: u64,
    pub in_buffer: u64,
    pub peak_depth: u64,
    pub capacity: u64,
    /// Delivered a second, over the whole run.
    pub throughput: f64,
    pub backpressure_events: u64,
    /// Of each source, the mean over the second half of the run.
    pub rate_limits: Vec<f64>,
    pub age_ms: Option<Ages>,
    pub paused_seconds: f64,
    pub events: Vec<Event>,
}

/// Means of limits over the second half of what was seen.
#[derive(Debug, Default)]
pub(super) struct Limits(Vec<Vec<f64>>);

impl Limits {
    pub(super) fn see(&mut self, limits: &[f64]) {
        self.0.push(limits.to_vec());
    }

    pub(super) fn means(&self) -> Vec<f64> {
        let half = &self.0[self.0.len() / 2..];
        let Some(sources) = half.first().map(Vec::len) else { return Vec::new() };
        let count = super::float(half.len() as u64);
        (0..sources).map(|s| half.iter().map(|limits| limits[s]).sum::<f64>() / count).collect()
    }
}

/// Only what occurred.
pub(super) fn occurred(
    counts: impl IntoIterator<Item = (&'static str, u64)>,
) -> BTreeMap<&'static str, u64> {
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}
