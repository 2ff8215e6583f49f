//! A part of everything, for those who can do with a part.
//!
//! By turns, by key or at random; the same input gives the same sample, always and everywhere.
//! Owns the count that the turns and the random numbers come from.

use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A part of the whole: more than nothing, at most all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Hashes up to here are kept.
    up_to: u64,
}

/// 2^64: as many hashes as there are.
const HASHES: f64 = 18_446_744_073_709_551_616.0;

impl Share {
    /// None unless 0 < share <= 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2^64, and the cast saturates"
    )]
    pub fn new(share: f64) -> Option<Self> {
        (0.0 < share && share <= 1.0).then_some(Self { up_to: (share * HASHES) as u64 })
    }

    #[must_use]
    pub fn one_in(n: NonZeroU32) -> Self {
        Self { up_to: u64::MAX / u64::from(n.get()) }
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn part(self) -> f64 {
        self.up_to as f64 / HASHES
    }

    fn has(self, hash: u64) -> bool {
        hash <= self.up_to
    }
}

/// How a sample is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// The first of every n.
    OneIn(NonZeroU32),
    /// All of some keys and nothing of the others. The keys of a small share are among those of
    /// every larger one, so that sampling harder never brings back what was left out before.
    ByKey(Share),
    /// Each by itself, by numbers that the seed determines.
    Random { share: Share, seed: u64 },
}

impl Sampling {
    /// What is kept of much, if by key then of many keys.
    #[must_use]
    pub fn part(&self) -> f64 {
        match self {
            Self::OneIn(n) => 1.0 / f64::from(n.get()),
            Self::ByKey(share) | Self::Random { share, .. } => share.part(),
        }
    }
}

/// Keys are hashed with a salt of their own, or a share by key would be one by partition where
/// the producer places keys by the same hash.
const SALT: u64 = 0x5A3D_11C9_0F84_E627;

/// Chooses a sample, item by item.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    /// Items so far.
    seen: u64,
}

impl Sampler {
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, seen: 0 }
    }

    /// Whether the next item, which has this key, is kept. An item without a key is a key of its
    /// own: its number.
    pub fn keeps(&mut self, key: Option<&[u8]>) -> bool {
        let number = self.seen;
        self.seen += 1;
        let hash = |seed| xxh3_64_with_seed(&number.to_le_bytes(), seed);
        match self.sampling {
            Sampling::OneIn(n) => number.is_multiple_of(u64::from(n.get())),
            Sampling::ByKey(share) => {
                share.has(key.map_or_else(|| hash(SALT), |key| xxh3_64_with_seed(key, SALT)))
            }
            Sampling::Random { share, seed } => share.has(hash(seed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(share: f64) -> Share {
        Share::new(share).unwrap()
    }

    fn kept(sampling: Sampling, items: u64) -> Vec<u64> {
        let mut sampler = Sampler::new(sampling);
        (0..items).filter(|n| sampler.keeps(Some(&n.to_le_bytes()))).collect()
    }

    #[test]
    fn a_share_is_more_than_nothing_and_at_most_all() {
        for wrong in [0.0, -0.5, 1.000_001, f64::NAN] {
            assert_eq!(Share::new(wrong), None, "{wrong}");
        }
        assert_eq!(kept(Sampling::ByKey(share(1.0)), 1_000).len(), 1_000);
        assert!((share(0.25).part() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn one_in_n_is_the_first_of_every_n_exactly() {
        let one_in_ten = Sampling::OneIn(NonZeroU32::new(10).unwrap());
        assert_eq!(kept(one_in_ten, 35), [0, 10, 20, 30]);
    }

    #[test]
    fn a_key_is_kept_always_or_never_and_more_so_in_a_larger_share() {
        let tenth = kept(Sampling::ByKey(share(0.1)), 100_000);
        assert_eq!(tenth, kept(Sampling::ByKey(share(0.1)), 100_000));
        let half = kept(Sampling::ByKey(share(0.5)), 100_000);
        assert!(tenth.iter().all(|key| half.binary_search(key).is_ok()));
        assert!((9_500..10_500).contains(&tenth.len()), "{}", tenth.len());
    }

    #[test]
    fn chance_comes_from_the_seed() {
        let half = |seed| kept(Sampling::Random { share: share(0.5), seed }, 10_000);
        assert_eq!(half(1), half(1));
        assert_ne!(half(1), half(2));
        assert!((4_800..5_200).contains(&half(1).len()), "{}", half(1).len());
    }

    #[test]
    fn what_has_no_key_is_a_key_of_its_own() {
        let mut sampler = Sampler::new(Sampling::ByKey(share(0.5)));
        let kept = (0..10_000).filter(|_| sampler.keeps(None)).count();
        assert!((4_800..5_200).contains(&kept), "neither all nor nothing: {kept}");
    }
}
