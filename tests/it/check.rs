//! `data-bridge check` as a user meets it: the real program against real servers.

mod facts;
mod samples;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use crate::nats_source::server::Server;

/// With all servers dead, on a machine that stalls; the time-outs inside are far shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics of the shipped profile.
const TOPICS: [&str; 9] = [
    "aggregate_archive",
    "confirmation_archive",
    "market.external.commodity_prices",
    "market.external.crypto_sentiment",
    "market.external.economic_calendar",
    "market.external.fear_greed_index",
    "market.external.fred_economic",
    "market.external.market_sessions",
    "tick_archive",
];

fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "this test needs servers: {name} is not set. Run scripts/test, or: scripts/stack up; \
             set -a; eval \"$(scripts/stack env)\""
        )
    })
}

/// The program, the shipped profile, the servers of the stack, and what a test changes.
struct Bridge {
    vars: BTreeMap<String, String>,
}

impl Bridge {
    fn new(database: &str) -> Self {
        let mut bridge = Self { vars: BTreeMap::new() };
        bridge.set("KAFKA__BROKERS", &server("DATA_BRIDGE_TEST_KAFKA"));
        bridge.set("NATS__SERVERS", &server("DATA_BRIDGE_TEST_NATS"));
        bridge.set("CLICKHOUSE__URL", &server("DATA_BRIDGE_TEST_CLICKHOUSE"));
        bridge.set("CLICKHOUSE__DATABASE", database);
        bridge.set("KAFKA__GROUP_ID", database);
        bridge
    }

    /// With all topics and tables there. What others sent to these topics may lead to warnings.
    async fn ready(database: &str) -> Self {
        let bridge = Self::new(database);
        create_topics().await;
        bridge.sql(&format!("DROP DATABASE IF EXISTS {database}"), "default").await;
        let applied = bridge.run(&["schema", "--apply"]);
        assert_eq!(applied.code, 0, "{}", applied.text);
        bridge
    }

    fn set(&mut self, key: &str, value: &str) {
        self.vars.insert(format!("DATA_BRIDGE__{key}"), value.to_owned());
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DATA_BRIDGE_") {
                command.env_remove(name);
            }
        }
        command.env_remove("RUST_LOG");
        let start = Instant::now();
        let output = command.envs(&self.vars).output().unwrap();
        assert!(start.elapsed() < PATIENCE, "{args:?} took {:?}", start.elapsed());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run {
            code: output.status.code().unwrap(),
            text: text(output.stdout),
            err: text(output.stderr),
        }
    }

    fn check(&self) -> Run {
        let run = self.run_patiently(&["check"]);
        assert_eq!(run.err, "", "nothing is logged");
        run
    }

    /// Runs it, and once more where a server of the test was silent: a busy one may be so for longer
    /// than `check` waits for it.
    fn run_patiently(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        let silent = run.code == 69 || run.words().contains("no record was sampled");
        if silent { self.run(args) } else { run }
    }

    async fn sql(&self, statement: &str, database: &str) {
        let url = server("DATA_BRIDGE_TEST_CLICKHOUSE");
        let client = clickhouse::Client::default().with_url(url).with_database(database);
        client.query(statement).execute().await.unwrap();
    }
}

struct Run {
    code: i32,
    text: String,
    err: String,
}

impl Run {
    /// However they were wrapped.
    fn words(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The exit code, and all of these in the words.
    fn says(&self, code: i32, wanted: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        let words = self.words();
        for wanted in wanted {
            assert!(words.contains(wanted), "no {wanted:?} in\n{}", self.text);
        }
    }
}

/// With as many partitions as `generate` makes: other tests may use the same broker.
async fn create_topics() {
    let brokers = server("DATA_BRIDGE_TEST_KAFKA");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topics = TOPICS.map(|name| NewTopic::new(name, 6, TopicReplication::Fixed(1)));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(90)));
    for created in admin.create_topics(&topics, &options).await.unwrap() {
        match created {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => panic!("{topic}: {code}"),
        }
    }
}

fn groups() -> Vec<String> {
    let brokers = server("DATA_BRIDGE_TEST_KAFKA");
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let groups = client.fetch_group_list(None, Duration::from_secs(90)).unwrap();
    groups.groups().iter().map(|group| group.name().to_owned()).collect()
}

#[tokio::test]
async fn all_is_well_with_the_shipped_profile_and_nothing_is_left_behind() {
    let bridge = Bridge::ready("check_well").await;
    bridge.sql("DROP TABLE dead_letters", "check_well").await;
    bridge.check().says(
        0,
        &[
            "ok ClickHouse",
            "1 broker; 9 of 9 topics",
            "ok NATS",
            "candles market kafka aggregate_archive at least once",
            "ok system system nats system.> at most once → count",
            "dead letters is missing: the bridge makes it at start",
            "All is well: 3 servers, 11 routes",
        ],
    );
    assert!(!groups().contains(&"check_well".to_owned()), "no group was joined");
    // It was not made by the first check.
    bridge.check().says(0, &["the bridge makes it at start"]);
}

#[tokio::test]
async fn a_table_or_a_topic_that_is_missing_is_named() {
    let bridge = Bridge::ready("check_missing").await;
    bridge.sql("DROP TABLE signals", "check_missing").await;
    bridge.check().says(
        1,
        &[
            "fix 1 signals",
            "1. ClickHouse has no table signals (database check_missing): create it",
        ],
    );
    let layer = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let route = "[[routes]]\nname = 'late'\nkafka_topics = ['check_no_such_topic']\n\
                 nats_subjects = ['check.late']\n\
                 table = 'ticks'\n";
    std::fs::write(layer.path(), route).unwrap();
    let layer = layer.path().to_str().unwrap();
    let args = ["--config", "config/data-bridge.toml", "--config", layer, "check"];
    let run = bridge.run_patiently(&args);
    run.says(1, &["wait 1 late", "Kafka has no topic check_no_such_topic: create it"]);
    bridge
        .with("CLICKHOUSE__DATABASE", "check_nowhere")
        .check()
        .says(1, &["ClickHouse: database `check_nowhere` does not exist: create it"]);
}

#[tokio::test]
async fn a_column_that_is_missing_or_computed_is_named() {
    let bridge = Bridge::ready("check_columns").await;
    bridge.sql("ALTER TABLE ticks DROP COLUMN spread", "check_columns").await;
    bridge.sql("ALTER TABLE signals MODIFY COLUMN payload MATERIALIZED 'x'", "check_columns").await;
    bridge
        .sql(
            "ALTER TABLE check_columns.aggregates MODIFY SETTING non_replicated_deduplication_window = 0",
            "check_columns",
        )
        .await;
    bridge.check().says(
        1,
        &[
            "route ticks: table ticks has no column spread",
            "route signals: column payload of table signals is MATERIALIZED",
            "ALTER TABLE check_columns.aggregates MODIFY SETTING non_replicated_deduplication_window = 10000",
            "Not all is well: 2 problems, ",
        ],
    );
}

#[tokio::test]
async fn a_refused_login_is_said_in_words_and_without_the_password() {
    let nats = Server::start("authorization { user: bridge, password: right }").await;
    let bridge = Bridge::ready("check_login").await.with("NATS__SERVERS", &nats.url());
    bridge.check().says(1, &["NATS: the server refuses our login: it wants one: set nats.user"]);
    let bridge = bridge
        .with("NATS__USER", "bridge")
        .with("NATS__PASSWORD", "hush-nats")
        .with("CLICKHOUSE__PASSWORD", "hush-clickhouse");
    let run = bridge.check();
    run.says(
        1,
        &[
            "NATS: the server refuses our login: correct nats.user and nats.password",
            "ClickHouse does not accept user `default`",
        ],
    );
    assert!(!run.text.contains("hush"), "{}", run.text);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_69() {
    let ready = || Bridge::ready("check_unreachable");
    let all = ready()
        .await
        .with("KAFKA__BROKERS", "127.0.0.1:1")
        .with("NATS__SERVERS", "nats://127.0.0.1:1")
        .with("CLICKHOUSE__URL", "http://127.0.0.1:1");
    all.check().says(
        69,
        &[
            "? 1 ClickHouse http://127.0.0.1:1 cannot be reached",
            "2. Kafka at 127.0.0.1:1 cannot be reached: 127.0.0.1:1: Connect to",
            "3. NATS at nats://127.0.0.1:1 cannot be reached: Connection refused",
            "Not all is well: 3 problems",
        ],
    );
    for (key, address) in [
        ("KAFKA__BROKERS", "127.0.0.1:1"),
        ("NATS__SERVERS", "nats://127.0.0.1:1"),
        ("CLICKHOUSE__URL", "http://127.0.0.1:1"),
    ] {
        let run = Bridge::new("check_unreachable").with(key, address).check();
        run.says(69, &["cannot be reached", "Not all is well: 1 problem"]);
    }
}

#[test]
fn a_wrong_configuration_is_64() {
    let bridge = Bridge { vars: BTreeMap::new() };
    assert_eq!(bridge.run(&["check", "--nonsense"]).code, 64);
    let run = bridge.with("BACKPRESSURE__PAUSE_THRESHOLD", "1").run(&["check"]);
    assert_eq!((run.code, run.text.as_str()), (64, ""));
    assert!(run.err.contains("pause_threshold"), "{}", run.err);
}
