//! Spans of batches: where they begin. They end with their batch (`trace.rs`).

use super::Pipeline;
use super::insert::CutBatch;
use crate::sink::Sink;
use crate::trace::{Names, Trace};
use crate::writer::CutReason;

impl<S: Sink> Pipeline<S> {
    /// The span of a batch begins, if it is sampled.
    pub(super) fn trace(&self, cut: &mut CutBatch, reason: CutReason) {
        cut.trace = self.tracer.begin(&cut.batch, self.names(cut, reason.as_str()));
    }

    /// The same of one that was made out of another.
    pub(super) fn trace_within(&self, whole: &Trace, cut: &mut CutBatch, reason: &'static str) {
        cut.trace = self.tracer.begin_within(whole, &cut.batch, self.names(cut, reason));
    }

    fn names(&self, cut: &CutBatch, reason: &'static str) -> Names<'_> {
        Names { table: &self.tables[cut.table].name, writer: self.writer_name(cut.table), reason }
    }
}
