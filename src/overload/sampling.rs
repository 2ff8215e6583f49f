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

/// As many n as one name is sampled by at a time: tiers, and the route's own. More come only by
/// changes of the configuration, and the oldest is forgotten for them.
const MAX_RATES: usize = 16;

/// The samplers of one name, by their n: tiers that come and go, and sources that are sampled by
/// different n, do not begin each other's count anew.
#[derive(Debug, Default)]
struct Turns(Vec<(u32, flow::Sampler)>);

impl Turns {
    fn keeps(&mut self, one_in: u32) -> bool {
        let known = self.0.iter().position(|(n, _)| *n == one_in);
        let index = known.unwrap_or_else(|| {
            if self.0.len() == MAX_RATES {
                self.0.remove(0);
            }
            let n = NonZeroU32::new(one_in).unwrap_or(NonZeroU32::MIN);
            self.0.push((one_in, flow::Sampler::new(flow::Sampling::OneIn(n))));
            self.0.len() - 1
        });
        self.0[index].1.keeps(None)
    }
}

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
            self.by_name.insert(name.to_owned(), Turns::default());
        }
        let others = &mut self.others;
        let found = self.by_name.get_mut(name);
        found.unwrap_or_else(|| others.entry(route).or_default()).keeps(one_in)
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
    fn tiers_that_take_turns_sample_each_as_configured() {
        let mut sampling = Sampling::default();
        let mut kept = [0; 2];
        for round in 0..1_000_usize {
            let (tier, one_in) = [(0, 2), (1, 10)][round % 2];
            kept[tier] += usize::from(sampling.keeps(RouteId(0), "market.EURUSD", one_in));
        }
        assert_eq!(kept, [250, 50]);
        for one_in in 2..100 {
            let _ = sampling.keeps(RouteId(0), "market.EURUSD", one_in);
        }
        assert_eq!(sampling.by_name["market.EURUSD"].0.len(), MAX_RATES);
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
