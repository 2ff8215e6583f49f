//! A set of sequences that come almost in order: few ranges, however many there are. Pure.

use std::collections::BTreeMap;

/// By their first, the last of each range; ranges neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    pub(super) fn insert(&mut self, sequence: u64) {
        if self.contains(sequence) {
            return;
        }
        let before = self.0.range(..sequence).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((first, last)) if last + 1 == sequence => first,
            _ => sequence,
        };
        let last = self.0.remove(&(sequence + 1)).unwrap_or(sequence);
        self.0.insert(first, last);
    }

    /// Forgets all up to this one.
    pub(super) fn forget_to(&mut self, sequence: u64) {
        let above = self.0.split_off(&(sequence + 1));
        let across = self.0.last_key_value().map(|(_, last)| *last);
        self.0 = above;
        if let Some(last) = across.filter(|last| *last > sequence) {
            self.0.insert(sequence + 1, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn it_is_the_set_of_what_was_inserted_and_not_forgotten(
            steps in prop::collection::vec((0u64..40, 0u8..8), 0..60),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (sequence, kind) in steps {
                if kind == 0 {
                    ranges.forget_to(sequence);
                    set.retain(|known| *known > sequence);
                } else {
                    ranges.insert(sequence);
                    set.insert(sequence);
                }
                for sequence in 0..42 {
                    prop_assert_eq!(ranges.contains(sequence), set.contains(&sequence));
                }
                let touching =
                    ranges.0.values().zip(ranges.0.keys().skip(1)).any(|(last, first)| last + 1 >= *first);
                prop_assert!(!touching, "{:?}", ranges);
            }
        }
    }
}
