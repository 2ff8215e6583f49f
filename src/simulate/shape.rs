//! How a rate changes over time. The seed decides where chance does.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Records a second, over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Steady {
        rate: f64,
    },
    /// Somewhere between the two; another place each `every`, and straight there.
    Wander {
        low: f64,
        high: f64,
        every: Duration,
    },
    /// `high` for as long as `lasts` out of each `every`, else `low`.
    Bursts {
        low: f64,
        high: f64,
        every: Duration,
        lasts: Duration,
    },
}

impl Shape {
    /// The rate at a time since the beginning.
    #[must_use]
    pub fn rate(&self, at: Duration, seed: u64) -> f64 {
        match *self {
            Self::Steady { rate } => rate,
            Self::Wander { low, high, every } => {
                let (turn, part) = turn(at, every);
                let from = chance(seed, turn);
                let place = from + (chance(seed, turn + 1) - from) * part;
                low + (high - low) * place
            }
            // The burst is in the middle of its turn: first it is seen how it is without.
            Self::Bursts { low, high, every, lasts } => {
                let within = at.as_nanos() % every.as_nanos().max(1);
                let begins = every.saturating_sub(lasts).as_nanos() / 2;
                let is_on = (begins..begins + lasts.as_nanos()).contains(&within);
                if is_on { high } else { low }
            }
        }
    }

    /// It is never higher.
    #[must_use]
    pub fn highest(&self) -> f64 {
        match *self {
            Self::Steady { rate } => rate,
            Self::Wander { low, high, .. } | Self::Bursts { low, high, .. } => low.max(high),
        }
    }
}

/// How many whole turns have passed, and how much of this one.
fn turn(at: Duration, every: Duration) -> (u64, f64) {
    let (at, every) = (at.as_nanos(), every.as_nanos().max(1));
    let turn = u64::try_from(at / every).unwrap_or(u64::MAX);
    let part = u64::try_from(at % every).unwrap_or(0);
    let every = u64::try_from(every).unwrap_or(u64::MAX);
    (turn, super::float(part) / super::float(every))
}

/// A number from 0 to 1 that looks random and is not: a hash, so that it is the same with every
/// version of every library.
fn chance(seed: u64, n: u64) -> f64 {
    // 53 bits: as many as a float has.
    let bits = xxh3_64_with_seed(&n.to_le_bytes(), seed) >> 11;
    super::float(bits) / super::float(1 << 53)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wandering_rate_stays_within_its_bounds_and_has_no_jumps() {
        let shape = Shape::Wander { low: 50.0, high: 200.0, every: 5 * SECOND };
        let rates: Vec<_> = (0..6_000).map(|n| shape.rate(SECOND * n / 100, 7)).collect();
        assert!(rates.iter().all(|rate| (50.0..=200.0).contains(rate)));
        assert!(rates.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.5));
        let spread = rates.iter().fold(0.0_f64, |most, rate| most.max(rate - rates[0]));
        assert!(spread > 20.0, "and it does wander: {spread}");
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let shape = Shape::Wander { low: 0.0, high: 1.0, every: SECOND };
        let rates = |seed| (0..100).map(|n| shape.rate(SECOND * n, seed)).collect::<Vec<_>>();
        assert_eq!(rates(1), rates(1));
        assert_ne!(rates(1), rates(2));
    }

    #[test]
    fn a_burst_lasts_as_long_as_it_says() {
        let shape = Shape::Bursts { low: 0.0, high: 500.0, every: 10 * SECOND, lasts: 2 * SECOND };
        let rates: Vec<_> = (0..100).map(|n| shape.rate(SECOND * n / 10, 0)).collect();
        assert_eq!(rates.iter().filter(|rate| **rate > 0.0).count(), 20);
        assert!(rates[50] > 0.0 && rates[0] < 1.0 && rates[99] < 1.0);
    }
}
