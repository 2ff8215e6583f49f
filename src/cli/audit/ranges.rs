//! Sets of offsets as ranges: what is held, what is missing, what is to be read. Pure.
//!
//! A partition has millions of offsets and few gaps, so a set is a handful of ranges.

use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

/// Offsets as half-open ranges: in order, none empty, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range<i64>>);

impl Ranges {
    pub(super) fn one(range: Range<i64>) -> Self {
        Self::from_iter([range])
    }

    /// How many offsets.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end.abs_diff(range.start)).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.0.first().map(|range| range.start)
    }

    /// From the first to the last; None if there are none.
    pub(super) fn bounds(&self) -> Option<Range<i64>> {
        Some(self.0.first()?.start..self.0.last()?.end)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Range<i64>> {
        self.0.iter().cloned()
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        let after = self.0.partition_point(|range| range.start <= offset);
        after > 0 && offset < self.0[after - 1].end
    }

    /// Adds the offset behind all others, or one that is the last already.
    pub(super) fn push(&mut self, offset: i64) {
        match self.0.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            Some(last) if last.end > offset => debug_assert!(last.contains(&offset), "in order"),
            _ => self.0.push(offset..offset + 1),
        }
    }

    /// What of it lies within.
    pub(super) fn within(&self, bounds: Range<i64>) -> Self {
        let cut = |range: &Range<i64>| range.start.max(bounds.start)..range.end.min(bounds.end);
        Self(self.0.iter().map(cut).filter(|range| !range.is_empty()).collect())
    }

    /// What of it is not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut taken = other.0.iter().peekable();
        for range in &self.0 {
            let mut start = range.start;
            while let Some(next) = taken.peek().filter(|next| next.start < range.end) {
                if start < next.start {
                    left.push(start..next.start);
                }
                start = start.max(next.end);
                if next.end > range.end {
                    break; // it may reach into the next range too
                }
                taken.next();
            }
            if start < range.end {
                left.push(start..range.end);
            }
        }
        Self(left)
    }

    /// In one go what lies less than `apart` from each other: seeking costs more than reading on.
    pub(super) fn joined(&self, apart: i64) -> Self {
        let mut joined: Vec<Range<i64>> = Vec::new();
        for range in &self.0 {
            match joined.last_mut() {
                Some(last) if range.start - last.end < apart => last.end = range.end,
                _ => joined.push(range.clone()),
            }
        }
        Self(joined)
    }
}

/// In any order, overlapping or not.
impl FromIterator<Range<i64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<i64>>>(ranges: I) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<i64>> = Vec::with_capacity(all.len());
        for range in all {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

/// Few of them in words, both ends included: `17`, `20-29`; the rest as a count.
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More would hide the rest of the report; `--json` has them all.
        const SHOWN: usize = 8;
        for (index, range) in self.0.iter().take(SHOWN).enumerate() {
            let (first, last) = (range.start, range.end - 1);
            let comma = if index > 0 { ", " } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// As pairs of the first and the last offset.
impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|range| (range.start, range.end - 1)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn offsets(ranges: &Ranges) -> BTreeSet<i64> {
        ranges.iter().flatten().collect()
    }

    fn is_tidy(ranges: &Ranges) -> bool {
        ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start)
            && ranges.0.iter().all(|range| range.start < range.end)
    }

    fn some() -> impl Strategy<Value = Vec<Range<i64>>> {
        prop::collection::vec((0..60_i64, 0..9_i64).prop_map(|(at, n)| at..at + n), 0..12)
    }

    #[test]
    fn they_read_as_people_write_them_and_end_somewhere() {
        let ranges = Ranges::from_iter([20..30, 17..18]);
        assert_eq!(ranges.to_string(), "17, 20-29");
        assert_eq!(serde_json::to_string(&ranges).unwrap(), "[[17,17],[20,29]]");
        let many: Ranges = (0..10).map(|n| 2 * n..2 * n + 1).collect();
        assert_eq!(many.to_string(), "0, 2, 4, 6, 8, 10, 12, 14 and 2 more");
        assert_eq!(Ranges::default().to_string(), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Every operation is the one on plain sets.
        #[test]
        fn ranges_are_sets(a in some(), b in some(), low in 0..70_i64, width in 0..40_i64, apart in 0..9_i64) {
            let (left, right): (Ranges, Ranges) =
                (a.iter().cloned().collect(), b.iter().cloned().collect());
            let plain: BTreeSet<i64> = a.into_iter().flatten().collect();
            let other: BTreeSet<i64> = b.into_iter().flatten().collect();
            prop_assert!(is_tidy(&left));
            prop_assert_eq!(&offsets(&left), &plain);
            prop_assert_eq!(left.count(), plain.len() as u64);
            prop_assert_eq!(left.first(), plain.first().copied());
            let bounds = plain.first().zip(plain.last()).map(|(first, last)| *first..*last + 1);
            prop_assert_eq!(left.bounds(), bounds);
            prop_assert!((0..80).all(|offset| left.contains(offset) == plain.contains(&offset)));
            let without = left.without(&right);
            prop_assert!(is_tidy(&without));
            prop_assert_eq!(offsets(&without), &plain - &other);
            let within = left.within(low..low + width);
            prop_assert!(is_tidy(&within));
            let inside = plain.iter().copied().filter(|o| (low..low + width).contains(o));
            prop_assert_eq!(offsets(&within), inside.collect());
            let joined = left.joined(apart);
            prop_assert!(is_tidy(&joined) && left.without(&joined).is_empty());
            let pairs = joined.0.windows(2);
            prop_assert!(pairs.into_iter().all(|pair| pair[1].start - pair[0].end >= apart));
            let mut pushed = Ranges::default();
            plain.iter().for_each(|offset| pushed.push(*offset));
            prop_assert_eq!(pushed, left);
        }
    }
}
