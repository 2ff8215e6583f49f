//! Starting when something is not there: waited for, visibly, while the rest works; and what is
//! not configured at all.

use std::time::Duration;

use data_bridge::generate::{Kind, Target};
use serde_json::Value as Json;

use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, assert_accounts, number, plan, settled};
use crate::stack::{Addresses, Stack, is_apache_kafka};

async fn send_both(lab: &Lab, count: u64) {
    tokio::join!(
        lab.numbers_to_kafka(0..count, u64::MAX),
        lab.numbers_to_nats(count..2 * count, 5_000)
    );
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", 2 * count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_may_come_later() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    lab.kill_clickhouse().await;
    lab.numbers_to_kafka(0..1_000, u64::MAX).await;
    let mut bridge = lab.spawn(&lab.numbers("kafka nats"), "");
    bridge.listening().await;
    bridge.wait_for_log("waiting for ClickHouse").await;
    assert_eq!(bridge.status("/readyz").await.unwrap(), 503);
    assert_eq!(bridge.status("/livez").await.unwrap(), 200);
    let health = bridge.wait_until("it says so", |h| !h["needs_person"][0].is_null()).await;
    assert_eq!(health["status"], "starting", "{health:#}");
    let why = health["needs_person"][0].as_str().unwrap();
    assert!(why.contains(&lab.at.clickhouse), "{why}");
    lab.start_clickhouse().await;
    let bridge = bridge.ready().await;
    lab.clickhouse.until("SELECT count() FROM numbers", 1_000).await;
    let health = bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    assert_eq!(health["needs_person"].as_array().unwrap().len(), 0, "{health:#}");
    bridge.stop().await;
}

/// A stop while it waits is a stop like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_waits_for_clickhouse_can_be_stopped() {
    let lab = Lab::new().await;
    let mut bridge =
        lab.spawn(&lab.numbers("kafka nats"), "clickhouse.url = \"http://127.0.0.1:9\"");
    bridge.listening().await;
    bridge.wait_for_log("waiting for ClickHouse").await;
    bridge.signal("TERM");
    // below the 30 s of grace: nothing is waited for
    assert_eq!(bridge.ended(Duration::from_secs(20)).await, 0, "{}", bridge.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_nats_may_come_later_and_go_and_come_back() {
    if !is_apache_kafka("topics that outlive a restart of the broker") {
        return;
    }
    let shared = Addresses::shared();
    // the ports are known before anybody listens on them
    let stack = tokio::task::spawn_blocking(|| Stack::up(&["nats"])).await.unwrap();
    let status: Json = serde_json::from_str(&stack.run(&["status", "--json"])).unwrap();
    let nats = stack.address("NATS");
    tokio::task::block_in_place(|| stack.kill("nats"));
    let kafka = format!("127.0.0.1:{}", number(&status["port_base"]));
    let at = Addresses { kafka, nats, ..shared };
    let lab = Lab::at(at, Some(stack)).await;
    let sql = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), _offset \
               Nullable(Int64)) ENGINE = MergeTree ORDER BY n";
    lab.clickhouse.query(sql).await;
    let mut bridge = lab.spawn(&lab.numbers("kafka nats"), "");
    bridge.listening().await;
    let away = |health: &Json| {
        let sources = &health["metrics"]["sources"];
        sources["kafka"]["connected"] == false && sources["nats"]["connected"] == false
    };
    let runs = |health: &Json| away(health) && health["status"] == "degraded";
    bridge.wait_until("it runs without them", runs).await;
    tokio::task::block_in_place(|| {
        let stack = lab.own.as_ref().unwrap();
        stack.start("nats");
        stack.run(&["up", "kafka"]);
    });
    lab.create_topics(&[lab.topic("numbers")], 6).await;
    let there = |health: &Json| {
        let sources = &health["metrics"]["sources"];
        sources["kafka"]["connected"] == true
            && sources["kafka"]["assigned"] == 6
            && sources["nats"]["connected"] == true
    };
    bridge.wait_until("they are there", there).await;
    send_both(&lab, 500).await;
    assert_accounts(&bridge.health().await);
    // and under way: gone, and back
    tokio::task::block_in_place(|| {
        let stack = lab.own.as_ref().unwrap();
        stack.kill("nats");
        stack.kill("kafka");
    });
    bridge.wait_until("they are missed", away).await;
    assert_eq!(bridge.status("/readyz").await.unwrap(), 200);
    tokio::task::block_in_place(|| {
        let stack = lab.own.as_ref().unwrap();
        stack.start("nats");
        stack.start("kafka");
    });
    bridge.wait_until("they are there again", there).await;
    tokio::join!(
        lab.numbers_to_kafka(1_000..1_500, u64::MAX),
        lab.numbers_to_nats(1_500..2_000, 5_000)
    );
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", 2_000).await;
    let health = bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    assert_accounts(&health);
    assert!(number(&health["metrics"]["sources"]["nats"]["reconnects"]) >= 1, "{health:#}");
    bridge.stop().await;
}

/// A topic that nobody has made yet: said, and found once it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_found_when_it_is_created() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    let there = [lab.topic("tick_archive"), lab.topic("confirmation_archive")];
    lab.create_topics(&there, 6).await;
    let over = "kafka.client.\"topic.metadata.refresh.interval.ms\" = 1000";
    let bridge = lab.start(&lab.profile("kafka"), over).await;
    let ticks = plan(&[(Target::Kafka, Kind::Ticks, 1_800)]);
    lab.send_to_kafka(&ticks).await;
    bridge.wait_until("the ticks are stored", |h| settled(h, "kafka", 1_800)).await;
    bridge.wait_for_log(&lab.topic("aggregate_archive")).await;
    lab.create_topics(&[lab.topic("aggregate_archive")], 6).await;
    let candles = plan(&[(Target::Kafka, Kind::Candles, 1_800)]);
    lab.send_to_kafka(&candles).await;
    let health = bridge.wait_until("both are stored", |h| settled(h, "kafka", 3_600)).await;
    assert_accounts(&health);
    lab.assert_exact(&ticks).await;
    lab.assert_exact(&candles).await;
    bridge.stop().await;
}

/// Critical, with a remedy; the other routes run; it heals by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_is_waited_for_while_other_routes_run() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let create = lab.clickhouse.query("SHOW CREATE TABLE aggregates FORMAT TSVRaw").await;
    lab.clickhouse.query("DROP TABLE aggregates SYNC").await;
    let plan = plan(&[
        (Target::Kafka, Kind::Candles, 2_000),
        (Target::Kafka, Kind::Ticks, 2_000),
        (Target::Nats, Kind::Candles, 500),
        (Target::Nats, Kind::Signals, 500),
    ]);
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    tokio::join!(lab.send_to_kafka(&plan), lab.send_to_nats(&plan, 5_000));
    lab.clickhouse.until("SELECT count() FROM ticks", 2_000).await;
    lab.clickhouse.until("SELECT count() FROM signals", 500).await;
    let health = bridge
        .wait_until("the candles wait", |health| {
            health["metrics"]["backpressure"]["current_buffer"] == 2_500
        })
        .await;
    assert_accounts(&health);
    assert_eq!(health["status"], "critical", "{health:#}");
    let routes = &health["metrics"]["routes"];
    let why = routes["candles"]["reason"].as_str().unwrap();
    for part in ["aggregates", "data-bridge schema --apply"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(routes["ticks"]["state"], "running", "{routes:#}");
    assert!(!bridge.logged("needs a person").is_empty());
    assert!(health["needs_person"].to_string().contains("aggregates"), "{health:#}");
    lab.clickhouse.query(&create).await;
    let healthy = |h: &Json| h["status"] == "healthy" && settled(h, "kafka", 4_000);
    bridge.wait_until("it has healed", healthy).await;
    lab.assert_exact(&plan).await;
    assert_eq!(lab.clickhouse.number("SELECT count() FROM dead_letters").await, 0);
    bridge.stop().await;
}

/// It holds at most its share: what waits for it does not stop the others, however much comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_table_leaves_room_for_the_others() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let create = lab.clickhouse.query("SHOW CREATE TABLE aggregates FORMAT TSVRaw").await;
    lab.clickhouse.query("DROP TABLE aggregates SYNC").await;
    let many = plan(&[(Target::Kafka, Kind::Candles, 60_000)]);
    lab.send_to_kafka(&many).await;
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    let full = |_: &Json| !bridge.logged("its routes wait").is_empty();
    bridge.wait_until("the candles wait", full).await;
    let others = plan(&[(Target::Kafka, Kind::Ticks, 2_000), (Target::Nats, Kind::Ticks, 2_000)]);
    tokio::join!(lab.send_to_kafka(&others), lab.send_to_nats(&others, 5_000));
    let stored = |h: &Json| h["metrics"]["routes"]["ticks"]["inserted"] == 4_000;
    let health = bridge.wait_until("the ticks are stored", stored).await;
    assert!(number(&health["metrics"]["backpressure"]["current_buffer"]) <= 21_000, "{health:#}");
    assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
    lab.clickhouse.query(&create).await;
    bridge.wait_until("the candles are stored", |h| settled(h, "kafka", 62_000)).await;
    lab.assert_exact(&many).await;
    bridge.stop().await;
}

/// A table that goes while it is written to, and one that lost a column and gets it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_changes_under_way_heals() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka nats"), "").await;
    lab.numbers_to_kafka(0..1_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 1_000).await;
    lab.clickhouse.query("RENAME TABLE numbers TO away").await;
    lab.numbers_to_kafka(1_000..2_000, u64::MAX).await;
    let critical = |h: &Json| h["status"] == "critical";
    bridge.wait_until("the table is missed", critical).await;
    lab.clickhouse.query("RENAME TABLE away TO numbers").await;
    lab.clickhouse.until("SELECT count() FROM numbers", 2_000).await;
    bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    // one column more, with a default; then one less
    lab.clickhouse.query("ALTER TABLE numbers ADD COLUMN extra UInt64 DEFAULT n + 1").await;
    lab.numbers_to_kafka(2_000..3_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers WHERE extra = n + 1", 3_000).await;
    lab.clickhouse.query("ALTER TABLE numbers DROP COLUMN extra").await;
    lab.numbers_to_kafka(3_000..4_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 4_000).await;
    // a column of the route goes, and comes back
    lab.clickhouse.query("ALTER TABLE numbers RENAME COLUMN _offset TO away").await;
    lab.numbers_to_kafka(4_000..5_000, u64::MAX).await;
    bridge.wait_until("the column is missed", critical).await;
    lab.clickhouse.query("ALTER TABLE numbers RENAME COLUMN away TO _offset").await;
    lab.clickhouse.until("SELECT count() FROM numbers WHERE _offset IS NOT NULL", 5_000).await;
    let health = bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["dead_letters"], 0, "{health:#}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_waited_for() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    lab.numbers_to_kafka(0..1_000, u64::MAX).await;
    let over = "clickhouse.user = \"data_bridge\"\nclickhouse.password = \"quite another\"";
    let mut bridge = lab.spawn(&lab.numbers("kafka nats"), over);
    bridge.listening().await;
    let health = bridge.wait_until("it says so", |h| h["status"] == "critical").await;
    let why = health["needs_person"].to_string();
    assert!(why.contains("clickhouse.password") && why.contains("data_bridge"), "{why}");
    assert!(!bridge.log().contains("quite another"), "the password is logged");
    assert!(!health.to_string().contains("quite another"), "the password is shown");
    lab.kill_clickhouse().await;
    tokio::task::block_in_place(|| {
        let stack = lab.own.as_ref().unwrap();
        stack.run(&["start", "--password", "quite another", "clickhouse"]);
    });
    lab.clickhouse.until("SELECT count() FROM numbers", 1_000).await;
    bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    bridge.stop().await;
}

/// The same configuration once more: the port is taken, and the first one does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_ends_with_a_message() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let config = lab.numbers("kafka nats");
    let first = lab.start(&config, "").await;
    let over = format!("http.listen = \"{}\"", first.address());
    let mut second: Bridge = lab.spawn(&config, &over);
    assert_eq!(second.ended(PATIENCE).await, 1);
    let log = second.log();
    let port = first.address().to_string();
    assert!(log.contains(&port) && log.contains("http.listen") && log.contains("in use"), "{log}");
    send_both(&lab, 500).await;
    first.stop().await;
}

/// An absent source has no key, is never paused, and nobody misses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_alone_is_enough() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka"), "").await;
    lab.numbers_to_kafka(0..5_000, u64::MAX).await;
    let health = bridge.wait_until("all is stored", |h| settled(h, "kafka", 5_000)).await;
    assert!(health["metrics"]["sources"].get("nats").is_none(), "{health:#}");
    assert_eq!(health["metrics"]["backpressure"]["nats_paused"], false);
    assert_eq!(health["metrics"]["backpressure"]["pull_limit"], 40_000);
    assert_eq!(lab.stored_numbers(&(0..5_000)).await, (5_000, 5_000));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_alone_is_enough() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let over = "backpressure = { max_buffer_size = 5000, pause_threshold = 4000, \
                resume_threshold = 2000 }\nwriters.default.batch_rows = 1000\n\
                writers.aggregate.batch_rows = 1000";
    let bridge = lab.start(&lab.numbers("nats"), over).await;
    lab.numbers_to_nats(0..1_000, 2_000).await;
    bridge.wait_until("all is stored", |h| settled(h, "nats", 1_000)).await;
    lab.clickhouse.query("RENAME TABLE numbers TO away").await;
    lab.numbers_to_nats(1_000..11_000, 10_000).await;
    let health = bridge
        .wait_until("it is paused", |h| {
            number(&h["metrics"]["sources"]["nats"]["received"]) == 11_000
        })
        .await;
    assert!(health["metrics"]["sources"].get("kafka").is_none(), "{health:#}");
    assert_eq!(health["metrics"]["backpressure"]["kafka_paused"], false);
    assert_eq!(health["metrics"]["backpressure"]["nats_paused"], true, "{health:#}");
    lab.clickhouse.query("RENAME TABLE away TO numbers").await;
    let health = bridge.wait_until("all is stored", |h| settled(h, "nats", 11_000)).await;
    assert_accounts(&health);
    let landed = 11_000 - number(&health["metrics"]["dropped"]);
    assert!((5_000..6_001).contains(&landed), "{landed}");
    assert_eq!(lab.stored_numbers(&(0..11_000)).await, (landed, landed));
    bridge.stop().await;
}
