//! The verdicts and how they are shown, without servers.

mod exact;
mod topics;

use std::collections::BTreeMap;

use super::ask::{Clock, Found, Table, Warehouse};
use super::compare::compare;
use super::render::render;
use super::report::{Grade, Report, Severity};
use crate::config::{self, Config, DeadLetters};
use crate::schema::facts::{Place, PositionColumns, TableFacts, Window};
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};
use crate::sink::clickhouse::Session;
use crate::sink::{InsertError, Refusal};
use crate::source::ProbeError;
use crate::source::kafka::probe::Cluster;
use crate::source::nats::probe::Server;

/// Two routes into tables, one that counts.
fn config() -> Config {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = r#"
        [kafka]
        [nats]
        password = "geheim"
        user = "me"
        [clickhouse]
        database = "market"
        password = "geheim"
        [[routes]]
        name = "candles"
        kafka_topics = ["candles"]
        nats_subjects = ["market.*.*"]
        class = "market"
        table = "aggregates"
        columns = { price = "p" }
        [[routes]]
        name = "archive"
        kafka_topics = ["^old[.]"]
        table = "other.archive"
        [[routes]]
        name = "system"
        nats_subjects = ["system.>"]
        class = "system"
        action = "count"
    "#;
    std::fs::write(file.path(), text).unwrap();
    config::load(&[file.path().to_owned()]).unwrap()
}

fn table(name: &str, columns: &[(&str, &str, ColumnDefault)]) -> Table {
    let columns = columns.iter().map(|(name, type_name, default)| ColumnSchema {
        name: (*name).to_owned(),
        type_name: (*type_name).to_owned(),
        default: *default,
    });
    let schema = TableSchema { table: name.to_owned(), columns: columns.collect() };
    Table {
        schema: Ok(schema),
        facts: Some(Ok(facts(name, "ReplacingMergeTree", Some(10_000)))),
        may_insert: Some(true),
        may_select: Some(true),
        may_create: None,
    }
}

fn facts(name: &str, engine: &str, entries: Option<u64>) -> TableFacts {
    let (database, name) = name.split_once('.').unwrap_or(("market", name));
    TableFacts {
        place: Place { database: database.to_owned(), name: name.to_owned() },
        engine: engine.to_owned(),
        window: entries.map(|entries| Window { entries, seconds: None }),
        partition_key: String::new(),
        sorting_key: "price".to_owned(),
        version: None,
        ttl: None,
        views: Vec::new(),
        positions: PositionColumns { topic: true, partition: true, offset: true, seq: false },
    }
}

fn session() -> Session {
    Session {
        version: "26.7".to_owned(),
        now: 0,
        async_insert: false,
        async_insert_default: true,
        max_partitions: 100,
        distributed_foreground: false,
    }
}

/// The texts of what was found.
fn texts(report: &Report, severity: Severity) -> Vec<&str> {
    let found = report.findings.iter().filter(|finding| finding.severity == severity);
    found.map(|finding| finding.text.as_str()).collect()
}

fn errors(report: &Report) -> Vec<&str> {
    texts(report, Severity::Error)
}

fn missing(code: u32) -> Table {
    let refusal = Refusal::of_code(code, "not there".to_owned());
    let schema = Err(InsertError::AwaitFix(refusal));
    Table { schema, facts: None, may_insert: None, may_select: None, may_create: Some(true) }
}

fn well() -> Found {
    let letters = [
        ("id", "UUID"),
        ("time", "DateTime64(3)"),
        ("record_time", "DateTime64(3)"),
        ("instance", "String"),
        ("source", "String"),
        ("topic_or_subject", "String"),
        ("partition", "Nullable(Int32)"),
        ("offset", "Nullable(Int64)"),
        ("key", "Nullable(String)"),
        ("headers", "String"),
        ("route", "String"),
        ("reason", "String"),
        ("error", "String"),
        ("payload", "String"),
    ]
    .map(|(name, ty)| (name, ty, ColumnDefault::None));
    let price = [("price", "Float64", ColumnDefault::None)];
    let tables = [
        ("aggregates", table("aggregates", &price)),
        ("other.archive", table("other.archive", &price)),
        ("dead_letters", table("dead_letters", &letters)),
    ];
    let topics = [("candles".to_owned(), 6), ("old.a".to_owned(), 2)];
    Found {
        clickhouse: Ok(Warehouse {
            session: session(),
            clock: Clock { ahead_ms: 3, within_ms: 5 },
            tables: tables.map(|(name, table)| (name.to_owned(), table)).into(),
        }),
        kafka: Some(Ok(Cluster { brokers: 3, topics: topics.into(), ..Cluster::default() })),
        topics: None,
        nats: Some(Ok(Server { version: "2.15.1".to_owned() })),
        streams: BTreeMap::new(),
        letters: None,
        samples: BTreeMap::new(),
    }
}

fn tables(found: &mut Found) -> &mut BTreeMap<String, Table> {
    &mut found.clickhouse.as_mut().unwrap().tables
}

fn cluster(found: &mut Found) -> &mut Cluster {
    found.kafka.as_mut().unwrap().as_mut().unwrap()
}

fn grades(report: &Report) -> Vec<Grade> {
    report.routes.iter().map(|route| route.verdict.grade).collect()
}

#[test]
fn all_is_well() {
    let report = compare(&config(), &well());
    assert_eq!(report.exit_code(), 0, "{report:?}");
    let text = render(&report);
    for line in [
        "ok     Kafka       localhost:9092         3 brokers; 2 of 2 topics, 8 partitions",
        "ok     candles          market   kafka candles     at least once",
        "       → aggregates              nats  market.*.*  at most once",
        "ok     system           system   nats  system.>    at most once",
        "       → count",
        "-  topics ^old[.]: 1 match now: old.a",
        "All is well: 3 servers, 3 routes.",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no line {line:?} in\n{text}");
    }
    assert!(!text.contains("Problems") && !text.contains("geheim"), "{text}");
}

#[test]
fn a_topic_that_is_missing_is_waited_for_and_is_not_well() {
    let mut found = well();
    cluster(&mut found).topics.clear();
    let report = compare(&config(), &found);
    assert_eq!(report.exit_code(), 1);
    // An expression is meant for topics to come.
    assert_eq!(grades(&report), [Grade::Waits, Grade::Well, Grade::Well]);
    assert!(errors(&report)[0].contains("Kafka has no topic candles: create it"), "{report:?}");
    let notes = texts(&report, Severity::Info).join("\n");
    assert!(notes.contains("^old[.]: none matches now"), "{report:?}");

    cluster(&mut found).refused.insert("candles".to_owned(), "not permitted".to_owned());
    let report = compare(&config(), &found);
    assert_eq!(grades(&report)[0], Grade::Wrong);
    assert!(errors(&report)[0].contains("candles: not permitted"), "{report:?}");
}

#[test]
fn what_does_not_fit_is_named_with_its_route() {
    let mut found = well();
    let computed = [("prise", "Float64", ColumnDefault::None)];
    tables(&mut found).insert("aggregates".to_owned(), table("aggregates", &computed));
    let report = compare(&config(), &found);
    assert_eq!(report.exit_code(), 1);
    assert_eq!(grades(&report), [Grade::Wrong, Grade::Well, Grade::Well]);
    let problem = &errors(&report)[0];
    assert!(
        problem.starts_with("route candles: table aggregates has no column price"),
        "{problem}"
    );
    assert!(render(&report).contains("\nfix 1  candles"), "{}", render(&report));
}

#[test]
fn missing_tables_are_one_problem_and_a_missing_database_is_another() {
    let mut found = well();
    tables(&mut found).insert("aggregates".to_owned(), missing(60));
    tables(&mut found).insert("other.archive".to_owned(), missing(60));
    let report = compare(&config(), &found);
    assert_eq!(errors(&report).len(), 1, "{report:?}");
    assert!(errors(&report)[0].contains("no table aggregates, other.archive"), "{report:?}");

    tables(&mut found).insert("other.archive".to_owned(), missing(81));
    let report = compare(&config(), &found);
    assert!(errors(&report)[0].contains("no database other"), "{report:?}");
    assert_eq!(errors(&report).len(), 2, "{report:?}");
}

#[test]
fn a_place_for_dead_letters_that_refuses_is_a_problem_and_one_that_forgets_a_note() {
    let (config, mut found) = (config(), well());
    found.letters = Some(Ok(vec!["topic dead deletes them after 7days".to_owned()]));
    let report = compare(&config, &found);
    assert!(errors(&report).is_empty(), "{report:?}");
    let notes = texts(&report, Severity::Info);
    assert!(notes.iter().any(|note| note.contains("after 7days")), "{report:?}");
    found.letters = Some(Err(ProbeError::Refused("no stream takes the subject".to_owned())));
    let report = compare(&config, &found);
    assert_eq!(errors(&report), ["dead letters: no stream takes the subject"]);
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn the_table_for_dead_letters_is_made_at_start_where_that_is_permitted() {
    let (mut config, mut found) = (config(), well());
    tables(&mut found).insert("dead_letters".to_owned(), missing(60));
    let report = compare(&config, &found);
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert!(
        texts(&report, Severity::Info)[0].contains("the bridge makes it at start"),
        "{report:?}"
    );

    tables(&mut found).get_mut("dead_letters").unwrap().may_create = Some(false);
    let report = compare(&config, &found);
    assert_eq!(report.findings[0].sql, ["GRANT CREATE TABLE ON market.dead_letters TO default"]);

    config.dead_letters =
        DeadLetters::ClickHouse { table: "dead_letters".to_owned(), create: false };
    assert_eq!(compare(&config, &found).exit_code(), 1);
}

#[test]
fn a_user_who_may_not_insert_gets_the_statement_to_grant_it() {
    let mut found = well();
    tables(&mut found).get_mut("aggregates").unwrap().may_insert = Some(false);
    let report = compare(&config(), &found);
    assert_eq!(report.findings[0].sql, ["GRANT SELECT, INSERT ON market.* TO default"]);
    assert_eq!(grades(&report)[0], Grade::Wrong);
}

#[test]
fn what_may_double_or_lose_rows_is_a_warning_with_its_remedy() {
    let mut found = well();
    let archive = facts("other.archive", "MergeTree", Some(0));
    tables(&mut found).get_mut("other.archive").unwrap().facts = Some(Ok(archive));
    let memory = facts("aggregates", "Memory", None);
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(memory));
    let report = compare(&config(), &found);
    assert_eq!(report.exit_code(), 0);
    assert_eq!(grades(&report), [Grade::Warned, Grade::Warned, Grade::Well]);
    let text = render(&report);
    for wanted in [
        "     ALTER TABLE other.archive MODIFY SETTING non_replicated_deduplication_window = 10000;\n",
        "stay twice in other.archive (MergeTree)",
        "aggregates has the engine Memory: its rows are lost",
        "All is well: 3 servers, 3 routes, 3 warnings.",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

#[test]
fn a_table_that_passes_rows_on_later_and_one_that_deletes_by_age_are_told() {
    let mut found = well();
    let archive = facts("other.archive", "Distributed", None);
    tables(&mut found).get_mut("other.archive").unwrap().facts = Some(Ok(archive));
    let mut aging = facts("aggregates", "MergeTree", Some(9));
    aging.ttl = Some("time + toIntervalDay(1)".to_owned());
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(aging));
    let report = compare(&config(), &found);
    let of = |code: &str| report.findings.iter().find(|f| f.code == code).unwrap();
    let sql = "ALTER USER default SETTINGS distributed_foreground_insert = 1";
    assert_eq!(of("distributed_background").sql, [sql]);
    assert!(of("rows_expire").text.contains("market.aggregates deletes rows by TTL time + "));
    // Where the session waits for the shards there is nothing to tell.
    found.clickhouse.as_mut().unwrap().session.distributed_foreground = true;
    let report = compare(&config(), &found);
    assert!(report.findings.iter().all(|finding| finding.code != "distributed_background"));
}

#[test]
fn an_unreachable_server_comes_before_a_mismatch() {
    let mut found = well();
    tables(&mut found).insert("aggregates".to_owned(), missing(60));
    found.nats = Some(Err(ProbeError::Unreachable("Connection refused".to_owned())));
    let report = compare(&config(), &found);
    assert_eq!(report.exit_code(), 69);
    assert_eq!(grades(&report), [Grade::Wrong, Grade::Well, Grade::Unknown]);
    let text = render(&report);
    assert!(text.contains("? 2    NATS        nats://localhost:4222  cannot be reached"), "{text}");
    assert!(text.contains("Not all is well: 2 problems."), "{text}");

    found.nats = Some(Err(ProbeError::Refused("our login".to_owned())));
    assert_eq!(compare(&config(), &found).exit_code(), 1);
}

#[test]
fn a_source_without_routes_is_a_problem() {
    let mut config = config();
    for route in &mut config.routes {
        route.kafka_topics.clear();
        route.nats_subjects.clear();
    }
    let report = compare(&config, &well());
    assert_eq!((report.exit_code(), errors(&report).len()), (1, 2), "{report:?}");
}

#[test]
fn no_line_is_wider_than_a_terminal() {
    let mut config = config();
    for route in &mut config.routes {
        route.kafka_topics = (0..20).map(|n| format!("a.long.topic.name.{n}")).collect();
    }
    let mut found = well();
    found.clickhouse = Err(ProbeError::Unreachable("why ".repeat(200)));
    let text = render(&compare(&config, &found));
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line, line.trim_end());
    }
}
