//! The drill: what whoever is on call would see, fault by fault, on real servers. Which alert comes
//! when, what the page says meanwhile, what the runbook says, and how long it takes until all is normal
//! after the mend. `docs/drill.md` has one run:
//!
//! ```sh
//! cargo test --test it -- drill --nocapture --test-threads=1
//! ```

mod course;
mod disk;

use std::time::Duration;

use data_bridge::alert::AlertId;

use crate::bridge::Bridge;
use crate::lab::{Lab, PARTITIONS};
use course::Course;
use disk::SmallDisk;

/// As in production, but that a minute is a second: a buffer that fills, and alerts that come, while
/// somebody waits for the test.
const SHORT: &str = "backpressure = { max_buffer_size = 1000, pause_threshold = 800, \
     resume_threshold = 400, warn_after = \"5s\", critical_after = \"10m\" }\n\
     writers.aggregate = { batch_rows = 100, linger = \"300ms\" }\n\
     writers.external = { batch_rows = 100, linger = \"1s\" }\n\
     breaker = { max_failures = 3, reset_timeout = \"1s\" }\n\
     [alerts]\nresolve_after = \"2s\"\n\
     [alerts.pending]\nbreaker_open = \"1s\"\nserver_away = \"2s\"\nneeds_person = \"1s\"\n\
     buffer_high = \"2s\"\nfull_soon = \"1h\"\ninput_over_output = \"1h\"\n";

/// Records a second, from before the fault until after the mend.
const RATE: u64 = 200;
const SECONDS: u64 = 25;
const SENT: u64 = RATE * SECONDS;

async fn started(lab: &Lab, over: &str) -> Bridge {
    lab.create_topics(&[lab.topic("numbers")], PARTITIONS).await;
    let bridge = lab.start(&lab.numbers("kafka"), &format!("{over}{SHORT}")).await;
    lab.numbers_to_kafka(SENT..SENT + 100, 1_000).await;
    bridge
        .wait_until("it works", |health| {
            crate::lab::settled(health, "kafka", 100) && health["status"] == "healthy"
        })
        .await;
    bridge
}

/// The table of the numbers; `more` are its settings.
async fn table(lab: &Lab, more: &str) {
    let sql = format!(
        "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), _offset Nullable(Int64)) \
         ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000{more}"
    );
    lab.clickhouse.query(&sql).await;
}

/// Everything that Kafka got is there, once.
async fn nothing_is_missing(lab: &Lab, bridge: &Bridge, letters: u64) -> String {
    let all = SENT + 100;
    let health = bridge
        .wait_until("all is stored", |health| crate::lab::settled(health, "kafka", all + letters))
        .await;
    crate::lab::assert_accounts(&health);
    assert_eq!(lab.stored_numbers(&(0..all)).await, (all, all));
    assert_eq!(health["metrics"]["dead_letters"], letters);
    format!("{all} records came by Kafka, and each was stored once.")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_clickhouse_is_stopped() {
    let lab = Lab::with_own_clickhouse().await;
    table(&lab, "").await;
    let bridge = started(&lab, "").await;
    let mut course = Course::new(&bridge, "ClickHouse is stopped (`kill -9`)");
    let drill = async {
        lab.kill_clickhouse().await;
        course.fault();
        course.until_alerts(&[AlertId::BreakerOpen, AlertId::ServerAway, AlertId::Paused]).await;
        assert!(course.page_said("ClickHouse unavailable", "inserts in a row failed"));
        lab.start_clickhouse().await;
        course.mend("started again");
        course.until_normal().await;
    };
    tokio::join!(lab.numbers_to_kafka(0..SENT, RATE), drill);
    let all = nothing_is_missing(&lab, &bridge, 0).await;
    course.print(&all);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_the_password_is_changed() {
    let lab = Lab::with_own_clickhouse().await;
    table(&lab, "").await;
    let login = "clickhouse.user = \"data_bridge\"\nclickhouse.password = \"data-bridge\"\n";
    let bridge = started(&lab, login).await;
    let mut course = Course::new(&bridge, "The password of its user is changed in ClickHouse");
    let drill = async {
        lab.kill_clickhouse().await;
        let other = &["start", "--password", "quite another", "clickhouse"];
        lab.of_stack(|stack| drop(stack.run(other))).await;
        course.fault();
        course.until_alerts(&[AlertId::NeedsPerson]).await;
        assert!(course.page_said("Needs a person", "does not accept user"));
        lab.kill_clickhouse().await;
        let right = &["start", "--password", "data-bridge", "clickhouse"];
        lab.of_stack(|stack| drop(stack.run(right))).await;
        course.mend("changed back there; the bridge is not touched");
        course.until_normal().await;
    };
    tokio::join!(lab.numbers_to_kafka(0..SENT, RATE), drill);
    let all = nothing_is_missing(&lab, &bridge, 0).await;
    course.print(&all);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_the_disk_of_clickhouse_is_full() {
    let lab = Lab::with_own_clickhouse().await;
    let Some(disk) = SmallDisk::given_to(&lab).await else { return };
    table(&lab, ", storage_policy = 'small'").await;
    let bridge = started(&lab, "").await;
    let mut course = Course::new(&bridge, "The disk of ClickHouse is full");
    let drill = async {
        disk.fill();
        course.fault();
        course.until_alerts(&[AlertId::BreakerOpen, AlertId::Paused]).await;
        assert!(course.page_said("ClickHouse unavailable", "not enough space"));
        disk.make_room();
        course.mend("room was made");
        course.until_normal().await;
    };
    tokio::join!(lab.numbers_to_kafka(0..SENT, RATE), drill);
    let all = nothing_is_missing(&lab, &bridge, 0).await;
    course.print(&all);
    bridge.stop().await;
}

/// An alert of dead letters speaks of the last five minutes; and some patience.
const LETTERS_ARE_TOLD: Duration = Duration::from_secs(5 * 60 + 60);

/// Nothing is held up by it: the good records go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_a_producer_sends_garbage() {
    const BAD: u64 = 300;
    let lab = Lab::with_own_clickhouse().await;
    table(&lab, "").await;
    let bridge = started(&lab, "").await;
    let mut course = Course::new(&bridge, "A bad deploy of a producer sends garbage");
    let drill = async {
        let sender = lab.kafka();
        for n in 0..BAD {
            let bad = format!("{{\"n\":\"release {n}\"}}");
            sender.send(&lab.topic("numbers"), None, None, Some(bad.as_bytes()));
        }
        course.fault();
        sender.flush().await;
        course.until_alerts(&[AlertId::DeadLetters]).await;
        course.mend("the producer was rolled back");
        course
            .until("no letter is on its way", |health| {
                health["metrics"]["dead_letters"] == BAD && health["status"] == "healthy"
            })
            .await;
        course.until_normal_within(LETTERS_ARE_TOLD).await;
    };
    tokio::join!(lab.numbers_to_kafka(0..SENT, RATE), drill);
    let all = nothing_is_missing(&lab, &bridge, BAD).await;
    course.print(&format!("{all} {BAD} dead letters are kept, to be replayed."));
    bridge.stop().await;
}

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
