//! The records of one partition that are not settled, as runs of neighbours. Pure.
//!
//! What is remembered grows with the runs, not with the records: those of a partition mostly come,
//! and settle, side by side.

use std::collections::BTreeMap;

/// Unsettled records whose offsets follow each other without a gap.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The offset after the last of them.
    end: i64,
    /// Settled records between it and the next run.
    passed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    /// By the offset of the first record.
    open: BTreeMap<i64, Run>,
}

impl Runs {
    /// The first record that is not settled.
    pub(super) fn first(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// A record behind all others.
    pub(super) fn enter(&mut self, offset: i64) {
        let end = offset + 1;
        match self.open.last_entry().map(|last| last.into_mut()) {
            // What passed behind it has offsets of its own: then this one is not the next.
            Some(last) if last.end == offset => last.end = end,
            _ => _ = self.open.insert(offset, Run { end, passed: 0 }),
        }
    }

    /// A record behind all others that is settled already; returns by how many records that makes
    /// the settled prefix longer.
    pub(super) fn pass(&mut self) -> u64 {
        match self.open.last_entry() {
            Some(mut last) => {
                last.get_mut().passed += 1;
                0
            }
            None => 1,
        }
    }

    /// The records from `first` until before `end` are settled, all of which were entered one after
    /// the other; returns by how many records that makes the settled prefix longer.
    pub(super) fn settle(&mut self, first: i64, end: i64) -> u64 {
        let around = self.open.range(..=first).next_back().filter(|(_, run)| end <= run.end);
        let (&start, &run) = around.expect("a ticket is settled once");
        let mut settled = (end - first).unsigned_abs();
        if end < run.end {
            self.open.insert(end, run);
        } else {
            settled += run.passed;
        }
        if start < first {
            self.open.insert(start, Run { end: first, passed: settled });
            return 0;
        }
        self.open.remove(&start);
        match self.open.range_mut(..start).next_back() {
            Some((_, before)) => {
                before.passed += settled;
                0
            }
            None => settled,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
