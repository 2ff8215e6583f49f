//! What a real ClickHouse says of its tables, and how the numbers of its parts grow. What the doc
//! comment of `block_number` claims is measured here.

use data_bridge::config::{self, Config};
use data_bridge::schema::exactly_once::exactly_once_problems;
use data_bridge::schema::facts::{Place, Target, Window};
use data_bridge::sink::clickhouse::ClickHouse;

use super::server;

/// A database of the test's own, and both ways to ask it.
struct Warehouse {
    database: String,
    bridge: ClickHouse,
    plain: clickhouse::Client,
}

impl Warehouse {
    async fn new(database: &str) -> Self {
        let url = server("DATA_BRIDGE_TEST_CLICKHOUSE");
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = format!(
            "[clickhouse]\nurl = '{url}'\ndatabase = '{database}'\n[kafka]\n[[routes]]\nname = 'a'\n\
             kafka_topics = ['a']\ntable = 'a'\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let Config { clickhouse: config, .. } = config::load(&[file.path().to_owned()]).unwrap();
        let plain = clickhouse::Client::default().with_url(url);
        for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            plain.query(&format!("{statement} {database}")).execute().await.unwrap();
        }
        let plain = plain.with_database(database);
        Self {
            database: database.to_owned(),
            bridge: ClickHouse::new(&config, None).unwrap(),
            plain,
        }
    }

    async fn sql(&self, statement: &str) {
        self.plain.query(statement).execute().await.unwrap();
    }

    /// Numbers from 0, one partition for each residue, all in one block.
    async fn insert(&self, table: &str, rows: u32, partitions: u32, token: &str) {
        let insert = format!(
            "INSERT INTO {table} SELECT number, number % {partitions} FROM numbers({rows})"
        );
        let query = self.plain.query(&insert);
        let query = query
            .with_setting("insert_deduplication_token", token)
            .with_setting("async_insert", "0");
        query.execute().await.unwrap();
    }

    /// The same rows with the same token, twice, into what has more columns than these.
    async fn twice(&self, token: &str) {
        let insert = "INSERT INTO t (a, k) SELECT number, number % 3 FROM numbers(9)";
        for _ in 0..2 {
            let query = self.plain.query(insert).with_setting("insert_deduplication_token", token);
            query.with_setting("async_insert", "0").execute().await.unwrap();
        }
    }

    async fn rows(&self, table: &str) -> u64 {
        let query = format!("SELECT count() FROM {table}");
        self.plain.query(&query).fetch_one().await.unwrap()
    }

    async fn blocks(&self) -> Option<u64> {
        self.bridge.block_number("t").await.unwrap()
    }

    fn place(&self, name: &str) -> Place {
        Place { database: self.database.clone(), name: name.to_owned() }
    }
}

const WINDOW: &str = "SETTINGS non_replicated_deduplication_window";

#[tokio::test]
async fn an_insert_takes_a_block_number_for_each_partition_and_a_repeated_one_takes_them_later() {
    let warehouse = Warehouse::new("facts_blocks").await;
    let table = "CREATE TABLE t (a UInt32, k UInt8) ENGINE = MergeTree PARTITION BY k ORDER BY a";
    warehouse.sql(&format!("{table} {WINDOW} = 10")).await;
    assert_eq!(warehouse.blocks().await, None, "no parts");
    warehouse.insert("t", 5, 1, "a").await;
    assert_eq!(warehouse.blocks().await, Some(1));
    warehouse.insert("t", 9, 3, "b").await;
    assert_eq!(warehouse.blocks().await, Some(4), "three partitions");
    warehouse.insert("t", 9, 3, "b").await;
    assert_eq!((warehouse.rows("t").await, warehouse.blocks().await), (14, Some(4)), "a duplicate");
    warehouse.insert("t", 5, 1, "c").await;
    assert_eq!(warehouse.blocks().await, Some(8), "the duplicate's three show now");
    warehouse.sql("OPTIMIZE TABLE t FINAL").await;
    assert_eq!(warehouse.blocks().await, Some(8), "a merge takes none");
    let failing = "INSERT INTO t SELECT throwIf(number = 3), 0 FROM numbers(5)";
    assert!(warehouse.plain.query(failing).execute().await.is_err());
    warehouse.insert("t", 5, 1, "d").await;
    assert_eq!(warehouse.blocks().await, Some(9), "a failed insert takes none");
    warehouse.sql("ALTER TABLE t DELETE WHERE a = 1 SETTINGS mutations_sync = 1").await;
    warehouse.insert("t", 5, 1, "e").await;
    assert_eq!(warehouse.blocks().await, Some(11), "a mutation takes one");
}

#[tokio::test]
async fn an_insert_into_three_partitions_takes_three_entries_of_the_window_and_a_repeated_one_none()
{
    let warehouse = Warehouse::new("facts_window").await;
    let table = "CREATE TABLE t (a UInt32, k UInt8) ENGINE = MergeTree PARTITION BY k ORDER BY a";
    warehouse.sql(&format!("{table} {WINDOW} = 10")).await;
    warehouse.insert("t", 9, 3, "wide").await;
    for n in 0..7 {
        warehouse.insert("t", 1, 1, &format!("one {n}")).await;
    }
    // 3 + 7 fill it. Repeating takes nothing, or the next would be forgotten.
    for _ in 0..5 {
        warehouse.insert("t", 9, 3, "wide").await;
    }
    assert_eq!(warehouse.rows("t").await, 16);
    warehouse.insert("t", 1, 1, "one more").await;
    warehouse.insert("t", 9, 3, "wide").await;
    // Only one entry was forgotten, and yet all three partitions doubled.
    assert_eq!(warehouse.rows("t").await, 16 + 1 + 9);
}

#[tokio::test]
async fn a_target_without_a_window_is_found_behind_two_views_and_doubles() {
    let warehouse = Warehouse::new("facts_views").await;
    let table = "(a UInt32, k UInt8, _topic String, _partition Int32, _offset Int64) \
                 ENGINE = MergeTree PARTITION BY k ORDER BY a";
    for statement in [
        format!("CREATE TABLE t {table} {WINDOW} = 10"),
        format!("CREATE TABLE sums (k UInt8, c UInt64) ENGINE = SummingMergeTree ORDER BY k {WINDOW} = 10"),
        "CREATE MATERIALIZED VIEW to_sums TO sums AS SELECT k, count() AS c FROM t GROUP BY k".to_owned(),
        "CREATE MATERIALIZED VIEW own ENGINE = MergeTree ORDER BY k AS SELECT k, c FROM sums".to_owned(),
        // Not triggered by inserts.
        "CREATE MATERIALIZED VIEW later REFRESH EVERY 1 DAY (k UInt8) ENGINE = Memory AS SELECT k FROM t"
            .to_owned(),
    ] {
        warehouse.sql(&statement).await;
    }
    let facts = warehouse.bridge.facts("t").await.unwrap();
    assert_eq!((facts.place.clone(), facts.engine.as_str()), (warehouse.place("t"), "MergeTree"));
    assert_eq!(facts.window, Some(Window { entries: 10, seconds: None }));
    assert_eq!((facts.partition_key.as_str(), facts.sorting_key.as_str()), ("k", "a"));
    assert!(facts.positions.locate_kafka() && !facts.positions.seq);
    assert_eq!(facts.views.len(), 1, "{facts:?}");
    let Target::Table(sums) = &facts.views[0].target else { panic!("{facts:?}") };
    assert_eq!(
        (sums.place.clone(), sums.views[0].place.clone()),
        (warehouse.place("sums"), warehouse.place("own"))
    );

    let problems = exactly_once_problems(&facts);
    assert_eq!(problems.len(), 1, "{problems:?}");
    warehouse.twice("before").await;
    assert_eq!(
        (warehouse.rows("t").await, warehouse.rows("own").await),
        (9, 6),
        "the problem is real"
    );
    // The remedy can be pasted, and mends it.
    warehouse.sql(problems[0].remedy_sql.as_deref().unwrap()).await;
    assert_eq!(exactly_once_problems(&warehouse.bridge.facts("t").await.unwrap()), []);
    warehouse.twice("after").await;
    assert_eq!((warehouse.rows("t").await, warehouse.rows("own").await), (18, 9));
}

#[tokio::test]
async fn a_null_table_passes_the_token_on_to_its_views() {
    let warehouse = Warehouse::new("facts_null").await;
    warehouse.sql("CREATE TABLE t (a UInt32, k UInt8) ENGINE = Null").await;
    assert_eq!(exactly_once_problems(&warehouse.bridge.facts("t").await.unwrap()).len(), 1);
    warehouse
        .sql(&format!("CREATE TABLE u (a UInt32) ENGINE = MergeTree ORDER BY a {WINDOW} = 10"))
        .await;
    warehouse.sql("CREATE MATERIALIZED VIEW v TO u AS SELECT a FROM t").await;
    assert_eq!(exactly_once_problems(&warehouse.bridge.facts("t").await.unwrap()), []);
    warehouse.insert("t", 5, 1, "x").await;
    warehouse.insert("t", 5, 1, "x").await;
    assert_eq!(warehouse.rows("u").await, 5);
}

#[tokio::test]
async fn a_missing_table_is_waited_for_like_any_other() {
    let warehouse = Warehouse::new("facts_missing").await;
    let error = warehouse.bridge.facts("nowhere").await.unwrap_err();
    assert_eq!(error.refusal().code, Some(60), "{error:?}");
    assert!(error.is_about_the_table());
    // Names that look like SQL are names.
    let odd = "CREATE TABLE `it's` (a UInt8) ENGINE = MergeTree ORDER BY a";
    warehouse.sql(odd).await;
    let facts = warehouse.bridge.facts("it's").await.unwrap();
    let problems = exactly_once_problems(&facts);
    warehouse.sql(problems[0].remedy_sql.as_deref().unwrap()).await;
    assert_eq!(exactly_once_problems(&warehouse.bridge.facts("it's").await.unwrap()), []);
}
