//! Judges one partition: what must be held, what is, and what that proves. Pure.

use std::ops::Range;

use super::ranges::Ranges;
use super::report::{Partition, Repeated, Unknown, Verdict, WithoutRow};
use crate::sink::clickhouse::Held;
use crate::source::Extent;

/// What was asked for, beside what is so.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// `--offsets`
    pub(super) offsets: Option<Range<i64>>,
    /// The group starts where a partition begins; else at its end of that time, which nobody knows.
    pub(super) from_the_beginning: bool,
    /// A repeated row is a fault.
    pub(super) exactly_once: bool,
}

/// A partition on the way to its verdict.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) extent: Extent,
    held: Held,
    /// What must be held: from the first offset on to the first that is not delivered.
    expected: Range<i64>,
    /// Of these nothing is held, and the topic does not have them any more.
    gone: Ranges,
    /// Of these nothing is held, and the topic can say why.
    pub(super) open: Ranges,
}

/// What the topic said of the offsets of which nothing is held.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    /// Offsets with a record, of any kind.
    pub(super) records: Ranges,
    pub(super) tombstones: u64,
    /// Rows of their key stand for them.
    pub(super) superseded: u64,
    /// Nothing stands for them.
    pub(super) lost: Ranges,
    /// What could not be decided, and why.
    pub(super) undecided: Vec<Unknown>,
}

/// Which offsets to ask ClickHouse for. From 0 on by default: what retention took is proved by its
/// own rows.
pub(super) fn bounds(extent: &Extent, asked: &Asked) -> Range<i64> {
    let end = extent.committed.unwrap_or(extent.end);
    match &asked.offsets {
        Some(offsets) => offsets.start..offsets.end.min(end),
        None => extent.since.unwrap_or(0)..end,
    }
}

impl Case {
    pub(super) fn new(extent: Extent, held: Held, asked: &Asked) -> Self {
        let bounds = bounds(&extent, asked);
        let present: Ranges = held.stretches.iter().cloned().collect();
        let limited = asked.offsets.is_some() || extent.since.is_some();
        let start = match present.first() {
            _ if limited => bounds.start,
            Some(first) if asked.from_the_beginning => first.min(extent.low),
            None if asked.from_the_beginning => extent.low,
            Some(first) => first,
            None => bounds.end,
        };
        // Without a commit nothing was promised.
        let end = if extent.committed.is_some() || limited { bounds.end } else { start };
        let expected = start..end.max(start);
        let gaps = Ranges::one(expected.clone()).without(&present);
        let gone = gaps.within(i64::MIN..extent.low);
        let open = gaps.within(extent.low..i64::MAX);
        Self { extent, held, expected, gone, open }
    }

    /// The verdict. `read`: None while the topic was not read; `now`: the partition as it is after
    /// that, as retention goes on meanwhile.
    pub(super) fn judged(self, read: Option<Read>, now: &Extent, asked: &Asked) -> Partition {
        let Self { extent, held, expected, mut gone, mut open } = self;
        let mut unknown = Vec::new();
        let mut without_row = WithoutRow::default();
        let mut missing = Ranges::default();
        if let Some(read) = read {
            let silent = open.without(&read.records);
            let taken = silent.within(i64::MIN..now.low);
            without_row.no_record = silent.count() - taken.count();
            without_row.tombstones = read.tombstones;
            without_row.superseded = read.superseded;
            missing = read.lost;
            unknown = read.undecided;
            gone = gone.iter().chain(taken.iter()).collect();
            open = Ranges::default();
        }
        if !gone.is_empty() {
            let why = "no row, and retention has taken them from the topic";
            unknown.push(Unknown { why: why.to_owned(), offsets: gone });
        }
        if !open.is_empty() {
            let why = "no row; they could be control records, tombstones, or replaced: run with \
                       --read-topic";
            unknown.push(Unknown { why: why.to_owned(), offsets: open });
        }
        if let Some(why) = unanchored(&extent, &held, asked) {
            unknown.push(Unknown { why, offsets: Ranges::default() });
        }
        let repeated =
            Repeated { rows: held.rows - held.stored, both: held.both, offsets: held.repeated };
        let verdict = if !missing.is_empty() {
            Verdict::Missing
        } else if asked.exactly_once && repeated.rows + repeated.both > 0 {
            Verdict::Repeated
        } else if unknown.is_empty() {
            Verdict::Complete
        } else {
            Verdict::NotProven
        };
        let committed = extent.committed;
        Partition {
            verdict,
            topic: extent.topic,
            partition: extent.number,
            low: now.low,
            end: now.end,
            committed,
            from: expected.start,
            to: expected.end,
            stored: held.stored,
            dead_lettered: held.dead_lettered,
            without_row,
            not_delivered: u64::try_from(now.end - committed.unwrap_or(now.low)).unwrap_or(0),
            missing,
            repeated,
            unknown,
        }
    }
}

/// What is wrong with the numbers themselves.
fn unanchored(extent: &Extent, held: &Held, asked: &Asked) -> Option<String> {
    match extent.committed {
        Some(committed) if committed > extent.end => Some(format!(
            "the group has committed {committed}, beyond the end of the partition ({}): the topic \
             was made anew, or lost records; rows of the old one cannot be told from those of the \
             new one",
            extent.end
        )),
        None if asked.offsets.is_none() && extent.since.is_none() && held.rows > 0 => {
            let count = held.stored;
            Some(format!(
                "the group has committed nothing here, and yet {count} of its offsets are held; \
                 say which should be with --offsets"
            ))
        }
        _ => None,
    }
}
