//! When to pause and when to resume.
//!
//! Pure: [`check_backpressure`] is the rule, [`Backpressure`] keeps the present episode. It moves
//! no source and writes no log; it says what changed, and the pipeline acts on it.

pub mod auto;
pub mod budget;

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::record::UnixMs;

/// How full the bridge is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// Records held.
    pub held: usize,
    /// Bytes held.
    pub bytes: usize,
}

impl Level {
    /// So much of both.
    #[must_use]
    pub fn percent(self, percent: u8) -> Self {
        let of =
            |all: usize| all / 100 * usize::from(percent) + all % 100 * usize::from(percent) / 100;
        Self { held: of(self.held), bytes: of(self.bytes) }
    }
}

/// Where to pause and where to resume; both strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub pause: Level,
    pub resume: Level,
}

impl Thresholds {
    /// Bytes pause above 80 % and resume below 40 % of `max_buffer_bytes`: the same shares that
    /// the defaults have of the cap.
    #[must_use]
    pub fn new(config: &config::Backpressure) -> Self {
        let bytes = config.max_buffer_bytes;
        Self {
            pause: Level { held: config.pause_threshold, bytes: bytes / 10 * 8 },
            resume: Level { held: config.resume_threshold, bytes: bytes / 10 * 4 },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pause,
    Resume,
    Stay,
}

/// The rule: above the pause threshold everything pauses, below the resume threshold everything
/// resumes, nothing changes in between.
#[must_use]
pub fn check_backpressure(level: Level, thresholds: &Thresholds, paused: bool) -> Verdict {
    let above = level.held > thresholds.pause.held || level.bytes > thresholds.pause.bytes;
    let below = level.held < thresholds.resume.held && level.bytes < thresholds.resume.bytes;
    match paused {
        false if above => Verdict::Pause,
        true if below => Verdict::Resume,
        _ => Verdict::Stay,
    }
}

/// What a look at the level changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not paused before: an episode begins.
    Began,
    /// Paused already for another cause; this one joins.
    Joined,
    /// Every cause is gone: the episode ends.
    Ended,
    None,
}

/// The present state and the count of episodes.
#[derive(Debug)]
pub struct Backpressure {
    thresholds: Thresholds,
    level_paused: bool,
    /// By source: it asked for records, and nothing at all was settled for a whole heartbeat.
    starved: Vec<bool>,
    /// By source: it is pulled, and the circuit breaker has opened.
    breaker: Vec<bool>,
    /// The breaker is still open: no pause ends.
    breaker_open: bool,
    since: Option<Instant>,
    pause_count: u64,
    last_pause: Option<UnixMs>,
    last_resume: Option<UnixMs>,
    paused_before: Duration,
}

impl Backpressure {
    #[must_use]
    pub fn new(thresholds: Thresholds, sources: usize) -> Self {
        Self {
            thresholds,
            level_paused: false,
            starved: vec![false; sources],
            breaker: vec![false; sources],
            breaker_open: false,
            since: None,
            pause_count: 0,
            last_pause: None,
            last_resume: None,
            paused_before: Duration::ZERO,
        }
    }

    /// From the next look on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Applies the rule to the present level.
    pub fn look(&mut self, level: Level, now: Instant, wall: UnixMs) -> Change {
        match check_backpressure(level, &self.thresholds, self.since.is_some()) {
            Verdict::Resume if !self.breaker_open => self.end(now, wall),
            _ if check_backpressure(level, &self.thresholds, self.level_paused)
                == Verdict::Pause =>
            {
                self.level_paused = true;
                self.begin(now, wall)
            }
            _ => Change::None,
        }
    }

    /// A pulled source gets nothing because nothing is settled: it pauses, the others do not.
    pub fn starve(&mut self, source: usize, now: Instant, wall: UnixMs) -> Change {
        if self.starved[source] {
            return Change::None;
        }
        self.starved[source] = true;
        self.begin(now, wall)
    }

    /// The circuit breaker has opened: these sources pause, and no pause ends until it is closed.
    pub fn breaker_opened(&mut self, pulled: &[usize], now: Instant, wall: UnixMs) -> Change {
        self.breaker_open = true;
        let mut change = Change::None;
        for &source in pulled {
            if !std::mem::replace(&mut self.breaker[source], true) && change == Change::None {
                change = self.begin(now, wall);
            }
        }
        change
    }

    /// It is closed; the next look ends the pause if the level is low.
    pub fn breaker_closed(&mut self) {
        self.breaker_open = false;
    }

    /// Ends the episode whatever the level is (at stop).
    pub fn end(&mut self, now: Instant, wall: UnixMs) -> Change {
        let Some(since) = self.since.take() else { return Change::None };
        self.level_paused = false;
        self.starved.fill(false);
        self.breaker.fill(false);
        self.breaker_open = false;
        self.paused_before += now.saturating_duration_since(since);
        self.last_resume = Some(wall);
        Change::Ended
    }

    fn begin(&mut self, now: Instant, wall: UnixMs) -> Change {
        if self.since.is_some() {
            return Change::Joined;
        }
        self.since = Some(now);
        self.pause_count += 1;
        self.last_pause = Some(wall);
        Change::Began
    }

    #[must_use]
    pub fn active(&self) -> bool {
        self.since.is_some()
    }

    /// The rule itself has paused: every source.
    #[must_use]
    pub fn level_paused(&self) -> bool {
        self.level_paused
    }

    #[must_use]
    pub fn paused(&self, source: usize) -> bool {
        self.level_paused || self.starved[source] || self.breaker[source]
    }

    /// Pulled sources are paused because of the circuit breaker.
    #[must_use]
    pub fn breaker_paused(&self) -> bool {
        self.breaker.contains(&true)
    }

    /// The causes of the present episode, by name.
    #[must_use]
    pub fn causes(&self) -> Vec<&'static str> {
        let level = self.level_paused.then_some("level");
        let starved = self.starved.contains(&true).then_some("starved");
        let breaker = self.breaker_paused().then_some("breaker");
        level.into_iter().chain(starved).chain(breaker).collect()
    }

    /// How long the present episode lasts; None when there is none.
    #[must_use]
    pub fn paused_for(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// All the time spent paused, the present episode included.
    #[must_use]
    pub fn paused_total(&self, now: Instant) -> Duration {
        self.paused_before + self.paused_for(now).unwrap_or_default()
    }

    #[must_use]
    pub fn pause_count(&self) -> u64 {
        self.pause_count
    }

    #[must_use]
    pub fn last_pause(&self) -> Option<UnixMs> {
        self.last_pause
    }

    #[must_use]
    pub fn last_resume(&self) -> Option<UnixMs> {
        self.last_resume
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        pause: Level { held: 40_000, bytes: 800 },
        resume: Level { held: 20_000, bytes: 400 },
    };

    fn held(held: usize) -> Level {
        Level { held, bytes: 0 }
    }

    #[test]
    fn the_comparisons_are_strict() {
        let check = |n, paused| check_backpressure(held(n), &THRESHOLDS, paused);
        assert_eq!(check(40_000, false), Verdict::Stay);
        assert_eq!(check(40_001, false), Verdict::Pause);
        assert_eq!(check(20_000, true), Verdict::Stay);
        assert_eq!(check(19_999, true), Verdict::Resume);
    }

    #[test]
    fn bytes_pause_as_well_and_must_be_low_to_resume() {
        let full = Level { held: 10, bytes: 801 };
        assert_eq!(check_backpressure(full, &THRESHOLDS, false), Verdict::Pause);
        let half = Level { held: 10, bytes: 400 };
        assert_eq!(check_backpressure(half, &THRESHOLDS, true), Verdict::Stay);
    }

    #[test]
    fn a_source_that_starves_joins_the_episode_and_ends_with_it() {
        let now = Instant::now();
        let mut state = Backpressure::new(THRESHOLDS, 2);
        assert_eq!(state.starve(0, now, 1), Change::Began);
        assert!(state.paused(0) && !state.paused(1));
        assert_eq!(state.look(held(40_001), now, 2), Change::Joined);
        assert!(state.paused(1));
        assert_eq!(state.causes(), ["level", "starved"]);
        assert_eq!(state.look(held(30_000), now, 3), Change::None);
        assert_eq!(state.look(held(19_999), now, 4), Change::Ended);
        assert_eq!(
            (state.pause_count(), state.last_pause(), state.last_resume()),
            (1, Some(1), Some(4))
        );
    }

    #[test]
    fn a_pause_does_not_end_while_the_breaker_is_open() {
        let now = Instant::now();
        let mut state = Backpressure::new(THRESHOLDS, 2);
        assert_eq!(state.breaker_opened(&[0], now, 1), Change::Began);
        assert!(state.paused(0) && !state.paused(1), "core NATS is not paused by it");
        assert_eq!(state.breaker_opened(&[0], now, 2), Change::None, "the probe failed");
        assert_eq!(state.look(held(40_001), now, 3), Change::Joined);
        assert_eq!(state.causes(), ["level", "breaker"]);
        assert_eq!(state.look(held(0), now, 4), Change::None);
        state.breaker_closed();
        assert_eq!(state.look(held(20_000), now, 5), Change::None, "the level is to be low too");
        assert_eq!(state.look(held(19_999), now, 6), Change::Ended);
        assert_eq!((state.pause_count(), state.causes().len()), (1, 0));
    }

    #[test]
    fn without_a_pulled_source_the_breaker_pauses_nothing() {
        let now = Instant::now();
        let mut state = Backpressure::new(THRESHOLDS, 1);
        assert_eq!(state.breaker_opened(&[], now, 1), Change::None);
        assert!(!state.active());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Pause and resume alternate, one count an episode, and nothing changes in between.
        #[test]
        fn episodes_alternate_whatever_the_level_does(
            levels in prop::collection::vec(0usize..50_001, 1..80)
        ) {
            let now = Instant::now();
            let mut state = Backpressure::new(THRESHOLDS, 1);
            let mut paused = false;
            let mut episodes = 0;
            for level in levels {
                let change = state.look(held(level), now, 0);
                let expected = match paused {
                    false if level > 40_000 => Change::Began,
                    true if level < 20_000 => Change::Ended,
                    _ => Change::None,
                };
                prop_assert_eq!(change, expected);
                paused = match change { Change::Began => true, Change::Ended => false, _ => paused };
                episodes += u64::from(change == Change::Began);
                prop_assert_eq!(state.active(), paused);
                prop_assert_eq!(state.pause_count(), episodes);
            }
        }
    }
}
