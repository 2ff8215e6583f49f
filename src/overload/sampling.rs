//! Who is kept when one in so many is. Pure.
//!
//! Counted for each topic or subject by itself: a count over all of them would always keep the same
//! ones of producers that take turns. So a sample of 1 in n of a subject is exact at every multiple
//! of n, and its first record is among those kept.

use std::collections::HashMap;

use crate::route::RouteId;

/// Names come from whoever publishes; beyond this many, those of one route are counted together.
const MAX_NAMES: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// Records seen since the sample began, by name.
    seen: HashMap<String, u32>,
    /// Of the names for which there was no room, by route.
    others: HashMap<RouteId, u32>,
}

impl Sampling {
    /// Whether this record is the one in `one_in`.
    pub(super) fn keeps(&mut self, route: RouteId, name: &str, one_in: u32) -> bool {
        if !self.seen.contains_key(name) && self.seen.len() < MAX_NAMES {
            self.seen.insert(name.to_owned(), 0);
        }
        let others = &mut self.others;
        let seen = self.seen.get_mut(name).unwrap_or_else(|| others.entry(route).or_default());
        let keeps = *seen == 0;
        // Counted round rather than on: where another tier has another n, the next round is its own.
        *seen = if *seen + 1 >= one_in { 0 } else { *seen + 1 };
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_that_take_turns_are_sampled_each_by_itself() {
        let mut sampling = Sampling::default();
        let mut kept = [0; 2];
        for round in 0..1_000_usize {
            let name = ["market.EURUSD", "market.USDJPY"][round % 2];
            kept[round % 2] += usize::from(sampling.keeps(RouteId(0), name, 2));
        }
        assert_eq!(kept, [250, 250]);
    }

    #[test]
    fn names_beyond_the_bound_share_one_count() {
        let mut sampling = Sampling::default();
        let mut keeps = |n: usize| sampling.keeps(RouteId(0), &format!("s.{n}"), 10);
        assert!((0..MAX_NAMES).all(&mut keeps), "the first of each name");
        let kept = (0..1_000).filter(|n| keeps(MAX_NAMES + n)).count();
        assert_eq!(kept, 100);
        assert_eq!(sampling.seen.len(), MAX_NAMES);
    }
}
