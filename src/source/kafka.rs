//! The Kafka source: one thread that polls one consumer, takes records for which it holds
//! credits, and hands them over in chunks.
//!
//! The only user of rdkafka. Owns the consumer and the assignment. The thread turns one loop:
//! deal with what happened inside the last poll (rebalances, commit results, statistics), bring
//! the consumer to what the pipeline wants (pause, stage), commit what is due, take records, poll
//! for what is no record. It never stores an offset that the pipeline has not called durable, never
//! drops a record, and never takes one without a credit. It waits for the pipeline where that says
//! at once whether it goes on: to be handed an event, and to take up an assignment; for what becomes
//! durable only within the deadline of a revocation.

mod assignment;
mod commit;
mod context;
pub mod extents;
mod lag;
pub mod probe;
mod queue;
mod rebalance;
mod remedy;
pub mod reread;
pub mod settings;
mod take;
#[cfg(test)]
mod tests;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::config;
use crate::credits::Gate;
use crate::record::Partition;

use super::{SourceEvent, SourcePort, Stage};
use assignment::Assignment;
use commit::{Commits, Ends};
use context::{Context, Happening};
use queue::Queue;
use trouble::Troubles;

/// The longest wait inside the loop: how soon a change of what is wanted is seen.
const LOOK: Duration = Duration::from_millis(100);
/// The same while records were just taken of which exactly once is promised: each batch waits for
/// a commit to begin, and for its result to be seen.
const BRISK_LOOK: Duration = Duration::from_millis(5);
const BRISK_FOR: Duration = Duration::from_secs(5);
/// How often pause or resume is asserted again, to heal what drifted.
const ASSERT_EVERY: Duration = Duration::from_secs(5);
/// After a fatal error the consumer is made anew, this much later.
const REOPEN_AFTER: Duration = Duration::from_secs(2);
/// How long leaving the group may take before [`SourceEvent::Closed`] is said all the same.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// How much one chunk may carry. A record larger than `bytes` makes a chunk that is larger.
#[derive(Debug, Clone, Copy)]
pub struct ChunkLimits {
    pub records: usize,
    pub bytes: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        // A thousand records share the cost of a channel send; 4 MiB bound what one chunk may
        // overshoot the byte limit of the buffer by.
        Self { records: 1_000, bytes: 4 * 1024 * 1024 }
    }
}

/// How the source is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub limits: ChunkLimits,
    /// Hand over with each assigned partition what its last owner noted.
    pub exactly_once: bool,
}

/// A source that was started.
#[derive(Debug)]
pub struct Running {
    thread: std::thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Running {
    /// Waits for the thread to end, which can take as long as a session if the broker is away:
    /// not beyond `deadline`.
    ///
    /// # Errors
    /// When it has not ended by then (it goes on by itself), or ended in a panic.
    pub async fn join(self, deadline: tokio::time::Instant) -> anyhow::Result<()> {
        let ended = tokio::time::timeout_at(deadline, self.ended).await;
        ended.is_ok().then_some(()).context("the Kafka client did not close in time")?;
        // The sender is gone, so the thread has nothing left to do but to end.
        self.thread.join().map_err(|_| anyhow::anyhow!("the Kafka thread panicked"))
    }
}

/// Starts the source. A broker that cannot be reached is no error: it is waited for.
///
/// # Errors
/// When librdkafka refuses the configuration, or a topic pattern means something else to it.
pub fn start(
    config: &config::Kafka,
    instance: &str,
    topics: &[String],
    port: SourcePort,
    credits: impl Into<Gate>,
    options: Options,
) -> anyhow::Result<Running> {
    settings::check_topics(topics)?;
    let client = settings::client_config(config, instance)?;
    let consumer = open(&client, topics)?;
    let (end, ended) = oneshot::channel();
    let poller = Poller {
        revoke_within: settings::revoke_within(&client),
        client,
        topics: topics.to_vec(),
        queue: Queue::new(&consumer),
        consumer,
        port,
        credits: credits.into(),
        limits: options.limits,
        exactly_once: options.exactly_once,
        assignment: Assignment::default(),
        commits: Commits::new(config.commit_interval),
        troubles: Troubles::default(),
        paused: false,
        held: Vec::new(),
        took_at: Instant::now(),
        assert_at: Instant::now(),
        ends: Ends::default(),
        last_chunk: (1, 1024),
        fatal: None,
        runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
    };
    let thread = std::thread::Builder::new().name("kafka-poll".to_owned());
    let thread = thread.spawn(move || {
        let _end = end; // dropped when the thread ends, also by a panic
        poller.run();
    })?;
    Ok(Running { thread, ended })
}

fn open(client: &ClientConfig, topics: &[String]) -> anyhow::Result<Arc<BaseConsumer<Context>>> {
    let consumer: BaseConsumer<Context> =
        client.create_with_context(Context::default()).map_err(settings::refused)?;
    subscribe(&consumer, topics)?;
    Ok(Arc::new(consumer))
}

fn subscribe(consumer: &BaseConsumer<Context>, topics: &[String]) -> anyhow::Result<()> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&names).with_context(|| format!("subscribing to {names:?}"))
}

/// The pipeline is gone: there is nobody to hand anything to.
#[derive(Debug)]
struct Gone;

/// What the thread owns.
struct Poller {
    client: ClientConfig,
    topics: Vec<String>,
    consumer: Arc<BaseConsumer<Context>>,
    /// Its records.
    queue: Queue,
    port: SourcePort,
    credits: Gate,
    limits: ChunkLimits,
    revoke_within: Duration,
    assignment: Assignment,
    commits: Commits,
    troubles: Troubles,
    /// Some route wants to know what the last owner of a partition noted.
    exactly_once: bool,
    /// What the consumer was last told: to pause everything, or these partitions.
    paused: bool,
    held: Vec<Arc<Partition>>,
    /// When records were last taken.
    took_at: Instant,
    assert_at: Instant,
    ends: Ends,
    /// Records and bytes of the last chunk: how much room to make for the next.
    last_chunk: (usize, usize),
    /// The consumer is beyond help, and why.
    fatal: Option<String>,
    /// For waiting with a deadline; no task runs on it.
    runtime: Runtime,
}

impl Poller {
    fn run(mut self) {
        let error = match self.turn_until_closing() {
            Ok(()) => None,
            Err(Gone) => Some("the pipeline is gone".to_owned()),
        };
        self.leave();
        let closed = self.send(SourceEvent::Closed { error });
        tracing::debug!(told = closed.is_ok(), "the Kafka source has ended");
        // Dropping the consumer comes last: it may block, and nothing follows it.
    }

    fn turn_until_closing(&mut self) -> Result<(), Gone> {
        loop {
            self.apply_happenings()?;
            if let Some(why) = self.fatal.take() {
                self.reopen(&why)?;
            }
            let (native_pause, held, stage, takes) = {
                let wanted = self.port.wanted.borrow();
                (wanted.native_pause, wanted.held.clone(), wanted.stage, wanted.takes.clone())
            };
            if stage == Stage::Closing {
                return self.commit_finally();
            }
            if let Some(takes) = takes.filter(|takes| takes.topics != self.topics) {
                self.subscribe_anew(&takes.topics);
            }
            self.steer(native_pause, held);
            self.commit_due()?;
            let resting = native_pause || stage == Stage::Draining;
            self.look_up_ends(resting);
            if resting || self.assignment.is_empty() {
                self.listen(self.look());
            } else {
                self.take()?;
                self.listen(Duration::ZERO);
            }
        }
    }

    /// How long to wait at most for whatever comes next. Where inserts wait for commits, not long.
    fn look(&self) -> Duration {
        let waited_for = self.port.wanted.borrow().commit_now || self.commits.is_on_its_way();
        let brisk = self.exactly_once && (waited_for || self.took_at.elapsed() < BRISK_FOR);
        if brisk { BRISK_LOOK } else { LOOK }
    }

    fn send(&self, event: SourceEvent) -> Result<(), Gone> {
        self.port.events.blocking_send((self.port.id, event)).map_err(|_| Gone)
    }

    /// Deals with what was noted inside the last poll, in order.
    fn apply_happenings(&mut self) -> Result<(), Gone> {
        for happening in self.consumer.context().take() {
            match happening {
                Happening::Assign(list) => self.assign(&list)?,
                Happening::Revoke(list) => self.revoke(&list)?,
                Happening::Stats(stats) => {
                    let observed = &self.port.observed;
                    if stats.connected && !observed.connected.swap(true, Ordering::AcqRel) {
                        self.troubles.broker_is_up(observed);
                    }
                    for end in &stats.ends {
                        self.assignment.note_end(end);
                    }
                    self.look_at_troubles();
                    self.report();
                }
            }
        }
        if let Some(error) = self.troubles.news() {
            let needs = self.troubles.needs_person();
            *self.port.observed.needs_person.lock().expect("no panic while held") = needs;
            self.send(SourceEvent::Connection { error })?;
        }
        Ok(())
    }

    /// Of what is asked for, what was not refused again is over.
    fn look_at_troubles(&mut self) {
        let rests = self.paused || self.port.observed.starved.load(Ordering::Acquire);
        let held = &self.held;
        let is_held = |topic: &str, number| {
            held.iter().any(|held| held.topic == topic && held.number == number)
        };
        self.troubles.look(|topic, number| !rests && !is_held(topic, number));
    }

    fn report(&self) {
        let observed = &self.port.observed;
        observed.lag.store(self.assignment.lag(), Ordering::Release);
        let partitions = self.assignment.observed();
        *observed.partitions.lock().expect("no panic while held") = partitions;
    }

    /// Brings the consumer to the wanted pause, and asserts it again now and then.
    fn steer(&mut self, native_pause: bool, held: Vec<Arc<Partition>>) {
        let now = Instant::now();
        let unchanged = native_pause == self.paused && held == self.held;
        if unchanged && now < self.assert_at {
            return;
        }
        self.paused = native_pause;
        self.held = held;
        let all: Vec<_> = self.assignment.partitions().cloned().collect();
        let done = self.assert_wanted(all);
        self.port.observed.natively_paused.store(native_pause && done, Ordering::Release);
        self.assert_at = now + if done { ASSERT_EVERY } else { LOOK };
    }

    /// Other topics: the group shares its partitions anew, and what goes away is drained and
    /// committed as at any rebalance.
    fn subscribe_anew(&mut self, topics: &[String]) {
        tracing::info!(event = "kafka_subscribing", ?topics, "Kafka: subscribing anew");
        self.topics = topics.to_vec();
        self.troubles.are_wanted(topics);
        if let Err(error) = subscribe(&self.consumer, topics) {
            self.fatal = Some(format!("{error:#}"));
        }
    }

    /// A fatal error ends a consumer, never the source.
    fn reopen(&mut self, why: &str) -> Result<(), Gone> {
        tracing::error!(
            event = "kafka_client_failed",
            "the Kafka client failed and is made anew: {why}"
        );
        self.commits.forget();
        let lost = self.assignment.clear();
        if !lost.is_empty() {
            self.send(SourceEvent::Lost(lost))?;
        }
        self.report();
        self.runtime.block_on(tokio::time::sleep(REOPEN_AFTER));
        match open(&self.client, &self.topics) {
            Ok(consumer) => {
                self.troubles.begin_anew();
                self.consumer.context().set_closing();
                self.queue = Queue::new(&consumer);
                let old = std::mem::replace(&mut self.consumer, consumer);
                commit::Aside::end("kafka-drop", move || drop(old));
            }
            Err(error) => self.fatal = Some(format!("{error:#}")),
        }
        Ok(())
    }

    /// Leaves the group, so that the others need not wait for a session to time out.
    fn leave(&mut self) {
        self.consumer.context().set_closing();
        if let Err(error) = self.consumer.close_queue() {
            tracing::warn!(event = "kafka_leave_failed", "leaving the Kafka group: {error}");
            return;
        }
        let deadline = Instant::now() + LEAVE_WITHIN;
        while !self.consumer.closed() && Instant::now() < deadline {
            // What still comes was never handed over: it is not committed, and comes again.
            drop(self.consumer.poll(LOOK));
        }
    }
}
