//! Commits: what the pipeline calls durable, one request at a time, tried again with the next
//! interval until it succeeds. Also the calls that may block, each on a thread of its own.
//!
//! A commit is synchronous for librdkafka: the result of an asynchronous one never reaches the
//! application with rdkafka 0.39, which registers no commit callback. On a thread of its own it
//! holds up nobody, and its result depends on no poll, so on no credit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionListElem};

use crate::record::{Partition, Position};
use crate::source::SourceEvent;

use super::context::Context;
use super::lag::End;
use super::{Gone, Poller};

/// How long to wait for a commit: at a revocation others wait, at the end the process.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// How soon after one commit the next may begin when inserts wait for it, so that one request
/// carries what several batches have to say. Twice as long after each that failed, up to the
/// interval: a broker that refuses is not asked in a tight loop.
const URGENT_EVERY: Duration = Duration::from_millis(2);
/// How often the ends of the partitions are asked for while nothing is fetched.
const ENDS_EVERY: Duration = Duration::from_secs(5);
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// When to commit next, and the commit on its way, if there is one.
pub(super) struct Commits {
    interval: Duration,
    next: Instant,
    begun: Instant,
    /// How many failed since one succeeded.
    failed: u32,
    in_flight: Option<Aside<CommitResult>>,
}

/// The ends of the partitions, asked for while nothing is fetched.
#[derive(Default)]
pub(super) struct Ends {
    /// When to ask next; None: at once.
    next: Option<Instant>,
    /// The partitions that were asked for, and what is there of them.
    asked: Option<Aside<Vec<End>>>,
    /// The one behind the last that was answered: with many, one look does not reach all.
    from: usize,
}

/// What a commit came to, by position.
#[derive(Default)]
struct CommitResult {
    done: Vec<Position>,
    failed: Vec<Position>,
    why: Option<String>,
}

impl Commits {
    pub(super) fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self { interval, next: now + interval, begun: now, failed: 0, in_flight: None }
    }

    /// The consumer is given up: what it still commits is nobody's any more.
    pub(super) fn forget(&mut self) {
        (self.in_flight, self.failed) = (None, 0);
    }

    /// One that was refused for some of its partitions has failed: they would be asked for at once
    /// again, the others or not.
    fn finished(&mut self, result: &CommitResult) {
        self.failed = if result.failed.is_empty() { 0 } else { self.failed + 1 };
    }

    pub(super) fn is_on_its_way(&self) -> bool {
        self.in_flight.is_some()
    }

    /// `urgent`: an insert waits for it.
    fn is_due(&mut self, now: Instant, urgent: bool) -> bool {
        let soon = URGENT_EVERY * (1 << self.failed.min(10));
        let next = if urgent { self.next.min(self.begun + soon) } else { self.next };
        if now < next || self.in_flight.is_some() {
            return false;
        }
        self.begun = now;
        self.next = now + self.interval;
        true
    }
}

impl Poller {
    /// Looks after the commit on its way, and begins the next when it is time.
    pub(super) fn commit_due(&mut self) -> Result<(), Gone> {
        self.finish_commit(Duration::ZERO)?;
        let urgent = self.port.wanted.borrow().commit_now;
        if self.commits.is_due(Instant::now(), urgent) {
            let durable = self.port.wanted.borrow().commit.clone();
            self.begin_commit(self.due(&durable));
        }
        Ok(())
    }

    fn begin_commit(&mut self, due: Vec<Position>) {
        if !due.is_empty() {
            let consumer = Arc::clone(&self.consumer);
            self.commits.in_flight = Aside::begin("kafka-commit", move || commit(&consumer, due));
        }
    }

    /// Waits for the commit on its way, no longer than `within`.
    fn finish_commit(&mut self, within: Duration) -> Result<(), Gone> {
        let Some(aside) = self.commits.in_flight.take() else { return Ok(()) };
        match aside.finish(within) {
            Ok(result) => {
                self.commits.finished(&result);
                let CommitResult { done, failed, why } = result;
                self.told(done, None)?;
                self.told(failed, why)
            }
            Err(still) => {
                self.commits.in_flight = still;
                Ok(())
            }
        }
    }

    /// Notes and tells the result of a commit.
    fn told(&mut self, mut positions: Vec<Position>, error: Option<String>) -> Result<(), Gone> {
        // Of an epoch that is over nothing is told.
        positions.retain(|position| self.assignment.contains(&position.partition));
        if positions.is_empty() {
            return Ok(());
        }
        match &error {
            None => positions.iter().for_each(|position| self.assignment.committed(position)),
            Some(error) => self.troubles.commit_failed(error),
        }
        self.report();
        self.send(SourceEvent::Committed { positions, error })
    }

    /// Commits what of `durable` belongs to partitions that `concern` us, and waits for the
    /// result, under a deadline. The commit on its way comes first: none may overtake another.
    pub(super) fn commit_now(
        &mut self,
        durable: &[Position],
        concern: impl Fn(&Partition) -> bool,
    ) -> Result<(), Gone> {
        self.finish_commit(self.revoke_within.min(COMMIT_WITHIN))?;
        if self.commits.in_flight.is_none() {
            let mut due = self.due(durable);
            due.retain(|position| concern(&position.partition));
            self.begin_commit(due);
            self.finish_commit(self.revoke_within.min(COMMIT_WITHIN))?;
        }
        if self.commits.in_flight.take().is_some() {
            self.troubles.commit_failed("no answer from the group's broker in time");
        }
        Ok(())
    }

    /// The last commit of this consumer: everything is drained.
    pub(super) fn commit_finally(&mut self) -> Result<(), Gone> {
        let durable = self.port.wanted.borrow().commit.clone();
        self.commit_now(&durable, |_| true)
    }

    /// While nothing is fetched, librdkafka does not see the partitions grow, and the lag would
    /// stand still just when somebody looks at it: ask the brokers.
    pub(super) fn look_up_ends(&mut self, resting: bool) {
        if let Some(asked) = self.ends.asked.take() {
            match asked.finish(Duration::ZERO) {
                Ok(ends) => self.note_ends(&ends),
                Err(still) => self.ends.asked = still,
            }
        }
        let now = Instant::now();
        let fetching = !resting && !self.port.observed.starved.load(Ordering::Acquire);
        let too_soon = self.ends.asked.is_some() || self.ends.next.is_some_and(|next| now < next);
        if fetching || too_soon || !self.port.observed.connected.load(Ordering::Acquire) {
            return;
        }
        self.ends.next = Some(now + ENDS_EVERY);
        let mut partitions: Vec<_> = self.assignment.partitions().cloned().collect();
        let from = self.ends.from.min(partitions.len());
        partitions.rotate_left(from);
        let consumer = Arc::clone(&self.consumer);
        self.ends.asked = Aside::begin("kafka-ends", move || fetch_ends(&consumer, &partitions));
    }

    fn note_ends(&mut self, ends: &[End]) {
        ends.iter().for_each(|end| self.assignment.note_end(end));
        let count = self.assignment.partitions().len().max(1);
        self.ends.from = (self.ends.from + ends.len().max(1)) % count;
        self.report();
    }
}

/// The ends, as far as they can be had before the time is over.
fn fetch_ends(consumer: &BaseConsumer<Context>, partitions: &[Arc<Partition>]) -> Vec<End> {
    let deadline = Instant::now() + ENDS_WITHIN;
    let mut ends = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((low, end)) = consumer.fetch_watermarks(&partition.topic, partition.number, left)
        else {
            break;
        };
        let (topic, number) = (partition.topic.clone(), partition.number);
        ends.push(End { topic, number, low: Some(low), end: Some(end), committed: None });
    }
    ends
}

/// Commits, and reads back what the group has then: the call itself fails only if all partitions
/// failed.
fn commit(consumer: &BaseConsumer<Context>, due: Vec<Position>) -> CommitResult {
    let list = list_of(&due);
    if let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        return CommitResult { failed: due, why: Some(error.to_string()), ..Default::default() };
    }
    let Ok(group) = consumer.committed_offsets(list, COMMIT_WITHIN) else {
        return CommitResult { done: due, ..Default::default() }; // the commit was answered
    };
    let took = |Position { partition, offset, note }: &Position| {
        let found = group.find_partition(&partition.topic, partition.number);
        found.is_some_and(|found| {
            found.offset() == Offset::Offset(*offset)
                && note.as_ref().is_none_or(|note| note_of(&found).as_deref() == Some(note))
        })
    };
    let (done, failed) = due.into_iter().partition(took);
    CommitResult { done, failed, why: Some("the broker did not take it".to_owned()) }
}

fn list_of(positions: &[Position]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, offset, note } in positions {
        let mut element = list.add_partition(&partition.topic, partition.number);
        element.set_offset(Offset::Offset(*offset)).expect("an offset is not negative");
        // Once, on a list just made: setting it again would leak what was there.
        if let Some(note) = note {
            element.set_metadata(&**note);
        }
    }
    list
}

/// The note beside a committed offset. rdkafka panics on one that is not UTF-8: somebody else's.
fn note_of(element: &TopicPartitionListElem<'_>) -> Option<String> {
    let note = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).ok()?;
    (!note.is_empty()).then_some(note)
}

/// What the group has committed for a partition.
pub(super) struct Committed {
    pub(super) topic: String,
    pub(super) number: i32,
    /// None before the first commit.
    pub(super) offset: Option<i64>,
    pub(super) note: Option<String>,
}

/// What the group has committed for these partitions.
pub(super) fn committed(
    consumer: &BaseConsumer<Context>,
    partitions: &TopicPartitionList,
) -> KafkaResult<Vec<Committed>> {
    let group = consumer.committed_offsets(partitions.clone(), COMMIT_WITHIN)?;
    let mut committed = Vec::with_capacity(group.count());
    for element in group.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let (topic, number) = (element.topic().to_owned(), element.partition());
        committed.push(Committed { topic, number, offset, note: note_of(&element) });
    }
    Ok(committed)
}

/// A call that may block for as long as a session, on a thread of its own. One that is given up
/// ends by itself; nobody listens to it.
pub(super) struct Aside<T> {
    told: mpsc::Receiver<T>,
    thread: std::thread::JoinHandle<()>,
}

impl Aside<()> {
    /// What may block and has no result: nobody waits for it.
    pub(super) fn end(name: &str, call: impl FnOnce() + Send + 'static) {
        drop(Self::begin(name, call));
    }
}

impl<T: Send + 'static> Aside<T> {
    fn begin(name: &str, call: impl FnOnce() -> T + Send + 'static) -> Option<Self> {
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let listened = tell.send(call());
            drop(listened);
        });
        let thread = thread
            .inspect_err(|error| {
                tracing::error!(event = "kafka_client_failed", "starting {name}: {error}")
            })
            .ok()?;
        Some(Self { told, thread })
    }

    /// The result, if it comes in time; else the call, to be asked again. A call that panicked is
    /// over, and told nothing.
    fn finish(self, within: Duration) -> Result<T, Option<Self>> {
        let told = match self.told.try_recv() {
            Err(TryRecvError::Empty) if !within.is_zero() => self.told.recv_timeout(within),
            Err(TryRecvError::Empty) => Err(RecvTimeoutError::Timeout),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Ok(result) => Ok(result),
        };
        if matches!(told, Err(RecvTimeoutError::Timeout)) {
            return Err(Some(self));
        }
        if self.thread.join().is_err() {
            tracing::error!(event = "kafka_client_failed", "a call to Kafka panicked");
        }
        told.map_err(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_urgent_commit_that_is_refused_is_tried_later_and_later_up_to_the_interval() {
        let interval = Duration::from_secs(1);
        let mut commits = Commits::new(interval);
        let mut begun = commits.begun;
        for (failed, wait) in [(0, 2), (1, 4), (5, 64), (9, 1_000), (40, 1_000)] {
            for _ in commits.failed..failed {
                // The other partition of the request is taken each time.
                let [done, failed] = [0, 1].map(|number| vec![position(number)]);
                commits.finished(&CommitResult { done, failed, why: None });
            }
            assert_eq!(commits.failed, failed);
            let due = begun + Duration::from_millis(wait);
            assert!(!commits.is_due(due - Duration::from_millis(1), true), "{failed}");
            assert!(commits.is_due(due, true), "{failed}");
            begun = due;
        }
        commits.finished(&CommitResult { done: vec![position(1)], ..CommitResult::default() });
        assert_eq!(commits.failed, 0);
    }

    fn position(number: i32) -> Position {
        Position::new(Arc::new(Partition { topic: "t".to_owned(), number, epoch: 1 }), 5)
    }
}
