//! Inserts that follow what ClickHouse can take: the pipeline tells how each attempt went, and goes
//! by the limits. The rules are in `adaptive.rs`.
//!
//! A batch that was cut keeps its rows, and one that was noted its bytes: other limits are for what
//! is cut after them.

use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::attempt::Outcome;
use super::insert::CutBatch;
use super::table::Table;
use crate::adaptive::{Concurrency, Size, Went};
use crate::sink::Sink;
use crate::status::AdaptiveStatus;

impl<S: Sink> Pipeline<S> {
    /// Lays the controls, if the configuration wants them; what is configured as before goes on
    /// from where it is. The dead letters have none: they are few, and each may matter.
    pub(super) fn lay_controls(&mut self) {
        if !self.config.clickhouse.adaptive {
            return;
        }
        let (now, most) = (Instant::now(), self.config.clickhouse.max_in_flight);
        if self.concurrency.as_ref().is_none_or(|concurrency| concurrency.most() != most) {
            self.concurrency = Some(Concurrency::new(most, now));
        }
        for table in &mut self.tables {
            let Some(writer) = table.writer else { continue };
            let Some(configured) = self.config.writers.get(&self.writers[writer].name) else {
                continue;
            };
            let size = table.size.take().filter(|size| size.configured() == configured);
            let size = table.size.insert(size.unwrap_or_else(|| Size::new(*configured, now)));
            table.buffer.set_limits(size.limits());
        }
    }

    /// Inserts that may be under way at a time.
    pub(super) fn in_flight_limit(&self) -> usize {
        let most = self.config.clickhouse.max_in_flight;
        self.concurrency.as_ref().map_or(most, |concurrency| concurrency.limit().min(most))
    }

    pub(super) fn adaptive_status(&self) -> Option<AdaptiveStatus> {
        let in_flight_limit = self.concurrency.as_ref()?.limit();
        let rows =
            |table: &Table| Some((table.name.clone(), table.size.as_ref()?.limits().batch_rows));
        let batch_rows = self.tables.iter().filter_map(rows).collect();
        Some(AdaptiveStatus { in_flight_limit, batch_rows })
    }

    /// As many inserts as may be are under way, and more could go.
    pub(super) fn note_in_flight_limit(&mut self) {
        let reached = !self.queue.is_empty() && self.inserting() >= self.in_flight_limit();
        if let Some(concurrency) = self.concurrency.as_mut().filter(|_| reached) {
            concurrency.reached();
        }
    }

    /// An attempt ended: what it says of the number of inserts and of their size.
    pub(super) fn adapt(&mut self, cut: &CutBatch, outcome: &Outcome, took: Duration) {
        let table = &mut self.tables[cut.table];
        let Some(concurrency) = self.concurrency.as_mut().filter(|_| !table.apart) else { return };
        let went = match outcome {
            Outcome::Durable => Went::Well { rows: cut.batch.len(), took },
            Outcome::Refused(error) => Went::of(error),
            _ => return,
        };
        let now = Instant::now();
        concurrency.saw(went);
        if concurrency.look(now) {
            tracing::info!(
                event = "adapted",
                inserts = concurrency.limit(),
                "adaptive: inserts at a time changed"
            );
        }
        if let Some(size) = table.size.as_mut()
            && size.saw(went, now)
        {
            let limits = size.limits();
            let (rows, linger) = (limits.batch_rows, limits.linger);
            tracing::info!(
                event = "adapted",
                table = table.name,
                rows,
                ?linger,
                "adaptive: batches changed"
            );
            table.buffer.set_limits(limits);
        }
    }
}
