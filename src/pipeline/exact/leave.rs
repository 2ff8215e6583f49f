//! Partitions that go away: nothing of them is announced or sent any more. What is noted is the
//! next owner's, what is not comes again.

use std::collections::{HashSet, VecDeque};

use super::{Restoring, bytes_of};
use crate::batch::{LooseRow, Refused};
use crate::ledger::Slot;
use crate::pipeline::Pipeline;
use crate::pipeline::insert::CutBatch;
use crate::sink::Sink;

impl<S: Sink> Pipeline<S> {
    /// The revocation of these partitions began: what is not under way is let go at once. It is
    /// announced or it is not; either way the next owner knows what to do with it.
    pub(in crate::pipeline) fn leave(&mut self, slots: &[Slot]) {
        let mut leaving = HashSet::new();
        for slot in slots {
            if let Some(exact) = self.exact.get_mut(slot) {
                exact.leaving = true;
                leaving.insert(*slot);
            }
        }
        if leaving.is_empty() {
            return;
        }
        let (mut rows, mut bytes) = (0, 0);
        for table in &mut self.tables {
            let (forgotten, weight) = table.buffer.forget(|slot| leaving.contains(&slot));
            rows += forgotten;
            bytes += weight;
        }
        for slot in &leaving {
            let exact = self.exact.get_mut(slot).expect("just found");
            for Restoring { batch, .. } in exact.restoring.drain(..) {
                self.tables[exact.table].restoring -= batch.len();
                rows += batch.len();
                bytes += batch.bytes();
            }
        }
        self.let_go(rows, bytes);
        let of_leaving = |cut: &mut CutBatch| cut.slot.is_some_and(|slot| leaving.contains(&slot));
        let waiting = self.waiting.extract_if(.., of_leaving);
        let announcing = self.announcing.extract_if(.., of_leaving);
        let (queued, rest) =
            self.queue.drain(..).partition(|cut| cut.slot.is_some_and(|s| leaving.contains(&s)));
        let gone: Vec<CutBatch> =
            waiting.chain(announcing).chain::<VecDeque<CutBatch>>(queued).collect();
        self.queue = rest;
        gone.into_iter().for_each(|cut| self.release_cut(cut));
    }

    /// Its rows are nobody's any more: their partition was let go.
    pub(in crate::pipeline) fn release_cut(&mut self, cut: CutBatch) {
        let (rows, bytes) = (cut.all_rows(), cut.all_bytes());
        self.tables[cut.table].in_flight -= rows;
        self.let_go(rows, bytes);
    }

    /// The same for rows of it that were refused.
    pub(super) fn release_rejected(&mut self, cut: &CutBatch, rejected: &[(LooseRow, Refused)]) {
        self.tables[cut.table].in_flight -= rejected.len();
        self.let_go(rejected.len(), bytes_of(rejected));
    }

    /// Nothing of a leaving partition is under way any more.
    pub(in crate::pipeline) fn is_at_rest(&self, slot: Slot) -> bool {
        !self.under_way.iter().any(|one| one.slot == Some(slot))
    }

    /// It is leaving, or has left.
    pub(in crate::pipeline) fn has_left(&self, cut: &CutBatch) -> bool {
        cut.slot.is_some_and(|slot| self.exact.get(&slot).is_none_or(|exact| exact.leaving))
    }
}
