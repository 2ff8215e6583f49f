//! ClickHouse is killed after it has written down a token, and before its rows have a name: when it
//! is back it takes the insert for known, and has nothing of it. Measured by `strace`: the line in the
//! table's log of tokens comes 0.2 ms before the rename of the part.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::is_kafka_itself;
use super::place::Delivery;
use super::proxy::{Proxy, Wire};
use crate::bridge::PATIENCE;
use crate::lab::{Lab, settled};

const ALL: u64 = 1_000;

/// The attempt ends after all of this has happened to its rows, and no other is sent meanwhile: the
/// only part there is holds them.
const ONE_AT_A_TIME: &str = "clickhouse.insert_timeout = \"20s\"\nclickhouse.max_in_flight = 1";

async fn only_the_token_is_left(delivery: Delivery) {
    let mut lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let sql = "ALTER TABLE numbers ADD COLUMN _topic LowCardinality(Nullable(String))";
    lab.clickhouse.query(sql).await;
    lab.clickhouse.query("SYSTEM STOP MERGES numbers").await;
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
    lab.numbers_to_kafka(0..ALL, u64::MAX).await;
    proxy.until_used_up().await;
    let began = Instant::now();
    let part = loop {
        assert!(began.elapsed() < PATIENCE, "nothing is stored:\n{}", bridge.log_tail());
        let sql = "SELECT path FROM system.parts WHERE active AND database = currentDatabase() \
                   AND table = 'numbers'";
        let path = lab.clickhouse.query(sql).await;
        if !path.trim().is_empty() {
            break path.trim().to_owned();
        }
        sleep(Duration::from_millis(20)).await;
    };
    lab.of_stack(|stack| {
        let folder = format!("/proc/{}/cwd", stack.address("CLICKHOUSE_PID"));
        let folder = std::fs::read_link(folder).unwrap();
        stack.kill("clickhouse");
        std::fs::remove_dir_all(folder.join(part)).unwrap();
        stack.start("clickhouse");
    })
    .await;
    bridge.wait_until("all is stored", |health| settled(health, "kafka", ALL)).await;
    assert_eq!(lab.stored_numbers(&(0..ALL)).await, (ALL, ALL), "{}", bridge.log_tail());
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_a_token_without_its_rows_loses_nothing() {
    only_the_token_is_left(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_token_without_its_rows_loses_nothing() {
    if is_kafka_itself() {
        only_the_token_is_left(Delivery::ExactlyOnce).await;
    }
}
