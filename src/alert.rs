//! The alerts: what the bridge says by itself when a person should look.
//!
//! ```text
//! snapshot --> rules --findings--> board --transitions--> log
//!                                    |
//!                                    +--firing--> /health, /metrics, receivers
//! ```
//!
//! A rule looks at one snapshot and what is remembered of those before, and says what it finds
//! (`rules`, `history`). The board gives a finding time to be true before it fires, and time to be
//! quiet before it is resolved. Both are pure. `lookout` looks at every heartbeat, in a task of its
//! own: the pipeline neither waits for it nor has to turn for it, so that a pipeline that is wedged,
//! or has not begun, is told of too.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::record::UnixMs;

mod board;
mod history;
mod id;
mod lookout;
mod rules;
mod trend;

#[cfg(test)]
mod tests;

pub use board::{Board, Transition};
pub use id::AlertId;
pub use lookout::{Alerts, Lookout, none};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What tells an alert from every other: its rule, and what it is about where that can be several
/// (`route candles`, `source kafka`, `topic ticks`); else nothing.
pub type Key = (AlertId, Option<String>);

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub id: AlertId,
    /// What it is about, where there can be several.
    pub of: Option<String>,
    /// When what it speaks of began; it fired later.
    pub since: UnixMs,
    /// In one line, with the figures of the last look.
    pub summary: String,
    /// Where the runbook has its entry.
    pub runbook: String,
}

impl Alert {
    #[must_use]
    pub fn key(&self) -> Key {
        (self.id, self.of.clone())
    }
}

/// As it stands in the log.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id.severity().name().to_uppercase(), self.summary)
    }
}

/// What fires now: the critical first.
pub type Firing = Arc<[Alert]>;
