//! Subjects of core NATS that come and go while records come.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::bridge::Bridge;
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, number, settled};

/// Records a second on the subject that stays.
const RATE: u64 = 1_000;
/// Times that the others come and go.
const TURNS: u64 = 5;

struct Subjects {
    bridge: Bridge,
    over: PathBuf,
    fewer: String,
    more: String,
}

impl Subjects {
    async fn start(lab: &Lab) -> Self {
        let config = lab.numbers("nats").replace("kafka_topics", "# kafka_topics");
        let routes = &config[config.find("[[routes]]").unwrap()..];
        let fewer = format!("{ORDINARY_HEARTBEAT}\n{routes}\n");
        let numbers = &routes[routes.rfind("[[routes]]").unwrap()..];
        let others = numbers
            .replace("name = \"numbers\"", "name = \"others\"")
            .replace(".numbers.>", ".others.>");
        let more = format!("{fewer}{others}\n");
        let over = lab.file("over.toml", &fewer);
        let files = [lab.file("config.toml", &config), over.clone()];
        let bridge = Bridge::spawn(lab.file("bridge.log", ""), &files).ready().await;
        let connected = |health: &Json| health["metrics"]["sources"]["nats"]["connected"] == true;
        bridge.wait_until("NATS is connected", connected).await;
        Self { bridge, over, fewer, more }
    }

    async fn change(&self, text: &str, count: u64) {
        std::fs::write(&self.over, text).unwrap();
        self.bridge.signal("HUP");
        let reloaded = |health: &Json| number(&health["config"]["reloads"]) == count;
        self.bridge.wait_until("the change is in force", reloaded).await;
        let gone = || self.bridge.logged("NATS: other subjects are read").len() as u64 >= count;
        let began = tokio::time::Instant::now();
        while !gone() {
            assert!(began.elapsed() < crate::bridge::PATIENCE, "{}", self.bridge.log_tail());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn turns(&self) {
        for turn in 0..TURNS {
            self.change(&self.more, 2 * turn + 1).await;
            self.change(&self.fewer, 2 * turn + 2).await;
        }
        self.change(&self.more, 2 * TURNS + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_that_come_and_go_lose_and_double_nothing_of_the_one_that_stays() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let subjects = Subjects::start(&lab).await;
    let staying = 10 * RATE;
    tokio::join!(subjects.turns(), lab.numbers_to_nats(0..staying, RATE));
    // And the one that came last is read.
    let client = lab.nats().await;
    for number in staying..staying + 500 {
        let subject = lab.subject("others.x");
        client.publish(subject, format!("{{\"n\":{number}}}").into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let all = staying + 500;
    let arrived = |health: &Json| settled(health, "nats", all);
    let health = subjects.bridge.wait_until("all of it is stored", arrived).await;
    assert_accounts(&health);
    assert_eq!(lab.stored_numbers(&(0..all)).await, (all, all), "{health:#}");
    let routes = &health["metrics"]["routes"];
    assert_eq!(number(&routes["others"]["inserted"]), 500, "{health:#}");
    assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
    subjects.bridge.stop().await;
}
