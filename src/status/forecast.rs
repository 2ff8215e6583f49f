//! Where the level is going: when the bridge is full, or drained, if all goes on as at the last
//! heartbeats. Pure.

use std::collections::VecDeque;

use serde::Serialize;
use tokio::time::Instant;

use super::{BackpressureStatus, float_of};

/// So many heartbeats are looked back: half a minute, as they come by default. Inserts take what is
/// held in lumps, so that the difference of two says when the last of them was, and not where the
/// level goes; and what has turned is seen before it is over.
const LOOKS: usize = 7;

/// What would take longer is called standing: over half a minute no more can be said of it.
const FURTHEST_S: f64 = 24.0 * 60.0 * 60.0;

/// At most one of them: the level rises, falls, or stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Forecast {
    /// Until the cap is reached, in records or in bytes.
    pub full_in_seconds: Option<f64>,
    /// Until nothing is held.
    pub drained_in_seconds: Option<f64>,
}

/// The level at the last heartbeats, and where it leads.
#[derive(Debug, Default)]
pub struct Levels {
    looks: VecDeque<Level>,
    paused: bool,
    forecast: Forecast,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    at: Instant,
    records: f64,
    bytes: f64,
}

impl Levels {
    #[must_use]
    pub fn forecast(&self) -> Forecast {
        self.forecast
    }

    /// Takes in a look. When a pause begins or ends, what went before says nothing of what comes.
    pub fn see(&mut self, status: &BackpressureStatus, at: Instant) {
        if std::mem::replace(&mut self.paused, status.active) != status.active {
            self.looks.clear();
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        let (records, bytes) = (float_of(status.current_buffer), float_of(status.current_bytes));
        self.looks.push_back(Level { at, records, bytes });
        let (records, bytes) = (self.slope(|level| level.records), self.slope(|level| level.bytes));
        let until = |slope: f64, way: usize| {
            let seconds = float_of(way) / slope;
            (slope > 0.0 && seconds <= FURTHEST_S).then_some(seconds)
        };
        let free_records = status.max_buffer_size.saturating_sub(status.current_buffer);
        let free_bytes = status.max_buffer_bytes.saturating_sub(status.current_bytes);
        let full = until(records, free_records).into_iter().chain(until(bytes, free_bytes));
        // Fuller in bytes while records go down is not on its way to be drained.
        let drains = records < 0.0 && bytes <= 0.0;
        self.forecast = Forecast {
            full_in_seconds: full.reduce(f64::min),
            drained_in_seconds: drains.then(|| until(-records, status.current_buffer)).flatten(),
        };
    }

    /// Of the straight line that lies nearest to the looks, a second; 0 of fewer than two.
    fn slope(&self, value: impl Fn(&Level) -> f64) -> f64 {
        let Some(first) = self.looks.front().map(|level| level.at) else { return 0.0 };
        let looks = float_of(self.looks.len());
        let points =
            || self.looks.iter().map(|level| ((level.at - first).as_secs_f64(), value(level)));
        let (times, values) = points().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x, sum.1 + y));
        let (middle, mean) = (times / looks, values / looks);
        let (along, across) = points().fold((0.0, 0.0), |(along, across), (x, y)| {
            let apart = x - middle;
            (apart.mul_add(y - mean, along), apart.mul_add(apart, across))
        });
        if across > 0.0 { along / across } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(5);

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

    /// What is said at each of these levels, a heartbeat apart.
    fn said(levels: impl IntoIterator<Item = BackpressureStatus>) -> Vec<Forecast> {
        let (start, mut seen) = (Instant::now(), Levels::default());
        let see = |(beat, level)| {
            seen.see(&level, start + HEARTBEAT * beat);
            seen.forecast()
        };
        (0..).zip(levels).map(see).collect()
    }

    fn last(levels: impl IntoIterator<Item = BackpressureStatus>) -> Forecast {
        *said(levels).last().unwrap()
    }

    #[test]
    fn what_rises_is_full_by_whichever_limit_comes_first() {
        let rising = last([at(10_000, 0), at(20_000, 1_000)]);
        assert_eq!(rising.full_in_seconds, Some(15.0));
        let heavy = last([at(10_000, 0), at(20_000, 500_000)]);
        assert_eq!((heavy.full_in_seconds, heavy.drained_in_seconds), (Some(5.0), None));
    }

    #[test]
    fn what_falls_is_drained_and_what_stands_is_neither() {
        let falling = last([at(20_000, 200_000), at(10_000, 100_000)]);
        assert_eq!((falling.full_in_seconds, falling.drained_in_seconds), (None, Some(5.0)));
        assert_eq!(last([at(10, 10)]), Forecast::default());
        assert_eq!(last([at(10, 10), at(10, 10)]), Forecast::default());
    }

    #[test]
    fn a_pause_is_not_judged_by_the_rise_that_led_to_it() {
        let paused = |level| BackpressureStatus { active: true, ..at(level, 0) };
        let rises = (0..10).map(|beat| at(4_000 * beat, 0));
        let stands = said(rises.chain([40_500, 40_500, 40_000].map(paused)));
        let full: Vec<bool> = stands.iter().map(|said| said.full_in_seconds.is_some()).collect();
        assert_eq!(full[8..], [true, true, false, false, false]);
        assert!(stands[12].drained_in_seconds.is_some());
    }

    #[test]
    fn what_moves_by_next_to_nothing_stands() {
        assert_eq!(last([at(10_000, 0), at(10_002, 0)]), Forecast::default());
        assert_eq!(last([at(20_002, 0), at(20_000, 0)]).drained_in_seconds, Some(50_000.0));
    }

    /// 1,000 records a second come, and four fifths of them go, 5,000 at a time: the level rises in one
    /// interval, and stands in the four after it.
    #[test]
    fn what_goes_out_in_lumps_hides_no_rise() {
        let level = |second: usize| second * 1_000 - second * 800 / 5_000 * 5_000;
        let levels = (0..60).map(|beat| at(level(beat * 5), 0));
        let said = said(levels);
        let known = said.iter().skip(LOOKS);
        assert!(known.clone().all(|said| said.full_in_seconds.is_some()), "{said:#?}");
    }

    #[test]
    fn what_has_turned_is_said_before_it_is_over() {
        let rises = (0..20).map(|beat| at(1_000 * beat, 0));
        let falls = (1..=4).map(|beat| at(19_000 - 2_000 * beat, 0));
        let said = last(rises.chain(falls));
        assert!(said.full_in_seconds.is_none() && said.drained_in_seconds.is_some(), "{said:?}");
    }
}
