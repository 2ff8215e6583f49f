//! What one test works in: a name of its own on the servers, from which its database, topics,
//! subjects and consumer group follow, so that tests run side by side and twice; the shipped
//! profile moved there; producers; questions to ClickHouse.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_bridge::generate::{Kind, Plan, Recipe, Target, sql_check};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::Value as Json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::bridge::{Bridge, PATIENCE, post};
use crate::stack::{Addresses, Stack, unique};

/// For tests where nothing may pause: on a machine that compiles meanwhile an insert may well take
/// the second that is the heartbeat of the other tests, and a source that waits so long starves.
pub(crate) const ORDINARY_HEARTBEAT: &str = "heartbeat.interval = \"5s\"";

/// The topics of the profile get so many partitions.
pub(crate) const PARTITIONS: i32 = 6;

pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) at: Addresses,
    pub(crate) clickhouse: ClickHouse,
    dir: tempfile::TempDir,
    /// Killed and started by the test; the last field, so that it goes down last.
    pub(crate) own: Option<Stack>,
}

impl Lab {
    /// On the servers that all share.
    pub(crate) async fn new() -> Self {
        Self::at(Addresses::shared(), None).await
    }

    /// With a ClickHouse of its own, to be killed.
    pub(crate) async fn with_own_clickhouse() -> Self {
        let shared = Addresses::shared();
        let stack = tokio::task::spawn_blocking(|| Stack::up(&["clickhouse"])).await.unwrap();
        let clickhouse = stack.address("CLICKHOUSE");
        Self::at(Addresses { clickhouse, ..shared }, Some(stack)).await
    }

    pub(crate) async fn at(at: Addresses, own: Option<Stack>) -> Self {
        let name = unique("t");
        let clickhouse = ClickHouse { url: at.clickhouse.clone(), database: name.clone() };
        let lab = Self { name, at, clickhouse, dir: tempfile::tempdir().unwrap(), own };
        lab.clickhouse.in_database("", &format!("CREATE DATABASE {}", lab.name)).await.unwrap();
        lab
    }

    /// Creates the tables of the profile.
    pub(crate) async fn profile_tables(&self) {
        self.tables("config/schema").await;
    }

    /// Creates the tables of the scripts in a folder of the repository.
    pub(crate) async fn tables(&self, folder: &str) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for file in std::fs::read_dir(dir).unwrap() {
            let sql = std::fs::read_to_string(file.unwrap().path()).unwrap();
            self.clickhouse.query(&sql).await;
        }
    }

    /// Creates the topics of the profile.
    pub(crate) async fn profile_topics(&self) {
        let text = profile();
        let topics: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.starts_with("kafka_topics"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .collect();
        let topics: Vec<String> = topics.into_iter().map(|topic| self.topic(topic)).collect();
        self.create_topics(&topics, PARTITIONS).await;
    }

    pub(crate) async fn create_topics(&self, topics: &[String], partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();

        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for result in admin.create_topics(&new, &options).await.unwrap() {
            result.unwrap();
        }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.at.kafka);
        client.set("message.max.bytes", "16000000");
        client
    }

    /// A topic of the profile, as it is called here.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// A subject of the profile, as it is called here: one token longer.
    pub(crate) fn subject(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// The sections that say where the servers are, with short times for tests.
    pub(crate) fn sections(&self, sources: &str) -> String {
        let Addresses { kafka, nats, clickhouse } = &self.at;
        let name = &self.name;
        let mut text = format!(
            "heartbeat.interval = \"1s\"\n\
             retry = {{ base_delay = \"100ms\", max_delay = \"1s\" }}\n\
             breaker.reset_timeout = \"1s\"\n\
             http.listen = \"127.0.0.1:0\"\n\
             clickhouse = {{ url = \"{clickhouse}\", database = \"{name}\" }}\n\
             writers.aggregate = {{ linger = \"500ms\" }}\n\
             writers.external = {{ batch_rows = 1000, linger = \"1s\" }}\n"
        );
        if sources.contains("kafka") {
            writeln!(
                text,
                "[kafka]\nbrokers = [\"{kafka}\"]\ngroup_id = \"{name}\"\n[kafka.client]\n\
                 \"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 500"
            )
            .unwrap();
        }
        if sources.contains("nats") {
            writeln!(text, "[nats]\nservers = [\"{nats}\"]\nqueue_group = \"{name}\"").unwrap();
        }
        text
    }

    /// The shipped profile, its routes moved to this test's topics and subjects.
    pub(crate) fn profile(&self, sources: &str) -> String {
        self.sections(sources) + &self.profile_routes()
    }

    pub(crate) fn profile_routes(&self) -> String {
        let text = profile();
        let routes = &text[text.find("[[routes]]").unwrap()..];
        let moved = routes.lines().map(|line| {
            if line.starts_with("kafka_topics") || line.starts_with("nats_subjects") {
                let mut quoted = false;
                line.split('"')
                    .map(|part| {
                        let name = if quoted { self.topic(part) } else { part.to_owned() };
                        quoted = !quoted;
                        name
                    })
                    .collect::<Vec<_>>()
                    .join("\"")
            } else {
                line.replace("@subject[2]", "@subject[3]")
            }
        });
        moved.collect::<Vec<_>>().join("\n") + "\n"
    }

    /// One route for bare numbers, `{"n": 1}`, into a MergeTree that keeps what it is given (but for
    /// an insert that is tried again after a `kill -9`), so that a record that is
    /// stored twice is seen; and the system's subjects.
    pub(crate) fn numbers(&self, sources: &str) -> String {
        let name = &self.name;
        self.sections(sources)
            + &format!(
                "[[routes]]\nname = \"system\"\nnats_subjects = [\"{name}.system.>\"]\n\
                 class = \"system\"\naction = \"count\"\n\
                 [[routes]]\nname = \"numbers\"\nkafka_topics = [\"{name}.numbers\"]\n\
                 nats_subjects = [\"{name}.numbers.>\"]\nclass = \"market\"\n\
                 writer = \"aggregate\"\ntable = \"numbers\"\n[routes.columns]\n\
                 _partition = \"@partition\"\n_offset = \"@offset\"\n"
            )
    }

    /// The table and the topic for [`Self::numbers`].
    pub(crate) async fn numbers_places(&self) {
        let sql = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), \
                   _offset Nullable(Int64)) ENGINE = MergeTree ORDER BY n \
                   SETTINGS non_replicated_deduplication_window = 1000";
        self.clickhouse.query(sql).await;
        self.create_topics(&[self.topic("numbers")], PARTITIONS).await;
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Lines of the bridges' logs with this text.
    pub(crate) fn count_in_logs(&self, text: &str) -> usize {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|log| std::fs::read_to_string(log).unwrap().matches(text).count()).sum()
    }

    /// Keeps the configurations and logs of this test, and says where.
    pub(crate) fn keep_files(&self) -> PathBuf {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.name);
        std::fs::create_dir_all(&kept).unwrap();
        for file in std::fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), kept.join(file.file_name())).unwrap();
        }
        kept
    }

    /// Starts a bridge on this configuration; it may not be ready yet.
    pub(crate) fn spawn(&self, config: &str, over: &str) -> Bridge {
        let run = unique("bridge");
        let files = [
            self.file(&format!("{run}.toml"), config),
            self.file(&format!("{run}-over.toml"), over),
        ];
        Bridge::spawn(self.dir.path().join(format!("{run}.log")), &files)
    }

    /// Starts a bridge and waits until it takes work, from Kafka and NATS as far as they are
    /// configured.
    pub(crate) async fn start(&self, config: &str, over: &str) -> Bridge {
        let bridge = self.spawn(config, over).ready().await;
        bridge
            .wait_until("the sources are connected", |health| {
                let sources = health["metrics"]["sources"].as_object().unwrap();
                sources.values().all(|source| {
                    source["connected"] == true && source["assigned"].as_u64() != Some(0)
                })
            })
            .await;
        bridge
    }

    pub(crate) async fn kill_clickhouse(&self) {
        self.of_stack(|stack| stack.kill("clickhouse")).await;
    }

    pub(crate) async fn start_clickhouse(&self) {
        self.of_stack(|stack| stack.start("clickhouse")).await;
    }

    #[allow(clippy::unused_async, reason = "it blocks, and says so by where it may be called")]
    pub(crate) async fn of_stack(&self, act: impl FnOnce(&Stack)) {
        tokio::task::block_in_place(|| act(self.own.as_ref().expect("a stack of its own")));
    }

    pub(crate) fn kafka(&self) -> KafkaSender {
        let mut client = self.client();
        client.set("linger.ms", "5").set("queue.buffering.max.messages", "2000000");
        client.set("queue.buffering.max.kbytes", "1000000");
        KafkaSender(client.create().unwrap())
    }

    /// A producer that outlives its broker: it tries for ever, and nothing is there twice.
    pub(crate) fn lasting_kafka(&self) -> KafkaSender {
        let mut client = self.client();
        client.set("enable.idempotence", "true").set("message.timeout.ms", "0");
        client.set("linger.ms", "5").set("reconnect.backoff.max.ms", "500");
        client.set("queue.buffering.max.messages", "2000000");
        KafkaSender(client.create().unwrap())
    }

    pub(crate) async fn nats(&self) -> async_nats::Client {
        async_nats::connect(&self.at.nats).await.unwrap()
    }

    /// Sends a plan's Kafka streams as fast as it goes.
    pub(crate) async fn send_to_kafka(&self, plan: &Plan) {
        let sender = self.kafka();
        for stream in plan.of_target(Target::Kafka) {
            let mut payload = Vec::new();
            for seq in stream.first..stream.end() {
                payload.clear();
                plan.recipe.write(stream.kind, seq, &mut payload);
                let address = plan.recipe.kafka_address(stream.kind, seq).unwrap();
                let partition = i32::try_from(address.lane).unwrap() % PARTITIONS;
                let topic = self.topic(address.topic);
                sender.send(&topic, Some(partition), Some(address.key.as_bytes()), Some(&payload));
            }
        }
        sender.flush().await;
    }

    /// Sends a plan's NATS streams, one after the other, at so many records a second.
    pub(crate) async fn send_to_nats(&self, plan: &Plan, rate: u64) {
        let client = self.nats().await;
        let mut pace = Paced::new(rate);
        for stream in plan.of_target(Target::Nats) {
            for seq in stream.first..stream.end() {
                let mut payload = Vec::new();
                plan.recipe.write(stream.kind, seq, &mut payload);
                let subject = self.subject(&plan.recipe.nats_subject(stream.kind, seq));
                client.publish(subject, payload.into()).await.unwrap();
                pace.next().await;
            }
        }
        client.flush().await.unwrap();
    }

    /// Sends `{"n": …}` to the numbers' topic.
    pub(crate) async fn numbers_to_kafka(&self, numbers: Range<u64>, rate: u64) {
        let (sender, topic) = (self.kafka(), self.topic("numbers"));
        let mut pace = Paced::new(rate);
        for n in numbers {
            let partition = i32::try_from(n % 6).unwrap();
            sender.send(&topic, Some(partition), None, Some(format!("{{\"n\":{n}}}").as_bytes()));
            pace.next().await;
        }
        sender.flush().await;
    }

    pub(crate) async fn numbers_to_nats(&self, numbers: Range<u64>, rate: u64) {
        let client = self.nats().await;
        let mut pace = Paced::new(rate);
        for n in numbers {
            let subject = self.subject(&format!("numbers.{}", n % 10));
            client.publish(subject, format!("{{\"n\":{n}}}").into()).await.unwrap();
            pace.next().await;
        }
        client.flush().await.unwrap();
    }

    /// The rows of the numbers' table, and how many different numbers.
    pub(crate) async fn stored_numbers(&self, numbers: &Range<u64>) -> (u64, u64) {
        let Range { start, end } = numbers;
        let sql = format!(
            "SELECT count(), uniqExact(n) FROM numbers WHERE n >= {start} AND n < {end} FORMAT TSV"
        );
        let text = self.clickhouse.query(&sql).await;
        let (count, different) = text.trim().split_once('\t').unwrap();
        (count.parse().unwrap(), different.parse().unwrap())
    }

    /// The generator's own check of what landed; a line a stream and table.
    pub(crate) async fn audit(&self, plan: &Plan) -> Vec<Json> {
        let text = self.clickhouse.query(&format!("{} FORMAT JSONEachRow", sql_check(plan))).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every record of the plan is there exactly once, with every value as it was sent.
    pub(crate) async fn assert_exact(&self, plan: &Plan) {
        let audit = self.audit(plan).await;
        assert!(!audit.is_empty());
        for line in &audit {
            for key in ["missing", "unexpected", "repeated", "wrong"] {
                assert_eq!(number(&line[key]), 0, "{key}: {line}");
            }
        }
    }

    /// What the group has committed, by partition of a topic; None where nothing was.
    pub(crate) async fn committed(&self, topic: &str) -> Vec<Option<i64>> {
        let mut client = self.client();
        client.set("group.id", &self.name);
        let topic = topic.to_owned();
        let asking = tokio::task::spawn_blocking(move || {
            use rdkafka::consumer::Consumer as _;
            let consumer: rdkafka::consumer::BaseConsumer = client.create().unwrap();
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS - 1);
            let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
            let offsets = committed.elements().iter().map(|e| e.offset().to_raw()).collect();
            let offsets: Vec<Option<i64>> = offsets;
            offsets.into_iter().map(|offset| offset.filter(|&offset| offset >= 0)).collect()
        });
        asking.await.unwrap()
    }
}

/// A plan of good records, each once.
pub(crate) fn plan(wanted: &[(Target, Kind, u64)]) -> Plan {
    Plan::new(Recipe::new(42), 0, wanted)
}

/// How much larger a longer run is than the one of every day: `DATA_BRIDGE_TEST_SCALE`.
pub(crate) fn scale() -> u64 {
    std::env::var("DATA_BRIDGE_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap())
}

/// A number of JSON, also where ClickHouse puts it into quotes.
pub(crate) fn number(value: &Json) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| {
        panic!("no number: {value}");
    })
}

/// The accounting of every source and every route closes.
pub(crate) fn assert_accounts(health: &Json) {
    for (name, source) in health["metrics"]["sources"].as_object().unwrap() {
        let of = |key: &str| number(&source[key]);
        let dropped: u64 = source["dropped"].as_object().unwrap().values().map(number).sum();
        let parts = ["inserted", "dead_lettered", "filtered", "released", "held"];
        let sum = parts.iter().map(|part| of(part)).sum::<u64>() + dropped;
        assert_eq!(of("received"), sum, "{name}: {source:#}");
        assert_eq!(source["accounting_gap"], 0, "{name}: {source:#}");
    }
    for (name, route) in health["metrics"]["routes"].as_object().unwrap() {
        let parts = ["inserted", "dead_lettered", "filtered", "dropped", "released", "held"];
        let sum: u64 = parts.iter().map(|part| number(&route[part])).sum();
        assert_eq!(number(&route["received"]), sum, "{name}: {route:#}");
        assert_eq!(route["accounting_gap"], 0, "{name}: {route:#}");
    }
}

/// So many records of a source were received and none is held.
pub(crate) fn settled(health: &Json, source: &str, received: u64) -> bool {
    let source = &health["metrics"]["sources"][source];
    number(&source["received"]) >= received && number(&source["held"]) == 0
}

fn profile() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/data-bridge.toml");
    std::fs::read_to_string(path).unwrap()
}

/// Lets so many pass in a second.
pub(crate) struct Paced {
    tick: tokio::time::Interval,
    each: u64,
    left: u64,
}

const TICKS_PER_SECOND: u64 = 50;

impl Paced {
    pub(crate) fn new(rate: u64) -> Self {
        let mut tick = interval(Duration::from_millis(1_000 / TICKS_PER_SECOND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let each = (rate / TICKS_PER_SECOND).max(1);
        Self { tick, each, left: each }
    }

    pub(crate) async fn next(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.tick.tick().await;
            self.left = self.each;
        }
    }
}

pub(crate) struct KafkaSender(ThreadedProducer<DefaultProducerContext>);

impl KafkaSender {
    pub(crate) fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.partition = partition;
        record.key = key;
        record.payload = payload;
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    pub(crate) fn send_with_headers(&self, topic: &str, payload: &[u8], headers: OwnedHeaders) {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        let record = record.payload(payload).headers(headers);
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits until the broker has all of it.
    pub(crate) async fn flush(self) {
        let flushing = tokio::task::spawn_blocking(move || {
            self.0.flush(PATIENCE).unwrap();
            assert_eq!(self.0.in_flight_count(), 0);
        });
        flushing.await.unwrap();
    }
}

/// Asks ClickHouse by HTTP.
#[derive(Debug, Clone)]
pub(crate) struct ClickHouse {
    pub(crate) url: String,
    pub(crate) database: String,
}

impl ClickHouse {
    pub(crate) async fn query(&self, sql: &str) -> String {
        let answer = self.in_database(&self.database, sql).await;
        answer.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    async fn in_database(&self, database: &str, sql: &str) -> Result<String, String> {
        let url = format!("{}/?database={database}&wait_end_of_query=1", self.url);
        match post(&url, sql.to_owned()).await? {
            (status, body) if status.is_success() => Ok(body),
            (_, body) => Err(body),
        }
    }

    pub(crate) async fn number(&self, sql: &str) -> u64 {
        let text = self.query(sql).await;
        text.trim().parse().unwrap_or_else(|_| panic!("no number: {text}"))
    }

    /// None when nobody answers.
    pub(crate) async fn try_number(&self, sql: &str) -> Option<u64> {
        self.in_database(&self.database, sql).await.ok()?.trim().parse().ok()
    }

    /// One row as JSON.
    pub(crate) async fn row(&self, sql: &str) -> Json {
        let text = self.query(&format!("{sql} FORMAT JSONEachRow")).await;
        serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("not one row: {text}\n{sql}"))
    }

    /// Asks until the number is there.
    pub(crate) async fn until(&self, sql: &str, expected: u64) {
        let started = Instant::now();
        loop {
            let found = self.number(sql).await;
            if found == expected {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{found} instead of {expected}: {sql}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
