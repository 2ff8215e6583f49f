//! What was seen of a sink, as a signal for [`Aimd`](super::Aimd).
//!
//! Three things can speak: refusals, how full the buffer before the sink is, and the time per row.
//! Time per row and not per insert: a larger insert takes longer and is no worse for it. Owns what
//! a row takes when all is well, which is learnt; decides nothing but the signal.

use std::time::Duration;

use super::Signal;

/// What was seen since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// As much was under way, or as fast, as the limit allows.
    pub limit_reached: bool,
    /// The sink refused because it has too much to do.
    pub overloaded: bool,
    /// Of the buffer before the sink, 0 to 1.
    pub fill: f64,
    /// None: nothing came to its end.
    pub time_per_row: Option<Duration>,
}

/// Which of it counts, and from where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// A refusal shrinks the limit.
    pub overload: bool,
    /// A buffer fuller than this shrinks it; above half of this it does not grow.
    pub fill: Option<f64>,
    /// A row that takes so many times what it takes when all is well shrinks the limit; from
    /// halfway there it does not grow.
    pub slowdown: Option<f64>,
}

impl Default for Criteria {
    /// Everything counts. Fill as the bridge's own pause, 80 %; rows that take twice as long,
    /// because time on a shared machine varies by half without anything being wrong.
    fn default() -> Self {
        Self { overload: true, fill: Some(0.8), slowdown: Some(2.0) }
    }
}

/// Weight of one look in what a row normally takes when it took longer: a sink that stays slower
/// is the new normal after about a hundred looks, and a bad minute is not.
const LEARN: f64 = 0.01;

/// Judges looks, one after the other.
#[derive(Debug, Clone)]
pub struct Judge {
    criteria: Criteria,
    /// Seconds that a row takes when all is well: the best seen, and slowly more if it stays more.
    normal: Option<f64>,
}

impl Judge {
    #[must_use]
    pub fn new(criteria: Criteria) -> Self {
        Self { criteria, normal: None }
    }

    /// What a row takes when all is well, as far as is known.
    #[must_use]
    pub fn normal(&self) -> Option<Duration> {
        self.normal.map(Duration::from_secs_f64)
    }

    pub fn judge(&mut self, seen: &Seen) -> Signal {
        let slowdown = seen.time_per_row.map(|time| self.slowdown(time));
        let over = |limit: Option<f64>, value: f64| limit.is_some_and(|limit| value > limit);
        // Halfway between normal (1) and the limit.
        let wary = self.criteria.slowdown.map(|limit| 1.0 + (limit - 1.0) / 2.0);
        if self.criteria.overload && seen.overloaded
            || over(self.criteria.fill, seen.fill)
            || slowdown.is_some_and(|slowdown| over(self.criteria.slowdown, slowdown))
        {
            Signal::Shrink
        } else if seen.limit_reached
            && !over(self.criteria.fill.map(|limit| limit / 2.0), seen.fill)
            && !slowdown.is_some_and(|slowdown| over(wary, slowdown))
        {
            Signal::Grow
        } else {
            Signal::Hold
        }
    }

    /// How many times the normal time this is; the normal time learns from it.
    fn slowdown(&mut self, time: Duration) -> f64 {
        // A row that took no time at all would make every other one infinitely slow.
        let time = time.as_secs_f64().max(1e-9);
        let normal = *self.normal.get_or_insert(time);
        self.normal = Some(time.min(normal + (time - normal) * LEARN));
        time / normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(time_per_row: u64) -> Seen {
        let time_per_row = Some(Duration::from_micros(time_per_row));
        Seen { limit_reached: true, time_per_row, ..Seen::default() }
    }

    #[test]
    fn a_sink_that_keeps_up_lets_the_limit_grow_only_if_it_was_reached() {
        let mut judge = Judge::new(Criteria::default());
        assert_eq!(judge.judge(&micros(10)), Signal::Grow);
        let idle = Seen { limit_reached: false, ..micros(10) };
        assert_eq!(judge.judge(&idle), Signal::Hold);
    }

    #[test]
    fn a_refusal_shrinks_unless_refusals_do_not_count() {
        let refused = Seen { overloaded: true, ..micros(10) };
        assert_eq!(Judge::new(Criteria::default()).judge(&refused), Signal::Shrink);
        let deaf = Criteria { overload: false, ..Criteria::default() };
        assert_eq!(Judge::new(deaf).judge(&refused), Signal::Grow);
    }

    #[test]
    fn a_filling_buffer_first_holds_and_then_shrinks() {
        let mut judge = Judge::new(Criteria::default());
        let signals = [0.3, 0.5, 0.9].map(|fill| judge.judge(&Seen { fill, ..micros(10) }));
        assert_eq!(signals, [Signal::Grow, Signal::Hold, Signal::Shrink]);
    }

    #[test]
    fn rows_that_take_longer_shrink_until_longer_is_normal() {
        let mut judge = Judge::new(Criteria::default());
        assert_eq!(judge.judge(&micros(10)), Signal::Grow);
        assert_eq!(judge.judge(&micros(16)), Signal::Hold);
        assert_eq!(judge.judge(&micros(40)), Signal::Shrink);
        for _ in 0..200 {
            judge.judge(&micros(40));
        }
        assert_eq!(judge.judge(&micros(40)), Signal::Grow, "the sink is slower for good");
        assert_eq!(judge.judge(&micros(10)), Signal::Grow, "and the best is believed at once");
        assert_eq!(judge.normal(), Some(Duration::from_micros(10)));
    }

    #[test]
    fn a_row_that_took_no_time_is_no_measure_for_the_others() {
        let mut judge = Judge::new(Criteria::default());
        judge.judge(&micros(0));
        assert!(judge.normal().unwrap() <= Duration::from_nanos(1));
        assert_eq!(judge.judge(&micros(0)), Signal::Grow);
    }
}
