//! How far records were ahead of this clock, lately. Pure, and of a bounded size however often it is
//! asked.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// For so long a record from the future is spoken of: a producer whose clock is wrong may send one a
/// minute, among others whose clocks are right.
pub const LATELY: Duration = Duration::from_secs(5 * 60);

/// What comes within this counts as one.
const SLOT: Duration = Duration::from_secs(10);

/// The furthest of each slot; none of slots in which no record was ahead.
#[derive(Debug, Default)]
pub struct Ahead(VecDeque<(Instant, Duration)>);

impl Ahead {
    /// A record was so far ahead.
    pub fn see(&mut self, ahead: Duration, now: Instant) {
        if ahead.is_zero() {
            return;
        }
        match self.0.back_mut().filter(|(began, _)| now - *began < SLOT) {
            Some((_, furthest)) => *furthest = ahead.max(*furthest),
            None => {
                self.0.retain(|(began, _)| now - *began < LATELY);
                self.0.push_back((now, ahead));
            }
        }
    }

    /// The furthest of the last five minutes.
    #[must_use]
    pub fn furthest(&self, now: Instant) -> Duration {
        let lately = self.0.iter().filter(|(began, _)| now - *began < LATELY);
        lately.map(|(_, ahead)| *ahead).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_furthest_is_told_for_five_minutes_whatever_comes_beside_it() {
        let (start, mut ahead) = (Instant::now(), Ahead::default());
        ahead.see(3_600 * SECOND, start);
        for second in 0..299 {
            let now = start + second * SECOND;
            ahead.see(Duration::from_millis(2), now);
            assert_eq!(ahead.furthest(now), 3_600 * SECOND, "{second}");
        }
        assert_eq!(ahead.furthest(start + LATELY), Duration::from_millis(2));
        assert_eq!(ahead.furthest(start + 3 * LATELY), Duration::ZERO);
    }

    #[test]
    fn however_often_it_is_told_it_stays_small() {
        let (start, mut ahead) = (Instant::now(), Ahead::default());
        for tick in 0..100_000 {
            ahead.see(SECOND, start + tick * Duration::from_millis(10));
        }
        assert!(ahead.0.len() <= 31, "{}", ahead.0.len());
    }
}
