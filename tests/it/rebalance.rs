//! Members of the group come and go while nothing can be stored: partitions that come are paused
//! too, those that return flow again after the resume, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value as Json;

use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, number};
use crate::stack::is_apache_kafka;

const ALL: u64 = 40_000;

/// Small enough to be full at once; Kafka alone trips the rule.
fn over(strategy: &str) -> String {
    format!(
        "backpressure = {{ max_buffer_size = 5000, pause_threshold = 4000, \
         resume_threshold = 2000, pull_limit = 5000 }}\n\
         writers.default.batch_rows = 1000\nwriters.aggregate.batch_rows = 1000\n\
         kafka.client.\"partition.assignment.strategy\" = \"{strategy}\"\n\
         shutdown.grace = \"3s\"\n"
    )
}

fn kafka(health: &Json) -> &Json {
    &health["metrics"]["sources"]["kafka"]
}

async fn until_natively_paused(bridge: &Bridge, partitions: u64) -> u64 {
    let health = bridge
        .wait_until("all its partitions are natively paused", |health| {
            number(&kafka(health)["assigned"]) == partitions
                && kafka(health)["natively_paused"] == true
        })
        .await;
    number(&kafka(&health)["received"])
}

/// Every number is there. One may be there twice: an insert that was under way when its partition
/// went may still land, and its records come again to whoever has the partition then.
async fn assert_all_land(lab: &Lab, bridge: &Bridge) {
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", ALL).await;
    let health = bridge
        .wait_until("it flows and is quiet", |health| {
            number(&kafka(health)["held"]) == 0 && kafka(health)["paused"] == false
        })
        .await;
    crate::lab::assert_accounts(&health);
    bridge.wait_until("the lag is gone", |health| kafka(health)["lag"] == 0).await;
}

/// A member of the group that takes part and stores nothing, in a thread of its own.
struct Guest {
    leave: Arc<AtomicBool>,
    partitions: Arc<AtomicUsize>,
    thread: tokio::task::JoinHandle<()>,
}

impl Guest {
    fn join(lab: &Lab, strategy: &str) -> Self {
        let mut client = lab.client();
        client.remove("message.max.bytes");
        client.set("group.id", &lab.name).set("enable.auto.commit", "false");
        client.set("partition.assignment.strategy", strategy);
        client.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
        let (topic, leave) = (lab.topic("numbers"), Arc::new(AtomicBool::new(false)));
        let partitions = Arc::new(AtomicUsize::new(0));
        let (left, has) = (Arc::clone(&leave), Arc::clone(&partitions));
        let thread = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            consumer.subscribe(&[&topic]).unwrap();
            while !left.load(Ordering::Acquire) {
                drop(consumer.poll(Duration::from_millis(50)));
                has.store(consumer.assignment().unwrap().count(), Ordering::Release);
            }
        });
        Self { leave, partitions, thread }
    }

    async fn has(&self, partitions: usize) {
        let there = async {
            while self.partitions.load(Ordering::Acquire) != partitions {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.unwrap();
    }

    async fn leave(self) {
        self.leave.store(true, Ordering::Release);
        tokio::time::timeout(PATIENCE, self.thread).await.unwrap().unwrap()
    }
}

async fn a_member_comes_and_goes_during_an_outage(strategy: &str) {
    if !is_apache_kafka("two members of one group, and how they share its partitions") {
        return;
    }
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka"), &over(strategy)).await;
    lab.numbers_to_kafka(0..3_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 3_000).await;
    lab.kill_clickhouse().await;
    lab.numbers_to_kafka(3_000..ALL, u64::MAX).await;
    until_natively_paused(&bridge, 6).await;
    let guest = Guest::join(&lab, strategy);
    guest.has(3).await;
    let shared = until_natively_paused(&bridge, 3).await;
    guest.leave().await;
    let alone = until_natively_paused(&bridge, 6).await;
    assert_eq!(shared, alone, "what came back was taken from although it is paused");
    assert_eq!(bridge.health().await["metrics"]["backpressure"]["pause_count"], 1);
    lab.start_clickhouse().await;
    assert_all_land(&lab, &bridge).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_comes_and_goes_during_an_outage_with_range() {
    a_member_comes_and_goes_during_an_outage("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_comes_and_goes_during_an_outage_with_cooperative_sticky() {
    a_member_comes_and_goes_during_an_outage("cooperative-sticky").await;
}

/// The second instance is a bridge; a bridge starts only when ClickHouse answers, so here it
/// answers and the table is away.
async fn an_instance_comes_and_goes_while_paused(strategy: &str) {
    if !is_apache_kafka("two members of one group, and how they share its partitions") {
        return;
    }
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let config = lab.numbers("kafka");
    let one = lab.start(&config, &over(strategy)).await;
    lab.numbers_to_kafka(0..3_000, u64::MAX).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 3_000).await;
    lab.clickhouse.query("RENAME TABLE numbers TO away").await;
    lab.numbers_to_kafka(3_000..ALL, u64::MAX).await;
    until_natively_paused(&one, 6).await;
    let mut other = lab.start(&config, &over(strategy)).await;
    until_natively_paused(&other, 3).await;
    until_natively_paused(&one, 3).await;
    assert_eq!(other.terminate().await, 1, "it abandons what it took");
    until_natively_paused(&one, 6).await;
    lab.clickhouse.query("RENAME TABLE away TO numbers").await;
    assert_all_land(&lab, &one).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_comes_and_goes_while_paused_with_range() {
    an_instance_comes_and_goes_while_paused("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_comes_and_goes_while_paused_with_cooperative_sticky() {
    an_instance_comes_and_goes_while_paused("cooperative-sticky").await;
}
