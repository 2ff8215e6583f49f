//! What `check` finds in real records, topics and tables, and that it leaves no trace.

use async_nats::jetstream::stream::{self, StorageType};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value as Json;

use super::*;
use crate::stack::{is_apache_kafka, unique};

/// A configuration of its own: one topic, one table, no NATS.
struct Scene {
    bridge: Bridge,
    name: String,
    file: tempfile::NamedTempFile,
}

const TABLE: &str = "(price Decimal(9, 2), note Nullable(String), _topic String, \
                     _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY price";
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 10000";

impl Scene {
    /// A topic kept like this, and `t` with columns and engine; the dead letters are made at start.
    async fn new(keeping: &[(&str, &str)], table: &str) -> Self {
        let name = unique("check");
        let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
        let topic = keeping
            .iter()
            .fold(NewTopic::new(&name, 2, TopicReplication::Fixed(1)), |topic, (key, value)| {
                topic.set(key, value)
            });
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        admin.create_topics(&[topic], &options).await.unwrap().remove(0).unwrap();
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = format!(
            "[kafka]\n[clickhouse]\n[[routes]]\nname = 'prices'\nkafka_topics = ['{name}']\n\
             table = 't'\n[routes.columns]\nprice = 'data.p'\n_topic = '@topic'\n\
             _partition = '@partition'\n_offset = '@offset'\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let mut bridge = Bridge::new(&name);
        bridge.vars.remove("DATA_BRIDGE__NATS__SERVERS");
        bridge.sql(&format!("CREATE DATABASE {name}"), "default").await;
        bridge.sql(&format!("CREATE TABLE t {table}"), &name).await;
        Self { bridge, name, file }
    }

    /// The route promises to insert no record twice.
    fn promise(&self) {
        let text = std::fs::read_to_string(self.file.path()).unwrap();
        let promising = text.replace("table = 't'", "table = 't'\ndelivery = 'exactly_once'");
        assert_ne!(text, promising);
        std::fs::write(self.file.path(), promising).unwrap();
    }

    fn produce(&self, payloads: &[String]) {
        let producer: ThreadedProducer<DefaultProducerContext> = client().create().unwrap();
        for (index, payload) in payloads.iter().enumerate() {
            let partition = i32::try_from(index % 2).unwrap();
            let record = BaseRecord::<(), str>::to(&self.name).payload(payload);
            producer.send(record.partition(partition)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn run(&self, more: &[&str]) -> Run {
        let file = self.file.path().to_str().unwrap();
        let run = self.bridge.run_patiently(&[&["--config", file, "check"], more].concat());
        assert_eq!(run.err, "", "nothing is logged");
        run
    }

    fn check(&self) -> Run {
        self.run(&[])
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.run(&["--json"]).text).unwrap()
    }

    /// Once more where the broker did not say in time what the group has committed.
    fn json_with_lag(&self) -> Json {
        let json = self.json();
        if json["topics"][0]["lag"].is_null() { self.json() } else { json }
    }

    async fn sql(&self, statement: &str) {
        self.bridge.sql(statement, &self.name).await;
    }
}

fn client() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", server("DATA_BRIDGE_TEST_KAFKA"));
    client
}

fn finding<'a>(json: &'a Json, code: &str) -> &'a Json {
    let findings = json["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {json:#}"))
}

/// What the newest records are found by.
const ENDS: &str = "ends of partitions that are true to a record";

#[tokio::test]
async fn the_newest_records_are_decoded_against_the_real_table_and_nothing_is_left_behind() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let scene = Scene::new(&[], &format!("{TABLE} {WINDOW}")).await;
    let mut payloads: Vec<String> =
        (0..200).map(|n| format!(r#"{{"data": {{"p": {n}.5, "q": 1}}, "seq": {n}}}"#)).collect();
    payloads.extend([r#"{"data": {"p": "dear"}}"#.to_owned(), "{".to_owned()]);
    scene.produce(&payloads);
    scene.check().says(
        0,
        &[
            "warn 1 prices",
            &format!("{} 2", scene.name),
            "48: 46 land, 2 dead letters",
            "2 of 48 sampled records would become dead letters",
            "keys of the payload that go into no column: data.q, seq",
            "no sampled record has a value for note: NULL is stored",
            "All is well: 2 servers, 1 route, 1 warning.",
        ],
    );
    let json = scene.json();
    assert_eq!((&json["verdict"], &json["exit_code"]), (&"ok".into(), &0.into()));
    let sample = &json["routes"][0]["sample"];
    assert_eq!((&sample["records"], &sample["land"]), (&48.into(), &46.into()));
    let reasons: Vec<&str> = sample["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letters| letters["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["invalid_json", "wrong_type"]);
    let topic = &json["topics"][0];
    // All came within the minute.
    assert_eq!(topic["records_per_second"], Json::from(202.0 / 60.0));
    assert_eq!((&topic["lag"], &topic["kept_seconds"]), (&Json::Null, &604_800.into()));
    let exactly_once = &json["routes"][0]["exactly_once"];
    assert_eq!(
        (&exactly_once["promised"], &exactly_once["possible"]),
        (&false.into(), &true.into())
    );

    assert!(!groups().contains(&scene.name), "no group was joined");
    let reader: BaseConsumer = client().set("group.id", &scene.name).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&scene.name, 0);
    let committed = reader.committed_offsets(list, PATIENCE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Invalid, "nothing was committed");
}

#[tokio::test]
async fn a_route_of_which_no_record_lands_is_wrong() {
    let scene = Scene::new(&[], &format!("{TABLE} {WINDOW}")).await;
    scene.produce(&[r#"{"data": {"price": 1}}"#.to_owned(), r#"{"p": 1}"#.to_owned()]);
    scene.check().says(
        1,
        &[
            "fix 1 prices",
            "none of 2 sampled records would land: 2 missing_value (column price: no value",
        ],
    );
}

#[tokio::test]
async fn a_compacted_topic_that_forgets_soon_is_told() {
    let keeping = [("cleanup.policy", "compact,delete"), ("retention.ms", "120000")];
    let scene = Scene::new(&keeping, &format!("{TABLE} {WINDOW}")).await;
    let json = scene.json();
    assert_eq!(json["exit_code"], 1);
    assert_eq!(finding(&json, "topic_compacted")["severity"], "warning");
    let short = finding(&json, "retention_short");
    assert_eq!(short["severity"], "error");
    assert!(short["text"].as_str().unwrap().contains("keeps records for 2 min (retention.ms)"));
}

#[tokio::test]
async fn records_that_were_deleted_unread_are_counted_and_so_is_the_lag() {
    if !is_apache_kafka("records that are deleted") {
        return;
    }
    let scene = Scene::new(&[], &format!("{TABLE} {WINDOW}")).await;
    let payloads: Vec<String> = (0..20).map(|n| format!(r#"{{"data": {{"p": {n}}}}}"#)).collect();
    scene.produce(&payloads);
    let group: BaseConsumer = client().set("group.id", &scene.name).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&scene.name, 0, Offset::Offset(2)).unwrap();
    list.add_partition_offset(&scene.name, 1, Offset::Offset(9)).unwrap();
    group.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    let json = scene.json_with_lag();
    assert_eq!(json["topics"][0]["lag"], 8 + 1, "{json:#}");

    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&scene.name, 0, Offset::Offset(7)).unwrap();
    let deleted = admin.delete_records(&before, &AdminOptions::new()).await;
    deleted.unwrap();
    let json = scene.json_with_lag();
    assert_eq!(json["topics"][0]["lag"], 3 + 1, "{json:#}");
    let lost = finding(&json, "records_lost")["text"].as_str().unwrap();
    assert!(lost.contains("5 records were deleted before group"), "{lost}");
}

#[tokio::test]
async fn the_partitions_that_a_batch_would_touch_are_asked_of_the_tables_own_expression() {
    if !is_apache_kafka(ENDS) {
        return;
    }
    let table = TABLE.replace("ORDER BY", "PARTITION BY toInt64(price) ORDER BY");
    let scene = Scene::new(&[], &format!("{table} {WINDOW}")).await;
    let payloads: Vec<String> = (0..60).map(|n| format!(r#"{{"data": {{"p": {n}}}}}"#)).collect();
    scene.produce(&payloads);
    let json = scene.json();
    assert_eq!(json["routes"][0]["sample"]["table_partitions"], 48);
    assert_eq!(finding(&json, "too_many_partitions")["severity"], "warning");

    scene.sql("ALTER TABLE t ADD COLUMN day Date MATERIALIZED today()").await;
    assert_eq!(scene.json()["routes"][0]["sample"]["table_partitions"], 48);
}

#[tokio::test]
async fn a_view_that_doubles_is_warned_of_and_the_statement_mends_it() {
    let scene = Scene::new(&[], &format!("{TABLE} {WINDOW}")).await;
    scene
        .sql("CREATE TABLE sums (price Decimal(9, 2)) ENGINE = SummingMergeTree ORDER BY price")
        .await;
    scene.sql("CREATE MATERIALIZED VIEW v TO sums AS SELECT price FROM t").await;
    let json = scene.json();
    let doubles = finding(&json, "retry_may_double");
    assert_eq!(
        (&doubles["severity"], &doubles["routes"][0]),
        (&"warning".into(), &"prices".into())
    );
    let statement = doubles["sql"][0].as_str().unwrap();
    assert_eq!(
        statement,
        format!(
            "ALTER TABLE {}.sums MODIFY SETTING non_replicated_deduplication_window = 10000",
            scene.name
        )
    );
    scene.sql(statement).await;
    scene
        .check()
        .says(0, &["MergeTree 10,000 inserts - 1 table", "All is well: 2 servers, 1 route."]);
}

#[tokio::test]
async fn exactly_once_is_refused_where_it_would_be_a_lie_until_the_statements_were_pasted() {
    let scene = Scene::new(&[], TABLE).await;
    scene
        .sql("CREATE TABLE sums (price Decimal(9, 2)) ENGINE = SummingMergeTree ORDER BY price")
        .await;
    scene.sql("CREATE MATERIALIZED VIEW v TO sums AS SELECT price FROM t").await;
    let payloads: Vec<String> = (0..60).map(|n| format!(r#"{{"data": {{"p": {n}}}}}"#)).collect();
    scene.produce(&payloads);
    scene.promise();
    scene.check().says(
        1,
        &["fix 1,2 prices", "exactly_once\" would be a lie", "Exactly once: prices", "no check"],
    );
    let json = scene.json();
    let findings = json["findings"].as_array().unwrap();
    let refused = findings.iter().filter(|finding| finding["code"] == "exactly_once_refused");
    for finding in refused {
        scene.sql(finding["sql"][0].as_str().unwrap()).await;
    }
    scene.check().says(
        0,
        &[
            &format!("kafka {} exactly once", scene.name),
            "remembers 10,000 inserts, and the table behind its view too",
            "each of 2 Kafka partitions is inserted by itself: at most 10,000 rows an insert",
        ],
    );
    let exactly_once = &scene.json()["routes"][0]["exactly_once"];
    assert_eq!(
        (&exactly_once["promised"], &exactly_once["possible"]),
        (&true.into(), &true.into())
    );
    assert_eq!(exactly_once["figures"]["kafka_partitions"], 2);
}

#[tokio::test]
async fn a_table_that_does_not_keep_its_rows_is_warned_of() {
    let columns = TABLE.split(" ENGINE").next().unwrap();
    let scene = Scene::new(&[], &format!("{columns} ENGINE = Memory")).await;
    scene.check().says(0, &["warn 1,2 prices", "its rows are lost when ClickHouse stops"]);
}

#[tokio::test]
async fn the_last_records_of_a_streams_subjects_are_decoded_and_no_consumer_is_made() {
    let name = unique("check");
    let client = async_nats::connect(server("DATA_BRIDGE_TEST_NATS")).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let config = stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        max_age: Duration::from_secs(7_200),
        storage: StorageType::Memory,
        ..stream::Config::default()
    };
    let mut stream = jetstream.create_stream(config).await.unwrap();
    for (subject, payload) in
        [("a", "older"), ("a", r#"{"n": 1, "x": 2}"#), ("b", r#"{"n": "one"}"#)]
    {
        let sent = jetstream.publish(format!("{name}.{subject}"), payload.into()).await;
        sent.unwrap().await.unwrap();
    }
    let mut bridge = Bridge::new(&name);
    bridge.vars.retain(|key, _| !key.contains("KAFKA"));
    bridge.sql(&format!("CREATE DATABASE {name}"), "default").await;
    let table =
        "CREATE TABLE t (n UInt8, _subject String, _seq Int64) ENGINE = MergeTree ORDER BY n";
    bridge.sql(&format!("{table} {WINDOW}"), &name).await;
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = format!(
        "[nats]\n[nats.jetstream]\n[clickhouse]\n[[routes]]\nname = 'numbers'\n\
         jetstream_subjects = ['{name}.>']\ntable = 't'\n[routes.columns]\n\
         _subject = '@subject'\n_seq = '@offset'\n"
    );
    std::fs::write(file.path(), text).unwrap();
    let run = bridge.run_patiently(&["--config", file.path().to_str().unwrap(), "check", "--json"]);
    let json: Json = serde_json::from_str(&run.text).unwrap();
    let sample = &json["routes"][0]["sample"];
    assert_eq!((&sample["records"], &sample["land"]), (&2.into(), &1.into()), "{json:#}");
    assert_eq!(sample["unused_keys"][0]["key"], "x");
    assert_eq!(finding(&json, "retention_short")["severity"], "warning");
    assert_eq!(finding(&json, "stream_in_memory")["routes"][0], "numbers");
    assert_eq!(stream.info().await.unwrap().state.consumer_count, 0, "no consumer was made");
    jetstream.delete_stream(&name).await.unwrap();
}
