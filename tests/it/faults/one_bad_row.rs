//! One row that ClickHouse refuses, in batches of ten thousand: it alone becomes a dead letter, and
//! finding it costs two inserts a level of halving.

use super::place::Delivery;
use super::proxy::Proxy;
use crate::lab::{Lab, number, settled};

const BATCH: u64 = 10_000;
/// Where the bad row of each batch stands.
const PLACES: [u64; 4] = [0, BATCH / 2, BATCH - 1, 3_333];
/// Halving so often leaves one of a batch: 2^14 > 10,000.
const LEVELS: u64 = 14;

/// The whole batch once, then two halves a level.
const INSERTS_PER_BATCH: u64 = 1 + 2 * LEVELS;

async fn only_the_bad_row_stands_aside(delivery: Delivery) {
    let mut lab = Lab::new().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    let table = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), \
        _offset Nullable(Int64), CONSTRAINT not_too_large CHECK n < 1000000) \
        ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000";
    lab.clickhouse.query(table).await;
    lab.create_topics(&[lab.topic("numbers")], 1).await;
    let sender = lab.kafka();
    let all = BATCH * PLACES.len() as u64;
    let is_bad = |n: &u64| PLACES[usize::try_from(n / BATCH).unwrap()] == n % BATCH;
    for n in 0..all {
        let value = if is_bad(&n) { n + 1_000_000 } else { n };
        let payload = format!("{{\"n\":{value}}}");
        sender.send(&lab.topic("numbers"), Some(0), None, Some(payload.as_bytes()));
    }
    sender.flush().await;
    // so long that a batch is full before, whatever else the machine does
    let over = "writers.aggregate = { batch_rows = 10000, linger = \"60s\" }\n";
    let (sections, topic, delivery) =
        (lab.sections("kafka"), lab.topic("numbers"), delivery.name());
    let config = format!(
        "{sections}[[routes]]\nname = \"numbers\"\nkafka_topics = [\"{topic}\"]\n\
         writer = \"aggregate\"\ntable = \"numbers\"\ndelivery = \"{delivery}\"\n\
         columns = {{ _partition = \"@partition\", _offset = \"@offset\" }}\n"
    );
    let bridge = lab.start(&config, over).await;
    let health = bridge.wait_until("all is stored", |health| settled(health, "kafka", all)).await;
    let bad = PLACES.len() as u64;
    assert_eq!(number(&health["metrics"]["dead_letters"]), bad, "{health:#}");
    let sql = "SELECT count(), uniqExact(n), groupBitXor(n) FROM numbers FORMAT TSV";
    let landed = lab.clickhouse.query(sql).await;
    let sum = (0..all).filter(|n| !is_bad(n)).fold(0, |sum, n| sum ^ n);
    assert_eq!(landed.trim(), format!("{0}\t{0}\t{sum}", all - bad));
    let sql = "SELECT arraySort(groupArray(toUInt64(offset))) FROM dead_letters FORMAT TSV";
    let expected: Vec<u64> = (0..all).filter(is_bad).collect();
    assert_eq!(lab.clickhouse.query(sql).await.trim(), format!("{expected:?}").replace(' ', ""));
    let reasons =
        "SELECT uniqExact(reason) FROM dead_letters WHERE reason = 'refused_by_clickhouse'";
    assert_eq!(lab.clickhouse.number(reasons).await, 1);
    // what the bridge says, and what really went over the wire, the dead letters' included
    let writer = &health["metrics"]["writers"]["aggregate"];
    let inserts = number(&writer["inserts"]) + number(&writer["failed_inserts"]);
    assert!(inserts <= bad * INSERTS_PER_BATCH, "{inserts} inserts");
    let seen = proxy.counts().inserts;
    assert!((inserts..=inserts + bad).contains(&seen), "{seen} over the wire, {inserts} counted");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_row_in_ten_thousand_costs_two_inserts_a_halving() {
    only_the_bad_row_stands_aside(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_one_bad_row_in_ten_thousand_costs_two_inserts_a_halving() {
    if !super::is_kafka_itself() {
        return;
    }
    only_the_bad_row_stands_aside(Delivery::ExactlyOnce).await;
}
