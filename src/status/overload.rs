//! What is said of the overload policy: its tiers, and who is lost in them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::overload::Losses;

/// The policy at work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OverloadStatus {
    /// In ascending order, as configured.
    pub tiers: Vec<TierStatus>,
    /// Where inserts are adaptive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TierStatus {
    pub at_percent: u8,
    pub until_percent: u8,
    pub in_force: bool,
    /// Times it began.
    pub entered: u64,
    /// By class; part of what the sources have dropped.
    pub lost: BTreeMap<String, Losses>,
}

/// Inserts that follow what ClickHouse can take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AdaptiveStatus {
    /// Inserts that may be under way at a time.
    pub in_flight_limit: usize,
    /// By table: at so many rows a batch is cut.
    pub batch_rows: BTreeMap<String, usize>,
}

impl OverloadStatus {
    /// The highest tier that is in force.
    #[must_use]
    pub fn highest(&self) -> Option<&TierStatus> {
        self.tiers.iter().rev().find(|tier| tier.in_force)
    }
}
