//! What became of a batch that is sent exactly once: it landed, it certainly did not, or nobody can
//! tell; and the dead letters of it.

use super::{Step, batch_slot};
use crate::batch::{Batch, Letter, LooseRow, Refused};
use crate::intent::Range;
use crate::ledger::Slot;
use crate::pipeline::insert::CutBatch;
use crate::pipeline::table::LETTERS;
use crate::pipeline::{Pipeline, wall_clock};
use crate::sink::Sink;
use crate::trace::Outcome;
use crate::writer::CutReason;

impl<S: Sink> Pipeline<S> {
    /// The last row of it was refused too: all of it is dead letters.
    pub(in crate::pipeline) fn all_refused(&mut self, mut cut: CutBatch, refused: Refused) {
        let batch = cut.exact.as_mut().expect("such a batch");
        let mut rejected = std::mem::take(&mut batch.rejected);
        let row = cut.batch.take(&[0]).pop().expect("it has one row");
        rejected.push((row, refused));
        rejected.sort_by_key(|(row, _)| row.ticket.offset());
        cut.trace.becomes(Outcome::DeadLettered);
        self.letters_of(&cut, rejected);
    }

    /// The dead letters of one batch are a batch of their own, under the same token in another
    /// table: they are recognised with it.
    pub(in crate::pipeline) fn letters_of(
        &mut self,
        cut: &CutBatch,
        rejected: Vec<(LooseRow, Refused)>,
    ) {
        let table = LETTERS;
        self.tables[cut.table].in_flight -= rejected.len();
        self.report_rejected(cut.table, &rejected);
        let mut letters = Batch::default();
        for (row, refused) in rejected {
            let row = row.detached();
            let source = self.ledger.source(row.ticket.slot());
            let source = source.map_or("", |id| self.sources[id.0].handle.name);
            letters.push_letter(&row, Letter { refused, time: wall_clock(), source });
        }
        self.metrics.batch_cut(self.writer_name(table), CutReason::Letters, letters.len());
        self.tables[table].in_flight += letters.len();
        let mut letters = self.new_cut(table, letters);
        self.trace_within(&cut.trace, &mut letters, CutReason::Letters.as_str());
        cut.token().clone_into(&mut letters.token);
        letters.slot = cut.slot;
        self.queue.push_back(letters);
    }

    /// It landed: by the acknowledgement, or because the table has its rows.
    pub(in crate::pipeline) fn exactly_durable(&mut self, mut cut: CutBatch) {
        let batch = cut.exact.as_mut().expect("such a batch");
        let rejected = std::mem::take(&mut batch.rejected);
        let (slot, first) = (batch.slot, batch.first);
        let verified = batch.step == Step::Verify;
        let all_were_rows = batch.noted.as_ref().is_some_and(Range::is_all_rows);
        self.certain(slot);
        if verified {
            self.resolved(slot, first);
        }
        if verified && all_were_rows {
            // As it is now a row would be refused; as it was then, it landed with the others.
            for (row, _) in rejected {
                cut.batch.push(&row.chunk, row.index, row.ticket);
            }
        } else if self.has_left(&cut) {
            // Its range is noted, so they are the next owner's: it may have written them by now.
            self.release_rejected(&cut, &rejected);
        } else if !rejected.is_empty() {
            self.letters_of(&cut, rejected);
        }
        self.durable(cut);
    }

    /// What was noted is certainly not in the table: it is announced as it is now.
    pub(in crate::pipeline) fn never_landed(&mut self, cut: CutBatch) {
        self.certain(batch_slot(&cut));
        let batch = cut.exact.as_ref().expect("such a batch");
        let Some(noted) = batch.noted.as_ref().filter(|_| cut.all_rows() == 0) else {
            return self.announce(cut);
        };
        let table = &self.tables[cut.table].name;
        let (rows, first, last) = (noted.rows, noted.first, noted.last);
        tracing::error!(
            event = "records_lost",
            table,
            rows,
            first,
            last,
            "the source lost these records before they were inserted"
        );
        self.resolved(batch.slot, first);
    }

    /// ClickHouse was killed after it had written down the token, and before the rows: it takes them
    /// for known for ever, and has none. They are announced under the next token.
    pub(in crate::pipeline) fn token_is_spent(&mut self, mut cut: CutBatch) {
        let table = &self.tables[cut.table].name;
        tracing::warn!(
            event = "token_spent",
            table,
            token = cut.token,
            rows = cut.batch.len(),
            "ClickHouse takes a batch for known of which it has no row: sent under another token"
        );
        let mut batch = cut.exact.take().expect("such a batch");
        batch.spent += 1;
        batch.repeated = false;
        self.make_exact_part(&mut cut, batch);
        if let Some(insert) = &mut cut.insert {
            insert.token.clone_from(&cut.token);
        }
        self.announce(cut);
    }

    /// Nobody can tell whether it landed, and that is accepted.
    pub(in crate::pipeline) fn given_up(&mut self, mut cut: CutBatch, why: &str) {
        tracing::error!(
            event = "uncertain_accepted",
            "{why}; left as it is: on_uncertain = \"accept_loss\""
        );
        let batch = cut.exact.as_mut().expect("such a batch");
        let rejected = std::mem::take(&mut batch.rejected);
        let (slot, first) = (batch.slot, batch.first);
        for (row, _) in rejected {
            cut.batch.push(&row.chunk, row.index, row.ticket);
        }
        self.certain(slot);
        let source = self.exact.get(&slot).map(|exact| exact.source);
        for (ticket, rows) in cut.batch.tickets() {
            if self.ledger.settle(ticket, rows)
                && let Some(source) = source
            {
                let (route, rows) = (&mut self.routes[ticket.route().index()], u64::from(rows));
                route.dropped += rows;
                self.sources[source.0].tally.drop_records(&route.class, "uncertain", rows);
            }
        }
        self.resolved(slot, first);
        self.release_cut(cut);
    }

    /// Nobody can tell whether it landed: it waits until somebody can, and what lies behind it in
    /// its partition is not committed.
    pub(in crate::pipeline) fn uncertain(&mut self, cut: CutBatch, what: String) {
        if let Some(exact) = self.exact.get_mut(&batch_slot(&cut)) {
            if exact.uncertain.as_ref() != Some(&what) {
                tracing::error!(event = "needs_person", "needs a person: {what}");
            }
            exact.uncertain = Some(what);
        }
        self.wait_on(cut);
    }

    fn certain(&mut self, slot: Slot) {
        if let Some(exact) = self.exact.get_mut(&slot) {
            exact.uncertain = None;
        }
    }
}
