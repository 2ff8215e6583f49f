//! What the audit says, as data: `render` shows it to people, `--json` to machines.

use serde::Serialize;

use super::ranges::Ranges;

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) routes: Vec<Route>,
    /// Routes that take records from core NATS, which promises nothing.
    pub(super) at_most_once: Vec<AtMostOnce>,
    /// Good to know; nothing is wrong.
    pub(super) notes: Vec<String>,
}

/// A route, and the partitions of its topics.
#[derive(Debug, Serialize)]
pub(super) struct Route {
    pub(super) route: String,
    /// None: it counts, and stores nothing.
    pub(super) table: Option<String>,
    pub(super) promise: Promise,
    /// What the table keeps, in words.
    pub(super) keeps: String,
    pub(super) partitions: Vec<Partition>,
    /// Topics of which nothing can be proved, and why.
    pub(super) not_provable: Vec<NotProvable>,
}

/// A route whose records of core NATS cannot be proved.
#[derive(Debug, Serialize)]
pub(super) struct AtMostOnce {
    pub(super) route: String,
    pub(super) table: String,
    /// None: its table keeps no numbers of its producers.
    pub(super) sequence: Option<Sequence>,
}

/// The numbers that producers gave their records.
#[derive(Debug, Serialize)]
pub(super) struct Sequence {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) rows: u64,
    pub(super) different: u64,
    /// Lost, a dead letter, in another table, or replaced by a row of its key.
    pub(super) absent: Ranges,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Promise {
    /// Rows may repeat.
    AtLeastOnce,
    /// No row repeats, unless that was accepted where nobody could tell (`on_uncertain`).
    ExactlyOnce,
}

#[derive(Debug, Serialize)]
pub(super) struct NotProvable {
    pub(super) topic: String,
    pub(super) why: String,
}

/// Ordered: what is worse comes later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Every offset is accounted for.
    #[default]
    Complete,
    /// Nothing is known to be missing, and not all is known to be there.
    NotProven,
    /// Rows are there several times, where that was promised not to be.
    Repeated,
    /// Records were delivered, and nothing is there of them.
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Partition {
    pub(super) verdict: Verdict,
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The first offset that the topic still has, and the one that the next record gets.
    pub(super) low: i64,
    pub(super) end: i64,
    /// The first offset that the group has not done with.
    pub(super) committed: Option<i64>,
    /// What was looked at: from, up to, not including.
    pub(super) from: i64,
    pub(super) to: i64,
    /// Different offsets with a row, and with a dead letter.
    pub(super) stored: u64,
    pub(super) dead_lettered: u64,
    pub(super) without_row: WithoutRow,
    /// Beyond what the group has committed.
    pub(super) not_delivered: u64,
    pub(super) missing: Ranges,
    pub(super) repeated: Repeated,
    pub(super) unknown: Vec<Unknown>,
}

/// Offsets that hold no row, and should not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct WithoutRow {
    /// Control records of transactions, aborted or compacted away.
    pub(super) no_record: u64,
    pub(super) tombstones: u64,
    /// The table keeps one row of each key, and has one that replaces this.
    pub(super) superseded: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Repeated {
    /// Rows beyond the first of their offset.
    pub(super) rows: u64,
    /// Offsets with a row and a dead letter that was not replayed.
    pub(super) both: u64,
    /// Some of the offsets, and how many rows each has.
    pub(super) offsets: Vec<(i64, u64)>,
}

/// Offsets of which nothing can be said, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Unknown {
    pub(super) why: String,
    pub(super) offsets: Ranges,
}

impl WithoutRow {
    pub(super) fn count(&self) -> u64 {
        self.no_record + self.tombstones + self.superseded
    }
}

impl Report {
    /// The worst verdict of all.
    pub(super) fn settled(mut self) -> Self {
        let of_partitions =
            self.routes.iter().flat_map(|route| &route.partitions).map(|p| p.verdict);
        let unprovable = self.routes.iter().any(|route| !route.not_provable.is_empty());
        // With nothing to prove by, nothing is proved.
        let nothing = self.routes.is_empty() && !self.at_most_once.is_empty();
        let of_topics = (unprovable || nothing).then_some(Verdict::NotProven);
        self.verdict = of_partitions.chain(of_topics).max().unwrap_or_default();
        self
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Complete => 0,
            Verdict::Missing | Verdict::Repeated => 1,
            Verdict::NotProven => 2,
        }
    }
}
