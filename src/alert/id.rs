//! The alerts by name. An id is for ever: Prometheus' rules, the runbook's headings, receivers and
//! people's own filters hold it; a test keeps the lists equal. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Severity::{self, Critical, Warning};

/// In the order of the runbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertId {
    Wedged,
    NeedsPerson,
    Paused,
    PausedLong,
    PausingOften,
    BufferHigh,
    FullSoon,
    BreakerOpen,
    ServerAway,
    RouteHeldBack,
    SourceDisconnected,
    SourceEnded,
    DeadLetters,
    RecordsDropped,
    SubscriberDrops,
    LagGrowing,
    UncommittedGrowing,
    InputSurge,
    InputOverOutput,
    InputLow,
    Silent,
    ClockSkew,
    WindowRunningOut,
    AccountingGap,
}

/// What is the same for every alert of an id.
struct Facts {
    name: &'static str,
    severity: Severity,
    /// Seconds for which it has to be true before it fires, unless the configuration says others.
    pending: u64,
    remedy: &'static str,
}

impl AlertId {
    pub const ALL: [Self; 24] = [
        Self::Wedged,
        Self::NeedsPerson,
        Self::Paused,
        Self::PausedLong,
        Self::PausingOften,
        Self::BufferHigh,
        Self::FullSoon,
        Self::BreakerOpen,
        Self::ServerAway,
        Self::RouteHeldBack,
        Self::SourceDisconnected,
        Self::SourceEnded,
        Self::DeadLetters,
        Self::RecordsDropped,
        Self::SubscriberDrops,
        Self::LagGrowing,
        Self::UncommittedGrowing,
        Self::InputSurge,
        Self::InputOverOutput,
        Self::InputLow,
        Self::Silent,
        Self::ClockSkew,
        Self::WindowRunningOut,
        Self::AccountingGap,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The id of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }

    #[must_use]
    pub fn severity(self) -> Severity {
        self.facts().severity
    }

    /// For how long it has to be true before it fires, where nothing else is configured.
    #[must_use]
    pub fn pending(self) -> Duration {
        Duration::from_secs(self.facts().pending)
    }

    /// What to do, in one line; the runbook says more.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        self.facts().remedy
    }

    /// The worse one of the same thing: while that fires, this one is not repeated in the log.
    #[must_use]
    pub fn outdone_by(self) -> Option<Self> {
        (self == Self::Paused).then_some(Self::PausedLong)
    }

    /// A pause ends by its own hysteresis, and once it has ended it is over. Others have to be quiet
    /// for a while.
    #[must_use]
    pub fn ends_at_once(self) -> bool {
        matches!(self, Self::Paused | Self::PausedLong)
    }

    #[expect(clippy::too_many_lines, reason = "one table, a line or two for each id")]
    fn facts(self) -> Facts {
        let (name, severity, pending, remedy) = match self {
            Self::Wedged => (
                "wedged",
                Critical,
                0,
                "restart the bridge, keep its log and report it: it is a bug",
            ),
            Self::NeedsPerson => {
                ("needs_person", Critical, 60, "do what the sentence says; most need no restart")
            }
            Self::Paused => (
                "paused",
                Warning,
                5 * 60,
                "if ClickHouse is down, bring it back; if it drowns, take load off it",
            ),
            Self::PausedLong => (
                "paused_long",
                Critical,
                10 * 60,
                "as for paused; lengthen the retention of Kafka's topics if it will last",
            ),
            Self::PausingOften => (
                "pausing_often",
                Warning,
                0,
                "make inserts larger and rarer (batch_rows, linger), leave pull_limit at its default",
            ),
            Self::BufferHigh => (
                "buffer_high",
                Warning,
                60,
                "nothing while ClickHouse is being restarted; else look for what is slow there",
            ),
            Self::FullSoon => (
                "full_soon",
                Warning,
                60,
                "see whether more comes than usual or less goes out; act before it pauses",
            ),
            Self::BreakerOpen => (
                "breaker_open",
                Critical,
                60,
                "bring ClickHouse back; there is nothing to reset here",
            ),
            Self::ServerAway => {
                let remedy = "bring that server back; others, if there are any, take its share";
                ("server_away", Warning, 120, remedy)
            }
            Self::RouteHeldBack => (
                "route_held_back",
                Critical,
                120,
                "mend the table: create it, give the privilege, or correct the view",
            ),
            Self::SourceDisconnected => (
                "source_disconnected",
                Critical,
                120,
                "run data-bridge check: it tells a wrong name, password or certificate apart",
            ),
            Self::SourceEnded => (
                "source_ended",
                Critical,
                0,
                "keep its log and report it: it is a bug; see that the bridge is started again",
            ),
            Self::DeadLetters => (
                "dead_letters",
                Warning,
                0,
                "see why (data-bridge dead-letters list), mend the producer or the table, replay",
            ),
            Self::RecordsDropped => (
                "records_dropped",
                Warning,
                0,
                "see dropped_by_reason in /health; what must not be lost belongs into Kafka or JetStream",
            ),
            Self::SubscriberDrops => (
                "subscriber_drops",
                Warning,
                0,
                "see who is slow (GET /subscriber-stats); ClickHouse has everything all the same",
            ),
            Self::LagGrowing => (
                "lag_growing",
                Warning,
                15 * 60,
                "if ClickHouse keeps up, add instances, up to one a partition",
            ),
            Self::UncommittedGrowing => (
                "uncommitted_growing",
                Warning,
                5 * 60,
                "mend what the waiting route, or the place of the dead letters, complains of",
            ),
            Self::InputSurge => (
                "input_surge",
                Warning,
                5 * 60,
                "find out who sends; see whether the buffer and ClickHouse bear it",
            ),
            Self::InputOverOutput => (
                "input_over_output",
                Warning,
                5 * 60,
                "ClickHouse takes less than comes: look for what is slow there, or scale out",
            ),
            Self::InputLow => (
                "input_low",
                Warning,
                5 * 60,
                "see whether the producers run and publish to what is read",
            ),
            Self::Silent => (
                "silent",
                Warning,
                0,
                "see whether the producer of that route runs, and its subject or topic",
            ),
            Self::ClockSkew => (
                "clock_skew",
                Warning,
                0,
                "compare the clocks of the producers and of this machine (NTP)",
            ),
            Self::WindowRunningOut => (
                "window_running_out",
                Warning,
                5 * 60,
                "enlarge the table's deduplication window, or make inserts larger and rarer",
            ),
            Self::AccountingGap => (
                "accounting_gap",
                Critical,
                60,
                "run data-bridge audit to see whether anything is missing, and report it: it is a bug",
            ),
        };
        Facts { name, severity, pending, remedy }
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for AlertId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
