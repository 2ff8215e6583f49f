//! What is said of the fleet, and what this instance says to it.

use std::sync::Arc;

use serde::Serialize;

use super::Snapshot;
use crate::fleet::{Said, View};

/// The fleet as this instance sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FleetStatus {
    #[serde(flatten)]
    pub view: Arc<View>,
    /// How often it slowed down with the others, since the start.
    pub slowdowns: u64,
}

impl Snapshot {
    /// What this instance says of itself.
    #[must_use]
    pub fn said(&self, instance: &str) -> Said {
        let lags = self.sources.values().filter_map(|source| source.lag);
        Said {
            instance: instance.to_owned(),
            fill: self.backpressure.utilization().clamp(0.0, 1.0),
            paused: self.backpressure.active,
            lag: lags.reduce(i64::saturating_add).and_then(|lag| u64::try_from(lag).ok()),
            inserted_per_second: self.rates.output_records_per_second,
        }
    }
}
