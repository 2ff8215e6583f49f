//! What is counted of a buffer. Exact: counts, not samples.

use serde::Serialize;

/// Why an item was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It came when there was no room.
    Newest,
    /// It was the oldest when something newer came.
    Oldest,
    /// It was not part of the sample.
    Sampled,
    /// Its consumer was cut off.
    Disconnected,
    /// Its consumer went away by itself.
    Left,
}

impl Reason {
    pub const ALL: [Self; 5] =
        [Self::Newest, Self::Oldest, Self::Sampled, Self::Disconnected, Self::Left];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Sampled => "sampled",
            Self::Disconnected => "disconnected",
            Self::Left => "left",
        }
    }
}

/// How many were dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub newest: u64,
    pub oldest: u64,
    pub sampled: u64,
    pub disconnected: u64,
    pub left: u64,
}

impl Dropped {
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        match reason {
            Reason::Newest => self.newest,
            Reason::Oldest => self.oldest,
            Reason::Sampled => self.sampled,
            Reason::Disconnected => self.disconnected,
            Reason::Left => self.left,
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        Reason::ALL.iter().map(|reason| self.of(*reason)).sum()
    }

    pub(super) fn add(&mut self, reason: Reason, count: u64) {
        *match reason {
            Reason::Newest => &mut self.newest,
            Reason::Oldest => &mut self.oldest,
            Reason::Sampled => &mut self.sampled,
            Reason::Disconnected => &mut self.disconnected,
            Reason::Left => &mut self.left,
        } += count;
    }
}

/// A buffer at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Items that wait to be taken.
    pub current_depth: usize,
    pub peak_depth: usize,
    pub dropped_count: Dropped,
    /// Items that were taken in or dropped; not those that were refused.
    pub produced_count: u64,
    pub consumed_count: u64,
    /// Items taken a second, over the last ten seconds.
    pub throughput_rate: f64,
    /// How often an offer found no room, or sampling began; again only after the buffer was half
    /// as full.
    pub backpressure_events: u64,
    /// Items a second that the producer may offer at most; None: as many as it likes.
    pub current_rate_limit: Option<f64>,
}
