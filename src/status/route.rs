//! What is said of a route.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// The accounting closes as that of a source does. Records that no route takes are in no route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteStatus {
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    pub dropped: u64,
    /// Given back to the source; they come again.
    pub released: u64,
    pub held: usize,
    /// Values rounded half-even to the column's scale or precision.
    pub rounded: u64,
    pub state: RouteState,
    /// Its table is broken while others work, and holds all that it may: the route takes nothing.
    pub held_back: bool,
    /// Records per second that it may take; None without a limit.
    pub current_rate_limit: Option<f64>,
    /// What it fills; None when it only counts.
    pub table: Option<Arc<str>>,
    /// By source: `exactly_once`, `at_least_once`, `at_most_once` or, of what is published,
    /// `as_answered`.
    pub guarantees: BTreeMap<&'static str, &'static str>,
    /// Only where exactly once is promised, and once it was looked at.
    pub window: Option<WindowStatus>,
}

/// What the table of a route that promises exactly once remembers of its inserts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowStatus {
    /// Of the deduplication window; an insert takes one for each partition that it touches.
    pub entries: u64,
    pub entries_per_second: f64,
    /// How long an outage it covers at that rate; None while nothing limits it.
    pub covers_seconds: Option<f64>,
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
    /// It is not in the configuration any more.
    Removed,
}

impl RouteState {
    pub const NAMES: [&'static str; 5] =
        ["starting", "running", "retrying", "awaiting_fix", "removed"];

    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying(_) => "retrying",
            Self::AwaitingFix(_) => "awaiting_fix",
            Self::Removed => "removed",
        }
    }

    /// Nothing stands in its way.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Running | Self::Removed)
    }

    /// Why, in one line, where there is something to say.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Running | Self::Removed => None,
            Self::Retrying(reason) | Self::AwaitingFix(reason) => Some(reason),
        }
    }
}
