//! Letting go: what the policy of overload says of each record, and the latest that wait instead
//! of being lost.
//!
//! What waits is admitted: it has its credit and its ticket and counts as held, so that the cap and
//! the accounting hold whatever waits. The rules are in `overload.rs`.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Pipeline;
use super::layout::numbers;
use crate::backpressure::Level;
use crate::batch::LooseRow;
use crate::config::{Config, Route, Strategy};
use crate::overload::{Loss, TierLook};
use crate::route::RouteId;
use crate::sink::Sink;
use crate::source::{Delivery, SourceId};
use crate::thousands::thousands;

/// An older record that made room for a newer one of its route.
const SLID_OUT: &str = "slid_out";

/// The latest records of a route that is shut out, in order.
#[derive(Debug)]
pub(super) struct Waiting {
    route: RouteId,
    table: usize,
    source: SourceId,
    keep: usize,
    /// Bytes that they may weigh.
    keep_bytes: usize,
    rows: VecDeque<LooseRow>,
    bytes: usize,
}

/// One for each route that keeps its latest, by its number and table. They come from `source`, which
/// is core NATS.
pub(super) fn windows<'a>(
    config: &'a Config,
    routes: impl Iterator<Item = (RouteId, &'a Route, Option<usize>)>,
    source: SourceId,
) -> Vec<Waiting> {
    let keeps = |route: &Route| matches!(route.overload.strategy, Strategy::Sliding { .. });
    let count = config.routes.iter().filter(|route| keeps(route)).count();
    // Half of where the pause and the tiers that drop end, as for records, shared by all.
    let bytes = config.backpressure.max_buffer_bytes / 100;
    let keep_bytes = bytes * usize::from(config.overload.ends_at_percent()) / 2 / count.max(1);
    let window = |(id, route, table): (RouteId, &Route, Option<usize>)| {
        let Strategy::Sliding { keep } = route.overload.strategy else { return None };
        let (table, rows) = (table?, VecDeque::new());
        Some(Waiting { route: id, table, source, keep, keep_bytes, rows, bytes: 0 })
    };
    routes.filter_map(window).collect()
}

impl Waiting {
    /// It has more than it may with so many records and bytes on top.
    fn is_over(&self, rows: usize, bytes: usize) -> bool {
        self.rows.len() + rows > self.keep || self.bytes + bytes > self.keep_bytes
    }

    fn pop(&mut self) -> Option<(LooseRow, usize)> {
        let row = self.rows.pop_front()?;
        let bytes = row.chunk.record(row.index).bytes();
        self.bytes -= bytes;
        Some((row, bytes))
    }
}

impl<S: Sink> Pipeline<S> {
    /// Looks which tiers are in force with so many records more than are held.
    pub(super) fn look_at_tiers(&mut self, more: usize) {
        if !matches!(self.phase, super::Phase::Running) {
            return;
        }
        let level = Level { held: self.held + more, bytes: self.bytes };
        let cap = self.config.backpressure.max_buffer_size;
        self.overload.look(level).for_each(|look| log(look, level, cap));
    }

    /// At the stop every tier ends, and what waits is delivered.
    pub(super) fn end_tiers(&mut self) {
        let (level, cap) = (self.level(), self.config.backpressure.max_buffer_size);
        self.overload.end().for_each(|look| log(look, level, cap));
        self.deliver_waiting();
    }

    /// A record is lost, and why.
    pub(super) fn lose(
        &mut self,
        source: SourceId,
        route: RouteId,
        name: &str,
        reason: &'static str,
    ) {
        let route = &mut self.routes[route.index()];
        route.dropped += 1;
        self.sources[source.0].tally.drop_record(&route.class, name, reason);
    }

    pub(super) fn lost_by_policy(&mut self, route: RouteId, loss: Loss) {
        self.overload.lost(loss, route);
    }

    /// The route keeps its latest instead of losing all.
    pub(super) fn keeps_latest(&self, route: RouteId) -> bool {
        self.waiting_rows.iter().any(|waiting| waiting.route == route)
    }

    /// Makes room among those that wait for one more record; its credit comes back.
    pub(super) fn slide(&mut self, route: RouteId, bytes: usize) {
        while let Some(waiting) = self.waiting_rows.iter_mut().find(|w| w.route == route)
            && waiting.is_over(1, bytes)
            && let Some((row, bytes)) = waiting.pop()
        {
            let (table, source) = (waiting.table, waiting.source);
            self.tables[table].kept -= 1;
            self.let_go(1, bytes);
            self.ledger.settle(row.ticket, 1);
            let record = row.chunk.record(row.index);
            self.lose(source, route, record.topic_or_subject(), SLID_OUT);
        }
    }

    /// An admitted record waits; room was made for it.
    pub(super) fn keep(&mut self, row: LooseRow) {
        let bytes = row.chunk.record(row.index).bytes();
        let waiting =
            self.waiting_rows.iter_mut().find(|waiting| waiting.route == row.ticket.route());
        let waiting = waiting.expect("its route keeps its latest");
        waiting.bytes += bytes;
        waiting.rows.push_back(row);
        self.tables[waiting.table].kept += 1;
        self.held += 1;
        self.peak_held = self.peak_held.max(self.held);
        self.bytes += bytes;
    }

    /// The configuration has changed, and so may have the windows: what waits is delivered first.
    pub(super) fn lay_windows(&mut self) {
        let Some(source) =
            self.sources.iter().position(|each| each.handle.delivery == Delivery::Pushed)
        else {
            return;
        };
        for index in 0..self.waiting_rows.len() {
            self.deliver(index);
        }
        let ids = numbers(&self.config, &self.routes);
        let table = |id: RouteId| self.routes[id.index()].table;
        let routes = self.config.routes.iter().zip(ids).map(|(route, id)| (id, route, table(id)));
        self.waiting_rows = windows(&self.config, routes, SourceId(source));
    }

    /// What waits goes to its table as soon as its route is not shut out any more, in order.
    pub(super) fn deliver_waiting(&mut self) {
        for index in 0..self.waiting_rows.len() {
            let Waiting { route, source, .. } = self.waiting_rows[index];
            if !self.overload.shuts_out(route, self.backpressure.paused(source.0)) {
                self.deliver(index);
            }
        }
    }

    /// All that waits in this window goes to its table, in order.
    fn deliver(&mut self, index: usize) {
        let (table, now) = (self.waiting_rows[index].table, Instant::now());
        while let Some((row, _)) = self.waiting_rows[index].pop() {
            let LooseRow { chunk, index, ticket } = row;
            self.tables[table].kept -= 1;
            let open = self.tables[table].buffer.of(None);
            if let Some((batch, reason)) = open.push(&chunk, index, ticket, now) {
                self.cut(table, batch, reason);
            }
        }
    }

    /// They are abandoned with all that is held.
    pub(super) fn forget_waiting(&mut self) {
        for waiting in &mut self.waiting_rows {
            waiting.rows.clear();
            waiting.bytes = 0;
        }
    }
}

fn log(look: TierLook, level: Level, cap: usize) {
    let TierLook { at_percent, began } = look;
    let (held, cap, bytes) = (thousands(level.held), thousands(cap), level.bytes);
    if began {
        tracing::warn!(
            event = "overload_tier_begins",
            at_percent,
            bytes,
            "OVERLOAD: tier above {at_percent} % begins ({held}/{cap})"
        );
    } else {
        tracing::info!(
            event = "overload_tier_ends",
            at_percent,
            bytes,
            "OVERLOAD: tier above {at_percent} % ends ({held}/{cap})"
        );
    }
}
