//! Commits: what the pipeline calls durable, at most one request at a time, tried again with the
//! next interval until it succeeds. Also the calls that may block, each on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::Offset;

use crate::record::{Partition, Position};
use crate::source::SourceEvent;

use super::context::{CommitAnswer, Context};
use super::lag::End;
use super::{Gone, Poller};

/// librdkafka answers every commit, within its session and socket timeouts; should it not, the
/// next commit must not wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// How long a synchronous commit may take: at a revocation others wait, at the end the process.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// How often the ends of the partitions are asked for while nothing is fetched.
const ENDS_EVERY: Duration = Duration::from_secs(5);
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// The asynchronous commit on its way, if there is one.
#[derive(Debug)]
pub(super) struct Commits {
    interval: Duration,
    next: Instant,
    in_flight: Vec<Position>,
    sent: Instant,
}

impl Commits {
    pub(super) fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self { interval, next: now + interval, in_flight: Vec::new(), sent: now }
    }

    pub(super) fn are_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Of these partitions no result is told any more.
    pub(super) fn forget(&mut self, going: &[Arc<Partition>]) {
        self.in_flight.retain(|position| !going.contains(&position.partition));
    }

    pub(super) fn forget_all(&mut self) {
        self.in_flight.clear();
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.next || (self.are_in_flight() && now < self.sent + ANSWER_WITHIN) {
            return false;
        }
        self.next = now + self.interval;
        true
    }
}

impl Poller {
    pub(super) fn commit_due(&mut self) {
        let now = Instant::now();
        if !self.commits.is_due(now) {
            return;
        }
        let durable = self.port.wanted.borrow().commit.clone();
        let due = self.due(&durable);
        if due.is_empty() {
            return;
        }
        match self.consumer.commit(&list_of(&due), CommitMode::Async) {
            Ok(()) => {
                self.commits.in_flight = due;
                self.commits.sent = now;
            }
            Err(error) => self.troubles.commit_failed(&error.to_string()),
        }
    }

    pub(super) fn apply_commit_answer(&mut self, answer: CommitAnswer) -> Result<(), Gone> {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        let mut why = None;
        for part in answer.partitions {
            // Only what is still in flight: the answer for an epoch that is over tells nothing.
            let in_flight = &mut self.commits.in_flight;
            let found = in_flight.iter().position(|position| {
                position.partition.topic == part.topic
                    && position.partition.number == part.number
                    && (position.offset == part.offset || part.offset < 0)
            });
            let Some(found) = found else { continue };
            let position = in_flight.swap_remove(found);
            match part.error.or_else(|| answer.error.clone()) {
                None => done.push(position),
                Some(error) => {
                    failed.push(position);
                    why = Some(error);
                }
            }
        }
        self.told(done, None)?;
        self.told(failed, why)
    }

    /// Notes and tells the result of a commit.
    fn told(&mut self, positions: Vec<Position>, error: Option<String>) -> Result<(), Gone> {
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

    /// Commits synchronously, under a deadline.
    pub(super) fn commit_now(&mut self, due: Vec<Position>) -> Result<(), Gone> {
        if due.is_empty() {
            return Ok(());
        }
        let consumer = Arc::clone(&self.consumer);
        let list = list_of(&due);
        let result = aside("kafka-commit", COMMIT_WITHIN, move || commit_checked(&consumer, &list));
        let error = match result {
            Some(result) => result.err(),
            None => Some(format!("no answer from the group's broker within {COMMIT_WITHIN:?}")),
        };
        self.commits.in_flight.retain(|p| !due.iter().any(|d| d.partition == p.partition));
        self.told(due, error)
    }

    /// The last commit of this consumer: everything is drained.
    pub(super) fn commit_finally(&mut self) -> Result<(), Gone> {
        let durable = self.port.wanted.borrow().commit.clone();
        let due = self.due(&durable);
        self.commit_now(due)
    }

    /// While nothing is fetched, librdkafka does not see the partitions grow, and the lag would
    /// stand still just when somebody looks at it: ask the brokers.
    pub(super) fn look_up_ends(&mut self, native_pause: bool) {
        let now = Instant::now();
        let fetching = !native_pause && !self.port.observed.starved.load(Ordering::Acquire);
        if fetching || now < self.ends_at || !self.port.observed.connected.load(Ordering::Acquire) {
            return;
        }
        self.ends_at = now + ENDS_EVERY;
        let partitions: Vec<_> = self.assignment.partitions().cloned().collect();
        let consumer = Arc::clone(&self.consumer);
        let ends = aside("kafka-ends", ENDS_WITHIN, move || fetch_ends(&consumer, &partitions));
        for end in ends.unwrap_or_default() {
            self.assignment.note_end(&end);
        }
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

/// The result of a synchronous commit is an error only if every partition failed: read back what
/// the group has.
fn commit_checked(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> Result<(), String> {
    consumer.commit(list, CommitMode::Sync).map_err(|error| error.to_string())?;
    let Ok(committed) = consumer.committed_offsets(list.clone(), COMMIT_WITHIN) else {
        return Ok(()); // the commit itself was answered
    };
    for element in list.elements() {
        let found = committed.find_partition(element.topic(), element.partition());
        if found.is_none_or(|found| found.offset() != element.offset()) {
            let (topic, partition) = (element.topic(), element.partition());
            return Err(format!("the commit of {topic}[{partition}] did not take"));
        }
    }
    Ok(())
}

fn list_of(positions: &[Position]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, offset } in positions {
        let mut element = list.add_partition(&partition.topic, partition.number);
        element.set_offset(Offset::Offset(*offset)).expect("an offset is not negative");
    }
    list
}

/// Makes a call that may block for as long as a session, on a thread of its own, and waits for it
/// no longer than `within`. A call that is late ends by itself; nobody listens to it.
fn aside<T: Send + 'static>(
    name: &str,
    within: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let listened = tell.send(call());
        drop(listened);
    });
    let thread = thread.inspect_err(|error| tracing::error!("starting {name}: {error}")).ok()?;
    let result = told.recv_timeout(within).ok();
    if result.is_some() && thread.join().is_err() {
        tracing::error!("the thread {name} panicked");
    }
    result
}
