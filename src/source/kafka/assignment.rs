//! The partitions that are ours at the moment: how far each was taken, how far it is committed,
//! where it ends. Decides what is to be committed. Pure: knows no consumer.

use std::sync::Arc;

use crate::record::{Partition, Position};
use crate::source::PartitionObserved;

use super::lag::End;

/// One partition of the assignment.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) partition: Arc<Partition>,
    /// The offset of the first record taken under this epoch.
    first: Option<i64>,
    /// The offset after the last record taken under this epoch.
    taken: Option<i64>,
    /// The position last committed under this epoch, and the note beside it: the last owner's,
    /// until there is one of ours.
    committed: Option<i64>,
    note: Option<Arc<str>>,
    /// A position of the consumer that says nothing about what is durable: never commit it. When the
    /// epoch begins librdkafka may still show the one of an earlier assignment; of a partition that
    /// it has given up, one behind what it could not read.
    stale_position: Option<i64>,
    /// What the group had committed before, as the broker says.
    group_committed: Option<i64>,
    low: Option<i64>,
    end: Option<i64>,
}

impl Assigned {
    fn lag(&self) -> Option<i64> {
        let done = self.committed.or(self.group_committed).or(self.first).or(self.low)?;
        Some((self.end? - done).max(0))
    }

    /// What to commit: the durable prefix, or the consumer's position when all records before it
    /// are durable. Offsets have gaps (control records, compaction), and without the second the
    /// lag would never reach zero.
    fn due(&self, durable: Option<&Position>, position: Option<i64>) -> Option<i64> {
        let says_more = durable.is_some_and(|d| d.note.is_some() && d.note != self.note);
        let durable = durable.map(|durable| durable.offset);
        let position = position.filter(|_| position != self.stale_position);
        let offset = match (durable, self.taken) {
            (Some(durable), Some(taken)) if durable >= taken => {
                position.map_or(taken, |position| position.max(taken))
            }
            (Some(durable), Some(_)) => durable,
            (None, Some(_)) => return None,
            (_, None) => position?,
        };
        let news = self.committed.is_none_or(|committed| offset > committed);
        let same = self.committed.is_none_or(|committed| offset == committed);
        (news || same && says_more).then_some(offset)
    }
}

/// All of them, sorted by topic and number.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    assigned: Vec<Assigned>,
    last_epoch: u64,
}

impl Assignment {
    pub(super) fn partitions(&self) -> impl ExactSizeIterator<Item = &Arc<Partition>> {
        self.assigned.iter().map(|assigned| &assigned.partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.assigned.is_empty()
    }

    pub(super) fn find(&self, topic: &str, number: i32) -> Option<usize> {
        let key =
            |a: &Assigned| (a.partition.topic.as_str(), a.partition.number).cmp(&(topic, number));
        self.assigned.binary_search_by(key).ok()
    }

    pub(super) fn get(&self, index: usize) -> &Arc<Partition> {
        &self.assigned[index].partition
    }

    /// It is ours, under this very epoch.
    pub(super) fn contains(&self, partition: &Partition) -> bool {
        let found = self.find(&partition.topic, partition.number);
        found.is_some_and(|index| **self.get(index) == *partition)
    }

    /// Adds a partition under a new epoch, in place of an older one if there is one.
    pub(super) fn add(
        &mut self,
        topic: &str,
        number: i32,
        position: Option<i64>,
        note: Option<Arc<str>>,
    ) -> Arc<Partition> {
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        let partition = Arc::new(Partition { topic: topic.to_owned(), number, epoch });
        let assigned = Assigned {
            partition: Arc::clone(&partition),
            first: None,
            taken: None,
            committed: None,
            note,
            stale_position: position,
            group_committed: None,
            low: None,
            end: None,
        };
        match self.find(topic, number) {
            Some(index) => self.assigned[index] = assigned,
            None => {
                let at = self.assigned.partition_point(|a| {
                    (a.partition.topic.as_str(), a.partition.number) < (topic, number)
                });
                self.assigned.insert(at, assigned);
            }
        }
        partition
    }

    /// Removes those of `keys` that are ours, and says which.
    pub(super) fn remove<'a>(
        &mut self,
        keys: impl IntoIterator<Item = (&'a str, i32)>,
    ) -> Vec<Arc<Partition>> {
        let mut removed = Vec::new();
        for (topic, number) in keys {
            if let Some(index) = self.find(topic, number) {
                removed.push(self.assigned.remove(index).partition);
            }
        }
        removed
    }

    pub(super) fn clear(&mut self) -> Vec<Arc<Partition>> {
        self.assigned.drain(..).map(|assigned| assigned.partition).collect()
    }

    /// The record at `offset` comes before one that was taken already: the log was truncated, or
    /// the topic was made anew.
    pub(super) fn is_rewound(&self, index: usize, offset: i64) -> bool {
        self.assigned[index].taken.is_some_and(|taken| offset < taken)
    }

    /// The offset after the last record taken; None while none was.
    pub(super) fn next(&self, index: usize) -> Option<i64> {
        self.assigned[index].taken
    }

    /// The consumer stands where it has not read up to, and stays there.
    pub(super) fn distrust(&mut self, index: usize, position: Option<i64>) {
        self.assigned[index].stale_position = position;
    }

    pub(super) fn take(&mut self, index: usize, offset: i64) {
        let assigned = &mut self.assigned[index];
        assigned.first.get_or_insert(offset);
        assigned.taken = Some(offset + 1);
    }

    /// Among `durable`, what is worth committing: of a current epoch, and further than before.
    pub(super) fn due(
        &self,
        durable: &[Position],
        position: impl Fn(&Partition) -> Option<i64>,
    ) -> Vec<Position> {
        let due = self.assigned.iter().filter_map(|assigned| {
            let partition = &assigned.partition;
            let durable = durable.iter().find(|durable| durable.partition == *partition);
            let offset = assigned.due(durable, position(partition))?;
            let note = durable.and_then(|durable| durable.note.clone());
            Some(Position { partition: Arc::clone(partition), offset, note })
        });
        due.collect()
    }

    /// Notes a commit that succeeded; of an epoch that is over, nothing is noted.
    pub(super) fn committed(&mut self, position: &Position) {
        let Partition { topic, number, .. } = &*position.partition;
        if let Some(index) = self.find(topic, *number) {
            let assigned = &mut self.assigned[index];
            if assigned.partition == position.partition {
                assigned.committed = assigned.committed.max(Some(position.offset));
                assigned.note = position.note.clone().or(assigned.note.take());
            }
        }
    }

    pub(super) fn note_end(&mut self, end: &End) {
        if let Some(index) = self.find(&end.topic, end.number) {
            let assigned = &mut self.assigned[index];
            assigned.low = end.low.or(assigned.low);
            // While nothing is fetched librdkafka's end stands still; a watermark that was asked
            // for meanwhile is newer.
            assigned.end = end.end.max(assigned.end);
            assigned.group_committed = end.committed.or(assigned.group_committed);
        }
    }

    pub(super) fn observed(&self) -> Vec<PartitionObserved> {
        let observed = self.assigned.iter().map(|assigned| PartitionObserved {
            topic: assigned.partition.topic.clone(),
            number: assigned.partition.number,
            lag: assigned.lag(),
            committed: assigned.committed,
        });
        observed.collect()
    }

    /// The sum of the lags; -1 while none is known.
    pub(super) fn lag(&self) -> i64 {
        let known = self.assigned.iter().filter_map(Assigned::lag);
        known.reduce(|sum, lag| sum + lag).unwrap_or(-1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(
        assignment: &Assignment,
        durable: Option<(&Arc<Partition>, i64)>,
        position: i64,
    ) -> Vec<i64> {
        let durable =
            durable.map(|(partition, offset)| Position::new(Arc::clone(partition), offset));
        let durable: Vec<_> = durable.into_iter().collect();
        let due = assignment.due(&durable, |_| (position >= 0).then_some(position));
        due.into_iter().map(|position| position.offset).collect()
    }

    #[test]
    fn the_durable_prefix_is_committed_once_and_never_backwards() {
        let mut assignment = Assignment::default();
        let partition = assignment.add("t", 0, None, None);
        (10..20).for_each(|offset| assignment.take(0, offset));
        assert_eq!(due(&assignment, None, 20), [0; 0], "nothing is known to be durable");
        assert_eq!(due(&assignment, Some((&partition, 15)), 20), [15]);
        assignment.committed(&Position::new(Arc::clone(&partition), 15));
        assert_eq!(due(&assignment, Some((&partition, 15)), 20), [0; 0]);
        assert_eq!(due(&assignment, Some((&partition, 12)), 20), [0; 0]);
        assert_eq!(due(&assignment, Some((&partition, 99)), 20), [20], "not beyond what was taken");
    }

    #[test]
    fn the_position_is_committed_when_all_before_it_is_durable() {
        let mut assignment = Assignment::default();
        let partition = assignment.add("t", 0, Some(7), None);
        assert_eq!(due(&assignment, None, 7), [0; 0], "left over from an earlier assignment");
        assert_eq!(due(&assignment, None, 9), [9], "control records alone");
        assignment.take(0, 9);
        assert_eq!(due(&assignment, Some((&partition, 9)), 12), [9], "one is not durable");
        assert_eq!(due(&assignment, Some((&partition, 10)), 12), [12]);
    }

    #[test]
    fn a_position_behind_what_could_not_be_read_is_never_committed() {
        let mut assignment = Assignment::default();
        let partition = assignment.add("t", 0, None, None);
        assignment.distrust(0, Some(8));
        assert_eq!(due(&assignment, None, 8), [0; 0], "nothing was taken");
        assignment.take(0, 5);
        assert_eq!(due(&assignment, Some((&partition, 6)), 8), [6]);
    }

    #[test]
    fn an_epoch_that_is_over_is_not_committed() {
        let mut assignment = Assignment::default();
        let before = assignment.add("t", 0, None, None);
        assignment.take(0, 5);
        assert_eq!(assignment.remove([("t", 0)]), [Arc::clone(&before)]);
        let now = assignment.add("t", 0, Some(6), None);
        assignment.take(0, 3);
        assert!(before.epoch < now.epoch && !assignment.contains(&before));
        assert_eq!(due(&assignment, Some((&before, 6)), 6), [0; 0]);
        assignment.committed(&Position::new(before, 6));
        assert_eq!(due(&assignment, Some((&now, 4)), 6), [4]);
    }

    #[test]
    fn lag_counts_from_what_is_committed() {
        let mut assignment = Assignment::default();
        let partition = assignment.add("b", 1, None, None);
        assignment.add("a", 0, None, None);
        assert_eq!(assignment.lag(), -1);
        let end = |topic: &str, number, committed, end| End {
            topic: topic.to_owned(),
            number,
            low: Some(0),
            end: Some(end),
            committed,
        };
        assignment.note_end(&end("a", 0, None, 5));
        assignment.note_end(&end("b", 1, Some(40), 100));
        assert_eq!(assignment.lag(), 5 + 60);
        assignment.committed(&Position::new(partition, 100));
        // Statistics of a paused partition stand still; they do not undo what is newer.
        assignment.note_end(&end("b", 1, Some(40), 90));
        assert_eq!(assignment.lag(), 5);
        assert_eq!(assignment.observed()[1].committed, Some(100));
    }

    #[test]
    fn offsets_that_go_back_are_noticed() {
        let mut assignment = Assignment::default();
        assignment.add("t", 0, None, None);
        assignment.take(0, 5);
        assert!(assignment.is_rewound(0, 5) && !assignment.is_rewound(0, 6));
    }
}
