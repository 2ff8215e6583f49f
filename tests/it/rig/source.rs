//! The other end of a source: the test says what comes, and sees what is wanted.
//!
//! What a client does by itself (go to the stage that is wanted, acknowledge a commit) a small
//! task does for it, and writes down.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_bridge::credits::Gate;
use data_bridge::record::{Chunk, NewRecord, Partition, Position};
use data_bridge::source::{Assigned, SourceEvent, SourcePort, Stage};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// As many as a poll takes at once.
const POLL: usize = 1_000;

/// What a record is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// The sink refuses it, always.
    Poison,
    /// Not JSON: refused before it is sent.
    Broken,
    Tombstone,
    /// No record at all: Kafka gives offsets to the ends of transactions, too.
    Control,
}

impl Kind {
    /// Mostly good ones, and the others now and then. A record of a partition is the same whenever
    /// it is delivered.
    pub(crate) fn mixed(offset: i64) -> Self {
        match offset {
            _ if offset % 17 == 3 => Self::Poison,
            _ if offset % 13 == 5 => Self::Broken,
            _ if offset % 11 == 7 => Self::Tombstone,
            _ => Self::Good,
        }
    }
}

/// What the pipeline wanted of the source, in order.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) stages: Vec<(Stage, Instant)>,
    pub(crate) native: Vec<(bool, Instant)>,
    /// Those that were taken.
    pub(crate) commits: Vec<Vec<Position>>,
    /// Why none is taken, while it is so.
    refusal: Option<String>,
}

impl Story {
    /// What the source says of a commit that is wanted.
    fn commit(&mut self, positions: Vec<Position>) -> SourceEvent {
        let error = self.refusal.clone();
        if error.is_none() {
            self.commits.push(positions.clone());
        }
        SourceEvent::Committed { positions, error }
    }
}

/// What the source does by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// Says that it has drained when asked to.
    pub(crate) drains: bool,
    /// Leaves when asked to.
    pub(crate) closes: bool,
}

#[derive(Debug)]
pub(crate) struct End {
    port: SourcePort,
    gate: Gate,
    pub(crate) story: Arc<Mutex<Story>>,
    next: HashMap<Arc<Partition>, i64>,
    /// Records sent so far, for their ids.
    sent: u64,
    received_at: i64,
}

impl End {
    pub(crate) fn new(port: SourcePort, gate: Gate) -> Self {
        Self {
            port,
            gate,
            story: Arc::default(),
            next: HashMap::new(),
            sent: 0,
            received_at: jiff::Timestamp::now().as_millisecond(),
        }
    }

    /// The task that does what is wanted.
    pub(crate) fn minder(&self, manners: Manners) -> impl Future<Output = ()> + Send + use<> {
        mind(self.port.clone(), Arc::clone(&self.story), manners)
    }

    pub(crate) async fn send(&self, event: SourceEvent) {
        let sending = self.port.events.send((self.port.id, event));
        timeout(Duration::from_secs(600), sending)
            .await
            .expect("the pipeline takes events")
            .unwrap();
    }

    /// A new assignment of a partition.
    pub(crate) async fn assign(&mut self, topic: &str, number: i32, epoch: u64) -> Arc<Partition> {
        self.assign_with(topic, number, epoch, None).await
    }

    /// The same, with what its last owner had noted.
    pub(crate) async fn assign_with(
        &mut self,
        topic: &str,
        number: i32,
        epoch: u64,
        note: Option<String>,
    ) -> Arc<Partition> {
        let partition = Arc::new(Partition { topic: topic.to_owned(), number, epoch });
        self.next.insert(Arc::clone(&partition), 0);
        let assigned = Assigned { partition: Arc::clone(&partition), note };
        self.send(SourceEvent::Assigned(vec![assigned])).await;
        partition
    }

    /// The next records bear times so far ahead of the clock, or its own time again.
    pub(crate) fn clock_ahead(&mut self, ahead: Duration) {
        let ahead = i64::try_from(ahead.as_millis()).unwrap();
        self.received_at = jiff::Timestamp::now().as_millisecond() + ahead;
    }

    /// The next records of a partition come from here on.
    pub(crate) fn seek(&mut self, partition: &Arc<Partition>, offset: i64) {
        self.next.insert(Arc::clone(partition), offset);
    }

    pub(crate) fn next_offset(&self, partition: &Arc<Partition>) -> i64 {
        self.next.get(partition).copied().unwrap_or_default()
    }

    pub(crate) async fn revoke(
        &self,
        partitions: &[&Arc<Partition>],
        within: Duration,
    ) -> oneshot::Receiver<Vec<Position>> {
        let (answer, answered) = oneshot::channel();
        let partitions = partitions.iter().copied().map(Arc::clone).collect();
        let deadline = Instant::now() + within;
        self.send(SourceEvent::Revoked { partitions, deadline, answer }).await;
        answered
    }

    /// One poll: as many as there are credits for, up to `count`. Says how many came.
    pub(crate) async fn poll(&mut self, partition: &Arc<Partition>, count: usize) -> usize {
        self.poll_kinds(partition, &vec![Kind::Good; count]).await
    }

    pub(crate) async fn poll_kinds(&mut self, partition: &Arc<Partition>, kinds: &[Kind]) -> usize {
        let taken = self.gate.reserve(kinds.len());
        if taken == 0 {
            let starved = !self.gate.is_held_back();
            self.port.observed.starved.fetch_or(starved, Ordering::AcqRel);
            return 0;
        }
        self.hand_over(partition, "", &kinds[..taken]).await;
        taken
    }

    /// Polls until all came; time passes while there are no credits.
    pub(crate) async fn pull(&mut self, partition: &Arc<Partition>, count: usize) {
        self.pull_kinds(partition, &vec![Kind::Good; count]).await;
    }

    pub(crate) async fn pull_kinds(&mut self, partition: &Arc<Partition>, kinds: &[Kind]) {
        let began = Instant::now();
        let mut rest = kinds;
        while !rest.is_empty() {
            let taken = self.poll_kinds(partition, &rest[..rest.len().min(POLL)]).await;
            rest = &rest[taken..];
            if taken == 0 {
                assert!(began.elapsed() < Duration::from_secs(3_600), "{} never came", rest.len());
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Hands over records whose credits were reserved before; on a subject, as a stream does.
    pub(crate) async fn hand_over(
        &mut self,
        partition: &Arc<Partition>,
        subject: &str,
        kinds: &[Kind],
    ) {
        let mut chunk = Chunk::with_capacity(self.received_at, kinds.len(), kinds.len() * 64);
        let index = chunk.partition(partition);
        let next = self.next.entry(Arc::clone(partition)).or_default();
        for kind in kinds {
            let payload = payload(*kind, &id(partition, *next));
            let place = Some((index, *next));
            *next += 1;
            if *kind == Kind::Control {
                continue;
            }
            let payload = payload.as_deref().map(str::as_bytes);
            chunk.push(NewRecord { subject, place, payload, ..NewRecord::default() }, []);
        }
        self.send(SourceEvent::Records(chunk)).await;
    }

    /// Records on a subject, delivered whether they are wanted or not.
    pub(crate) async fn push(&mut self, subject: &str, count: usize) {
        self.push_kinds(subject, &vec![Kind::Good; count]).await;
    }

    pub(crate) async fn push_kinds(&mut self, subject: &str, kinds: &[Kind]) {
        for kinds in kinds.chunks(POLL) {
            self.push_at_once(subject, kinds).await;
        }
    }

    /// All of them in one chunk, however many.
    pub(crate) async fn push_at_once(&mut self, subject: &str, kinds: &[Kind]) {
        let mut chunk = Chunk::with_capacity(self.received_at, kinds.len(), kinds.len() * 64);
        for kind in kinds {
            let payload = payload(*kind, &format!("n/{}", self.sent));
            self.sent += 1;
            let payload = payload.as_deref().map(str::as_bytes);
            chunk.push(NewRecord { subject, payload, ..NewRecord::default() }, []);
        }
        self.send(SourceEvent::Records(chunk)).await;
    }

    /// A record with a payload of some more bytes than so many.
    pub(crate) async fn push_heavy(&mut self, subject: &str, bytes: usize) {
        let filler = "x".repeat(bytes);
        let payload = format!("{{\"id\":\"n/{}\",\"filler\":\"{filler}\"}}", self.sent);
        self.sent += 1;
        self.push_payload(subject, payload.as_bytes()).await;
    }

    pub(crate) async fn push_payload(&mut self, subject: &str, payload: &[u8]) {
        let mut chunk = Chunk::with_capacity(self.received_at, 1, payload.len() + 64);
        let payload = Some(payload);
        chunk.push(NewRecord { subject, payload, ..NewRecord::default() }, []);
        self.send(SourceEvent::Records(chunk)).await;
    }

    /// The last that is wanted for commit, by topic, partition and epoch.
    pub(crate) fn wanted_commit(&self, partition: &Arc<Partition>) -> Option<i64> {
        let story = self.story.lock().unwrap();
        let last = story.commits.last()?;
        last.iter().find(|position| position.partition == *partition).map(|found| found.offset)
    }

    /// From now on commits are refused, or taken; what is wanted is tried again.
    pub(crate) async fn refuse_commits(&self, why: Option<&str>) {
        let wanted = self.port.wanted.borrow().commit.clone();
        let tried = {
            let mut story = self.story.lock().unwrap();
            story.refusal = why.map(str::to_owned);
            story.commit(wanted)
        };
        self.send(tried).await;
    }

    pub(crate) fn is_natively_paused(&self) -> bool {
        self.port.wanted.borrow().native_pause
    }

    /// Nothing of this partition is wanted.
    pub(crate) fn is_held(&self, partition: &Arc<Partition>) -> bool {
        self.port.wanted.borrow().held.contains(partition)
    }

    pub(crate) fn held_topics(&self) -> Vec<String> {
        let held = self.port.wanted.borrow().held.clone();
        let topics: BTreeSet<String> = held.iter().map(|held| held.topic.clone()).collect();
        topics.into_iter().collect()
    }

    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.story.lock().unwrap().stages.iter().map(|(stage, _)| *stage).collect()
    }
}

/// How a record of a partition is found again in the sink.
pub(crate) fn id(partition: &Partition, offset: i64) -> String {
    format!("{}-{}/{offset}", partition.topic, partition.number)
}

fn payload(kind: Kind, id: &str) -> Option<String> {
    match kind {
        Kind::Good => Some(format!("{{\"id\":\"{id}\"}}")),
        Kind::Poison => Some(format!("{{\"id\":\"{id}\",{}}}", super::sink::POISON)),
        Kind::Broken => Some(format!("{{\"id\":\"{id}\",")),
        Kind::Tombstone | Kind::Control => None,
    }
}

async fn mind(mut port: SourcePort, story: Arc<Mutex<Story>>, manners: Manners) {
    let mut seen = port.wanted.borrow().clone();
    port.observed.connected.store(true, Ordering::Relaxed);
    while port.wanted.changed().await.is_ok() {
        let wanted = port.wanted.borrow_and_update().clone();
        let now = Instant::now();
        let mut events = Vec::new();
        {
            let mut story = story.lock().unwrap();
            if wanted.native_pause != seen.native_pause {
                port.observed.natively_paused.store(wanted.native_pause, Ordering::Relaxed);
                story.native.push((wanted.native_pause, now));
            }
            if wanted.commit != seen.commit {
                events.push(story.commit(wanted.commit.clone()));
            }
            if wanted.stage != seen.stage {
                story.stages.push((wanted.stage, now));
                match wanted.stage {
                    Stage::Draining if manners.drains => events.push(SourceEvent::Drained),
                    Stage::Closing if manners.closes => {
                        events.push(SourceEvent::Closed { error: None });
                    }
                    _ => {}
                }
            }
        }
        seen = wanted;
        for event in events {
            if port.events.send((port.id, event)).await.is_err() {
                return;
            }
        }
    }
}
