//! Where the level is going: when the bridge is full, or drained, if all goes on as in the last
//! heartbeat interval. Pure.

use std::time::Duration;

use serde::Serialize;

use super::{BackpressureStatus, float_of};

/// At most one of them: the level rises, falls, or stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Forecast {
    /// Until the cap is reached, in records or in bytes.
    pub full_in_seconds: Option<f64>,
    /// Until nothing is held.
    pub drained_in_seconds: Option<f64>,
}

impl Forecast {
    /// From two looks, `interval` apart.
    #[must_use]
    pub fn between(
        earlier: &BackpressureStatus,
        later: &BackpressureStatus,
        interval: Duration,
    ) -> Self {
        let seconds = interval.as_secs_f64();
        let rise = |before: usize, after: usize| (float_of(after) - float_of(before)) / seconds;
        let records = rise(earlier.current_buffer, later.current_buffer);
        let bytes = rise(earlier.current_bytes, later.current_bytes);
        let until = |rise: f64, free: usize| (rise > 0.0).then(|| float_of(free) / rise);
        let by_records = until(records, later.max_buffer_size.saturating_sub(later.current_buffer));
        let by_bytes = until(bytes, later.max_buffer_bytes.saturating_sub(later.current_bytes));
        // Fuller in bytes while records go down is not on its way to be drained.
        let drains = records < 0.0 && bytes <= 0.0;
        Self {
            full_in_seconds: by_records.into_iter().chain(by_bytes).reduce(f64::min),
            drained_in_seconds: drains.then(|| float_of(later.current_buffer) / -records),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(current_buffer: usize, current_bytes: usize) -> BackpressureStatus {
        let (max_buffer_size, max_buffer_bytes) = (50_000, 1_000_000);
        BackpressureStatus {
            current_buffer,
            current_bytes,
            max_buffer_size,
            max_buffer_bytes,
            ..BackpressureStatus::default()
        }
    }

    fn between(earlier: BackpressureStatus, later: BackpressureStatus) -> Forecast {
        Forecast::between(&earlier, &later, Duration::from_secs(5))
    }

    #[test]
    fn what_rises_is_full_by_whichever_limit_comes_first() {
        let rising = between(at(10_000, 0), at(20_000, 1_000));
        assert_eq!(rising.full_in_seconds, Some(15.0));
        let heavy = between(at(10_000, 0), at(20_000, 500_000));
        assert_eq!((heavy.full_in_seconds, heavy.drained_in_seconds), (Some(5.0), None));
    }

    #[test]
    fn what_falls_is_drained_and_what_stands_is_neither() {
        let falling = between(at(20_000, 200_000), at(10_000, 100_000));
        assert_eq!((falling.full_in_seconds, falling.drained_in_seconds), (None, Some(5.0)));
        assert_eq!(between(at(10, 10), at(10, 10)), Forecast::default());
    }
}
