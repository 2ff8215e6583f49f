//! Batches ahead of their inserts: encoded, announced, or in line for a slot. Encoding asks ClickHouse
//! for nothing and takes no slot for inserts; what bounds it is how many batches of a table are ahead.

use crate::pipeline::Pipeline;
use crate::pipeline::insert::CutBatch;
use crate::sink::Sink;

/// Of one table, besides those being inserted. One commit announces all of them, and a commit takes
/// about as long as an insert.
pub(in crate::pipeline) const AHEAD: usize = 4;

impl<S: Sink> Pipeline<S> {
    /// The position in the queue of the batch that is encoded next, ahead of its announcement.
    pub(in crate::pipeline) fn next_to_encode(&self) -> Option<usize> {
        self.queue.iter().position(|cut| {
            let known = self.tables[cut.table].program.is_some();
            !cut.sends() && known && self.ahead(cut.table) < AHEAD
        })
    }

    /// So many batches of the table are ahead of their inserts.
    pub(in crate::pipeline) fn ahead(&self, table: usize) -> usize {
        let announced = |cut: &&CutBatch| cut.table == table && cut.exact.is_some() && cut.sends();
        let encoding = self.under_way.iter().filter(|one| one.table == table && !one.sends);
        let announcing = self.announcing.iter().filter(|cut| cut.table == table);
        encoding.count() + announcing.count() + self.queue.iter().filter(announced).count()
    }
}
