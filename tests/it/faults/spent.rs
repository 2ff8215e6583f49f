//! ClickHouse is killed after it has written down a token, and before its rows have a name: when it
//! is back it takes the insert for known, and has nothing of it. Measured by `strace`: the line in the
//! table's log of tokens comes 0.2 ms before the rename of the part.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::is_kafka_itself;
use super::place::Delivery;
use super::proxy::{Proxy, Wire};
use crate::bridge::PATIENCE;
use crate::lab::{Lab, number, settled};

const ALL: u64 = 1_000;

/// The attempt ends after all of this has happened to its rows, and no other is sent meanwhile: the
/// only part there is holds them.
const ONE_AT_A_TIME: &str = "clickhouse.insert_timeout = \"20s\"\nclickhouse.max_in_flight = 1";

/// What becomes of the records.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Rows,
    /// Rows of a table that keeps the highest version of each key.
    Versions,
    /// Rows, looked for behind a view of their table.
    RowsOfAView,
    DeadLetters,
}

impl Fate {
    /// Where they go, and what tells one from another there.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Rows | Self::Versions => ("numbers", "n"),
            Self::RowsOfAView => ("copy", "n"),
            Self::DeadLetters => ("dead_letters", "id"),
        }
    }

    async fn send(self, lab: &Lab) {
        match self {
            Self::Rows | Self::Versions | Self::RowsOfAView => {
                lab.numbers_to_kafka(0..ALL, u64::MAX).await
            }
            Self::DeadLetters => {
                let (sender, topic) = (lab.kafka(), lab.topic("numbers"));
                for _ in 0..ALL {
                    sender.send(&topic, Some(0), None, Some(b"no JSON"));
                }
                sender.flush().await;
            }
        }
    }
}

/// What is there of a stored insert after ClickHouse was killed.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Token,
    TokenAndRows,
}

/// ClickHouse is killed before anybody knows that an insert was stored. Returns the rows that there
/// are in the end, how many are different, and the end of the bridge's log.
async fn after_the_kill(delivery: Delivery, fate: Fate, left: Left) -> (u64, u64, String) {
    let mut lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let sql = "ALTER TABLE numbers ADD COLUMN _topic LowCardinality(Nullable(String))";
    lab.clickhouse.query(sql).await;
    lab.tables("config/schema").await;
    if fate == Fate::Versions {
        lab.clickhouse.query("RENAME TABLE numbers TO plain").await;
        lab.clickhouse.query("ALTER TABLE plain ADD COLUMN version UInt64 DEFAULT n").await;
        let sql = "CREATE TABLE numbers AS plain ENGINE = ReplacingMergeTree(version) ORDER BY n \
                   SETTINGS non_replicated_deduplication_window = 1000";
        lab.clickhouse.query(sql).await;
    } else {
        lab.clickhouse.query("CREATE TABLE copy AS numbers").await;
        let sql = "CREATE MATERIALIZED VIEW to_copy TO copy AS SELECT * FROM numbers";
        lab.clickhouse.query(sql).await;
    }
    let (table, key) = fate.place();
    lab.clickhouse.query(&format!("SYSTEM STOP MERGES {table}")).await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    let config = format!(
        "{}[[routes]]\nname = \"numbers\"\nkafka_topics = [\"{}\"]\nwriter = \"aggregate\"\n\
         table = \"numbers\"\ndelivery = \"{}\"\n[routes.columns]\n_topic = \"@topic\"\n\
         _partition = \"@partition\"\n_offset = \"@offset\"\n",
        lab.sections("kafka"),
        lab.topic("numbers"),
        delivery.name(),
    );
    // The answer to the first insert is kept for ever.
    proxy.inject(Wire::SwallowAnswer, 1);
    let bridge = lab.start(&config, ONE_AT_A_TIME).await;
    fate.send(&lab).await;
    proxy.until_used_up().await;
    let began = Instant::now();
    let part = loop {
        assert!(began.elapsed() < PATIENCE, "nothing is stored:\n{}", bridge.log_tail());
        let sql = format!(
            "SELECT path FROM system.parts WHERE active AND database = currentDatabase() \
             AND table = '{table}'"
        );
        let path = lab.clickhouse.query(&sql).await;
        if !path.trim().is_empty() {
            break path.trim().to_owned();
        }
        sleep(Duration::from_millis(20)).await;
    };
    lab.of_stack(|stack| {
        let folder = format!("/proc/{}/cwd", stack.address("CLICKHOUSE_PID"));
        let folder = std::fs::read_link(folder).unwrap();
        stack.kill("clickhouse");
        if left == Left::Token {
            std::fs::remove_dir_all(folder.join(part)).unwrap();
        }
        stack.start("clickhouse");
    })
    .await;
    bridge.wait_until("all is stored", |health| settled(health, "kafka", ALL)).await;
    let sql = format!("SELECT count() AS rows, uniqExact({key}) AS different FROM {table}");
    let stored = lab.clickhouse.row(&sql).await;
    let log = bridge.log_tail();
    bridge.stop().await;
    (number(&stored["rows"]), number(&stored["different"]), log)
}

async fn every_record_is_there_once(delivery: Delivery, fate: Fate, left: Left) {
    let (rows, different, log) = after_the_kill(delivery, fate, left).await;
    assert_eq!((rows, different), (ALL, ALL), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_a_token_without_its_rows_loses_nothing() {
    every_record_is_there_once(Delivery::AtLeastOnce, Fate::Rows, Left::Token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_token_without_its_rows_loses_nothing() {
    if is_kafka_itself() {
        every_record_is_there_once(Delivery::ExactlyOnce, Fate::Rows, Left::Token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_token_without_its_versions_loses_nothing() {
    if is_kafka_itself() {
        every_record_is_there_once(Delivery::ExactlyOnce, Fate::Versions, Left::Token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_token_without_its_dead_letters_loses_none() {
    if is_kafka_itself() {
        every_record_is_there_once(Delivery::ExactlyOnce, Fate::DeadLetters, Left::Token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_dead_letters_that_landed_are_not_written_again() {
    if is_kafka_itself() {
        let (delivery, left) = (Delivery::ExactlyOnce, Left::TokenAndRows);
        every_record_is_there_once(delivery, Fate::DeadLetters, left).await;
    }
}

/// Of it alone nothing can be inserted again: it is said, with what to insert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_view_that_lost_its_rows_calls_for_a_person() {
    if is_kafka_itself() {
        let (delivery, left) = (Delivery::ExactlyOnce, Left::Token);
        let (rows, _, log) = after_the_kill(delivery, Fate::RowsOfAView, left).await;
        assert!(rows < ALL, "the view was not robbed");
        let said = log.contains(".copy, behind a view of numbers, has none of the rows");
        assert!(said && log.contains(" AND _offset BETWEEN "), "{log}");
    }
}
