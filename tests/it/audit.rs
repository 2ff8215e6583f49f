//! `data-bridge audit` as a user meets it: the real program against real servers, after (and
//! during) real deliveries, with faults put in by hand.

mod streams;

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout};

use crate::bridge::{Bridge, PATIENCE, program};
use crate::lab::{Lab, assert_accounts, number, plan, settled};
use crate::stack::is_apache_kafka;
use data_bridge::generate::{Kind, Target};

/// Numbers in one topic with one partition, so that a record's offset is known.
struct Numbers {
    lab: Lab,
    config: String,
}

/// What these tests need of a broker, beyond records.
const ENDS: &str = "ends of partitions that are true to a record";

const TABLE: &str = "CREATE TABLE numbers (n UInt64, _topic LowCardinality(Nullable(String)), \
                     _partition Nullable(Int32), _offset Nullable(Int64))";

impl Numbers {
    async fn new() -> Self {
        Self::of_engine("MergeTree ORDER BY n").await
    }

    async fn of_engine(engine: &str) -> Self {
        let columns = "_topic = \"@topic\"\n_partition = \"@partition\"\n_offset = \"@offset\"\n";
        let numbers = Self::bare(columns).await;
        numbers.lab.clickhouse.query(&format!("{TABLE} ENGINE = {engine}")).await;
        numbers
    }

    /// Without a table.
    async fn bare(columns: &str) -> Self {
        let lab = Lab::new().await;
        lab.create_topics(&[lab.topic("numbers")], 1).await;
        let config = lab.sections("kafka")
            + &format!(
                "[[routes]]\nname = \"numbers\"\nkafka_topics = [\"{}\"]\nclass = \"market\"\n\
                 writer = \"aggregate\"\ntable = \"numbers\"\n[routes.columns]\n{columns}",
                lab.topic("numbers")
            );
        Self { lab, config }
    }

    async fn send(&self, payloads: impl IntoIterator<Item = (Option<String>, Option<String>)>) {
        let (sender, topic) = (self.lab.kafka(), self.lab.topic("numbers"));
        for (key, payload) in payloads {
            let (key, payload) = (key.as_deref(), payload.as_deref());
            sender.send(&topic, Some(0), key.map(str::as_bytes), payload.map(str::as_bytes));
        }
        sender.flush().await;
    }

    /// Sends the numbers of a range, each at the offset of its value if they are the first.
    async fn send_numbers(&self, numbers: std::ops::Range<u64>) {
        self.send(numbers.map(|n| (None, Some(format!("{{\"n\":{n}}}"))))).await;
    }

    /// Runs a bridge until so many records are settled, and stops it.
    async fn deliver(&self, records: u64) {
        let bridge = self.lab.start(&self.config, "").await;
        let health =
            bridge.wait_until("all is settled", |health| settled(health, "kafka", records)).await;
        assert_accounts(&health);
        bridge.stop().await;
    }

    /// Runs a bridge until it has all that there is, however much that may be, and stops it.
    async fn deliver_all(&self) {
        let bridge = self.lab.start(&self.config, "").await;
        let all = |health: &Json| {
            settled(health, "kafka", 1) && health["metrics"]["sources"]["kafka"]["lag"] == 0
        };
        assert_accounts(&bridge.wait_until("all is settled", all).await);
        bridge.stop().await;
    }

    async fn audit(&self, args: &[&str]) -> Audited {
        Audited::of(&self.lab, &self.config, args).await
    }

    async fn sql(&self, sql: &str) {
        self.lab.clickhouse.query(sql).await;
    }
}

/// What the audit said.
struct Audited {
    code: i32,
    json: Json,
    text: String,
}

impl Audited {
    async fn of(lab: &Lab, config: &str, args: &[&str]) -> Self {
        let file = lab.file("audit.toml", config);
        let (code, text) = Self::run(&file, args).await;
        let (again, json) = Self::run(&file, &[args, &["--json"]].concat()).await;
        assert_eq!(code, again, "{text}\n{json}");
        let json = serde_json::from_str(&json).unwrap_or(Json::Null);
        for line in text.lines().filter(|_| code <= 2) {
            assert!(line.chars().count() <= 100 && line == line.trim_end(), "{line:?}\n{text}");
        }
        Self { code, json, text }
    }

    async fn run(file: &std::path::Path, args: &[&str]) -> (i32, String) {
        let mut audit = program();
        audit.arg("--config").arg(file).arg("audit").args(args).kill_on_drop(true);
        let output = timeout(PATIENCE, audit.output()).await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), if text.is_empty() { said } else { text })
    }

    fn partition(&self, number: usize) -> &Json {
        &self.json["routes"][0]["partitions"][number]
    }

    fn says(&self, code: i32, wanted: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}\n{:#}", self.text, self.json);
        let words = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for wanted in wanted {
            assert!(words.contains(wanted), "no {wanted:?} in\n{}", self.text);
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_undisturbed_is_complete_and_a_lost_row_is_named_by_its_offset() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    numbers.send_numbers(0..1_000).await;
    numbers.deliver(1_000).await;
    let whole = numbers.audit(&[]).await;
    whole.says(0, &["complete", "0..1,000 1,000", "each accounted for"]);
    assert_eq!(whole.partition(0)["stored"], 1_000);

    numbers.sql("DELETE FROM numbers WHERE n IN (17, 500, 501)").await;
    let holed = numbers.audit(&[]).await;
    holed.says(1, &["MISSING", "MISSING 3 records: offset 17, 500-501"]);
    assert_eq!(holed.partition(0)["missing"], json!([[17, 17], [500, 501]]));
    // Unread, it could be anything.
    let unread = numbers.audit(&["--read-topic=never"]).await;
    unread.says(2, &["not proven, 3 offsets: no row; they could be", "--read-topic: 17, 500-501"]);
    // Where it was not looked for, it is not missing.
    numbers.audit(&["--offsets", "18..500"]).await.says(0, &["18..500 482"]);
    numbers.audit(&["--since", "1h"]).await.says(1, &["offset 17, 500-501"]);
    numbers.audit(&["--topic", "another"]).await.says(64, &["no route takes topic another"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_there_twice_is_named_and_allowed_where_at_least_once_is_promised() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    numbers.send_numbers(0..100).await;
    numbers.deliver(100).await;
    numbers.sql("INSERT INTO numbers SELECT * FROM numbers WHERE n IN (42, 7)").await;
    numbers.sql("INSERT INTO numbers SELECT * FROM numbers WHERE n = 42 LIMIT 1").await;
    let twice = numbers.audit(&[]).await;
    twice.says(0, &["which is allowed here, 3 rows too many: offset 7 (2 rows), 42 (3 rows)"]);
    let repeated = &twice.partition(0)["repeated"];
    assert_eq!(repeated["rows"], 3);
    assert_eq!(repeated["offsets"], json!([[7, 2], [42, 3]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_exactly_once_is_promised_a_row_that_is_there_twice_is_a_fault() {
    if !is_apache_kafka("notes beside committed offsets") {
        return;
    }
    let window = "MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000";
    let mut numbers = Numbers::of_engine(window).await;
    let promise = "table = \"numbers\"\ndelivery = \"exactly_once\"\n";
    numbers.config = numbers.config.replace("table = \"numbers\"\n", promise);
    numbers.send_numbers(0..100).await;
    numbers.deliver(100).await;
    numbers.audit(&[]).await.says(0, &["exactly once", "complete", "0..100 100"]);
    numbers.sql("INSERT INTO numbers SELECT * FROM numbers WHERE n = 42").await;
    let twice = numbers.audit(&[]).await;
    twice.says(1, &["REPEATED, although exactly once is promised, 1 row too many: offset 42"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_tombstones_close_the_gaps_that_they_leave() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    let payload = |n: u64| match n {
        3 => (None, Some("{\"n\":\"three\"}".to_owned())),
        5 => (Some("5".to_owned()), None),
        n => (None, Some(format!("{{\"n\":{n}}}"))),
    };
    numbers.send((0..10).map(payload)).await;
    numbers.deliver(10).await;
    let audited = numbers.audit(&[]).await;
    audited.says(0, &["0..10 8 1 1", "1 are tombstones"]);
    assert_eq!(audited.partition(0)["dead_lettered"], 1);
    numbers.sql("ALTER TABLE dead_letters DELETE WHERE 1 SETTINGS mutations_sync = 1").await;
    numbers.audit(&[]).await.says(1, &["1 record: offset 3"]);
}

/// Delivers a record that fits and one that does not, in turn.
async fn deliver_with_letters(numbers: &mut Numbers, letters: &str) {
    numbers.config.insert_str(0, &format!("dead_letters = {{ {letters} }}\n"));
    let payload = |n: u64| match n % 2 {
        0 => format!("{{\"n\":{n}}}"),
        _ => "{\"n\":\"odd\"}".to_owned(),
    };
    numbers.send((0..10).map(|n| (None, Some(payload(n))))).await;
    numbers.deliver(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_in_a_file_close_gaps_as_those_of_a_table_do() {
    let mut numbers = Numbers::new().await;
    let file = numbers.lab.file("letters.jsonl", "");
    deliver_with_letters(&mut numbers, &format!("to = \"file\", path = {file:?}")).await;
    let audited = numbers.audit(&[]).await;
    audited.says(0, &["0..10 5 5 0"]);
    numbers.sql("INSERT INTO numbers SELECT 3, _topic, _partition, 3 FROM numbers LIMIT 1").await;
    let beside = numbers.audit(&[]).await;
    beside.says(0, &["1 offset with a row and a dead letter that was not replayed"]);
    let letters = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, letters.lines().next().unwrap().to_owned() + "\n").unwrap();
    numbers.audit(&[]).await.says(1, &["3 records: offset 5, 7, 9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_in_a_topic_prove_nothing_missing_where_the_topic_forgets() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let mut numbers = Numbers::new().await;
    let topic = numbers.lab.topic("letters");
    numbers.lab.create_topics(std::slice::from_ref(&topic), 1).await;
    deliver_with_letters(&mut numbers, &format!("to = \"kafka\", topic = {topic:?}")).await;
    numbers.audit(&[]).await.says(0, &["0..10 5 5 0"]);
    numbers.sql("ALTER TABLE numbers DELETE WHERE n = 4 SETTINGS mutations_sync = 1").await;
    let forgets = format!("no row, and no dead letter in topic {topic}");
    numbers.audit(&[]).await.says(2, &["not proven, 1 offset:", &forgets]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactions_markers_and_what_it_aborted_are_no_records() {
    if !is_apache_kafka("transactions") {
        return;
    }
    let numbers = Numbers::new().await;
    let mut client = numbers.lab.client();
    client.set("transactional.id", &numbers.lab.name);
    let topic = numbers.lab.topic("numbers");
    let sending = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for transaction in 0..4_u64 {
            producer.begin_transaction().unwrap();
            for n in 0..10 {
                let payload = format!("{{\"n\":{}}}", 10 * transaction + n);
                let record = BaseRecord::<(), _>::to(&topic).partition(0).payload(&payload);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            match transaction {
                1 => producer.abort_transaction(PATIENCE).unwrap(),
                _ => producer.commit_transaction(PATIENCE).unwrap(),
            }
        }
    });
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    numbers.send_numbers(100..101).await;
    numbers.deliver(31).await;
    let audited = numbers.audit(&[]).await;
    // Four markers, and ten records of the transaction that was aborted.
    audited.says(0, &["0..45 31 0 14", "14 hold no record"]);
    assert_eq!(audited.partition(0)["without_row"]["no_record"], 14);
    numbers.audit(&["--read-topic=never"]).await.says(2, &["14 offsets: no row"]);
    numbers.sql("DELETE FROM numbers WHERE n = 25").await;
    numbers.audit(&["--read-topic"]).await.says(1, &["1 record: offset 27"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_away_before_it_was_delivered_is_no_record() {
    if !is_apache_kafka("compaction") {
        return;
    }
    let numbers = Numbers::new().await;
    let topic = format!("{}.compacted", numbers.lab.name);
    let admin: AdminClient<DefaultClientContext> = numbers.lab.client().create().unwrap();
    let compacted = NewTopic::new(&topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("segment.ms", "100")
        .set("max.compaction.lag.ms", "100")
        .set("min.cleanable.dirty.ratio", "0.001");
    let made = admin.create_topics([&compacted], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|topic| drop(topic.unwrap()));
    let config = numbers.config.replace(&numbers.lab.topic("numbers"), &topic);
    let numbers = Numbers { config, ..numbers };
    let send = async |n: u64| {
        let sender = numbers.lab.kafka();
        let (key, payload) = (format!("{}", n % 5), format!("{{\"n\":{n}}}"));
        sender.send(&topic, Some(0), Some(key.as_bytes()), Some(payload.as_bytes()));
        sender.flush().await;
    };
    for n in 0..50 {
        send(n).await;
    }
    // Only closed segments are compacted; each record after its 100 ms closes the one before it.
    let started = Instant::now();
    let mut sent = 50;
    while records_in(&numbers.lab, &topic).await > 20 {
        assert!(started.elapsed() < PATIENCE, "it is not compacted");
        send(sent).await;
        sent += 1;
    }
    // not so many as there were: the broker may compact once more before the bridge reads them
    numbers.deliver_all().await;
    let audited = numbers.audit(&[]).await;
    audited.says(0, &["complete", "hold no record"]);
    let partition = audited.partition(0);
    let rows = number(&partition["stored"]);
    assert!(rows < sent && number(&partition["without_row"]["no_record"]) > 0, "{partition:#}");
}

/// The records that a reader of the only partition gets.
async fn records_in(lab: &Lab, topic: &str) -> u64 {
    let mut client = lab.client();
    client.set("group.id", format!("{}.reader", lab.name)).set("enable.partition.eof", "true");
    let topic = topic.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut records = 0;
        while let Some(Ok(message)) = consumer.poll(Duration::from_secs(30)) {
            assert!(message.payload().is_some());
            records += 1;
        }
        records
    });
    timeout(PATIENCE, reading).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_is_proved_by_its_rows_or_not_at_all() {
    if !is_apache_kafka("records that are deleted") {
        return;
    }
    let numbers = Numbers::new().await;
    numbers.send_numbers(0..100).await;
    numbers.deliver(100).await;
    let admin: AdminClient<DefaultClientContext> = numbers.lab.client().create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&numbers.lab.topic("numbers"), 0, Offset::Offset(60)).unwrap();
    let deleted = admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    deleted.elements().iter().for_each(|element| element.error().unwrap());
    let whole = numbers.audit(&[]).await;
    whole.says(0, &["0..100 100"]);
    assert_eq!(whole.partition(0)["low"], 60);
    numbers.sql("DELETE FROM numbers WHERE n IN (30, 70)").await;
    let holed = numbers.audit(&[]).await;
    holed.says(
        1,
        &["offset 70", "1 offset: no row, and retention has taken them from the topic: 30"],
    );
    numbers.audit(&["--offsets", "0..60"]).await.says(2, &["not proven"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_does_not_say_where_its_rows_came_from_proves_nothing() {
    let numbers = Numbers::bare("").await;
    numbers.sql("CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    numbers.send_numbers(0..10).await;
    numbers.deliver(10).await;
    let audited = numbers.audit(&[]).await;
    audited.says(2, &["not provable", "table numbers has no column from @partition", "ADD COLUMN"]);
    assert_eq!(audited.json["verdict"], "not_proven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_adds_rows_up_proves_nothing() {
    let numbers = Numbers::of_engine("SummingMergeTree ORDER BY n").await;
    numbers.audit(&[]).await.says(2, &["adds up the rows of a key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_by_a_running_bridge_is_not_delivered_yet_and_not_missing() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    numbers.send_numbers(0..50).await;
    numbers.deliver(50).await;
    let held = "writers.aggregate = { linger = \"1h\" }\n";
    let config = numbers.config.replace("writers.aggregate = { linger = \"500ms\" }\n", held);
    let bridge = numbers.lab.start(&config, "").await;
    numbers.send_numbers(50..80).await;
    let holds = |health: &Json| health["metrics"]["sources"]["kafka"]["held"] == 30;
    bridge.wait_until("all is held", holds).await;
    let during = numbers.audit(&[]).await;
    during.says(0, &["complete", "0..50 50 0 0 30"]);
    assert_eq!(during.partition(0)["not_delivered"], 30);
    bridge.stop().await;
    numbers.audit(&[]).await.says(0, &["0..80 80 0 0 0"]);
}

/// The audit asks while rows are inserted, batches are merged and offsets are committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_under_load_is_complete_whenever_it_is_asked() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    let bridge: Bridge = numbers.lab.start(&numbers.config, "").await;
    let sending = async {
        for part in 0..20 {
            numbers.send_numbers(1_000 * part..1_000 * (part + 1)).await;
        }
    };
    let topic = numbers.lab.topic("numbers");
    let auditing = async {
        // Before its first commit the group has promised nothing.
        let promised = async {
            while numbers.lab.committed(&topic).await[0].is_none() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, promised).await.expect("it commits");
        for _ in 0..5 {
            numbers.audit(&[]).await.says(0, &[]);
        }
    };
    tokio::join!(sending, auditing);
    bridge.wait_until("all is settled", |health| settled(health, "kafka", 20_000)).await;
    bridge.stop().await;
    numbers.audit(&[]).await.says(0, &["0..20,000 20,000"]);
}

/// Candles are revised: a row that a merge took away has one of its key that stands for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_replacing_table_a_replaced_row_is_no_loss_and_a_lost_key_is() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let plan = plan(&[(Target::Kafka, Kind::Candles, 20_000)]);
    let config = lab.profile("kafka");
    lab.send_to_kafka(&plan).await;
    let bridge = lab.start(&config, "").await;
    bridge.wait_until("all is settled", |health| settled(health, "kafka", 20_000)).await;
    bridge.stop().await;
    let everything = Audited::of(&lab, &config, &[]).await;
    everything.says(0, &["20,000 offsets", "keeps one row of each key", "at least once"]);

    // A later revision takes the place of some rows, as over NATS: without a position.
    let revise = async |change: &str, of: &str| {
        let sql = format!(
            "INSERT INTO aggregates SELECT * REPLACE ({change}, NULL AS _offset) \
             FROM (SELECT * FROM aggregates FINAL WHERE {of})"
        );
        lab.clickhouse.query(&sql).await;
    };
    revise("tick_count + 1 AS tick_count", "_offset IN (10, 20, 30)").await;
    lab.clickhouse.query("OPTIMIZE TABLE aggregates FINAL").await;
    let gone = "SELECT countIf(_offset IN (10, 20, 30)) FROM aggregates";
    assert_eq!(lab.clickhouse.number(gone).await, 0);
    let merged = Audited::of(&lab, &config, &[]).await;
    merged.says(0, &["were replaced by a row of their key"]);

    // An older revision does not stand for a newer one, and nothing stands for a lost key.
    let one = |skip| {
        format!(
            "SELECT _offset FROM aggregates FINAL WHERE _partition = 0 AND _offset >= 0 AND \
             tick_count > 0 ORDER BY _offset LIMIT 1 OFFSET {skip}"
        )
    };
    let older = lab.clickhouse.number(&one(5)).await;
    let lost = lab.clickhouse.number(&one(6)).await;
    let older_row = format!("_partition = 0 AND _offset = {older}");
    revise("tick_count - 1 AS tick_count, 0 AS is_complete", &older_row).await;
    let delete = format!(
        "DELETE FROM aggregates WHERE {older_row} OR (symbol, timeframe, time) IN (SELECT symbol, \
         timeframe, time FROM aggregates WHERE _partition = 0 AND _offset = {lost})"
    );
    lab.clickhouse.query(&delete).await;
    let holed = Audited::of(&lab, &config, &["--topic", &lab.topic("aggregate_archive")]).await;
    holed.says(1, &["MISSING"]);
    for offset in [older, lost] {
        let missing = holed.partition(0)["missing"].as_array().unwrap();
        let is_in = |range: &Json| (number(&range[0])..=number(&range[1])).contains(&offset);
        assert!(missing.iter().any(is_in), "{offset} of {missing:?}");
    }
}

/// What is missing of core NATS is only told, as far as a producer numbers its records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_core_nats_only_the_producers_numbers_can_be_told() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    let config = lab.profile("nats");
    let plan = plan(&[(Target::Nats, Kind::Ticks, 1_000)]);
    let bridge = lab.start(&config, "").await;
    lab.send_to_nats(&plan, 5_000).await;
    bridge.wait_until("all is stored", |health| settled(health, "nats", 1_000)).await;
    bridge.stop().await;
    let whole = Audited::of(&lab, &config, &[]).await;
    whole.says(2, &["ticks → ticks _seq 0-999: 1,000 there", "signals → signals no producer's"]);
    lab.clickhouse.query("DELETE FROM ticks WHERE _seq = 17").await;
    let holed = Audited::of(&lab, &config, &[]).await;
    holed.says(2, &["_seq 0-999: 999 there, 1 not (lost, refused", "): 17"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_away_and_arguments_that_make_no_sense_have_codes_of_their_own() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let numbers = Numbers::new().await;
    let away = |text: &str, address: &str| text.replace(address, "127.0.0.1:1");
    let host = numbers.lab.at.clickhouse.trim_start_matches("http://").to_owned();
    let without = Audited::of(&numbers.lab, &away(&numbers.config, &host), &[]).await;
    without.says(69, &["ClickHouse"]);
    let without =
        Audited::of(&numbers.lab, &away(&numbers.config, &numbers.lab.at.kafka), &[]).await;
    without.says(69, &["Kafka"]);
    let wrong = Audited::of(&numbers.lab, &numbers.config, &["--offsets", "9..5"]).await;
    assert_eq!(wrong.code, 64, "{}", wrong.text);
    // Nothing was delivered, so nothing is missing.
    numbers.send_numbers(0..5).await;
    numbers.audit(&[]).await.says(0, &["complete", "none 0 0 0 5"]);
}
