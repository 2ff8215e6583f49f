//! Acting on the rule of backpressure, and the heartbeat.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::drain::Phase;
use super::table::Table;
use super::{Pipeline, wall_clock};
use crate::backpressure::{Change, Level, Thresholds};
use crate::heartbeat;
use crate::sink::Sink;
use crate::source::{Delivery, SourceId};
use crate::status::RunStage;
use crate::thousands::thousands;

impl<S: Sink> Pipeline<S> {
    /// Looks at the level and acts on what changed.
    pub(super) fn check_pressure(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return self.credits.set_open(false);
        }
        self.look_at_tiers(0);
        let before = self.paused_sources();
        self.do_not_wait_for_a_probe(now);
        let change = self.backpressure.look(self.level(), now, wall_clock());
        self.pressure_changed(change, before, "");
        let paused = self.backpressure.level_paused() || self.backpressure.breaker_paused();
        let room = self.bytes < self.pull_bytes() && !paused;
        self.credits.set_open(room);
    }

    /// Pulled sources stop a little below where bytes would pause everything, as `pull_limit`
    /// does for records: plenty is no reason to pause. A sixteenth is left for what is on its way.
    fn pull_bytes(&self) -> usize {
        let config = &self.config.backpressure;
        let pause = config.max_buffer_bytes / 10 * 8;
        let rows = config.pull_limit.min(config.pause_threshold);
        let share = pause.saturating_mul(rows) / config.pause_threshold;
        share.saturating_sub(config.max_buffer_bytes / 16)
    }

    /// Which sources are paused, as bits.
    pub(super) fn paused_sources(&self) -> u64 {
        (0..self.sources.len())
            .filter(|&source| self.backpressure.paused(source))
            .fold(0, |bits, source| bits | 1 << source)
    }

    /// Logs what changed and tells the sources. `why` is appended to what is logged.
    pub(super) fn pressure_changed(&mut self, change: Change, before: u64, why: &str) {
        if change == Change::None {
            return;
        }
        let now_paused = self.paused_sources();
        let held = thousands(self.held);
        let cap = thousands(self.config.backpressure.max_buffer_size);
        let writers = self.writers_in_words();
        let (count, bytes) = (self.backpressure.pause_count(), self.bytes);
        let causes = self.backpressure.causes().join(",");
        match change {
            Change::Began => {
                tracing::warn!(
                    event = "backpressure_active",
                    cause = causes,
                    count,
                    bytes,
                    writers,
                    "BACKPRESSURE ACTIVE: Buffer high ({held}/{cap}){why}"
                );
            }
            Change::Ended => {
                tracing::info!(
                    event = "backpressure_released",
                    count,
                    bytes,
                    writers,
                    "BACKPRESSURE RELEASED: Buffer normal ({held}/{cap}){why}"
                );
            }
            Change::Joined | Change::None => {}
        }
        for (index, source) in self.sources.iter().enumerate() {
            let (was, is) = (before >> index & 1 == 1, now_paused >> index & 1 == 1);
            let label = source.handle.label();
            if is && !was {
                tracing::warn!(
                    event = "source_paused",
                    cause = causes,
                    "{label} subscriber paused{why}"
                );
            } else if was && !is {
                tracing::info!(event = "source_resumed", "{label} subscriber resumed{why}");
                // Native resume goes out with the transition; native pause waits for the
                // heartbeat, because it throws the prefetch away.
                source.handle.want_native_pause(false);
            }
        }
        self.changed = true;
        self.publish_if_changed();
    }

    /// At stop every source is resumed, for real, so that clients leave in a clean state.
    pub(super) fn release_for_shutdown(&mut self, now: Instant) {
        let before = self.paused_sources();
        let change = self.backpressure.end(now, wall_clock());
        self.pressure_changed(change, before, " for shutdown");
        self.end_tiers();
        for source in &self.sources {
            source.handle.want_native_pause(false);
        }
    }

    fn writers_in_words(&self) -> String {
        let held = |index| -> usize {
            let of_writer = self.tables.iter().filter(|table| table.writer == Some(index));
            of_writer.map(Table::rows).sum()
        };
        let words = self.writers.iter().enumerate().map(|(i, w)| format!("{}={}", w.name, held(i)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Every few seconds: the rule once more, who starves, native pause, one line.
    pub(super) fn heartbeat(&mut self) {
        let now = Instant::now();
        self.move_limits();
        self.check_pressure(now);
        if matches!(self.phase, Phase::Running) {
            self.look_for_gone();
            self.look_for_starving(now);
            for (index, source) in self.sources.iter().enumerate() {
                if source.handle.delivery == Delivery::Pulled {
                    source.handle.want_native_pause(self.backpressure.paused(index));
                }
            }
        }
        self.ask_failed_endpoints();
        self.look_at_windows(now);
        self.settled_at_heartbeat = self.settled;
        self.beat();
    }

    /// Limits that are chosen follow the memory that there is, and what records weigh.
    fn move_limits(&mut self) {
        let Some(auto) = &mut self.auto else { return };
        let limits = &mut Arc::make_mut(&mut self.config).backpressure;
        let memory = self.memory.borrow();
        let another = memory.as_ref().is_some_and(|it| auto.memory_is(it, limits));
        drop(memory);
        if another {
            let max_buffer_bytes = limits.max_buffer_bytes;
            tracing::info!(
                event = "memory_changed",
                max_buffer_bytes,
                "thresholds = \"auto\": {}",
                auto.why()
            );
        }
        if !auto.step(limits, self.held) && !another {
            return;
        }
        if auto.is_worth_telling(limits) {
            let (cap, pause) = (limits.max_buffer_size, limits.pause_threshold);
            tracing::info!(
                event = "thresholds_chosen",
                max_buffer_size = cap,
                pause_threshold = pause,
                resume_threshold = limits.resume_threshold,
                max_buffer_bytes = limits.max_buffer_bytes,
                "thresholds = \"auto\": the cap is {} now: {}",
                thousands(cap),
                auto.why()
            );
        }
        self.limits_changed();
    }

    /// Whoever goes by the limits is told.
    pub(super) fn limits_changed(&mut self) {
        let limits = &self.config.backpressure;
        self.backpressure.set_thresholds(Thresholds::new(limits));
        self.credits.set_limits(limits.pull_limit, limits.max_buffer_size);
        let cap = Level { held: limits.max_buffer_size, bytes: limits.max_buffer_bytes };
        self.overload.set_limits(cap);
    }

    /// A source whose thread or tasks panicked says nothing any more. Only while running: at the
    /// stop a source leaves, and its last word may still be on its way here.
    fn look_for_gone(&mut self) {
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            if !source.closed && source.handle.is_gone() {
                self.closed(SourceId(index), Some("it ended without a word".to_owned()));
            }
        }
    }

    /// A pulled source that asked in vain while nothing at all was settled for a whole interval.
    fn look_for_starving(&mut self, now: Instant) {
        let nothing_settled = self.settled == self.settled_at_heartbeat && self.held > 0;
        for index in 0..self.sources.len() {
            let handle = &self.sources[index].handle;
            let asked = handle.observed.starved.swap(false, Ordering::AcqRel);
            if asked && nothing_settled && handle.delivery.has_credits() {
                let before = self.paused_sources();
                let change = self.backpressure.starve(index, now, wall_clock());
                self.pressure_changed(change, before, "");
            }
        }
    }

    /// One line for people, and the rates of the interval for the snapshot.
    fn beat(&mut self) {
        let snapshot = self.publish(self.stage());
        let previous = self.last_heartbeat.replace(Arc::clone(&snapshot));
        for gap in snapshot.gaps_since(previous.as_deref()) {
            tracing::error!(event = "accounting_gap", records = gap.records, "{gap}");
        }
        let interval = self.config.heartbeat.interval;
        self.follow_fleet(previous.as_deref(), &snapshot, interval);
        let line = heartbeat::line(&snapshot, previous.as_deref(), interval);
        self.rates = line.rates;
        self.levels.see(&snapshot.backpressure, Instant::now());
        line.log();
    }

    pub(super) fn stage(&self) -> RunStage {
        match self.phase {
            Phase::Running => RunStage::Running,
            Phase::Draining { .. } | Phase::Closing { .. } => RunStage::Draining,
            Phase::Ended => RunStage::Stopped,
        }
    }
}
