//! Slowing down with the fleet: what each pulled source may take while all drain together. Who is in it,
//! and when it slows down, is `crate::fleet`'s and comes by `watch`; it is looked at, never waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Attached, Pipeline};
use crate::config::{Config, RateLimit};
use crate::fleet::{View, slowed_to};
use crate::sink::Sink;
use crate::source::Delivery;
use crate::status::{FleetStatus, Snapshot};

/// The fleet, as far as the pipeline knows of it.
#[derive(Debug)]
pub(super) struct Together {
    seen: watch::Receiver<Arc<View>>,
    slowed: bool,
    slowdowns: u64,
}

impl Together {
    pub(super) fn new(seen: watch::Receiver<Arc<View>>) -> Self {
        Self { seen, slowed: false, slowdowns: 0 }
    }

    pub(super) fn status(&self) -> FleetStatus {
        FleetStatus { view: Arc::clone(&self.seen.borrow()), slowdowns: self.slowdowns }
    }
}

impl Attached {
    /// What it may take: what the configuration allows, or less while the fleet is slowed down.
    pub(super) fn limit(&self, config: &Config) -> Option<RateLimit> {
        let limits = [config.rate_limit_of(self.handle.name), self.slowed_to];
        limits.into_iter().flatten().min_by_key(|limit| limit.records_per_second)
    }
}

impl<S: Sink> Pipeline<S> {
    /// At a heartbeat; what became rows since the one before tells what ClickHouse takes.
    pub(super) fn follow_fleet(
        &mut self,
        previous: Option<&Snapshot>,
        now: &Snapshot,
        interval: Duration,
    ) {
        let (Some(together), Some(policy)) = (&mut self.fleet, &self.config.fleet) else { return };
        let (slowed, fill) = {
            let seen = together.seen.borrow();
            (seen.slowed, seen.fill)
        };
        let changes = slowed != together.slowed;
        if !slowed && !changes {
            return;
        }
        together.slowed = slowed;
        together.slowdowns += u64::from(slowed && changes);
        let inserted = |of: &Snapshot, name| of.sources.get(name).map_or(0, |s| s.inserted);
        for source in &mut self.sources {
            let name = source.handle.name;
            let before = previous.map_or(0, |previous| inserted(previous, name));
            let rows = inserted(now, name).saturating_sub(before);
            let rate = crate::status::float(rows) / interval.as_secs_f64();
            // It begins when ClickHouse is slowest: an interval in which more landed says better what
            // it takes.
            let of_now = slowed_to(policy.slow_to_percent, rate);
            let best = source.slowed_to.into_iter().chain([of_now]);
            let best = best.max_by_key(|limit| limit.records_per_second);
            let pulls = slowed && source.handle.delivery == Delivery::Pulled;
            source.slowed_to = best.filter(|_| pulls);
        }
        if changes {
            self.tell_slowed(slowed, fill);
        }
        self.hold_to_rates();
    }

    fn tell_slowed(&self, slowed: bool, fill: f64) {
        if !slowed {
            tracing::info!(
                event = "fleet_drained",
                fill,
                "the fleet has drained: pulling as before"
            );
            return;
        }
        let limits = self.sources.iter().filter_map(|source| source.slowed_to);
        let most: u64 = limits.map(|limit| u64::from(limit.records_per_second)).sum();
        tracing::warn!(
            event = "fleet_slowed",
            fill,
            most,
            "the fleet fills up: pulling more slowly"
        );
    }

    pub(super) fn hold_to_rates(&self) {
        for source in &self.sources {
            if let Some(gate) = &source.handle.gate {
                gate.set_limit(source.limit(&self.config));
            }
        }
    }
}
