//! The alerts about a long pause: when to say what. Pure; the pipeline asks at each heartbeat and
//! logs the answer. The sentences are what people grep and page on: they do not change.

use std::fmt;
use std::time::Duration;

use crate::config::Backpressure;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Warning,
    Critical,
}

/// Something to log now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    pub level: Level,
    /// How long the episode has lasted.
    pub paused_for: Duration,
}

impl Alert {
    /// Logs it: a warning at WARN, a critical one at ERROR.
    pub fn log(&self) {
        let paused_seconds = self.paused_for.as_secs_f64();
        match self.level {
            Level::Warning => tracing::warn!(paused_seconds, "{self}"),
            Level::Critical => tracing::error!(paused_seconds, "{self}"),
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cut, not rounded: "active for 5.0 minutes" is true of everything from 5:00 to 5:05, and
        // the look comes up to one heartbeat after the threshold.
        let tenths = self.paused_for.as_secs() / 6;
        let (minutes, tenth) = (tenths / 10, tenths % 10);
        match self.level {
            Level::Warning => {
                write!(f, "WARNING: Backpressure active for {minutes}.{tenth} minutes")
            }
            Level::Critical => write!(
                f,
                "CRITICAL: Backpressure active for {minutes}.{tenth} minutes! \
                 ClickHouse write bottleneck detected"
            ),
        }
    }
}

/// What was already said of the present episode.
#[derive(Debug)]
pub struct PauseAlerts {
    warn_after: Duration,
    critical_after: Duration,
    repeat_every: Duration,
    said: Option<Alert>,
}

impl PauseAlerts {
    #[must_use]
    pub fn new(config: &Backpressure) -> Self {
        Self {
            warn_after: config.warn_after,
            critical_after: config.critical_after,
            repeat_every: config.repeat_every,
            said: None,
        }
    }

    /// From the next look on; what was said of the present episode stays said.
    pub fn set_limits(&mut self, config: &Backpressure) {
        *self = Self { said: self.said, ..Self::new(config) };
    }

    /// What to log now, given how long the present episode has lasted (None: not paused). Once
    /// when a threshold is passed, then again every `repeat_every` after that threshold; looks
    /// that come late say it once, not once for each repetition missed.
    pub fn look(&mut self, paused_for: Option<Duration>) -> Option<Alert> {
        let Some(paused_for) = paused_for else {
            self.said = None;
            return None;
        };
        // An episode shorter than what was said is a new one; its start fell between two looks.
        self.said = self.said.filter(|said| said.paused_for <= paused_for);
        let level = self.level(paused_for)?;
        let is_due = self.said.is_none_or(|said| {
            said.level < level || self.turn(said.paused_for, level) < self.turn(paused_for, level)
        });
        if !is_due {
            return None;
        }
        let alert = Alert { level, paused_for };
        self.said = Some(alert);
        Some(alert)
    }

    /// The alert last said of the present episode; None when there is nothing to be alarmed about.
    #[must_use]
    pub fn in_force(&self) -> Option<&Alert> {
        self.said.as_ref()
    }

    fn level(&self, paused_for: Duration) -> Option<Level> {
        if paused_for >= self.critical_after {
            Some(Level::Critical)
        } else if paused_for >= self.warn_after {
            Some(Level::Warning)
        } else {
            None
        }
    }

    /// The how-many-eth repetition of the level belongs to this moment. Counted from the
    /// threshold, not from the last alert, so that late looks do not add up to a drift.
    fn turn(&self, paused_for: Duration, level: Level) -> u128 {
        let threshold = match level {
            Level::Warning => self.warn_after,
            Level::Critical => self.critical_after,
        };
        let since = paused_for.saturating_sub(threshold).as_millis();
        since / self.repeat_every.as_millis().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alerts() -> PauseAlerts {
        PauseAlerts {
            warn_after: Duration::from_secs(300),
            critical_after: Duration::from_secs(600),
            repeat_every: Duration::from_secs(60),
            said: None,
        }
    }

    /// What is said, by second, when it is looked at every 5 s with the given lateness.
    fn story(late_ms: u64, until: u64) -> Vec<(u64, String)> {
        let mut alerts = alerts();
        let looks = (0..until).step_by(5);
        looks
            .filter_map(|second| {
                let paused = Duration::from_millis(second * 1_000 + late_ms);
                alerts.look(Some(paused)).map(|alert| (second, alert.to_string()))
            })
            .collect()
    }

    #[test]
    fn a_long_pause_warns_then_alarms_and_repeats_both() {
        let said = story(0, 721);
        let seconds: Vec<u64> = said.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [300, 360, 420, 480, 540, 600, 660, 720]);
        assert_eq!(said[0].1, "WARNING: Backpressure active for 5.0 minutes");
        assert_eq!(said[1].1, "WARNING: Backpressure active for 6.0 minutes");
        assert_eq!(
            said[5].1,
            "CRITICAL: Backpressure active for 10.0 minutes! ClickHouse write bottleneck detected"
        );
        assert!(said[6].1.starts_with("CRITICAL: Backpressure active for 11.0 minutes!"));
    }

    #[test]
    fn looks_that_come_late_do_not_drift_and_do_not_round_up() {
        let said = story(4_900, 601);
        let seconds: Vec<u64> = said.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [300, 360, 420, 480, 540, 600]);
        assert_eq!(said[0].1, "WARNING: Backpressure active for 5.0 minutes");
    }

    #[test]
    fn a_look_after_a_long_silence_says_it_once() {
        let mut alerts = alerts();
        assert_eq!(alerts.look(Some(Duration::from_secs(299))), None);
        let late = alerts.look(Some(Duration::from_secs(1_000))).unwrap();
        assert_eq!(late.level, Level::Critical);
        assert_eq!(alerts.look(Some(Duration::from_secs(1_005))), None);
        assert!(alerts.look(Some(Duration::from_secs(1_020))).is_some());
    }

    #[test]
    fn the_end_of_the_pause_ends_the_alert_and_the_next_episode_starts_anew() {
        let mut alerts = alerts();
        assert!(alerts.look(Some(Duration::from_secs(300))).is_some());
        assert!(alerts.in_force().is_some());
        assert_eq!(alerts.look(None), None);
        assert!(alerts.in_force().is_none());
        assert!(alerts.look(Some(Duration::from_secs(301))).is_some());
        // A shorter episode is another one, even when no look saw the moment between.
        assert_eq!(alerts.look(Some(Duration::from_secs(5))), None);
        assert!(alerts.in_force().is_none());
    }
}
