//! The order of start and stop, and nothing else. This comment is the runbook.
//!
//! **Start**: the configuration is valid (the command saw to that) → signals → HTTP answers
//! (`/readyz` 503) → ClickHouse answers, waited for with backoff → the sources start → the
//! pipeline reads the schemas and runs. A dependency that is down is waited for, visibly; it is
//! never a crash loop. A port in use ends the process: nobody would see what it does.
//!
//! **Reload** (SIGHUP, `PUT /admin/config`): from the first moment on one task takes the wishes, one
//! at a time (`reload.rs`); the pipeline obeys while it runs, and nobody does before or after.
//!
//! **Stop** (SIGTERM, SIGINT):
//! 1. status `draining`, `/readyz` 503; the live feed takes nobody new, and tells all who are there
//! 2. paused sources are resumed, for real, logged `for shutdown`: clients leave in a clean state,
//!    and nothing that NATS had delivered is thrown away
//! 3. Kafka and JetStream get no more credits
//! 4. core NATS hands over what was delivered, for at most 2 s; beyond the cap it is counted
//! 5. every batch is cut; retries stay alive
//! 6. wait until nothing is held, at most `shutdown.grace` with what follows
//! 7. final commit, synchronous
//! 8. the group is left, what JetStream still sends is given back, the clients are closed
//! 9. the live feed's sockets get what waits for them, for at most 2 s, and are closed
//! 10. HTTP last, so that the drain can be watched
//!
//! Past the grace period, or at a second signal: stop at once, log what was abandoned, what of it
//! comes again (Kafka, JetStream) and what is lost (core NATS, counted), exit 1. Steps 1 to 7 are taken in
//! `pipeline/drain.rs`, which owns the state that they are about.

mod sources;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::sources::{Sources, can_go_over};
use crate::alert::Lookout;
use crate::config::{Config, DeadLetters, Loaded};
use crate::credits::Credits;
use crate::dead_letter::{Destination, WithLetters};
use crate::fleet::View;
use crate::history::Recorder;
use crate::http::{self, Access, HttpState, Known, Limits};
use crate::live::{self, Live, Tap};
use crate::memory::{self, limit::Limit};
use crate::metrics::{Exposition, Metrics};
use crate::otlp::Otlp;
use crate::pipeline::{Ending, Outside, Parts, Pipeline, Stop};
use crate::reload::{Notice, Reloader, SetLogLevel};
use crate::retry;
use crate::shutdown::Signals;
use crate::sink::clickhouse::{ClickHouse, CreateIfMissing, quoted};
use crate::source::{self, nats};
use crate::status::{ConfigStatus, Identity, Snapshot};
use crate::trace::Tracer;
use crate::webhook::Webhooks;

/// Chunks on their way to the pipeline. Few: each may carry 4 MiB that no limit has seen yet.
const EVENTS: usize = 4;

/// Changes of the configuration on their way to the pipeline: they come one at a time, and what was
/// refused before is told beside them.
const NOTICES: usize = 4;

/// The table for dead letters, as the profile has it.
const DEAD_LETTERS: &str = include_str!("../config/schema/dead_letters.sql");

/// Runs the service until it was told to stop; the exit code says how that went. `files` are where
/// the configuration came from.
pub async fn run(
    files: Vec<PathBuf>,
    loaded: Loaded,
    set_log_level: SetLogLevel,
) -> anyhow::Result<ExitCode> {
    let config = Arc::new(loaded.config.clone());
    let (notices_sender, notices) = mpsc::channel(NOTICES);
    let config_status = ConfigStatus::first(loaded.hash(), jiff::Timestamp::now().as_millisecond());
    let (reloader, door) =
        Reloader::new(files, loaded, notices_sender, set_log_level, can_go_over)?;
    say_that_it_starts(&config);
    let access = Access::new(&config.http)?;
    let listener = http::bind(config.http.listen).await?;
    let (stop_sender, stop) = watch::channel(Stop::Run);
    let mut tasks = JoinSet::new();
    tasks.spawn(Signals::listen()?.tell(stop_sender));

    let starting = Snapshot { config: config_status.clone(), ..Snapshot::starting(&config) };
    let (status, snapshots) = watch::channel(Arc::new(starting));
    let metrics = Metrics::new();
    let identity = Identity::new(config.instance.clone());
    let (lookout, alerts) = Lookout::new(reloader.followed(), snapshots.clone());
    let webhooks = Webhooks::new(&config.webhooks, &config.instance, &alerts)?;
    let (publisher, hall) = source::live::connect(&config.live.publish);
    let live = Arc::new(Live::new(config.live.clone(), &config.routes));
    let (tap, feed) = live::tap(&live);
    let mut feeding = JoinSet::new();
    feeding.spawn(feed.run());
    let (tracer, otlp) = Otlp::new(config.otlp.as_ref(), &identity)?;
    let exposition = Arc::new(Exposition::new(
        metrics.clone(),
        snapshots.clone(),
        alerts.clone(),
        webhooks.tallies(),
        identity.clone(),
        Arc::clone(&live),
        otlp.as_ref().map(Otlp::tally),
    ));
    let (recorder, histories) = Recorder::new(snapshots.clone());
    let state = HttpState::new(Known {
        snapshots,
        alerts,
        webhooks: webhooks.tallies(),
        histories,
        identity,
        exposition: Arc::clone(&exposition),
        door,
        publisher,
        live: Arc::clone(&live),
    });
    let http_end = CancellationToken::new();
    tasks.spawn(answer(listener, state, access, http_end.clone()));
    let fleet = join_fleet(&config, &status, &http_end, &mut tasks).await?;
    let memory = look_after_memory(&http_end, &mut tasks);
    Beside { recorder, reloader, lookout, webhooks, otlp, exposition }.start(&mut tasks, &http_end);

    let stopping = stop.clone();
    let ends = Ends { hall, tap, tracer, outside: Outside { memory, fleet } };
    let service = Service { config, config_status, notices, metrics, status, stop, ends };
    let ending = run_beside(&live, service, stopping).await;
    while let Some(ended) = feeding.join_next().await {
        ended.context("the live feed panicked")?;
    }
    if !ending.as_ref().is_ok_and(|ending| ending.aborted) {
        live.close().await;
    }
    http_end.cancel();
    all_ended(tasks).await?;
    Ok(exit_code(&ending?))
}

fn say_that_it_starts(config: &Config) {
    let (instance, routes) = (&config.instance, config.routes.len());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(event = "starting", instance, routes, "data-bridge {version} starts");
}

async fn all_ended(mut tasks: JoinSet<()>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the service panicked")?;
    }
    Ok(())
}

/// Answers HTTP until `end`.
async fn answer(listener: TcpListener, state: HttpState, access: Access, end: CancellationToken) {
    let serving = http::serve(listener, state, access, Limits::default(), end.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(event = "http_failed", "HTTP: {error:#}");
    }
}

/// What looks at the bridge, tells of it, and changes it: for as long as HTTP answers.
struct Beside {
    recorder: Recorder,
    reloader: Reloader,
    lookout: Lookout,
    webhooks: Webhooks,
    otlp: Option<Otlp>,
    exposition: Arc<Exposition>,
}

impl Beside {
    fn start(self, tasks: &mut JoinSet<()>, end: &CancellationToken) {
        let Self { recorder, reloader, lookout, webhooks, otlp, exposition } = self;
        tasks.spawn(recorder.run_until(end.clone().cancelled_owned()));
        tasks.spawn(reloader.run(end.clone().cancelled_owned()));
        tasks.spawn(lookout.run(end.clone().cancelled_owned()));
        tasks.spawn(webhooks.run(end.clone()));
        if let Some(otlp) = otlp {
            tasks.spawn(otlp.run(exposition, end.clone()));
        }
    }
}

fn exit_code(ending: &Ending) -> ExitCode {
    if is_clean(ending) {
        tracing::info!(event = "stopped", "stopped cleanly");
        return ExitCode::SUCCESS;
    }
    let Ending { abandoned, closed, aborted } = ending;
    tracing::error!(
        event = "stopped_unclean",
        abandoned,
        closed,
        aborted,
        "stopped, but not cleanly"
    );
    ExitCode::FAILURE
}

/// Runs the service; the live feed hears of the stop as soon as it begins.
async fn run_beside(
    live: &Live,
    service: Service,
    mut stopping: watch::Receiver<Stop>,
) -> anyhow::Result<Ending> {
    let running = service.run();
    tokio::pin!(running);
    tokio::select! {
        ending = &mut running => return ending,
        _ = stopping.changed() => live.drain(),
    }
    // Signals are listened to for as long as somebody wants to hear of them.
    drop(stopping);
    running.await
}

/// Gives back what is free, and follows how much there is.
fn look_after_memory(
    end: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<Limit>> {
    let (limit, known) = watch::channel(memory::limit::of_this_process());
    tasks.spawn(memory::limit::follow_until(end.clone(), limit));
    tasks.spawn(memory::give_back_until(end.clone()));
    known
}

/// Says to the others of the fleet how this instance is, until it has ended, and hears of them.
async fn join_fleet(
    config: &Config,
    status: &watch::Sender<Arc<Snapshot>>,
    end: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Option<watch::Receiver<Arc<View>>>> {
    let (Some(fleet), Some(nats)) = (&config.fleet, &config.nats) else { return Ok(None) };
    let (seen, view) = watch::channel(Arc::default());
    let (snapshots, instance) = (status.subscribe(), config.instance.clone());
    let own = move || snapshots.borrow().said(&instance);
    let member = nats::fleet::Member::new(nats, fleet, &config.instance, own, seen);
    let member = member.await.context("the fleet")?;
    tasks.spawn(member.run(end.clone().cancelled_owned()));
    Ok(Some(view))
}

fn is_clean(ending: &Ending) -> bool {
    ending.abandoned == 0 && ending.closed && !ending.aborted
}

/// What the service is made from, before it runs.
struct Service {
    config: Arc<Config>,
    config_status: ConfigStatus,
    notices: mpsc::Receiver<Notice>,
    metrics: Metrics,
    status: watch::Sender<Arc<Snapshot>>,
    stop: watch::Receiver<Stop>,
    ends: Ends,
}

/// The pipeline's ends of what works beside it.
struct Ends {
    /// Where records are published into.
    hall: source::live::Hall,
    tap: Tap,
    tracer: Tracer,
    outside: Outside,
}

impl Service {
    async fn run(self) -> anyhow::Result<Ending> {
        let clickhouse = self.sink()?;
        if !self.wait_for(&clickhouse).await {
            tracing::info!(
                event = "stopped",
                "stopped before ClickHouse answered; nothing was taken from the sources"
            );
            return Ok(Ending { abandoned: 0, closed: true, aborted: false });
        }
        let letters = Destination::open(&self.config).await.context("dead_letters")?;
        let sink = Arc::new(WithLetters::new(clickhouse, &self.config.dead_letters, letters));
        let (events_sender, events) = mpsc::channel(EVENTS);
        let limits = &self.config.backpressure;
        let credits = Arc::new(Credits::new(limits.pull_limit, limits.max_buffer_size));
        let Ends { hall, tap, tracer, outside } = self.ends;
        let sources = Sources::start(&self.config, &events_sender, &credits, hall).await?;
        drop(events_sender);
        let pipeline = Pipeline::new(Parts {
            config: self.config,
            sink,
            sources: sources.handles,
            events,
            credits,
            metrics: self.metrics,
            status: self.status,
            stop: self.stop,
            config_status: self.config_status,
            notices: self.notices,
            tap,
            outside,
            tracer,
        })?;
        let mut ending = pipeline.run().await;
        ending.closed &= sources.running.join().await;
        Ok(ending)
    }

    fn sink(&self) -> anyhow::Result<ClickHouse> {
        let create = match &self.config.dead_letters {
            DeadLetters::ClickHouse { table, create: true } => Some(CreateIfMissing {
                table: table.clone(),
                statement: DEAD_LETTERS.replacen("dead_letters", &quoted(table), 1),
            }),
            _ => None,
        };
        ClickHouse::new(&self.config.clickhouse, create)
    }

    /// Waits until ClickHouse answers, whatever it says: a wrong password or a missing table is
    /// waited for by the pipeline. False when told to stop first.
    async fn wait_for(&self, sink: &ClickHouse) -> bool {
        let mut stop = self.stop.clone();
        let mut attempt = 0;
        while let Err(error) = sink.answers().await
            && error.refusal().code.is_none()
        {
            attempt += 1;
            let delay = retry::ceiling(&self.config.retry, attempt);
            let what = error.refusal().to_string();
            let url = self.config.clickhouse.addresses();
            tracing::warn!(
                event = "waiting_for_clickhouse",
                url,
                attempt,
                ?delay,
                "waiting for ClickHouse: {what}"
            );
            let mut snapshot = Snapshot::starting(&self.config);
            snapshot.config = self.config_status.clone();
            snapshot.needs_person = vec![format!("waiting for ClickHouse: {what}")];
            self.status.send_replace(Arc::new(snapshot));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = stop.changed() => return false,
            }
        }
        *stop.borrow() == Stop::Run
    }
}
