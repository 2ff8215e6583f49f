//! How many inserts go at a time, and how large they are: what ClickHouse can take now.
//!
//! Pure. Owns the limits and what was seen since they were last looked at. Two controls, because
//! there are two ways in which ClickHouse is overloaded: too much at a time is answered with fewer
//! inserts at a time, and smaller ones if a single one is too much; too many parts with larger and
//! later ones. It starts no insert and cuts no batch.

mod size;

pub use self::size::Size;

use std::time::Duration;

use tokio::time::Instant;

use crate::rate::{Aimd, Criteria, Judge, Seen, Signal, Steps};
use crate::sink::InsertError;

/// How one attempt went, as far as this is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// Acknowledged: so many rows, so long.
    Well { rows: usize, took: Duration },
    /// ClickHouse has too much to do.
    Overloaded,
    /// It is short of memory, or the insert took longer than it may.
    TooLarge,
    /// The table has too many parts.
    TooManyParts,
    /// Nothing that the size or the number of inserts would change.
    Otherwise,
}

impl Went {
    #[must_use]
    pub fn of(error: &InsertError) -> Self {
        match error {
            _ if error.is_too_many_parts() => Self::TooManyParts,
            _ if error.is_too_large() => Self::TooLarge,
            _ if error.is_too_much_at_a_time() => Self::Overloaded,
            _ => Self::Otherwise,
        }
    }
}

/// The number of inserts at a time: +1 while it is reached and rows take no longer, x0.9 when
/// ClickHouse has too much to do or rows take twice as long.
#[derive(Debug)]
pub struct Concurrency {
    most: usize,
    aimd: Aimd,
    judge: Judge,
    /// Since the last look.
    limit_reached: bool,
    overloaded: bool,
    rows: u64,
    took: Duration,
    looked: Instant,
}

/// As often as it may move.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Concurrency {
    /// Begins at `most`: as without any control.
    #[must_use]
    pub fn new(most: usize, now: Instant) -> Self {
        let max = crate::status::float(most as u64);
        // How full the buffer is says nothing here: it fills because ClickHouse is slow, and fewer
        // inserts would only fill it more.
        let criteria = Criteria { fill: None, ..Criteria::default() };
        Self {
            most,
            aimd: Aimd::new(Steps::concurrency(max, max), now),
            judge: Judge::new(criteria),
            limit_reached: false,
            overloaded: false,
            rows: 0,
            took: Duration::ZERO,
            looked: now,
        }
    }

    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Inserts that may be under way at a time; at least one.
    #[must_use]
    pub fn limit(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 64")]
        let limit = self.aimd.limit().round() as usize;
        limit.max(1)
    }

    /// As many as may be are under way, and more wait.
    pub fn reached(&mut self) {
        self.limit_reached = true;
    }

    pub fn saw(&mut self, went: Went) {
        match went {
            Went::Well { rows, took } => {
                self.rows += rows as u64;
                self.took += took;
            }
            Went::Overloaded | Went::TooLarge => self.overloaded = true,
            Went::TooManyParts | Went::Otherwise => {}
        }
    }

    /// Judges what was seen, once a second. Says whether the number of inserts changed.
    pub fn look(&mut self, now: Instant) -> bool {
        let early = now.saturating_duration_since(self.looked) < LOOK_EVERY;
        if early || (self.rows == 0 && !self.overloaded) {
            return false;
        }
        self.looked = now;
        let mean = || self.took.div_f64(crate::status::float(self.rows));
        let seen = Seen {
            limit_reached: std::mem::take(&mut self.limit_reached),
            overloaded: std::mem::take(&mut self.overloaded),
            fill: 0.0,
            time_per_row: (self.rows > 0).then(mean),
        };
        (self.rows, self.took) = (0, Duration::ZERO);
        let before = self.limit();
        let signal: Signal = self.judge.judge(&seen);
        let _moved = self.aimd.apply(signal, now);
        self.limit() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Refusal;

    const SECOND: Duration = Duration::from_secs(1);

    fn well(millis: u64) -> Went {
        Went::Well { rows: 1_000, took: Duration::from_millis(millis) }
    }

    fn retry(code: u32) -> InsertError {
        InsertError::Retry(Refusal::of_code(code, String::new()))
    }

    #[test]
    fn each_code_says_what_would_help() {
        assert_eq!(Went::of(&retry(241)), Went::TooLarge);
        assert_eq!(Went::of(&retry(252)), Went::TooManyParts);
        assert_eq!(Went::of(&retry(202)), Went::Overloaded);
        assert_eq!(Went::of(&retry(999)), Went::Otherwise, "away, not busy");
    }

    #[test]
    fn an_insert_that_ran_out_of_our_time_was_too_large() {
        let unheard = Refusal::without_code("no answer within 30s".to_owned());
        assert_eq!(Went::of(&InsertError::Retry(unheard.clone())), Went::Otherwise, "away");
        let timed_out = InsertError::Retry(Refusal { timed_out: true, ..unheard });
        assert_eq!(Went::of(&timed_out), Went::TooLarge);
    }

    #[test]
    fn refusals_lower_the_number_of_inserts_and_quiet_raises_it_again() {
        let mut now = Instant::now();
        let mut concurrency = Concurrency::new(8, now);
        let mut second = |concurrency: &mut Concurrency, went: Went| {
            now += SECOND;
            concurrency.saw(went);
            concurrency.reached();
            let _ = concurrency.look(now);
            concurrency.limit()
        };
        let down: Vec<usize> =
            (0..30).map(|_| second(&mut concurrency, Went::Overloaded)).collect();
        assert_eq!(down[..4], [7, 6, 6, 5]);
        assert_eq!(down.last(), Some(&1), "never none");
        let up: Vec<usize> = (0..8).map(|_| second(&mut concurrency, well(10))).collect();
        assert_eq!(up, [2, 3, 4, 5, 6, 7, 8, 8]);
    }

    #[test]
    fn rows_that_take_twice_as_long_lower_it_as_well() {
        let start = Instant::now();
        let mut concurrency = Concurrency::new(4, start);
        concurrency.saw(well(10));
        assert!(!concurrency.look(start + SECOND));
        concurrency.saw(well(50));
        assert!(!concurrency.look(start + SECOND / 2), "once a second");
        for n in 2..6 {
            concurrency.saw(well(50));
            let _ = concurrency.look(start + SECOND * n);
        }
        assert!(concurrency.limit() <= 3, "{}", concurrency.limit());
    }
}
