//! Partitions come and go. Runs between two polls, so nothing is half taken when it does; the
//! group waits for us until the consumer was told, by [`Poller::assign`] or [`Poller::revoke`].

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::record::{Partition, Position};
use crate::source::{Assigned, SourceEvent};

use super::commit::{self, Committed};
use super::{Gone, Poller};

/// By topic and number.
type Notes = HashMap<(String, i32), String>;

impl Poller {
    pub(super) fn assign(&mut self, list: &TopicPartitionList) -> Result<(), Gone> {
        let (list, mut notes) = match self.left_by_last_owner(list) {
            Ok(left) => left,
            Err(error) => {
                self.fatal = Some(format!("reading what was committed with a note: {error}"));
                return Ok(());
            }
        };
        for element in list.elements() {
            self.queue.lead_here(element.topic(), element.partition());
        }
        let told = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list),
            _ => self.consumer.assign(&list),
        };
        if let Err(error) = told {
            self.fatal = Some(format!("taking an assignment: {error}"));
            return Ok(());
        }
        let stale = self.positions();
        let mut assigned = Vec::with_capacity(list.count());
        for element in list.elements() {
            let (topic, number) = (element.topic(), element.partition());
            let note = notes.remove(&(topic.to_owned(), number));
            let stale = position_in(&stale, topic, number);
            let shared = note.as_deref().map(Arc::from);
            let partition = self.assignment.add(topic, number, stale, shared);
            assigned.push(Assigned { partition, note });
            self.troubles.is_assigned(topic, number);
        }
        // New partitions are never paused, and ones that return may still be: say which it is,
        // before the first poll can bring a record of them.
        let partitions = assigned.iter().map(|assigned| Arc::clone(&assigned.partition)).collect();
        if !self.assert_wanted(partitions) {
            self.assert_at = std::time::Instant::now();
        }
        tracing::info!(
            event = "partitions_assigned",
            partitions = assigned.len(),
            "Kafka partitions assigned"
        );
        self.report();
        if assigned.is_empty() {
            return Ok(());
        }
        let noted = assigned.iter().filter(|assigned| assigned.note.is_some());
        let last = noted.map(|assigned| assigned.partition.epoch).max();
        self.send(SourceEvent::Assigned(assigned))?;
        last.map_or(Ok(()), |epoch| self.until_taken_up(epoch))
    }

    /// What was noted may be more than there are credits for, so that some of these partitions have
    /// to wait for the others. Which is said in a moment; a record that came before could take a
    /// credit that one of those others needs.
    fn until_taken_up(&self, epoch: u64) -> Result<(), Gone> {
        let mut wanted = self.port.wanted.clone();
        let taken_up = async { wanted.wait_for(|wanted| wanted.taken_up >= epoch).await.is_ok() };
        if self.runtime.block_on(taken_up) { Ok(()) } else { Err(Gone) }
    }

    /// Where exactly once is promised: the list with the committed offsets, and the notes beside
    /// them. Both are from one answer, so that what is read from there on fits what was noted.
    /// The group waits meanwhile; without an answer not one record may be taken.
    fn left_by_last_owner(
        &self,
        list: &TopicPartitionList,
    ) -> KafkaResult<(TopicPartitionList, Notes)> {
        let mut notes = Notes::new();
        if !self.exactly_once || list.count() == 0 {
            return Ok((list.clone(), notes));
        }
        let mut from = TopicPartitionList::with_capacity(list.count());
        for Committed { topic, number, offset, note } in commit::committed(&self.consumer, list)? {
            let mut element = from.add_partition(&topic, number);
            if let Some(offset) = offset {
                element.set_offset(Offset::Offset(offset))?;
            }
            notes.extend(note.map(|note| ((topic, number), note)));
        }
        Ok((from, notes))
    }

    /// A small shutdown for the partitions that go: the pipeline drains them, what it answers is
    /// committed, and only then are they let go.
    pub(super) fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), Gone> {
        let keys: Vec<(String, i32)> =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        let going: Vec<Arc<Partition>> = keys
            .iter()
            .filter_map(|(topic, number)| self.assignment.find(topic, *number))
            .map(|index| Arc::clone(self.assignment.get(index)))
            .collect();
        if going.is_empty() {
            // Nothing of ours; the group still waits for the answer below.
        } else if self.consumer.assignment_lost() {
            tracing::warn!(
                event = "partitions_lost",
                partitions = going.len(),
                "Kafka partitions lost"
            );
            self.send(SourceEvent::Lost(going.clone()))?;
        } else {
            tracing::info!(
                event = "partitions_revoked",
                partitions = going.len(),
                "Kafka partitions revoked"
            );
            self.drain(&going)?;
        }
        self.troubles.are_gone(&keys);
        self.assignment.remove(keys.iter().map(|(topic, number)| (topic.as_str(), *number)));
        let told = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(list),
            _ => self.consumer.unassign(),
        };
        if let Err(error) = told {
            self.fatal = Some(format!("giving up an assignment: {error}"));
        }
        self.report();
        Ok(())
    }

    fn drain(&mut self, going: &[Arc<Partition>]) -> Result<(), Gone> {
        let deadline = Instant::now() + self.revoke_within;
        let (answer, answered) = oneshot::channel();
        let partitions = going.to_vec();
        self.send(SourceEvent::Revoked { partitions, deadline, answer })?;
        let wait = async { tokio::time::timeout_at(deadline, answered).await };
        let durable = match self.runtime.block_on(wait) {
            Ok(Ok(durable)) => durable,
            Ok(Err(_)) => return Ok(()), // the answer was dropped: nothing to commit
            Err(_) => {
                tracing::warn!(
                    event = "revocation_late",
                    "a revocation was not drained in time: its records come again"
                );
                // What was durable before is known all the same.
                self.port.wanted.borrow().commit.clone()
            }
        };
        if self.consumer.assignment_lost() {
            tracing::warn!(
                event = "partitions_lost",
                "Kafka partitions lost while they were drained"
            );
            return Ok(());
        }
        self.commit_now(&durable, |partition| going.iter().any(|p| **p == *partition))
    }

    /// Pauses and resumes these partitions as it is wanted; says whether all of them obeyed.
    pub(super) fn assert_wanted(&self, partitions: Vec<Arc<Partition>>) -> bool {
        // One that librdkafka had stopped is led nowhere any more.
        partitions.iter().for_each(|p| self.queue.lead_here(&p.topic, p.number));
        let pause = |p: &Arc<Partition>| self.paused || self.held.contains(p);
        let (paused, resumed): (Vec<_>, Vec<_>) = partitions.into_iter().partition(pause);
        let obeyed = self.assert_pause(&paused, true);
        self.assert_pause(&resumed, false) && obeyed
    }

    /// Pauses or resumes exactly these partitions; says whether all of them obeyed.
    fn assert_pause(&self, partitions: &[Arc<Partition>], pause: bool) -> bool {
        if partitions.is_empty() {
            return true;
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&partition.topic, partition.number);
        }
        let told = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = told {
            tracing::warn!(
                event = "kafka_pause_failed",
                pause,
                "Kafka pause or resume failed: {error}"
            );
            return false;
        }
        // The call succeeds although a partition failed: each element has its own result.
        let failed =
            list.elements().into_iter().find_map(|e| Some((e.partition(), e.error().err()?)));
        if let Some((partition, error)) = &failed {
            tracing::warn!(
                event = "kafka_pause_failed",
                pause,
                partition,
                "Kafka pause or resume failed: {error}"
            );
        }
        failed.is_none()
    }

    /// Where the consumer stands in each partition.
    pub(super) fn positions(&self) -> TopicPartitionList {
        self.consumer.position().unwrap_or_else(|error| {
            tracing::debug!("Kafka positions: {error}");
            TopicPartitionList::new()
        })
    }

    /// What is worth committing of what is durable.
    pub(super) fn due(&self, durable: &[Position]) -> Vec<Position> {
        let positions = self.positions();
        self.assignment.due(durable, |p| position_in(&positions, &p.topic, p.number))
    }
}

pub(super) fn position_in(list: &TopicPartitionList, topic: &str, number: i32) -> Option<i64> {
    match list.find_partition(topic, number)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
