//! A number over a stretch of time: how much it grew, and since when it stands. Pure, and of a
//! bounded size however often it is looked at.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Points that are kept of a window: its edge is known to a thirtieth of it.
const POINTS: u32 = 30;

#[derive(Debug)]
pub(super) struct Trend {
    window: Duration,
    /// The first is at the window's edge or, while less is known, at the beginning.
    points: VecDeque<(Instant, u64)>,
    latest: (Instant, u64),
    /// For so long it has not moved although it could.
    still_for: Duration,
    /// What the last look added to that.
    step: Duration,
}

impl Trend {
    pub(super) fn new(window: Duration, now: Instant, value: u64) -> Self {
        let points = VecDeque::from([(now, value)]);
        Self {
            window,
            points,
            latest: (now, value),
            still_for: Duration::ZERO,
            step: Duration::ZERO,
        }
    }

    pub(super) fn see(&mut self, now: Instant, value: u64) {
        self.step = now - self.latest.0;
        self.still_for = match value == self.latest.1 {
            true => self.still_for + self.step,
            false => Duration::ZERO,
        };
        self.latest = (now, value);
        while self.points.get(1).is_some_and(|(at, _)| now - *at >= self.window) {
            self.points.pop_front();
        }
        if self.points.back().is_none_or(|(at, _)| now - *at >= self.window / POINTS) {
            self.points.push_back((now, value));
        }
    }

    /// It could not have moved since the look before.
    pub(super) fn was_shut(&mut self) {
        self.still_for = self.still_for.saturating_sub(self.step);
        self.step = Duration::ZERO;
    }

    /// How much more it is than at the window's edge; negative if it is less.
    pub(super) fn growth(&self) -> i64 {
        let (_, first) = self.points.front().copied().unwrap_or(self.latest);
        let less = i64::try_from(first).unwrap_or(i64::MAX);
        i64::try_from(self.latest.1).unwrap_or(i64::MAX) - less
    }

    /// Since then it is known, at most a little more than the window.
    pub(super) fn covers(&self) -> Duration {
        let (first, _) = self.points.front().copied().unwrap_or(self.latest);
        self.latest.0 - first
    }

    /// For so long it has not changed although it could.
    pub(super) fn still_for(&self) -> Duration {
        self.still_for
    }

    pub(super) fn seen_at(&self) -> Instant {
        self.latest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn growth_is_that_of_the_window_and_ends_with_it() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut trend = Trend::new(5 * minute, start, 0);
        let mut grew = Vec::new();
        for second in (5..=480_u64).step_by(5) {
            // seven in the second minute, and nothing after
            trend.see(start + Duration::from_secs(second), if second >= 60 { 7 } else { 0 });
            grew.push((second, trend.growth()));
        }
        assert!(
            grew.iter().all(|(second, growth)| match second {
                0..60 | 375.. => *growth == 0,
                60..360 => *growth == 7,
                _ => true,
            }),
            "{grew:?}"
        );
        assert_eq!(trend.still_for(), Duration::from_secs(420));
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_it_is_looked_at_it_stays_small() {
        let start = Instant::now();
        let mut trend = Trend::new(Duration::from_secs(300), start, 0);
        for tick in 0..100_000_u64 {
            trend.see(start + Duration::from_millis(tick * 10), tick);
        }
        assert!(trend.points.len() <= POINTS as usize + 2, "{}", trend.points.len());
        let growth = trend.growth();
        assert!((30_000..=31_100).contains(&growth), "{growth}");
        assert!(trend.covers() >= Duration::from_secs(300));
    }
}
