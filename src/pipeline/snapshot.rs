//! Making the snapshot and publishing it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::table::LETTERS;
use super::{Attached, Pipeline, wall_clock};
use crate::backpressure::auto::Auto;
use crate::route::RouteId;
use crate::sink::Sink;
use crate::source::{Delivery, SourceId};
use crate::status::{
    AutoStatus, BackpressureStatus, DeadLetterStatus, OverloadStatus, RouteState, RouteStatus,
    RunStage, Snapshot, SourceStatus, WriterStatus,
};

fn auto_status(auto: &Auto) -> AutoStatus {
    AutoStatus {
        memory_budget_from: auto.memory().from.clone(),
        record_bytes: auto.record_bytes().round(),
        why: auto.why(),
    }
}

impl<S: Sink> Pipeline<S> {
    pub(super) fn publish_if_changed(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.publish(self.stage());
        }
    }

    /// Publishes a fresh snapshot.
    pub(super) fn publish(&mut self, stage: RunStage) -> Arc<Snapshot> {
        let snapshot = Arc::new(self.snapshot(stage));
        self.status.send_replace(Arc::clone(&snapshot));
        snapshot
    }

    fn snapshot(&self, stage: RunStage) -> Snapshot {
        let mut snapshot = Snapshot {
            stage,
            source_ended: self.source_ended(),
            config: self.config_status.clone(),
            backpressure: self.backpressure_status(),
            overload: OverloadStatus {
                tiers: self.overload.tiers().collect(),
                adaptive: self.adaptive_status(),
            },
            fleet: self.fleet.as_ref().map(super::Together::status),
            breaker: self.breaker_status(),
            endpoints: self.sink.endpoints(),
            writers: self.writer_statuses(),
            sources: self.source_statuses(),
            routes: self.route_statuses(),
            dead_letters: self.dead_letter_status(),
            subscriber_drops: self.tap.subscriber_drops(),
            needs_person: self.needs_person(),
            rates: self.rates,
            forecast: self.levels.forecast(),
            record_ahead_seconds: self.ahead.furthest(Instant::now()).as_secs_f64(),
            made_at: wall_clock(),
            turned_at: Some(Instant::now()),
            overdue: self.overdue(),
        };
        let gaps = snapshot.gaps();
        snapshot.needs_person.extend(gaps.iter().map(ToString::to_string));
        snapshot
    }

    fn backpressure_status(&self) -> BackpressureStatus {
        let now = Instant::now();
        let config = &self.config.backpressure;
        let paused_for = self.backpressure.paused_for(now);
        BackpressureStatus {
            active: self.backpressure.active(),
            causes: self.backpressure.causes(),
            current_buffer: self.held,
            peak_buffer: self.peak_held,
            pause_threshold: config.pause_threshold,
            resume_threshold: config.resume_threshold,
            max_buffer_size: config.max_buffer_size,
            pull_limit: config.pull_limit,
            current_bytes: self.bytes,
            max_buffer_bytes: config.max_buffer_bytes,
            memory_budget_bytes: config.memory_budget,
            pause_count: self.backpressure.pause_count(),
            last_pause: self.backpressure.last_pause(),
            last_resume: self.backpressure.last_resume(),
            paused_seconds_total: self.backpressure.paused_total(now).as_secs_f64(),
            paused_seconds: paused_for.unwrap_or_default().as_secs_f64(),
            critical: paused_for.is_some_and(|paused| paused >= config.critical_after),
            auto: self.auto.as_ref().map(auto_status),
        }
    }

    fn writer_statuses(&self) -> BTreeMap<String, WriterStatus> {
        let status = |(index, tally): (usize, &super::WriterTally)| {
            let tables = || self.tables.iter().filter(move |table| table.writer == Some(index));
            let status = WriterStatus {
                buffered: tables().map(|table| table.buffered()).sum(),
                in_flight: tables().map(|table| table.in_flight).sum(),
                inserted: tally.inserted,
                inserts: tally.inserts,
                failed_inserts: tally.failed_inserts,
                insert_seconds: tally.insert_seconds,
            };
            (tally.name.clone(), status)
        };
        self.writers.iter().enumerate().map(status).collect()
    }

    fn source_statuses(&self) -> BTreeMap<String, SourceStatus> {
        let status = |(index, source): (usize, &Attached)| {
            (source.handle.name.to_owned(), self.source_status(SourceId(index), source))
        };
        self.sources.iter().enumerate().map(status).collect()
    }

    fn source_status(&self, id: SourceId, source: &Attached) -> SourceStatus {
        let (tally, observed) = (&source.tally, &source.handle.observed);
        let pulled = source.handle.delivery == Delivery::Pulled;
        let lag = observed.lag.load(Ordering::Relaxed);
        let partitions = observed.partitions.lock().expect("no panic while held").clone();
        SourceStatus {
            connected: observed.connected.load(Ordering::Relaxed),
            error: tally.connection_error.clone(),
            received: tally.received,
            inserted: tally.inserted,
            dead_lettered: tally.dead_lettered,
            filtered: tally.filtered,
            dropped: tally.dropped.clone(),
            released: tally.released,
            held: self.ledger.held_of(id),
            paused: self.backpressure.paused(id.0),
            current_rate_limit: match &source.handle.gate {
                Some(gate) => gate.limit(),
                None => self.limits.of_pushed().filter(|_| !pulled),
            },
            held_topics: source.handle.held_topics(),
            natively_paused: pulled.then(|| observed.natively_paused.load(Ordering::Relaxed)),
            uncommitted: self.ledger.uncommitted(id),
            assigned: pulled.then_some(source.assigned.len()),
            lag: (pulled && lag >= 0).then_some(lag),
            partitions,
            reconnects: observed.reconnects.load(Ordering::Relaxed),
            slow_consumer_events: observed.slow_consumer_events.load(Ordering::Relaxed),
            refused_requests: (source.handle.delivery == Delivery::Offered)
                .then(|| observed.refused_requests.load(Ordering::Relaxed)),
            dropped_subjects: tally.dropped_subjects.to_map(),
            system: tally.system.to_map(),
            unrouted: tally.unrouted.to_map(),
        }
    }

    fn route_statuses(&self) -> BTreeMap<String, RouteStatus> {
        let held = self.ledger.held_by_route();
        let status = |(index, tally): (u16, &super::RouteTally)| {
            let trouble = tally.table.and_then(|table| self.exact_troubles(table).next());
            let trouble = trouble.map(|what| RouteState::AwaitingFix(what.clone()));
            let table = tally.table.map(|table| &self.tables[table]);
            let state = match table {
                _ if tally.retired => RouteState::Removed,
                Some(table) => table.state.clone(),
                None => RouteState::Running,
            };
            let status = RouteStatus {
                received: tally.received,
                inserted: tally.inserted,
                dead_lettered: tally.dead_lettered,
                filtered: tally.filtered,
                dropped: tally.dropped,
                released: tally.released,
                held: held.of(RouteId(index)),
                rounded: tally.rounded,
                table: tally.fills.clone(),
                guarantees: tally.guarantees.clone(),
                state: trouble.unwrap_or(state),
                current_rate_limit: self.limits.of_route(RouteId(index)),
                held_back: table.is_some_and(|table| table.held_back),
                window: table.and_then(|table| table.window).map(|window| window.status()),
            };
            (tally.name.clone(), status)
        };
        (0..).zip(&self.routes).map(status).collect()
    }

    fn dead_letter_status(&self) -> DeadLetterStatus {
        let table = &self.tables[LETTERS];
        let reasons = || {
            self.routes.iter().flat_map(|route| {
                route.reasons.iter().map(|(reason, letters)| (&route.name, *reason, letters))
            })
        };
        let by_reason: BTreeMap<_, _> = reasons()
            .map(|(route, reason, letters)| ((route.clone(), reason), letters.count))
            .collect();
        DeadLetterStatus {
            written: by_reason.values().sum(),
            by_reason,
            pending: table.rows(),
            newest: reasons().map(|(.., letters)| Arc::clone(&letters.newest)).collect(),
        }
    }

    fn source_ended(&self) -> Option<&'static str> {
        let ended = self.sources.iter().find(|source| source.ended_by_itself);
        ended.map(|source| source.handle.name)
    }

    /// What waits for a person, each once.
    fn needs_person(&self) -> Vec<String> {
        let mut needs: Vec<String> = Vec::new();
        for (index, table) in self.tables.iter().enumerate().filter(|(_, t)| !t.is_idle()) {
            let troubles = self.exact_troubles(index);
            needs.extend(troubles.map(|what| format!("table {}: {what}", table.name)));
            if let RouteState::AwaitingFix(what) = &table.state
                && !needs.iter().any(|known| known.ends_with(what.as_str()))
            {
                let kind = if table.writer.is_some() { "table" } else { "dead letters," };
                needs.push(format!("{kind} {}: {what}", table.name));
            }
        }
        for source in &self.sources {
            let of_source = source.handle.observed.needs_person.lock();
            needs.extend(of_source.expect("no panic while held").iter().cloned());
        }
        needs
    }
}
