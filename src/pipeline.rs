//! The one owner: everything that is held, open, under way or paused is a field of [`Pipeline`].
//!
//! `select` is the only place that waits; it names what happened as an `Action`.
//! `apply`, which is not async, does it. So the sources are always listened to,
//! whatever the sink does: backpressure is a decision here, never a blocked channel. It knows no
//! client crate: sources are handles and events, the sink is a trait, inserts are jobs that own
//! their batch until they give it back.

mod adapt;
mod admit;
mod attempt;
mod drain;
mod exact;
mod fleet;
mod guard;
mod insert;
mod layout;
mod limits;
mod press;
mod reconfigure;
mod settle;
mod shed;
mod slots;
mod snapshot;
mod stuck;
mod table;
mod tally;
mod timers;
mod traced;
mod window;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::adaptive::Concurrency;
use crate::backpressure::auto::Auto;
use crate::backpressure::{Backpressure, Level, Thresholds};
use crate::breaker::{self, Breaker};
use crate::config::{Config, RateLimit};
use crate::credits::Credits;
use crate::fleet::View;
use crate::ledger::{Ledger, Slot};
use crate::live::Tap;
use crate::memory::limit::Limit;
use crate::metrics::Metrics;
use crate::overload::Overload;
use crate::record::{Partition, UnixMs};
use crate::reload::Notice;
use crate::route::{RouteId, Router};
use crate::sink::Sink;
use crate::source::{Delivery, SourceEvent, SourceHandle, SourceId};
use crate::status::ahead::Ahead;
use crate::status::forecast::Levels;
use crate::status::{ConfigStatus, Rates, RunStage, SLOW_CONSUMER, Snapshot, UNKNOWN_CLASS};
use crate::trace::Tracer;

use attempt::Job;
use drain::Phase;
pub use drain::{Ending, Stop};
use exact::Exact;
use fleet::Together;
use insert::{CutBatch, UnderWay};
use layout::{Layout, numbers};
use limits::Limits;
use settle::Revocation;
use shed::Waiting;
use table::{Schemas, Table};
use tally::{RouteTally, SourceTally, WriterTally};
use timers::Timers;

/// What the pipeline is made from.
#[derive(Debug)]
pub struct Parts<S> {
    pub config: Arc<Config>,
    pub sink: Arc<S>,
    pub sources: Vec<SourceHandle>,
    pub events: mpsc::Receiver<(SourceId, SourceEvent)>,
    pub credits: Arc<Credits>,
    pub metrics: Metrics,
    pub status: watch::Sender<Arc<Snapshot>>,
    pub stop: watch::Receiver<Stop>,
    /// Which configuration this is.
    pub config_status: ConfigStatus,
    /// What others want of it.
    pub notices: mpsc::Receiver<Notice>,
    /// Who sees what is admitted.
    pub tap: Tap,
    pub outside: Outside,
    /// Tells of batches.
    pub tracer: Tracer,
}

/// What is looked at, at each heartbeat, and never waited for.
#[derive(Debug)]
pub struct Outside {
    /// How much memory there is; None where nothing says.
    pub memory: watch::Receiver<Option<Limit>>,
    /// The fleet, if it is in one.
    pub fleet: Option<watch::Receiver<Arc<View>>>,
}

/// A source, and what is known of it here.
#[derive(Debug)]
struct Attached {
    handle: SourceHandle,
    tally: SourceTally,
    /// Where its records without a partition are entered.
    slot: Slot,
    assigned: HashMap<Arc<Partition>, Slot>,
    /// It handed over all that had been delivered (pushed sources, at stop).
    drained: bool,
    closed: bool,
    /// Nobody wanted it to.
    ended_by_itself: bool,
    /// While the fleet is slowed down.
    slowed_to: Option<RateLimit>,
}

/// What can happen.
#[derive(Debug)]
enum Action {
    Source(SourceId, SourceEvent),
    JobDone(Job),
    Stop(Stop),
    Notice(Notice),
    /// A linger, a retry or a deadline is due.
    TimerDue,
    Heartbeat,
    Commit,
    Publish,
}

/// The owner of the state.
#[derive(Debug)]
pub struct Pipeline<S> {
    config: Arc<Config>,
    sink: Arc<S>,
    events: mpsc::Receiver<(SourceId, SourceEvent)>,
    stop: watch::Receiver<Stop>,
    notices: mpsc::Receiver<Notice>,
    config_status: ConfigStatus,
    credits: Arc<Credits>,
    metrics: Metrics,
    status: watch::Sender<Arc<Snapshot>>,
    tap: Tap,
    tracer: Tracer,

    sources: Vec<Attached>,
    router: Router,
    routes: Vec<RouteTally>,
    writers: Vec<WriterTally>,
    /// The first takes the dead letters.
    tables: Vec<Table>,
    schemas: Schemas,
    ledger: Ledger,
    backpressure: Backpressure,
    /// Moves the limits in `config`, if they are chosen.
    auto: Option<Auto>,
    overload: Overload,
    /// Of routes that keep their latest while they are shut out.
    waiting_rows: Vec<Waiting>,
    limits: Limits,
    /// Where inserts are adaptive.
    concurrency: Option<Concurrency>,
    breaker: Breaker,
    /// What the sink said last when it failed as a whole.
    breaker_reason: String,
    fleet: Option<Together>,
    memory: watch::Receiver<Option<Limit>>,
    revocations: Vec<Revocation>,

    /// The partitions of which exactly once is promised.
    exact: HashMap<Slot, Exact>,
    /// Encoded, and noted as soon as the source has committed the note.
    announcing: Vec<CutBatch>,
    /// Something was noted that an insert waits for.
    commit_at_once: bool,
    /// When to look at the deduplication windows again.
    windows_due: Instant,

    /// Cut, to be inserted as soon as there is room.
    queue: VecDeque<CutBatch>,
    /// Refused, to be tried again at their time.
    waiting: Vec<CutBatch>,
    jobs: JoinSet<Job>,
    /// Of `jobs`, those that have a batch.
    under_way: Vec<UnderWay>,
    next_batch: u64,
    /// What this process calls its batches, so that tokens are never used twice.
    run_id: uuid::Uuid,

    held: usize,
    peak_held: usize,
    bytes: usize,
    /// When an insert was last acknowledged.
    last_success: Option<Instant>,
    /// Records settled since the start, and at the last heartbeat.
    settled: u64,
    settled_at_heartbeat: u64,
    phase: Phase,
    /// For [`Ending`].
    abandoned: usize,
    aborted: bool,
    close_failed: bool,
    /// The snapshot is behind the state.
    changed: bool,
    rates: Rates,
    levels: Levels,
    ahead: Ahead,
    last_heartbeat: Option<Arc<Snapshot>>,
    timers: Timers,
}

impl<S: Sink> Pipeline<S> {
    /// Builds the pipeline; nothing runs before [`Pipeline::run`].
    pub fn new(parts: Parts<S>) -> anyhow::Result<Self> {
        let Parts { config, sink, sources, events, credits, metrics, status, stop, .. } = parts;
        let mut ledger = Ledger::default();
        let classes: Vec<&str> = config.routes.iter().map(|route| route.class.as_str()).collect();
        let attach = |(id, handle)| Attached::new(id, handle, &classes, &mut ledger);
        let sources: Vec<Attached> = (0..).zip(sources).map(attach).collect();
        let Layout { writers, mut tables, routes } = Layout::new(&config);
        let limits = Limits::new(&config, &numbers(&config, &routes), Instant::now());
        let mut schemas = Schemas::default();
        schemas.want(&tables);
        tables.iter_mut().for_each(|table| table.apart = sink.is_apart(&table.name));
        let window =
            breaker::window(&config.breaker, &config.retry, config.clickhouse.insert_timeout);
        let ids: Vec<RouteId> = (0..).map(RouteId).take(routes.len()).collect();
        Ok(Self {
            router: Router::new(&config.routes)?,
            backpressure: Backpressure::new(Thresholds::new(&config.backpressure), sources.len()),
            auto: config.backpressure.auto.clone().map(Auto::new),
            overload: Overload::new(&config, &ids),
            waiting_rows: Vec::new(),
            concurrency: None,
            breaker: Breaker::new(&config.breaker, window),
            breaker_reason: String::new(),
            timers: Timers::new(&config),
            revocations: Vec::new(),
            queue: VecDeque::new(),
            waiting: Vec::new(),
            jobs: JoinSet::new(),
            under_way: Vec::new(),
            exact: HashMap::new(),
            announcing: Vec::new(),
            commit_at_once: false,
            windows_due: Instant::now(),
            next_batch: 0,
            run_id: uuid::Uuid::from_u128(rand::random()),
            held: 0,
            peak_held: 0,
            bytes: 0,
            last_success: None,
            settled: 0,
            settled_at_heartbeat: 0,
            phase: Phase::Running,
            abandoned: 0,
            aborted: false,
            close_failed: false,
            changed: true,
            rates: Rates::default(),
            levels: Levels::default(),
            ahead: Ahead::default(),
            last_heartbeat: None,
            config,
            sink,
            events,
            stop,
            notices: parts.notices,
            fleet: parts.outside.fleet.map(Together::new),
            memory: parts.outside.memory,
            config_status: parts.config_status,
            tap: parts.tap,
            tracer: parts.tracer,
            credits,
            metrics,
            status,
            sources,
            schemas,
            limits,
            writers,
            routes,
            tables,
            ledger,
        })
    }

    /// Runs until it was told to stop and has stopped.
    pub async fn run(mut self) -> Ending {
        self.lay_windows();
        self.lay_controls();
        self.lay_tap();
        self.read_due_schemas();
        self.publish(RunStage::Running);
        while !self.ended() {
            let action = self.select().await;
            self.apply(action);
            self.settle_state();
        }
        self.jobs.shutdown().await;
        self.publish(RunStage::Stopped);
        self.ending()
    }

    /// Waits for the next thing that happens.
    async fn select(&mut self) -> Action {
        let timer = self.next_deadline();
        tokio::select! {
            Some((source, event)) = self.events.recv() => Action::Source(source, event),
            Some(done) = self.jobs.join_next() => Action::JobDone(job_result(done)),
            Some(notice) = self.notices.recv() => Action::Notice(notice),
            Ok(()) = self.stop.changed() => Action::Stop(*self.stop.borrow_and_update()),
            () = sleep_until(timer) => Action::TimerDue,
            _ = self.timers.heartbeat.tick() => Action::Heartbeat,
            _ = self.timers.commit.tick() => Action::Commit,
            _ = self.timers.publish.tick() => Action::Publish,
        }
    }

    /// Does what happened.
    fn apply(&mut self, action: Action) {
        match action {
            Action::Source(source, event) => self.source_event(source, event),
            Action::JobDone(job) => self.job_done(job),
            Action::Stop(stop) => self.stop_requested(stop),
            Action::Notice(notice) => self.notice(notice),
            Action::TimerDue => self.timer_due(Instant::now()),
            Action::Heartbeat => self.heartbeat(),
            Action::Commit => self.publish_commits(),
            Action::Publish => return self.publish_if_changed(),
        }
        self.changed = true;
    }

    fn source_event(&mut self, source: SourceId, event: SourceEvent) {
        match event {
            SourceEvent::Records(chunk) => self.take(source, chunk),
            SourceEvent::Poisoned { record, why } => self.take_poisoned(source, record, why),
            SourceEvent::Assigned(all) => self.assigned(source, all),
            SourceEvent::Revoked { partitions, deadline, answer } => {
                self.revoked(source, &partitions, deadline, Some(answer));
            }
            SourceEvent::Lost(partitions) => {
                self.revoked(source, &partitions, Instant::now(), None);
            }
            SourceEvent::Committed { positions, error } => {
                self.committed(source, &positions, error);
            }
            SourceEvent::DroppedByClient(count) => self.dropped_by_client(source, count),
            SourceEvent::Connection { error } => self.connection(source, error),
            SourceEvent::Drained => self.sources[source.0].drained = true,
            SourceEvent::Closed { error } => self.closed(source, error),
        }
    }

    /// What follows from the new state, whatever happened: the rule of backpressure, credits,
    /// inserts, revocations, the steps of the stop.
    fn settle_state(&mut self) {
        let now = Instant::now();
        self.check_pressure(now);
        self.check_shares();
        self.deliver_waiting();
        self.check_rates(now);
        self.drain_step(now);
        self.cut_when_stuck(now);
        self.finish_revocations(now);
        self.start_inserts(now);
        self.intend_waiting();
        if self.commit_at_once {
            self.publish_commits();
        }
    }

    fn timer_due(&mut self, now: Instant) {
        self.cut_lingering(now);
        self.retry_due(now);
        self.read_due_schemas();
    }

    /// When something is due next; far away if nothing is.
    fn next_deadline(&self) -> Instant {
        let lingers = self.tables.iter().filter_map(table::Table::linger_deadline);
        let retries = self.waiting.iter().map(|cut| cut.due);
        let schemas = self.schemas.next_due();
        let revocations = self.revocations.iter().map(|revocation| revocation.deadline);
        // Only if a batch could be the probe: it would be overdue without being late.
        let probe = self.breaker.probe_at().filter(|_| self.next_to_insert(false).is_some());
        let others = schemas.chain(revocations).chain(self.phase.deadline()).chain(probe);
        let others = others.chain(self.limits.due());
        lingers
            .chain(retries)
            .chain(others)
            .min()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn level(&self) -> Level {
        Level { held: self.held, bytes: self.bytes }
    }
}

impl Attached {
    fn new(id: usize, handle: SourceHandle, classes: &[&str], ledger: &mut Ledger) -> Self {
        let mut tally = SourceTally::new(classes);
        if handle.delivery == Delivery::Pushed {
            tally.drop_records(UNKNOWN_CLASS, SLOW_CONSUMER, 0);
        }
        Self {
            slot: ledger.open(SourceId(id), None),
            drained: handle.delivery.has_credits(),
            closed: false,
            ended_by_itself: false,
            slowed_to: None,
            tally,
            assigned: HashMap::new(),
            handle,
        }
    }
}

fn job_result(done: Result<Job, tokio::task::JoinError>) -> Job {
    match done {
        Ok(job) => job,
        // A job that panicked took its batch with it. Nothing of it is committed: the process
        // ends, and everything not durable comes again.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Job::Aborted,
    }
}

/// The wall clock, for people; never used to measure.
fn wall_clock() -> UnixMs {
    jiff::Timestamp::now().as_millisecond()
}
