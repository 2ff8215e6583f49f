//! Slowing down with the fleet, in memory; and three bridges on one ClickHouse that hear of each other
//! through NATS: the program, real servers.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::fleet::View;
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::jetstream::{Numbers, source, with_jetstream};
use crate::lab::{Lab, assert_accounts, number};
use crate::nats_source::server::Server;
use crate::rig::sink::Mode;
use crate::rig::{Rig, Sources, config_edited};

/// Small, so that little fills it: half of it slows the fleet down.
const SMALL: &str = "heartbeat.interval = \"1s\"\n[backpressure]\nmax_buffer_size = 4_000\n\
                     pause_threshold = 3_200\nresume_threshold = 1_600\n\
                     [writers.aggregate]\nbatch_rows = 500\n";

const HEARTBEAT: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn slowed(slowed: bool) -> Arc<View> {
    Arc::new(View { slowed, fill: 0.7, ..View::default() })
}

#[tokio::test(start_paused = true)]
async fn slowed_down_a_pulled_source_takes_a_share_of_what_clickhouse_took_and_then_all_again() {
    let edits = [("name = \"candles\"\n", "name = \"candles\"\npublish = true\n")];
    let more = "[fleet]\nslow_to_percent = 50\n[live.publish]\nwithout_token = true\n";
    let mut rig = Rig::start(&config_edited(Sources::Both, &edits, more));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    for _ in 0..12 {
        assert_eq!(rig.kafka().poll(&candles, 1_000).await, 1_000);
        rig.after(SECOND).await;
    }
    rig.fleet.send_replace(slowed(true));
    rig.after(HEARTBEAT).await;
    let now = rig.now();
    let limit = now.sources["kafka"].current_rate_limit.expect("it is slowed down");
    for others in ["nats", "live"] {
        assert_eq!(now.sources[others].current_rate_limit, None, "{others} is not pulled");
    }
    assert_eq!(now.fleet.as_ref().unwrap().slowdowns, 1);
    // Nothing was polled for up to a heartbeat: at most 1,000 a second were taken in the last.
    assert!(limit > 100.0 && limit <= 500.0, "{limit}");
    let (began, mut taken) = (Instant::now(), 0_u32);
    while began.elapsed() < 60 * SECOND {
        taken += u32::try_from(rig.kafka().poll(&candles, 1_000).await).unwrap();
        rig.after(SECOND / 10).await;
    }
    let most = limit * (began.elapsed().as_secs_f64() + 1.0);
    assert!((most * 0.9..=most).contains(&f64::from(taken)), "{taken} of {most}");
    let now = rig.now();
    assert_eq!(now.sources["kafka"].current_rate_limit, Some(limit), "no better interval came");
    rig.fleet.send_replace(slowed(false));
    rig.after(HEARTBEAT).await;
    assert_eq!(rig.now().sources["kafka"].current_rate_limit, None);
    let end = rig.drained().await;
    assert_eq!((end.dropped(), end.fleet.as_ref().unwrap().slowdowns), (0, 1));
}

/// The fleet fills up when ClickHouse takes nothing: what is measured then is not what it takes.
#[tokio::test(start_paused = true)]
async fn what_was_measured_in_a_stall_follows_what_clickhouse_takes_after_it() {
    let mut rig = Rig::both("[fleet]\nslow_to_percent = 50\n");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.sink.all(Mode::Hold);
    for _ in 0..10 {
        assert_eq!(rig.kafka().poll(&candles, 1_000).await, 1_000);
    }
    rig.after(HEARTBEAT).await;
    rig.fleet.send_replace(slowed(true));
    rig.after(HEARTBEAT + SECOND).await;
    assert_eq!(rig.now().sources["kafka"].current_rate_limit, Some(100.0));
    rig.sink.all(Mode::Accept);
    rig.after(HEARTBEAT + SECOND).await;
    assert_eq!(rig.now().sources["kafka"].current_rate_limit, Some(1_000.0), "of 2,000 a second");
    rig.after(HEARTBEAT + SECOND).await;
    let now = rig.now();
    assert_eq!(now.sources["kafka"].current_rate_limit, Some(1_000.0), "and stays");
    assert_eq!(now.fleet.as_ref().unwrap().slowdowns, 1);
    rig.fleet.send_replace(slowed(false));
    rig.after(HEARTBEAT + SECOND).await;
    assert_eq!(rig.now().sources["kafka"].current_rate_limit, None);
    let end = rig.drained().await;
    assert_eq!((end.inserted(), end.dropped()), (10_000, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lower_of_two_rates_is_in_force() {
    for (configured, meanwhile) in [(50, 50.0), (5_000, 100.0)] {
        let limit =
            format!("[fleet]\n[kafka]\nrate_limit = {{ records_per_second = {configured} }}\n");
        let mut rig = Rig::both(&limit);
        let before = Some(f64::from(configured));
        rig.fleet.send_replace(slowed(true));
        rig.after(HEARTBEAT + SECOND).await;
        let now = rig.now();
        assert_eq!(now.sources["kafka"].current_rate_limit, Some(meanwhile));
        assert_eq!(now.fleet.as_ref().unwrap().slowdowns, 1);
        rig.fleet.send_replace(slowed(false));
        rig.after(HEARTBEAT + SECOND).await;
        assert_eq!(rig.now().sources["kafka"].current_rate_limit, before);
        rig.drained().await;
    }
}

struct Fleet {
    numbers: Numbers,
}

impl Fleet {
    async fn new() -> Self {
        let numbers = Numbers::without_stream(Lab::with_own_clickhouse().await).await;
        numbers.create_stream(1).await;
        Self { numbers }
    }

    fn bucket(&self) -> String {
        format!("fleet_{}", self.numbers.lab.name)
    }

    async fn bridge(&self, instance: &str) -> Bridge {
        let lab = &self.numbers.lab;
        let over = format!(
            "instance = \"{instance}\"\n{SMALL}[fleet]\nbucket = \"{}\"\ninterval = \"1s\"\n\
             forget_after = \"4s\"\nslow_above_percent = 50\nslow_below_percent = 30\n",
            self.bucket()
        );
        let config = lab.file("config.toml", &self.numbers.config(""));
        let over = lab.file(&format!("{instance}.toml"), &over);
        Bridge::spawn(lab.file(&format!("{instance}.log"), ""), &[config, over]).ready().await
    }

    async fn three(&self) -> [Bridge; 3] {
        let three = [self.bridge("a").await, self.bridge("b").await, self.bridge("c.c").await];
        for bridge in &three {
            let both = |health: &Json| others(health).len() == 2;
            let health = bridge.wait_until("it sees the two others", both).await;
            assert!(
                fleet(&health)["others"].as_object().unwrap().values().all(is_sane),
                "{health:#}"
            );
        }
        for bridge in &three {
            assert!(bridge.logged("the fleet is not heard of").is_empty(), "a start is no outage");
        }
        three
    }
}

fn fleet(health: &Json) -> &Json {
    &health["metrics"]["fleet"]
}

fn is_sane(said: &Json) -> bool {
    said["paused"] == false && said["fill"].is_number()
}

fn others(health: &Json) -> Vec<String> {
    fleet(health)["others"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_see_each_other_and_forget_who_dies_and_who_leaves() {
    let fleet_of_three = Fleet::new().await;
    let [mut a, b, c] = fleet_of_three.three().await;
    c.wait_until("the others by name", |health| others(health) == ["a", "b"]).await;
    // What is foreign is left out and counted.
    let bucket =
        fleet_of_three.numbers.jetstream.get_key_value(fleet_of_three.bucket()).await.unwrap();
    bucket.put("somebody", "is not one of us".into()).await.unwrap();
    b.wait_until("the foreign entry is counted", |health| fleet(health)["ignored"] == 1).await;
    a.kill().await;
    b.wait_until("the dead one is forgotten", |health| others(health) == ["c.c"]).await;
    c.stop().await;
    let alone = b.wait_until("who leaves says so", |health| others(health).is_empty()).await;
    assert_eq!(fleet(&alone)["slowed"], false, "{alone:#}");
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_fleet_fills_up_all_pull_more_slowly_and_let_go_again() {
    let fleet_of_three = Fleet::new().await;
    let numbers = &fleet_of_three.numbers;
    let three = fleet_of_three.three().await;
    numbers.lab.kill_clickhouse().await;
    let all = 30_000;
    numbers.publish(0..all, 1_000_000).await;
    for bridge in &three {
        let slow = |health: &Json| {
            fleet(health)["slowed"] == true && source(health)["current_rate_limit"].is_number()
        };
        bridge.wait_until("it pulls more slowly", slow).await;
    }
    numbers.lab.start_clickhouse().await;
    for bridge in &three {
        let free = |health: &Json| {
            fleet(health)["slowed"] == false && source(health)["current_rate_limit"].is_null()
        };
        let health = bridge.wait_until("it pulls as before", free).await;
        assert!(number(&fleet(&health)["slowdowns"]) >= 1, "{health:#}");
    }
    numbers.assert_each_once(0..all).await;
    for bridge in three {
        assert_accounts(&bridge.health().await);
        bridge.stop().await;
    }
}

/// The records come from Kafka; NATS carries only the fleet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nats_dies_everybody_works_for_himself_and_finds_the_others_again() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let mut nats = Server::down();
    let with = with_jetstream(&nats);
    nats.restart(&with).await;
    let topic = lab.topic("numbers");
    let config = format!(
        "{}[nats]\nservers = [\"{}\"]\n[fleet]\ninterval = \"1s\"\nforget_after = \"4s\"\n\
         [[routes]]\nname = \"numbers\"\nkafka_topics = [\"{topic}\"]\nwriter = \"aggregate\"\n\
         table = \"numbers\"\n",
        lab.sections("kafka"),
        nats.url()
    );
    let mut two = Vec::new();
    for instance in ["a", "b"] {
        let files = [
            lab.file(&format!("{instance}.toml"), &config),
            lab.file(&format!("{instance}-name.toml"), &format!("instance = \"{instance}\"\n")),
        ];
        two.push(Bridge::spawn(lab.file(&format!("{instance}.log"), ""), &files).ready().await);
    }
    let together = |health: &Json| others(health).len() == 1 && fleet(health)["error"].is_null();
    for bridge in &two {
        bridge.wait_until("it sees the other", together).await;
    }
    nats.kill().await;
    lab.numbers_to_kafka(0..5_000, 1_000_000).await;
    for bridge in &two {
        let alone = |health: &Json| others(health).is_empty() && fleet(health)["error"].is_string();
        let health = bridge.wait_until("it forgets the other", alone).await;
        assert_eq!(fleet(&health)["slowed"], false, "{health:#}");
        bridge.wait_until("it is healthy", |health| health["status"] == "healthy").await;
    }
    lab.clickhouse.until("SELECT count() FROM numbers", 5_000).await;
    nats.restart(&with).await;
    for bridge in &two {
        bridge.wait_until("it sees the other again", together).await;
    }
    for bridge in two {
        bridge.stop().await;
    }
}
