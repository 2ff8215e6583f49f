//! Exactly once from JetStream: one instance reads a stream like a log, a bucket says which and how
//! far. Instances die, freeze and take over; consumers, buckets, streams and servers go and come.

use std::time::Duration;

use async_nats::jetstream::stream::{self, RetentionPolicy};
use futures_util::TryStreamExt as _;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::server::{Cluster, flows, killed_three_times, known};
use super::{Numbers, received, source, until_acked, until_under_load};
use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, number};

/// Of the one instance that there is.
const LEASE: &str = "lease = \"3s\"";
/// Where another instance waits for it: short enough to be waited for, and so long that an owner
/// does not lose it on a machine that stalls for seconds.
const CONTESTED_LEASE: &str = "lease = \"10s\"";
const CONTESTED_LASTS: Duration = Duration::from_secs(10);
/// Nobody waits for this one.
const LONG_LEASE: &str = "lease = \"1h\"";

impl Numbers {
    /// Its route, with the promise; the bucket is the test's own.
    fn once(&self, more: &str) -> String {
        let config = self.config(&format!("{more}\nstate_bucket = \"{}\"", self.bucket()));
        let once = config
            .replace("table = \"numbers\"\n", "table = \"numbers\"\ndelivery = \"exactly_once\"\n");
        assert_ne!(once, config);
        once
    }

    fn bucket(&self) -> String {
        format!("state_{}", self.lab.name)
    }

    /// What is in the bucket of the route's consumer.
    async fn state(&self) -> Json {
        let bucket = self.jetstream.get_key_value(self.bucket()).await.unwrap();
        let key = format!("{}.{}", self.stream(), self.consumer());
        serde_json::from_slice(&bucket.get(key).await.unwrap().unwrap()).unwrap()
    }

    /// The consumers that bridges made for themselves.
    async fn readers(&self) -> Vec<String> {
        let names: Vec<String> = known("the stream's consumers", async || {
            let stream = self.jetstream.get_stream(self.stream()).await.ok()?;
            stream.consumer_names().try_collect().await.ok()
        })
        .await;
        names.into_iter().filter(|name| name.starts_with("data-bridge-")).collect()
    }
}

fn instance(name: &str) -> String {
    format!("instance = \"{name}\"")
}

async fn standing_by(bridge: &Bridge) {
    bridge.wait_for_log("standing by").await;
    assert_eq!(received(&bridge.health().await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_each_record_comes_once_and_a_clean_stop_leaves_it_to_the_next_at_once() {
    let numbers = Numbers::new().await;
    let config = numbers.once(LONG_LEASE);
    let bridge = numbers.lab.start(&config, &instance("a")).await;
    numbers.publish(0..20_000, 1_000_000).await;
    numbers.assert_each_once(0..20_000).await;
    let health = until_acked(&bridge, 20_000).await;
    assert_eq!(received(&health), 20_000);
    assert_eq!(number(&source(&health)["lag"]), 0, "{health:#}");
    assert!(bridge.metrics().await.contains("jetstream_ack_floor_sequence"));
    bridge.stop().await;
    let state = numbers.state().await;
    assert_eq!((&state["free"], number(&state["place"]["next"])), (&Json::Bool(true), 20_001));
    assert!(numbers.readers().await.is_empty(), "it leaves nothing behind");
    // The lease lasts for an hour, and was given up.
    let bridge = numbers.lab.start(&config, &instance("b")).await;
    numbers.publish(20_000..25_000, 1_000_000).await;
    numbers.assert_each_once(0..25_000).await;
    assert_eq!(received(&until_acked(&bridge, 5_000).await), 5_000);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_an_owner_that_is_killed_is_replaced_after_its_lease() {
    let numbers = Numbers::new().await;
    let config = numbers.once(CONTESTED_LEASE);
    let mut owner = numbers.lab.start(&config, &instance("owner")).await;
    let other = numbers.lab.spawn(&config, &instance("other")).ready().await;
    standing_by(&other).await;
    let mut took = Duration::ZERO;
    let replaced = async {
        until_under_load(&owner).await;
        owner.kill().await;
        let killed = Instant::now();
        other.wait_until("it goes on", |health| received(health) > 0).await;
        took = killed.elapsed();
    };
    let all = numbers.publish_during(2_000, replaced).await;
    // The last renewal may be a third of the lease old, and as much again where it was late; what
    // follows is a look and a start.
    let expected = CONTESTED_LASTS / 3..CONTESTED_LASTS + PATIENCE / 2;
    assert!(expected.contains(&took), "{took:?}");
    numbers.assert_each_once(0..all).await;
    other.stop().await;
}

/// Longer than the lease, and then it wakes in the middle of what it was doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_an_owner_that_was_frozen_sends_nothing_new_when_it_wakes() {
    let numbers = Numbers::new().await;
    let config = numbers.once(CONTESTED_LEASE);
    let mut two = [
        numbers.lab.start(&config, &instance("a")).await,
        numbers.lab.spawn(&config, &instance("b")).ready().await,
    ];
    standing_by(&two[1]).await;
    let freezes = async {
        for _ in 0..3 {
            let [owner, other] = &two;
            let (gained, lost) = ("this instance reads it now", "another instance reads it now");
            let (gains, losses) = (other.logged(gained).len(), owner.logged(lost).len());
            until_under_load(owner).await;
            owner.signal("STOP");
            // What the other had received when it lost it comes to light late: no sign that it reads.
            other.wait_for_logs(gained, gains + 1).await;
            until_under_load(other).await;
            owner.signal("CONT");
            owner.wait_for_logs(lost, losses + 1).await;
            two.reverse();
        }
    };
    let all = numbers.publish_during(1_000, freezes).await;
    numbers.assert_each_once(0..all).await;
    for bridge in two {
        bridge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_kill_9_and_restart_under_load_neither_loses_nor_repeats() {
    let numbers = Numbers::new().await;
    let config = numbers.once("lease = \"1s\"");
    let all = numbers.killed_under_load(&config, 5, 100, 2_000).await;
    let bridge = numbers.lab.start(&config, "").await;
    numbers.assert_each_once(0..all).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_consumer_deleted_under_way_is_replaced_and_nothing_is_read_twice() {
    let numbers = Numbers::new().await;
    let bridge = numbers.lab.start(&numbers.once(LONG_LEASE), "").await;
    let deletions = async {
        for _ in 0..3 {
            until_under_load(&bridge).await;
            let some = async || Some(numbers.readers().await).filter(|readers| !readers.is_empty());
            for reader in known("a reader", some).await {
                numbers.delete_consumer(&reader).await;
            }
            flows(&bridge, received(&bridge.health().await), Instant::now()).await;
        }
    };
    let all = numbers.publish_during(4_000, deletions).await;
    numbers.assert_each_once(0..all).await;
    assert_eq!(received(&until_acked(&bridge, all).await), all, "nothing is read twice");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_bucket_that_is_deleted_is_made_again_with_what_was_in_it() {
    let numbers = Numbers::new().await;
    let bridge = numbers.lab.start(&numbers.once(LEASE), "").await;
    let deletion = async {
        until_under_load(&bridge).await;
        numbers.jetstream.delete_key_value(numbers.bucket()).await.unwrap();
        flows(&bridge, received(&bridge.health().await), Instant::now()).await;
    };
    let all = numbers.publish_during(4_000, deletion).await;
    numbers.assert_each_once(0..all).await;
    assert_eq!(received(&until_acked(&bridge, all).await), all, "nothing is read twice");
    bridge.stop().await;
    assert_eq!(number(&numbers.state().await["place"]["next"]), all + 1);
}

/// They were announced and never inserted; then the stream loses some of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_what_the_stream_lost_of_a_noted_range_is_looked_for_and_the_rest_is_inserted() {
    const ALL: u64 = 3_000;
    const GONE: u64 = 1_700;
    let numbers = Numbers::without_stream(Lab::with_own_clickhouse().await).await;
    let sql = "ALTER TABLE numbers ADD COLUMN _topic LowCardinality(Nullable(String))";
    numbers.lab.clickhouse.query(sql).await;
    numbers.create_stream(1).await;
    let config = numbers.once("lease = \"1s\"") + "_topic = \"@topic\"\n";
    let over = "writers.aggregate = { batch_rows = 500, linger = \"1s\" }";
    let mut bridge = numbers.lab.start(&config, over).await;
    numbers.publish(0..1, 1_000_000).await;
    numbers.assert_each_once(0..1).await;
    numbers.lab.kill_clickhouse().await;
    numbers.publish(1..ALL, 1_000_000).await;
    let noted = async || {
        let note = numbers.state().await["place"]["note"].to_string();
        note.split(' ').filter(|word| word.contains(':')).count()
    };
    let started = Instant::now();
    while noted().await < 4 {
        assert!(started.elapsed() < PATIENCE, "{}", bridge.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bridge.kill().await;
    let stream = numbers.jetstream.get_stream(numbers.stream()).await.unwrap();
    stream.purge().sequence(GONE + 1).await.unwrap();
    numbers.lab.start_clickhouse().await;
    let bridge = numbers.lab.start(&config, over).await;
    // Number n has the sequence n + 1: the first one was stored before, those up to GONE are lost.
    let there = ALL - GONE + 1;
    numbers.lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", there).await;
    until_acked(&bridge, ALL - GONE).await;
    let rows = "SELECT count() FROM numbers";
    assert_eq!(numbers.lab.clickhouse.number(rows).await, there);
    assert!(!bridge.logged("the source lost these records").is_empty());
    bridge.stop().await;
}

/// Its numbers begin anew: they have nothing to do with those of the stream before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_stream_that_is_made_anew_is_read_from_its_start() {
    let numbers = Numbers::new().await;
    let config = numbers.once(LEASE);
    let bridge = numbers.lab.start(&config, "").await;
    for round in 0..2 {
        let (from, to) = (round * 8_000, round * 8_000 + 5_000);
        numbers.publish(from..to, 1_000_000).await;
        numbers.assert_each_once(0..to).await;
        numbers.jetstream.delete_stream(numbers.stream()).await.unwrap();
        numbers.create_stream(1).await;
        numbers.publish(to..to + 3_000, 1_000_000).await;
        numbers.assert_each_once(0..to + 3_000).await;
    }
    until_acked(&bridge, 16_000).await;
    bridge.stop().await;
    assert_eq!(number(&numbers.state().await["place"]["next"]), 3_001);
    // Also while no bridge runs.
    numbers.jetstream.delete_stream(numbers.stream()).await.unwrap();
    numbers.create_stream(1).await;
    let bridge = numbers.lab.start(&config, "").await;
    numbers.publish(16_000..17_000, 1_000_000).await;
    numbers.assert_each_once(0..17_000).await;
    bridge.stop().await;
}

/// What the route had done while it was at least once is not read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_route_that_gets_the_promise_goes_on_where_its_consumer_was() {
    let numbers = Numbers::new().await;
    let bridge = numbers.lab.start(&numbers.config(""), "").await;
    numbers.publish(0..4_000, 1_000_000).await;
    until_acked(&bridge, 4_000).await;
    bridge.stop().await;
    numbers.until_all_acked().await;
    let bridge = numbers.lab.start(&numbers.once(LEASE), "").await;
    numbers.publish(4_000..6_000, 1_000_000).await;
    numbers.assert_each_once(0..6_000).await;
    assert_eq!(received(&until_acked(&bridge, 2_000).await), 2_000);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_stream_that_deletes_what_is_acknowledged_is_refused_until_it_is_another() {
    let numbers = Numbers::without_stream(Lab::new().await).await;
    let queue = stream::Config {
        name: numbers.stream(),
        subjects: vec![numbers.lab.subject("numbers.>")],
        retention: RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    numbers.jetstream.create_stream(queue).await.unwrap();
    let bridge = numbers.lab.spawn(&numbers.once(LEASE), "").ready().await;
    bridge.needs_person("retention workqueue").await;
    numbers.jetstream.delete_stream(numbers.stream()).await.unwrap();
    numbers.create_stream(1).await;
    numbers.publish(0..1_000, 1_000_000).await;
    numbers.assert_each_once(0..1_000).await;
    bridge.needs_nobody().await;
    bridge.stop().await;
}

/// `check` makes nothing and takes nothing; `audit` goes by what is in the bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_check_says_who_reads_and_the_audit_proves_that_each_is_there_once() {
    let numbers = Numbers::new().await;
    let config = numbers.once(LEASE);
    let file = numbers.lab.file("once.toml", &config);
    let said = async |args: &[&str]| {
        let output = crate::bridge::program().args(args).arg("--config").arg(&file).output().await;
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let (_, before) = said(&["check"]).await;
    assert!(before.contains("which is made at the start"), "{before}");
    assert!(numbers.jetstream.get_key_value(numbers.bucket()).await.is_err(), "it makes nothing");

    let bridge = numbers.lab.start(&config, &instance("reader")).await;
    numbers.publish(0..500, 1_000_000).await;
    until_acked(&bridge, 500).await;
    let (_, during) = said(&["check"]).await;
    assert!(during.contains("now reader/"), "{during}");
    bridge.stop().await;
    let (_, after) = said(&["check"]).await;
    assert!(after.contains("now none, up to 501"), "{after}");

    let (code, proved) = said(&["audit"]).await;
    assert!(code == Some(0) && proved.contains("1..501 500 0"), "{code:?} {proved}");
    let again = "INSERT INTO numbers SELECT * FROM numbers WHERE n = 7";
    numbers.lab.clickhouse.query(again).await;
    let (code, repeated) = said(&["audit"]).await;
    assert!(code == Some(1), "a repeated row is a fault here: {repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_killed_server_costs_nothing_and_resumes() {
    let (_numbers, bridge, _, _server) = killed_three_times(|numbers| numbers.once(LEASE)).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_change_of_leader_resumes_and_costs_nothing() {
    let mut cluster = Cluster::start().await;
    let numbers = Numbers::at(&cluster.urls().join(",")).await;
    numbers.create_stream_when_it_can(3).await;
    let over = format!("nats.servers = {:?}", cluster.urls());
    let bridge = numbers.lab.start(&numbers.once(LEASE), &over).await;
    let bucket = numbers.jetstream.get_stream(format!("KV_{}", numbers.bucket())).await.unwrap();
    assert_eq!(bucket.cached_info().config.num_replicas, 3, "as many as the stream has");
    let newest_reader = async || known("a reader", async || numbers.readers().await.pop()).await;
    let changes = async {
        for round in 1..=3 {
            until_under_load(&bridge).await;
            let leader = match round {
                // Where the bucket is written, where the stream is read, where it is delivered.
                1 => numbers.leader_of(&format!("KV_{}", numbers.bucket())).await,
                2 => numbers.leader_of(&numbers.stream()).await,
                _ => numbers.leader_of_consumer(newest_reader).await,
            };
            let before = received(&bridge.health().await);
            cluster.servers[leader].kill().await;
            flows(&bridge, before, Instant::now()).await;
            cluster.servers[leader].restart(&cluster.configs[leader]).await;
            cluster.is_whole(&numbers).await;
        }
    };
    let all = numbers.publish_during(1_000, changes).await;
    numbers.assert_each_once(0..all).await;
    assert_eq!(received(&until_acked(&bridge, all).await), all, "nothing is read twice");
    bridge.stop().await;
}
