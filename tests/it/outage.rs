//! ClickHouse goes away under load and comes back; and the opposite, where it is well and Kafka
//! has more than anyone can hold.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, number, scale, settled};

/// Where the numbers that travel over NATS begin.
const NATS: u64 = 10_000_000;
const RATE: u64 = 5_000;

fn pressure(health: &Json) -> &Json {
    &health["metrics"]["backpressure"]
}

/// `kill -9`, at 5,000 records a second from each source, for three times `max.poll.interval.ms`
/// (60 s with `DATA_BRIDGE_TEST_SCALE=3`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_clickhouse_costs_nothing_but_counted_nats_records() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let poll_s = 9 * scale().min(4);
    // As long as the poll interval allows: the first inserts of a server that just started may take
    // more than the second of the other tests, and a source that waits so long starves.
    let over = format!(
        "heartbeat.interval = \"2900ms\"\nkafka.client.\"max.poll.interval.ms\" = {}",
        poll_s * 1_000
    );
    let bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    let seconds = 3 * poll_s + 2;
    let (kafka, nats) = (0..RATE * seconds, NATS..NATS + RATE * seconds);
    let system = 10 * seconds;
    let load = async {
        tokio::join!(
            lab.numbers_to_kafka(kafka.clone(), RATE),
            lab.numbers_to_nats(nats.clone(), RATE),
            send_system(&lab, system)
        )
    };
    let outage = async {
        let at_work = |health: &Json| {
            let rows = |source: &str| number(&health["metrics"]["sources"][source]["inserted"]);
            rows("kafka").min(rows("nats")) >= RATE / 2
        };
        bridge.wait_until("both are at work", at_work).await;
        lab.kill_clickhouse().await;
        let health = bridge
            .wait_until("everything is paused", |health| {
                pressure(health)["kafka_paused"] == true && pressure(health)["nats_paused"] == true
            })
            .await;
        // two heartbeats, and a machine that stalls
        let soon = Duration::from_secs(20);
        let natively =
            |health: &Json| health["metrics"]["sources"]["kafka"]["natively_paused"] == true;
        bridge.wait_until_within(soon, "Kafka is natively paused", natively).await;
        // the pull limit, midway, holds Kafka; NATS goes on until the pause threshold
        assert!(number(&health["metrics"]["sources"]["kafka"]["held"]) <= 30_000, "{health:#}");
        assert!(number(&pressure(&health)["current_buffer"]) > 40_000, "{health:#}");
        Instant::now()
    };
    let (_, paused_at) = tokio::join!(load, outage);
    tokio::time::sleep_until(paused_at + Duration::from_secs(3 * poll_s)).await;
    let health = bridge.health().await;
    assert_eq!(health["metrics"]["sources"]["kafka"]["assigned"], 6, "it is still a member");
    assert!(number(&health["metrics"]["dropped"]) > 0);
    lab.start_clickhouse().await; // and no record comes from here on
    let health = bridge
        .wait_until("all of it is stored", |health| {
            settled(health, "kafka", kafka.end) && settled(health, "nats", RATE * seconds)
        })
        .await;
    assert_episode(&bridge, &health);
    assert_eq!(lab.stored_numbers(&kafka).await, (kafka.end, kafka.end));
    let dropped = number(&health["metrics"]["sources"]["nats"]["dropped"]["market"]);
    assert_eq!(number(&health["metrics"]["dropped"]), dropped);
    let landed = RATE * seconds - dropped;
    assert_eq!(lab.stored_numbers(&nats).await, (landed, landed), "NATS");
    let seen = &health["metrics"]["sources"]["nats"]["system"];
    let subject = lab.subject("system.health.test");
    assert_eq!(number(&seen[&subject]["count"]), system, "{seen:#}");
    bridge.stop().await;
}

async fn send_system(lab: &Lab, count: u64) {
    let (client, subject) = (lab.nats().await, lab.subject("system.health.test"));
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..count {
        client.publish(subject.clone(), "{}".into()).await.unwrap();
        tick.tick().await;
    }
    client.flush().await.unwrap();
}

/// One pause for the outage, one resume; bounded; the group was never left. Kafka may starve before
/// or after it: an insert of a busy machine may take the heartbeat. Such an episode pauses Kafka alone.
fn assert_episode(bridge: &Bridge, health: &Json) {
    assert_accounts(health);
    let pressure = pressure(health);
    assert_eq!(pressure["active"], false, "{health:#}");
    let peak = number(&pressure["peak_buffer"]);
    assert!((40_001..=50_000).contains(&peak), "{health:#}");
    assert!(pressure["last_resume"].as_str() > pressure["last_pause"].as_str(), "{health:#}");
    for (part, count) in [
        ("NATS subscriber paused", 1),
        ("NATS subscriber resumed", 1),
        ("revoked", 0),
        ("partitions lost", 0),
    ] {
        assert_eq!(bridge.logged(part).len(), count, "{part}\n{}", bridge.log_tail());
    }
    let episodes = bridge.logged("BACKPRESSURE ACTIVE: Buffer high (").len();
    assert_eq!(number(&pressure["pause_count"]), u64::try_from(episodes).unwrap(), "{health:#}");
    let log = bridge.log_lines();
    let began = log.iter().filter(|line| line["event"] == "backpressure_active");
    let of_the_outage = began.filter(|line| line["cause"] != "starved").count();
    assert!(of_the_outage <= 1, "{of_the_outage}\n{}", bridge.log_tail());
    let paused = bridge.logged("Kafka subscriber paused").len();
    assert!(paused >= 1, "{}", bridge.log_tail());
    assert_eq!(bridge.logged("Kafka subscriber resumed").len(), paused, "{}", bridge.log_tail());
    let all_released = bridge.logged("BACKPRESSURE RELEASED: Buffer normal (");
    assert_eq!(all_released.len(), episodes, "{all_released:?}");
    for released in all_released {
        let at = released.split(['(', '/']).nth(1).unwrap().replace(',', "");
        assert!(at.parse::<u64>().unwrap() < 20_000, "{released}");
    }
    let memory = bridge.peak_memory_mib();
    assert!(memory < 600, "{memory} MiB");
}

/// A full buffer because there is plenty is no pause, and pushes nobody out. A tenth of what
/// `DATA_BRIDGE_TEST_SCALE=10` does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_caught_up_beside_live_records_without_a_pause() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let (kafka, nats) = (0..100_000 * scale(), NATS..NATS + 5_000 * scale());
    lab.numbers_to_kafka(kafka.clone(), u64::MAX).await;
    let bridge = lab.start(&lab.numbers("kafka nats"), ORDINARY_HEARTBEAT).await;
    lab.numbers_to_nats(nats.clone(), 1_000).await;
    let sent = nats.end - nats.start;
    let health = bridge
        .wait_until("all of it is stored", |health| {
            settled(health, "kafka", kafka.end) && settled(health, "nats", sent)
        })
        .await;
    assert_accounts(&health);
    assert_eq!(pressure(&health)["pause_count"], 0, "{health:#}");
    assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
    assert_eq!(lab.stored_numbers(&kafka).await, (kafka.end, kafka.end));
    assert_eq!(lab.stored_numbers(&nats).await, (sent, sent));
    let metrics = bridge.metrics().await;
    assert!(metrics.contains("data_bridge_pauses_total 0"), "{metrics}");
    bridge.stop().await;
}
