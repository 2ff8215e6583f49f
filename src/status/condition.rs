//! What follows from a snapshot alone: the word for the bridge, and whether it is wedged. Pure.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{BreakerState, RouteState, RouteStatus, RunStage, Snapshot};

/// An owner loop that has not turned for this long is wedged. Far above any honest turn (turns
/// take milliseconds, the heartbeat comes every few seconds), far below what an operator would
/// call an outage.
pub const WEDGED_AFTER: Duration = Duration::from_secs(60);

/// The bridge in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    #[default]
    Starting,
    Healthy,
    /// It works with something missing: paused, a route waiting, a source away.
    Degraded,
    /// Paused past `critical_after`, wedged, or a person is needed.
    Critical,
    Draining,
}

impl Condition {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Draining => "draining",
        }
    }
}

impl Snapshot {
    /// Why the pipeline counts as wedged, or None while it turns. ClickHouse being down is never a
    /// reason: a failed attempt is a turn. Nothing turns before the start and after the end.
    #[must_use]
    pub fn wedged(&self, now: Instant) -> Option<String> {
        if matches!(self.stage, RunStage::Starting | RunStage::Stopped) {
            return None;
        }
        if let Some(overdue) = &self.overdue {
            return Some(overdue.clone());
        }
        let Some(turned_at) = self.turned_at else {
            return Some("the owner loop has never turned".to_owned());
        };
        let age = now.saturating_duration_since(turned_at);
        (age > WEDGED_AFTER)
            .then(|| format!("the owner loop has not turned for {} s", age.as_secs()))
    }

    /// The bridge in one word.
    #[must_use]
    pub fn condition(&self, now: Instant) -> Condition {
        let backpressure = &self.backpressure;
        let awaits_fix = |r: &RouteStatus| matches!(r.state, RouteState::AwaitingFix(_));
        match self.stage {
            RunStage::Starting => Condition::Starting,
            RunStage::Draining | RunStage::Stopped => Condition::Draining,
            RunStage::Running
                if backpressure.critical
                    || !self.needs_person.is_empty()
                    || self.routes.values().any(awaits_fix)
                    || self.wedged(now).is_some() =>
            {
                Condition::Critical
            }
            RunStage::Running
                if backpressure.active
                    || self.breaker.state != BreakerState::Closed
                    || self.endpoints.iter().any(|endpoint| !endpoint.healthy)
                    || self.routes.values().any(|r| !r.state.is_well())
                    || self.sources.values().any(|s| s.paused || !s.connected) =>
            {
                Condition::Degraded
            }
            RunStage::Running => Condition::Healthy,
        }
    }

    /// Ready to be given work: paused is ready, starting and draining are not.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.stage == RunStage::Running && self.wedged(now).is_none()
    }
}
