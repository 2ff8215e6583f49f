//! Carries out a plan: one task a target, paced, until all is sent or the caller says stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::address::topics;
use super::kafka::{KafkaSender, Topics};
use super::mix::Mix;
use super::nats::NatsSender;
use super::{Pace, Plan, Recipe, Stream, Target};
use crate::config;

/// Fine enough for a steady stream, coarse enough to cost nothing.
const TICK: Duration = Duration::from_millis(10);
/// After so many records without a pause, other tasks have their turn.
const TURN_RECORDS: u64 = 256;

/// The servers to send to; a target that the plan names must be there.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    pub kafka: Option<config::Kafka>,
    /// Instead of the profile's topics; records are dealt out to them in turn.
    pub topics: Vec<String>,
    /// For topics that are missing.
    pub partitions: i32,
    pub nats: Option<config::Nats>,
    /// To NATS through JetStream: each record is acknowledged by its stream.
    pub jetstream: bool,
}

/// What has become of a plan's records so far, by stream. Written by the senders, read by
/// whoever shows the progress.
#[derive(Debug)]
pub struct Tally {
    streams: Vec<StreamTally>,
}

#[derive(Debug, Default)]
struct StreamTally {
    sent: AtomicU64,
    bad: AtomicU64,
    failed: AtomicU64,
}

/// The counts of one stream. `sent` includes `bad`; what `failed` is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    pub bad: u64,
    pub failed: u64,
}

impl Tally {
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { streams: plan.streams.iter().map(|_| StreamTally::default()).collect() }
    }

    #[must_use]
    pub fn counts(&self, stream: &Stream) -> Counts {
        let tally = &self.streams[stream.index];
        Counts {
            sent: tally.sent.load(Ordering::Relaxed),
            bad: tally.bad.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn sent(&self, stream: usize, bad: bool) {
        self.streams[stream].sent.fetch_add(1, Ordering::Relaxed);
        if bad {
            self.streams[stream].bad.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self, stream: usize) {
        self.streams[stream].failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// One record on its way to a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) stream: Stream,
    pub(super) seq: u64,
    pub(super) bad: bool,
    pub(super) payload: &'a [u8],
}

enum Sender {
    Kafka(KafkaSender),
    Nats(Box<NatsSender>),
}

impl Sender {
    async fn send(&mut self, item: Item<'_>) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.send(item).await,
            Self::Nats(nats) => nats.send(item).await,
        }
    }

    async fn finish(self) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.finish().await,
            Self::Nats(nats) => nats.finish().await,
        }
    }
}

/// A plan whose targets are all connected: nothing is sent to one before the other answers.
pub struct Run {
    recipe: Recipe,
    connected: Vec<(Mix, Pace, Sender)>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("recipe", &self.recipe).finish_non_exhaustive()
    }
}

impl Run {
    /// Connects to the targets and creates what is missing there.
    ///
    /// # Errors
    ///
    /// When a target of the plan cannot be reached, or lets nobody in.
    pub async fn connect(plan: &Plan, servers: &Servers, tally: &Arc<Tally>) -> Result<Self> {
        let mut connected = Vec::new();
        for target in [Target::Kafka, Target::Nats] {
            let streams = plan.of_target(target);
            if !streams.is_empty() {
                let sender = connect(plan, servers, target, &streams, tally).await?;
                let pace = plan.paces.get(&target).copied().unwrap_or_default();
                connected.push((Mix::new(streams), pace, sender));
            }
        }
        Ok(Self { recipe: plan.recipe, connected })
    }

    /// Sends everything. When `stop` is cancelled, what was handed over is still delivered and
    /// counted.
    ///
    /// # Errors
    ///
    /// When not every record was taken.
    pub async fn send(self, stop: &CancellationToken) -> Result<()> {
        let mut tasks = JoinSet::new();
        for (mix, pace, sender) in self.connected {
            tasks.spawn(send_all(self.recipe, mix, pace, sender, stop.clone()));
        }
        // A failure on one target does not cut the other short: its sums are wanted all the same.
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.context("a sender's task")?;
            outcome = outcome.and(ended);
        }
        outcome
    }
}

async fn connect(
    plan: &Plan,
    servers: &Servers,
    target: Target,
    streams: &[Stream],
    tally: &Arc<Tally>,
) -> Result<Sender> {
    let tally = Arc::clone(tally);
    match target {
        Target::Kafka => {
            let config = servers.kafka.as_ref().context("no Kafka is configured")?;
            let own = topics(streams.iter().map(|stream| stream.kind));
            let topics = Topics::new(&own, &servers.topics);
            let sender = KafkaSender::connect(config, topics, servers.partitions, tally).await?;
            Ok(Sender::Kafka(sender))
        }
        Target::Nats => {
            let config = servers.nats.as_ref().context("no NATS is configured")?;
            let sender = NatsSender::connect(config, servers.jetstream, plan.recipe, tally).await?;
            Ok(Sender::Nats(Box::new(sender)))
        }
    }
}

async fn send_all(
    recipe: Recipe,
    mut mix: Mix,
    pace: Pace,
    mut sender: Sender,
    stop: CancellationToken,
) -> Result<()> {
    let started = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sent, total) = (0, mix.total());
    let mut payload = Vec::with_capacity(4_096);
    while sent < total && !stop.is_cancelled() {
        let due = pace.due(started.elapsed()).min(total);
        if sent == due {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => {}
            }
            continue;
        }
        let turn = usize::try_from((due - sent).min(TURN_RECORDS)).unwrap_or(usize::MAX);
        for (stream, seq) in mix.by_ref().take(turn) {
            payload.clear();
            recipe.write(stream.kind, seq, &mut payload);
            let bad = recipe.is_bad(stream.kind, seq);
            sender.send(Item { stream, seq, bad, payload: &payload }).await?;
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    sender.finish().await
}
