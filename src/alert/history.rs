//! What is remembered of earlier snapshots: a few numbers over a stretch of time each. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::trend::Trend;
use crate::status::{RouteStatus, RunStage, Snapshot, SourceStatus};

/// Of what there is a trend. Those of a route, a topic or a source have one for each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    Pauses,
    /// Records received, by all sources: lately, and to know what is normal.
    Input,
    InputBefore,
    /// Records that were stored, or were not to be stored, of all sources.
    Output,
    /// Of a route.
    Received,
    DeadLetters,
    Dropped,
    /// Messages that subscribers of the live feed lost.
    SubscriberDrops,
    /// Of a topic.
    Lag,
    /// Of a source.
    Uncommitted,
    /// Of a source, too: what its client dropped before anybody could tell the route.
    DroppedByClient,
}

/// What is called lately. Shorter than what must last before it is told: one jump is no growth.
pub(super) const LATELY: Duration = minutes(5);

impl Of {
    /// As Prometheus' rules have them.
    const fn window(self) -> Duration {
        match self {
            Self::Pauses => minutes(15),
            Self::Uncommitted => minutes(2),
            Self::SubscriberDrops => minutes(1),
            Self::InputBefore => minutes(65),
            Self::Input
            | Self::Output
            | Self::Received
            | Self::DeadLetters
            | Self::Dropped
            | Self::DroppedByClient
            | Self::Lag => LATELY,
        }
    }
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<(Of, String), Trend>);

impl History {
    /// Takes in a snapshot; what is not in it any more is forgotten.
    pub(super) fn see(&mut self, snapshot: &Snapshot, now: Instant) {
        let all = || snapshot.sources.values();
        let input = all().map(|source| source.received).sum();
        let output = all().map(output).sum();
        let whole = [
            (Of::Pauses, snapshot.backpressure.pause_count),
            (Of::Input, input),
            (Of::InputBefore, input),
            (Of::Output, output),
            (Of::SubscriberDrops, snapshot.subscriber_drops),
        ];
        whole.into_iter().for_each(|(of, value)| self.note(of, "", value, now));
        for (name, route) in &snapshot.routes {
            self.note(Of::Received, name, route.received, now);
            if !is_open(snapshot, route) {
                self.stands(Of::Received, name);
            }
            self.note(Of::DeadLetters, name, route.dead_lettered, now);
            self.note(Of::Dropped, name, route.dropped, now);
        }
        for (name, source) in &snapshot.sources {
            self.note(Of::Uncommitted, name, source.uncommitted, now);
            self.note(Of::DroppedByClient, name, source.dropped_by_client(), now);
        }
        for (topic, lag) in lags(snapshot) {
            self.note(Of::Lag, topic, lag, now);
        }
        self.0.retain(|_, trend| trend.seen_at() == now);
    }

    fn note(&mut self, of: Of, name: &str, value: u64, now: Instant) {
        let trend = self.0.entry((of, name.to_owned()));
        trend
            .and_modify(|trend| trend.see(now, value))
            .or_insert_with(|| Trend::new(of.window(), now, value));
    }

    /// This look does not count as silence.
    fn stands(&mut self, of: Of, name: &str) {
        if let Some(trend) = self.0.get_mut(&(of, name.to_owned())) {
            trend.was_shut();
        }
    }

    /// None of what the last snapshot did not have.
    pub(super) fn trend(&self, of: Of, name: &str) -> Option<&Trend> {
        self.0.get(&(of, name.to_owned()))
    }

    /// How much it grew within its window; 0 if it is unknown.
    pub(super) fn growth(&self, of: Of, name: &str) -> i64 {
        self.trend(of, name).map_or(0, Trend::growth)
    }
}

/// Whether records of the route are taken: while nothing is, nothing is silent.
fn is_open(snapshot: &Snapshot, route: &RouteStatus) -> bool {
    let runs = snapshot.stage == RunStage::Running && !snapshot.backpressure.active;
    runs && !route.held_back
}

/// Dropped is not among them: a bridge that drops what it cannot store does not keep up.
fn output(source: &SourceStatus) -> u64 {
    source.inserted + source.dead_lettered + source.filtered + source.released
}

/// Records that wait, by topic, or stream and consumer.
pub(super) fn lags(snapshot: &Snapshot) -> BTreeMap<&str, u64> {
    let mut lags = BTreeMap::new();
    for partition in snapshot.sources.values().flat_map(|source| &source.partitions) {
        if let Some(lag) = partition.lag {
            *lags.entry(partition.topic.as_str()).or_default() += u64::try_from(lag).unwrap_or(0);
        }
    }
    lags
}
