//! Who is kept when one in so many is. Pure.
//!
//! Counted for each topic or subject by itself: a count over all of them would always keep the same
//! ones of producers that take turns. So a sample of 1 in n of a subject is exact at every multiple
//! of n, and its first record is among those kept.

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::flow;
use crate::route::RouteId;

/// Names come from whoever publishes; beyond this many, those of one route are counted together.
const MAX_NAMES: usize = 10_000;

/// The sampler of one name; another n begins anew.
type Turns = (u32, flow::Sampler);

#[derive(Debug, Default)]
pub(super) struct Sampling {
    by_name: HashMap<String, Turns>,
    /// Of the names for which there was no room.
    others: HashMap<RouteId, Turns>,
}

impl Sampling {
    /// Whether this record is the one in `one_in`.
    pub(super) fn keeps(&mut self, route: RouteId, name: &str, one_in: u32) -> bool {
        if !self.by_name.contains_key(name) && self.by_name.len() < MAX_NAMES {
            self.by_name.insert(name.to_owned(), turns(one_in));
        }
        let others = &mut self.others;
        let found = self.by_name.get_mut(name);
        let found = found.unwrap_or_else(|| others.entry(route).or_insert_with(|| turns(one_in)));
        if found.0 != one_in {
            *found = turns(one_in);
        }
        found.1.keeps(None)
    }
}

fn turns(one_in: u32) -> Turns {
    let n = NonZeroU32::new(one_in).unwrap_or(NonZeroU32::MIN);
    (one_in, flow::Sampler::new(flow::Sampling::OneIn(n)))
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
        assert_eq!(sampling.by_name.len(), MAX_NAMES);
    }
}
