//! A pipeline with both ends in the hands of the test: sources that deliver what the test says,
//! and a sink with faults by script. Real configuration, paused time.

pub(crate) mod logs;
pub(crate) mod shortage;
pub(crate) mod sink;
pub(crate) mod source;

use std::sync::Arc;
use std::time::Duration;

use data_bridge::alert::{Alerts, Firing, Lookout};
use data_bridge::config::{self, Config};
use data_bridge::credits::{Credits, Gate};
use data_bridge::fleet::View;
use data_bridge::live::Tap;
use data_bridge::memory::limit::Limit;
use data_bridge::metrics::Metrics;
use data_bridge::pipeline::{Ending, Outside, Parts, Pipeline, Stop};
use data_bridge::reload::{Notice, Order};
use data_bridge::source::live::{self, Publisher};
use data_bridge::source::{Delivery, Running, SourceId, connect};
use data_bridge::status::{ConfigStatus, Identity, Snapshot};
use data_bridge::trace::{self, Spans};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use sink::TestSink;
use source::{End, Manners};

/// As in `app.rs`.
const EVENTS: usize = 4;

/// For tests about the level alone: a sink that is down opens the breaker, which pauses Kafka long
/// before the level does.
pub(crate) const NO_BREAKER: &str = "[breaker]\nmax_failures = 1_000_000\n";

const KAFKA: &str = "[kafka]\nbrokers = [\"unused:9092\"]\n";
const NATS: &str = "[nats]\nservers = [\"nats://unused:4222\"]\n";

/// The profile's shape, with bodies that the sink can read.
const ROUTES: &str = r#"
instance = "rig"
[clickhouse]
url = "http://unused:8123"
[writers.aggregate]
batch_rows = 10_000
linger = "1s"
[writers.external]
batch_rows = 1_000
linger = "5s"

[[routes]]
name = "candles"
kafka_topics = ["candles"]
nats_subjects = ["market.>"]
class = "market"
writer = "aggregate"
table = "candles"
format = "json"

[[routes]]
name = "external"
kafka_topics = ["external"]
nats_subjects = ["external.>"]
class = "external"
writer = "external"
table = "external"
format = "json"

[[routes]]
name = "signals"
kafka_topics = ["signals"]
nats_subjects = ["signals.>"]
class = "signal"
writer = "external"
table = "signals"
format = "json"

[[routes]]
name = "system_stored"
nats_subjects = ["system.stored.>"]
class = "system"
writer = "external"
table = "system"
format = "json"

[[routes]]
name = "system"
nats_subjects = ["system.>"]
class = "system"
action = "count"

[[routes]]
name = "counted"
kafka_topics = ["counted"]
nats_subjects = ["counted.>"]
action = "count"
"#;

/// As `#[tokio::test(start_paused = true)]`, for one of many cases.
pub(crate) fn in_paused_time<F: Future>(case: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(case)
}

/// Which sources there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    Kafka,
    Nats,
    Both,
}

/// The configuration of the rig, and what the test adds to it.
pub(crate) fn config(sources: Sources, more: &str) -> Arc<Config> {
    config_of(ROUTES, sources, more)
}

/// The same with every one of these texts in its routes replaced by the other.
pub(crate) fn config_edited(sources: Sources, edits: &[(&str, &str)], more: &str) -> Arc<Config> {
    let edit = |text: String, (from, to): &(&str, &str)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    config_of(&edits.iter().fold(ROUTES.to_owned(), edit), sources, more)
}

fn config_of(routes: &str, sources: Sources, more: &str) -> Arc<Config> {
    let dir = tempfile::tempdir().unwrap();
    let (base, over) = (dir.path().join("base.toml"), dir.path().join("more.toml"));
    let kafka = if sources == Sources::Nats { "" } else { KAFKA };
    let nats = if sources == Sources::Kafka { "" } else { NATS };
    std::fs::write(&base, format!("{routes}{kafka}{nats}")).unwrap();
    std::fs::write(&over, more).unwrap();
    Arc::new(config::load(&[base, over]).unwrap_or_else(|error| panic!("{error}")))
}

/// The pipeline, running, and everything around it.
pub(crate) struct Rig {
    pub(crate) sink: Arc<TestSink>,
    pub(crate) credits: Arc<Credits>,
    kafka: Option<End>,
    nats: Option<End>,
    /// How much memory there is.
    pub(crate) memory: watch::Sender<Option<Limit>>,
    /// How the others are, where the configuration has `[fleet]`.
    pub(crate) fleet: watch::Sender<Arc<View>>,
    publisher: Publisher,
    live: Option<Running>,
    status: watch::Receiver<Arc<Snapshot>>,
    alerts: Alerts,
    followed: watch::Sender<Arc<Config>>,
    stop: watch::Sender<Stop>,
    notices: mpsc::Sender<Notice>,
    pipeline: JoinSet<Ending>,
    minders: JoinSet<()>,
    identity: Identity,
    /// What is told of batches, with `[otlp]`.
    pub(crate) spans: Spans,
}

fn traced_percent(config: &Config) -> u32 {
    config.otlp.as_ref().map_or(0, |otlp| otlp.sample_percent)
}

impl Rig {
    pub(crate) fn both(more: &str) -> Self {
        Self::start(&config(Sources::Both, more))
    }

    pub(crate) fn kafka_alone(more: &str) -> Self {
        Self::start(&config(Sources::Kafka, more))
    }

    pub(crate) fn nats_alone(more: &str) -> Self {
        Self::start(&config(Sources::Nats, more))
    }

    pub(crate) fn start(config: &Arc<Config>) -> Self {
        let manners = Manners { drains: true, closes: true };
        Self::start_with(config, manners, TestSink::new())
    }

    pub(crate) fn start_with(config: &Arc<Config>, manners: Manners, sink: TestSink) -> Self {
        Self::start_before(config, manners, Arc::new(sink))
    }

    /// Before a sink that remembers what an earlier pipeline had inserted.
    pub(crate) fn start_before(
        config: &Arc<Config>,
        manners: Manners,
        sink: Arc<TestSink>,
    ) -> Self {
        let limits = &config.backpressure;
        let credits = Arc::new(Credits::new(limits.pull_limit, limits.max_buffer_size));
        let (sender, events) = mpsc::channel(EVENTS);
        let (mut handles, mut minders) = (Vec::new(), JoinSet::new());
        let mut end = |name, delivery| {
            let id = SourceId(handles.len());
            let (mut handle, port) = connect(id, name, delivery, sender.clone());
            let gate = Gate::from(Arc::clone(&credits));
            handle.gate = (delivery == Delivery::Pulled).then(|| gate.clone());
            handles.push(handle);
            let end = End::new(port, gate);
            minders.spawn(end.minder(manners));
            end
        };
        let kafka = config.kafka.as_ref().map(|_| end("kafka", Delivery::Pulled));
        let nats = config.nats.as_ref().map(|_| end("nats", Delivery::Pushed));
        let (publisher, hall) = live::connect(&config.live.publish);
        let live = config.has_live().then(|| {
            let id = SourceId(handles.len());
            let (mut handle, port) = connect(id, "live", Delivery::Offered, sender.clone());
            let gate = Gate::from(Arc::clone(&credits));
            gate.set_limit(config.live.publish.rate_limit);
            handle.gate = Some(gate.clone());
            handles.push(handle);
            live::start(hall, &config.takes().published, port, gate)
        });
        let (status_sender, status) = watch::channel(Arc::new(Snapshot::starting(config)));
        let (followed, follows) = watch::channel(Arc::clone(config));
        let (lookout, alerts) = Lookout::new(follows, status.clone());
        minders.spawn(lookout.run(std::future::pending()));
        let (stop, stop_receiver) = watch::channel(Stop::Run);
        let (notices, notices_receiver) = mpsc::channel(EVENTS);
        let (memory, known_memory) = watch::channel(None);
        let (fleet, seen) = watch::channel(Arc::default());
        let (tracer, spans) = trace::channel(traced_percent(config));
        let parts = Parts {
            config: Arc::clone(config),
            sink: Arc::clone(&sink),
            sources: handles,
            events,
            credits: Arc::clone(&credits),
            metrics: Metrics::new(),
            status: status_sender,
            stop: stop_receiver,
            config_status: ConfigStatus::default(),
            notices: notices_receiver,
            tap: Tap::closed(),
            outside: Outside { memory: known_memory, fleet: config.fleet.as_ref().map(|_| seen) },
            tracer,
        };
        let pipeline = JoinSet::from_iter([Pipeline::new(parts).unwrap().run()]);
        Self {
            sink,
            credits,
            kafka,
            nats,
            memory,
            fleet,
            publisher,
            live,
            status,
            alerts,
            followed,
            stop,
            notices,
            pipeline,
            minders,
            identity: Identity::new("rig"),
            spans,
        }
    }

    /// Another configuration, as it comes from the reloader; whether it is in force.
    pub(crate) async fn change_to(&self, config: &Arc<Config>) -> Result<(), String> {
        let ((begun, _begins), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let (followed, hash) = (Arc::clone(config), "other".to_owned());
        let config = Arc::clone(config);
        self.notices.send(Notice::Apply(Order { config, hash, begun, answer })).await.unwrap();
        let answered = timeout(Duration::from_secs(600), answered).await;
        let done = answered.expect("the pipeline answers").expect("the pipeline runs");
        if done.is_ok() {
            self.followed.send_replace(followed);
        }
        done
    }

    /// As `kill -9` does: nothing is awaited, nothing is said.
    pub(crate) async fn kill(&mut self) {
        self.minders.shutdown().await;
        self.live = None;
        self.pipeline.shutdown().await;
    }

    /// As if the threads and tasks of every source had panicked.
    pub(crate) fn lose_sources(&mut self) {
        (self.kafka, self.nats, self.minders) = (None, None, JoinSet::new());
    }

    /// Where records are published, if a route says so.
    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    pub(crate) fn kafka(&mut self) -> &mut End {
        self.kafka.as_mut().expect("Kafka is configured")
    }

    pub(crate) fn nats(&mut self) -> &mut End {
        self.nats.as_mut().expect("NATS is configured")
    }

    /// Lets so much time pass; everything that is due happens.
    pub(crate) async fn after(&mut self, time: Duration) {
        sleep(time).await;
        self.still_runs();
    }

    /// Lets so much time pass that everything under way without faults and lingers has happened,
    /// and the snapshot shows it.
    pub(crate) async fn moment(&mut self) {
        self.after(Duration::from_millis(250)).await;
    }

    /// The same when the pipeline may have come to its end.
    pub(crate) async fn after_maybe_the_end(&mut self, time: Duration) {
        sleep(time).await;
    }

    fn still_runs(&mut self) {
        if let Some(ended) = self.pipeline.try_join_next() {
            panic!("the pipeline has ended: {:?}", ended.unwrap());
        }
    }

    pub(crate) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.status.borrow())
    }

    /// The alerts that fire.
    pub(crate) fn firing(&self) -> Firing {
        Arc::clone(&self.alerts.borrow())
    }

    /// Waits until the snapshot is as wanted, for at most ten minutes of paused time.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Arc<Snapshot> {
        let mut status = self.status.clone();
        let waiting = status.wait_for(|snapshot| wanted(snapshot));
        let found = timeout(Duration::from_secs(600), waiting).await;
        let found = found.unwrap_or_else(|_| panic!("never: {what}\n{:#?}", self.now()));
        Arc::clone(&found.unwrap_or_else(|_| panic!("the pipeline ended before: {what}")))
    }

    /// Waits until nothing is held.
    pub(crate) async fn drained(&mut self) -> Arc<Snapshot> {
        self.moment().await;
        self.until("nothing is held", |snapshot| snapshot.backpressure.current_buffer == 0).await;
        self.moment().await;
        self.accounts_close()
    }

    /// The accounting of a quiet moment, per source and in all.
    pub(crate) fn accounts_close(&self) -> Arc<Snapshot> {
        let snapshot = self.now();
        accounts_close(&snapshot);
        snapshot
    }

    /// The body of `/health`.
    pub(crate) fn health(&self) -> serde_json::Value {
        let health = self.now().health(&self.identity, &self.firing(), Instant::now());
        serde_json::to_value(health).unwrap()
    }

    pub(crate) fn tell(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    /// Waits for the end.
    pub(crate) async fn ending(&mut self) -> Ending {
        let ending = timeout(Duration::from_secs(600), self.pipeline.join_next()).await;
        let ending = ending.expect("the pipeline ends").expect("it ends once").unwrap();
        self.minders.shutdown().await;
        if let Some(live) = self.live.take() {
            let joined = timeout(Duration::from_secs(600), live.join()).await;
            joined.expect("the live source ends").unwrap();
        }
        ending
    }

    /// First signal; waits for the end.
    pub(crate) async fn stop(&mut self) -> Ending {
        self.tell(Stop::Drain);
        self.ending().await
    }
}

/// received = inserted + dead_lettered + filtered + dropped + released + held, for every source and
/// every route; and what the sources hold is what the routes hold.
pub(crate) fn accounts_close(snapshot: &Snapshot) {
    for (name, source) in &snapshot.sources {
        let gone = source.inserted + source.dead_lettered + source.filtered;
        let given_up = source.dropped_total() + source.released;
        let all = gone + given_up + source.held as u64;
        assert_eq!(source.received, all, "{name} does not close: {source:#?}");
    }
    for (name, route) in &snapshot.routes {
        let gone = route.inserted + route.dead_lettered + route.filtered;
        let all = gone + route.dropped + route.released + route.held as u64;
        assert_eq!(route.received, all, "{name} does not close: {route:#?}");
    }
    assert_eq!(snapshot.gaps(), []);
    let of_routes: usize = snapshot.routes.values().map(|route| route.held).sum();
    assert_eq!(of_routes, snapshot.sources.values().map(|source| source.held).sum::<usize>());
    let writers: usize = snapshot.writers.values().map(|w| w.buffered + w.in_flight).sum();
    let held = snapshot.backpressure.current_buffer;
    assert_eq!(held, writers + snapshot.dead_letters.pending, "{snapshot:#?}");
    let of_sources: usize = snapshot.sources.values().map(|source| source.held).sum();
    assert!(of_sources <= held, "the sources hold {of_sources} of {held}");
}
