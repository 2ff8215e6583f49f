//! How large the batches of one table are, and how long they wait for their rows. Pure.
//!
//! Smaller at once when an insert was too large, larger at once when the table has too many parts,
//! and back to what is configured step by step while all is well.

use std::time::Duration;

use tokio::time::Instant;

use super::Went;
use crate::config;

/// An insert that was too large leaves so much of the next.
const SMALLER: f64 = 0.5;
/// Too many parts: batches become so many times as large, and wait as much longer.
const LARGER: f64 = 1.5;
/// One step back, as a part of what is configured.
const STEP_BACK: f64 = 0.1;
/// Between two moves, so that each is judged by what came of it. Merging takes longer than
/// inserting, so a step back comes later.
const MOVE_EVERY: Duration = Duration::from_secs(1);
const STEP_BACK_EVERY: Duration = Duration::from_secs(5);

/// The size of a table's batches.
#[derive(Debug)]
pub struct Size {
    configured: config::Writer,
    /// Times what is configured.
    factor: f64,
    moved: Instant,
}

impl Size {
    #[must_use]
    pub fn new(configured: config::Writer, now: Instant) -> Self {
        Self { configured, factor: 1.0, moved: now }
    }

    #[must_use]
    pub fn configured(&self) -> &config::Writer {
        &self.configured
    }

    /// An attempt ended. Says whether the limits changed.
    pub fn saw(&mut self, went: Went, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.moved);
        let wanted = match went {
            Went::TooLarge if since >= MOVE_EVERY => self.factor.min(1.0) * SMALLER,
            Went::TooManyParts if since >= MOVE_EVERY => self.factor.max(1.0) * LARGER,
            Went::Well { .. } if since >= STEP_BACK_EVERY => self.one_step_back(),
            _ => return false,
        };
        let config::Writer { batch_rows, batch_rows_min, batch_rows_max, .. } = self.configured;
        let factor = |rows: usize| float(rows) / float(batch_rows);
        let (min, max) = (factor(batch_rows_min), factor(batch_rows_max));
        let before = self.limits();
        self.factor = wanted.clamp(min, max);
        self.moved = now;
        self.limits() != before
    }

    fn one_step_back(&self) -> f64 {
        if self.factor < 1.0 {
            (self.factor + STEP_BACK).min(1.0)
        } else {
            (self.factor - STEP_BACK).max(1.0)
        }
    }

    /// When a batch is cut now. Bytes and linger move with the rows, but for the linger of smaller
    /// batches: cutting those early as well would make them smaller still.
    #[must_use]
    pub fn limits(&self) -> config::Writer {
        let config::Writer { batch_rows, batch_bytes, linger, .. } = self.configured;
        config::Writer {
            batch_rows: times(batch_rows, self.factor),
            batch_bytes: times(batch_bytes, self.factor.min(1.0)),
            linger: linger.mul_f64(self.factor.max(1.0)),
            ..self.configured
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2^52")]
fn times(count: usize, factor: f64) -> usize {
    ((float(count) * factor).round() as usize).max(1)
}

fn float(count: usize) -> f64 {
    crate::status::float(count as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIGURED: config::Writer = config::Writer {
        batch_rows: 10_000,
        batch_bytes: 1 << 24,
        linger: Duration::from_secs(1),
        batch_rows_min: 1_000,
        batch_rows_max: 40_000,
    };
    const WELL: Went = Went::Well { rows: 1, took: Duration::from_millis(1) };

    fn after(size: &mut Size, from: Instant, each: Duration, went: Went, times: u32) -> Instant {
        for n in 1..=times {
            let _ = size.saw(went, from + each * n);
        }
        from + each * times
    }

    #[test]
    fn too_large_makes_smaller_and_never_so_small_that_it_drowns() {
        let start = Instant::now();
        let mut size = Size::new(CONFIGURED, start);
        assert!(!size.saw(Went::TooLarge, start), "once a second");
        let now = after(&mut size, start, MOVE_EVERY, Went::TooLarge, 1);
        assert_eq!((size.limits().batch_rows, size.limits().batch_bytes), (5_000, 1 << 23));
        assert_eq!(size.limits().linger, CONFIGURED.linger);
        let now = after(&mut size, now, MOVE_EVERY, Went::TooLarge, 20);
        assert_eq!(size.limits().batch_rows, 1_000);
        after(&mut size, now, STEP_BACK_EVERY, WELL, 10);
        assert_eq!(size.limits(), CONFIGURED, "back, step by step");
    }

    #[test]
    fn too_many_parts_makes_larger_and_slower_at_once_also_from_small() {
        let start = Instant::now();
        let mut size = Size::new(CONFIGURED, start);
        let now = after(&mut size, start, MOVE_EVERY, Went::TooLarge, 3);
        let now = after(&mut size, now, MOVE_EVERY, Went::TooManyParts, 1);
        assert_eq!(size.limits().batch_rows, 15_000);
        assert_eq!(size.limits().linger, Duration::from_millis(1_500));
        let now = after(&mut size, now, MOVE_EVERY, Went::TooManyParts, 20);
        assert_eq!(size.limits().batch_rows, 40_000);
        assert_eq!(size.limits().batch_bytes, CONFIGURED.batch_bytes, "memory is bounded");
        after(&mut size, now, STEP_BACK_EVERY, WELL, 40);
        assert_eq!(size.limits(), CONFIGURED);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever happens in whatever order: within the bounds, and back when all is well.
        #[test]
        fn sizes_stay_within_their_bounds(steps in prop::collection::vec((0u8..4, 0u64..8_000), 1..100)) {
            let mut now = Instant::now();
            let mut size = Size::new(CONFIGURED, now);
            for (what, millis) in steps {
                now += Duration::from_millis(millis);
                let went = [WELL, Went::TooLarge, Went::TooManyParts, Went::Overloaded][usize::from(what)];
                let _ = size.saw(went, now);
                let rows = size.limits().batch_rows;
                prop_assert!((1_000..=40_000).contains(&rows), "{rows}");
            }
            after(&mut size, now, STEP_BACK_EVERY, WELL, 60);
            prop_assert_eq!(size.limits(), CONFIGURED);
        }
    }
}
