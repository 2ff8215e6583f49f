//! What the owner does by the clock, whatever else happens.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::Config;

/// How often a changed snapshot is published: fresh enough for an eye, rare enough to cost
/// nothing.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Timers {
    pub(super) heartbeat: Interval,
    pub(super) commit: Interval,
    pub(super) publish: Interval,
}

impl Timers {
    pub(super) fn new(config: &Config) -> Self {
        let commit = config.kafka.as_ref().map(|kafka| kafka.commit_interval);
        Self {
            heartbeat: ticking(config.heartbeat.interval),
            commit: ticking(commit.unwrap_or(Duration::from_secs(1))),
            publish: ticking(PUBLISH_EVERY),
        }
    }

    pub(super) fn beat_every(&mut self, interval: Duration) {
        self.heartbeat = ticking(interval);
    }
}

fn ticking(every: Duration) -> Interval {
    let mut interval = interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}
