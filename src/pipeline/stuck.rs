//! What would wait for nothing. When every credit is taken no record comes, and no batch grows: then the
//! largest open batch goes as it is, rather than at its rows or its linger. And what ought to have
//! happened long ago, and has not: the pipeline says that it is wedged.

use tokio::time::Instant;

use super::Pipeline;
use super::exact::AHEAD;
use super::insert::{CutBatch, UnderWay};
use crate::sink::Sink;
use crate::status::WEDGED_AFTER;
use crate::writer::CutReason;

impl<S: Sink> Pipeline<S> {
    /// No credit is left and there is room for a batch whose rows would give some back: the largest
    /// open one goes now rather than at its linger.
    pub(super) fn cut_when_stuck(&mut self, now: Instant) {
        while self.is_stuck()
            && let Some(table) = self.table_with_the_largest()
            && self.has_room_when_stuck(table)
            && let Some(batch) = self.tables[table].buffer.cut_largest()
        {
            self.cut(table, batch, CutReason::Credits);
            self.start_inserts(now);
        }
    }

    fn is_stuck(&self) -> bool {
        self.credits.used() >= self.config.backpressure.pull_limit && self.waiting.is_empty()
    }

    fn table_with_the_largest(&self) -> Option<usize> {
        (0..self.tables.len()).max_by_key(|&table| self.tables[table].buffer.largest())
    }

    /// A batch that is sent exactly once is on its way for longer, and much of that is waiting for
    /// its announcement: as many more as go ahead of their inserts keep the slots busy. Not by ever
    /// smaller batches: each has at least half of what it would have if all were of one size.
    fn has_room_when_stuck(&self, table: usize) -> bool {
        let slots = self.in_flight_limit();
        if self.tables[table].exactly_once.is_none() {
            return self.queue.is_empty() && self.inserting() < slots;
        }
        let least = self.config.backpressure.pull_limit / (2 * (slots + AHEAD));
        let in_line = |cut: &CutBatch| cut.table == table && !cut.sends();
        !self.queue.iter().any(in_line)
            && self.ahead(table) < AHEAD
            && self.tables[table].buffer.largest() >= least
    }

    /// What is overdue by so much that the pipeline counts as wedged. A refused attempt is
    /// progress; one that neither ends nor times out is not.
    pub(super) fn overdue(&self) -> Option<String> {
        let now = Instant::now();
        let attempt_limit = self.config.clickhouse.insert_timeout + WEDGED_AFTER;
        let stuck = self.under_way.iter().find(|one| one.began + attempt_limit < now);
        if let Some(UnderWay { number, .. }) = stuck {
            return Some(format!("the insert of batch {number} neither ends nor times out"));
        }
        (self.next_deadline() + WEDGED_AFTER < now).then(|| "a timer was not served".to_owned())
    }
}
