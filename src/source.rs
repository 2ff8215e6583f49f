//! What a source is, to the pipeline: a handle to steer it, and events into one bounded channel.
//!
//! Steering is by state, not by messages: the pipeline says what it wants ([`Wanted`]), the source
//! brings itself there, and says what is so ([`Observed`]). Nothing can be lost in a full command
//! queue, and a source that missed a change heals at its next look. A source never drops a record
//! by itself and never waits for the pipeline but in the bounded drain of a revocation.

pub mod kafka;
pub mod live;
pub mod nats;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::Takes;
use crate::credits::Gate;
use crate::record::{Chunk, Partition, Position};

/// A source's tasks. Dropping it aborts them.
#[derive(Debug)]
pub struct Running {
    /// What it is called where one of them failed.
    name: &'static str,
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits until the source has ended; it does after [`Stage::Closing`].
    ///
    /// # Errors
    /// When a task of it panicked.
    pub async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.with_context(|| format!("the {} source", self.name))?;
        }
        Ok(())
    }
}

/// Which source an event comes from: its index among the sources of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub usize);

/// Why a server that was only asked how it is did not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// Nobody answered.
    Unreachable(String),
    /// It is there; what it was asked, or who asked, does not suit it. Says what to do.
    Refused(String),
}

/// How far a partition reaches, or a consumer's stream, as its server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// As [`crate::record::Partition`] has them.
    pub topic: String,
    pub number: i32,
    /// The first offset that is still there.
    pub low: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// The first offset that the group, or the consumer, has not done with; None where it is done
    /// with none.
    pub committed: Option<i64>,
    /// The first offset from the asked time on.
    pub since: Option<i64>,
}

/// How records get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The source takes records when it holds credits for them, and can wait.
    Pulled,
    /// The records come whether we want them or not; what cannot be admitted is dropped, counted.
    Pushed,
    /// Somebody hands the records over and can be refused: they come with their credits, as pulled
    /// ones do. But nothing brings them again, so what is not durable in the end is lost, and said so.
    Offered,
}

impl Delivery {
    /// Its records come with a credit each; it can be made to wait.
    #[must_use]
    pub fn has_credits(self) -> bool {
        self != Self::Pushed
    }

    /// What is not durable in the end comes again after a restart.
    #[must_use]
    pub fn comes_again(self) -> bool {
        self == Self::Pulled
    }
}

/// What the pipeline wants of a source. Levels, not edges.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// The client itself shall be paused (Kafka: `pause()` on all assigned partitions; JetStream:
    /// nothing is asked for).
    pub native_pause: bool,
    /// While the source as a whole is not paused: take nothing of these partitions. What was taken
    /// already is handed over.
    pub held: Vec<Arc<Partition>>,
    /// The last epoch that was assigned and has been taken up: `held` says which of its partitions
    /// have to wait.
    pub taken_up: u64,
    /// For each assigned partition the position to commit: the durable prefix, never beyond it.
    pub commit: Vec<Position>,
    /// An insert waits for what `commit` says: commit it now, not at the next interval.
    pub commit_now: bool,
    /// What to subscribe to from now on; None: as it was started.
    pub takes: Option<Arc<Takes>>,
    pub stage: Stage,
}

/// How far a source is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    #[default]
    Running,
    /// Take nothing new. A pushed source ends its subscription, hands over what had been
    /// delivered already, and says [`SourceEvent::Drained`]; a pulled one goes on polling so that
    /// its group keeps it, without credits.
    Draining,
    /// Commit [`Wanted::commit`] synchronously, leave, say [`SourceEvent::Closed`], end.
    Closing,
}

/// What happens at a source.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records, in order. For a pulled source their credits were reserved: one a record.
    Records(Chunk),
    /// These partitions are ours from here on, each under a new epoch.
    Assigned(Vec<Assigned>),
    /// A record that was delivered so often that it seems to be what kills its readers: a dead
    /// letter, and why. Like a chunk of one: in order, its credit reserved.
    Poisoned { record: Chunk, why: String },
    /// These partitions go away. The pipeline cuts, waits until what they hold is durable or the
    /// deadline has passed, and answers with what to commit; then they are let go. Dropping the
    /// answer means: nothing to commit.
    Revoked {
        partitions: Vec<Arc<Partition>>,
        deadline: tokio::time::Instant,
        answer: oneshot::Sender<Vec<Position>>,
    },
    /// The partitions were lost (the group threw us out): they hold nothing any more.
    Lost(Vec<Arc<Partition>>),
    /// The result of a commit. A failed one is tried again with the next.
    Committed { positions: Vec<Position>, error: Option<String> },
    /// Records that the client dropped before the bridge saw them (slow consumer).
    DroppedByClient(u64),
    /// The connection came up (None) or failed (why).
    Connection { error: Option<String> },
    /// Everything that had been delivered was handed over (answer to [`Stage::Draining`]).
    Drained,
    /// The source has ended; nothing follows.
    Closed { error: Option<String> },
}

/// A partition that became ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub partition: Arc<Partition>,
    /// What its last owner said beside the position that it committed, if a route wants to know.
    pub note: Option<String>,
}

impl From<Arc<Partition>> for Assigned {
    fn from(partition: Arc<Partition>) -> Self {
        Self { partition, note: None }
    }
}

/// What a source says of itself, read by the pipeline whenever it makes a snapshot.
#[derive(Debug, Default)]
pub struct Observed {
    pub connected: AtomicBool,
    /// The client is paused natively, on every assigned partition.
    pub natively_paused: AtomicBool,
    /// A pulled source wanted credits and got none, since the pipeline last cleared this.
    pub starved: AtomicBool,
    /// The sum of the lag over the assigned partitions, in records; -1 while unknown.
    pub lag: AtomicI64,
    /// Reconnects since the start.
    pub reconnects: AtomicU64,
    /// What the client dropped, in events that it reported (not records).
    pub slow_consumer_events: AtomicU64,
    /// Requests that an offered source had no room for.
    pub refused_requests: AtomicU64,
    /// What a person has to do before some of the records can come, in words.
    pub needs_person: std::sync::Mutex<Vec<String>>,
    /// Lag and committed offset per partition, for the metrics; replaced whole.
    pub partitions: std::sync::Mutex<Vec<PartitionObserved>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionObserved {
    pub topic: String,
    pub number: i32,
    /// Records between the committed position and the end; None while unknown.
    pub lag: Option<i64>,
    /// The position last committed by this instance; None before the first.
    pub committed: Option<i64>,
}

/// The pipeline's end of a source.
#[derive(Debug)]
pub struct SourceHandle {
    /// `kafka`, `nats`, `jetstream`, `live`: the key under which it is reported.
    pub name: &'static str,
    pub delivery: Delivery,
    pub wanted: watch::Sender<Wanted>,
    pub observed: Arc<Observed>,
    /// Where a pulled source gets its credits; its limit can be changed there.
    pub gate: Option<Gate>,
}

impl SourceHandle {
    /// The name as people write it, for log lines.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.name {
            "kafka" => "Kafka",
            "nats" => "NATS",
            "jetstream" => "JetStream",
            "live" => "Live",
            other => other,
        }
    }

    /// Nobody is left at the other end: the source ended without a word, by a panic.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.wanted.is_closed()
    }

    /// Wants the client itself paused, or not.
    pub fn want_native_pause(&self, pause: bool) {
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(&mut wanted.native_pause, pause) != pause);
    }

    /// Wants nothing of these partitions, and everything of the others.
    pub fn want_held(&self, held: Vec<Arc<Partition>>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.held != held;
            wanted.held = held;
            changed
        });
    }

    /// Knows of everything that was assigned up to this epoch.
    pub fn want_taken_up(&self, epoch: u64) {
        self.wanted.send_if_modified(|wanted| {
            let news = epoch > wanted.taken_up;
            wanted.taken_up = wanted.taken_up.max(epoch);
            news
        });
    }

    /// The topics of which something is held, each once.
    #[must_use]
    pub fn held_topics(&self) -> Vec<String> {
        let wanted = self.wanted.borrow();
        let topics: BTreeSet<&str> = wanted.held.iter().map(|held| held.topic.as_str()).collect();
        topics.into_iter().map(str::to_owned).collect()
    }

    /// Wants this committed; `now`: at once, else at the next interval.
    pub fn want_commit(&self, commit: Vec<Position>, now: bool) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.commit != commit || wanted.commit_now != now;
            wanted.commit = commit;
            wanted.commit_now = now;
            changed
        });
    }

    /// Wants this, and nothing else.
    pub fn want_takes(&self, takes: &Arc<Takes>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.takes.as_ref() != Some(takes);
            wanted.takes = Some(Arc::clone(takes));
            changed
        });
    }

    /// Wants the source to go on to a stage of its life; there is no way back.
    pub fn want_stage(&self, stage: Stage) {
        self.wanted.send_if_modified(|wanted| {
            let later = stage > wanted.stage;
            wanted.stage = wanted.stage.max(stage);
            later
        });
    }
}

/// The source's end: where it puts its events, what is wanted of it, where it reports.
#[derive(Debug, Clone)]
pub struct SourcePort {
    pub id: SourceId,
    pub events: mpsc::Sender<(SourceId, SourceEvent)>,
    pub wanted: watch::Receiver<Wanted>,
    pub observed: Arc<Observed>,
}

/// Both ends of a source, connected.
#[must_use]
pub fn connect(
    id: SourceId,
    name: &'static str,
    delivery: Delivery,
    events: mpsc::Sender<(SourceId, SourceEvent)>,
) -> (SourceHandle, SourcePort) {
    let (wanted, wanted_receiver) = watch::channel(Wanted::default());
    let observed = Arc::new(Observed { lag: AtomicI64::new(-1), ..Observed::default() });
    let observed_too = Arc::clone(&observed);
    let handle = SourceHandle { name, delivery, wanted, observed: observed_too, gate: None };
    (handle, SourcePort { id, events, wanted: wanted_receiver, observed })
}
