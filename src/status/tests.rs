//! The word for the bridge, and the watchdog.

use super::*;
use crate::config;

fn running() -> Snapshot {
    let source = SourceStatus { connected: true, ..SourceStatus::default() };
    let route = RouteStatus { state: RouteState::Running, ..RouteStatus::default() };
    Snapshot {
        stage: RunStage::Running,
        turned_at: Some(Instant::now()),
        sources: BTreeMap::from([("kafka".to_owned(), source)]),
        routes: BTreeMap::from([("candles".to_owned(), route)]),
        ..Snapshot::default()
    }
}

fn condition(change: impl FnOnce(&mut Snapshot)) -> Condition {
    let mut snapshot = running();
    change(&mut snapshot);
    snapshot.condition(Instant::now())
}

#[tokio::test(start_paused = true)]
async fn each_state_has_its_word() {
    assert_eq!(condition(|_| ()), Condition::Healthy);
    assert_eq!(condition(|s| s.stage = RunStage::Starting), Condition::Starting);
    assert_eq!(condition(|s| s.stage = RunStage::Draining), Condition::Draining);
    assert_eq!(condition(|s| s.stage = RunStage::Stopped), Condition::Draining);
    assert_eq!(condition(|s| s.backpressure.active = true), Condition::Degraded);
    assert_eq!(condition(|s| s.backpressure.critical = true), Condition::Critical);
    assert_eq!(condition(|s| s.needs_person.push("create it".into())), Condition::Critical);
    assert_eq!(condition(|s| s.overdue = Some("linger".into())), Condition::Critical);
    let state = |state| condition(|s| s.routes.get_mut("candles").unwrap().state = state);
    assert_eq!(state(RouteState::Starting), Condition::Degraded);
    assert_eq!(state(RouteState::Retrying("503".into())), Condition::Degraded);
    assert_eq!(state(RouteState::AwaitingFix("no table".into())), Condition::Critical);
    let source =
        |change: fn(&mut SourceStatus)| condition(|s| change(s.sources.get_mut("kafka").unwrap()));
    assert_eq!(source(|s| s.paused = true), Condition::Degraded);
    assert_eq!(source(|s| s.connected = false), Condition::Degraded);
    // A drain is a drain, however bad things are.
    let both = condition(|s| {
        s.stage = RunStage::Draining;
        s.backpressure.critical = true;
    });
    assert_eq!(both, Condition::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_has_not_turned_for_a_minute_is_wedged() {
    let snapshot = running();
    tokio::time::advance(WEDGED_AFTER).await;
    assert_eq!(snapshot.wedged(Instant::now()), None);
    assert!(snapshot.is_ready(Instant::now()));
    tokio::time::advance(Duration::from_secs(1)).await;
    let why = snapshot.wedged(Instant::now()).unwrap();
    assert_eq!(why, "the owner loop has not turned for 61 s");
    assert_eq!(snapshot.condition(Instant::now()), Condition::Critical);
    assert!(!snapshot.is_ready(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn before_the_start_and_after_the_end_nothing_is_wedged() {
    let mut snapshot = Snapshot { overdue: Some("a timer".into()), ..Snapshot::default() };
    tokio::time::advance(WEDGED_AFTER * 10).await;
    assert_eq!(snapshot.wedged(Instant::now()), None);
    snapshot.stage = RunStage::Stopped;
    assert_eq!(snapshot.wedged(Instant::now()), None);
    snapshot.stage = RunStage::Draining;
    assert_eq!(snapshot.wedged(Instant::now()).as_deref(), Some("a timer"));
    // Forgetting to say when the loop turned is found at once, not in a bad night.
    let forgotten = Snapshot { stage: RunStage::Running, ..Snapshot::default() };
    assert!(forgotten.wedged(Instant::now()).is_some());
}

#[test]
fn rates_are_per_second_of_the_interval() {
    let mut earlier = Snapshot::default();
    earlier.sources.insert("kafka".into(), SourceStatus { received: 100, ..Default::default() });
    let mut later = earlier.clone();
    later.sources.get_mut("kafka").unwrap().received = 600;
    later.writers.insert("w".into(), WriterStatus { inserted: 50, ..Default::default() });
    let rates = Rates::between(&earlier, &later, Duration::from_secs(5));
    assert_eq!(rates, Rates { input_records_per_second: 100.0, output_records_per_second: 10.0 });
    assert_eq!(Rates::between(&earlier, &later, Duration::ZERO), Rates::default());
}

#[test]
fn before_the_first_turn_everything_configured_is_there_at_zero() {
    let snapshot = Snapshot::starting(&config());
    assert_eq!(snapshot.stage, RunStage::Starting);
    assert_eq!(snapshot.backpressure.pull_limit, 30_000);
    assert_eq!(snapshot.writers.keys().collect::<Vec<_>>(), ["aggregate", "external"]);
    assert_eq!(snapshot.sources.keys().collect::<Vec<_>>(), ["nats"], "Kafka is not configured");
    let dropped: Vec<_> = snapshot.sources["nats"].dropped.keys().collect();
    assert_eq!(dropped, ["market", "unknown"], "the policy never drops system records");
    assert_eq!(snapshot.routes["health"].state, RouteState::Running);
}

fn writer() -> crate::config::Writer {
    crate::config::Writer {
        batch_rows: 1,
        batch_bytes: 1,
        linger: Duration::from_secs(1),
        batch_rows_min: 1,
        batch_rows_max: 1,
    }
}

fn route(name: &str, class: &str) -> config::Route {
    config::Route {
        name: name.into(),
        kafka_topics: vec![],
        nats_subjects: vec![format!("{class}.>")],
        jetstream: None,
        publish: false,
        class: class.into(),
        overload: config::RouteOverload::default(),
        rate_limit: None,
        live_key: None,
        action: config::Action::Count,
    }
}

fn config() -> Config {
    use crate::config::*;
    use crate::live::samples::live_with;
    let seconds = Duration::from_secs;
    Config {
        instance: "bridge-1".into(),
        heartbeat: Heartbeat { interval: seconds(5) },
        backpressure: Backpressure {
            max_buffer_size: 50_000,
            pause_threshold: 40_000,
            resume_threshold: 20_000,
            pull_limit: 30_000,
            max_buffer_bytes: 1 << 28,
            memory_budget: None,
            warn_after: seconds(300),
            critical_after: seconds(600),
            repeat_every: seconds(60),
            auto: None,
        },
        overload: Overload::default(),
        alerts: Alerts::default(),
        webhooks: BTreeMap::new(),
        kafka: None,
        nats: Some(Nats {
            servers: vec![],
            queue_group: "q".into(),
            auth: NatsAuth::None,
            tls: None,
            rate_limit: None,
            jetstream: None,
        }),
        fleet: None,
        clickhouse: ClickHouse {
            urls: vec!["http://localhost:8123".into()],
            endpoints: Endpoints::Independent,
            database: "market".into(),
            user: "default".into(),
            password: None,
            tls: None,
            compression: Compression::None,
            insert_timeout: seconds(30),
            max_in_flight: 2,
            adaptive: false,
        },
        retry: Retry { base_delay: seconds(1), max_delay: seconds(30) },
        breaker: Breaker { max_failures: 10, reset_timeout: seconds(60) },
        writers: ["aggregate", "external"].map(|name| (name.to_owned(), writer())).into(),
        dead_letters: DeadLetters::ClickHouse { table: "dead_letters".into(), create: true },
        routes: vec![route("candles", "market"), route("health", "system")],
        live: live_with("").settings().clone(),
        log: LogLevel::Info,
        otlp: None,
        shutdown: Shutdown { grace: seconds(30) },
        http: Http {
            listen: "127.0.0.1:8080".parse().unwrap(),
            token: None,
            token_file: None,
            tls: None,
        },
    }
}
