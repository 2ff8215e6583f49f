//! The program on real Kafka, NATS and ClickHouse, changed again and again while records come.

use std::path::PathBuf;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value as Json;

use crate::bridge::{Bridge, PATIENCE, ask, program};
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, number, scale, settled};

/// Changes of the suite; `DATA_BRIDGE_TEST_SCALE=5` makes a hundred of them.
const CHANGES: u64 = 20;
/// Records a second by Kafka, and half as many by NATS.
const RATE: u64 = 2_000;
/// What a change takes on a busy machine, so that records come until the last of them.
const MILLIS_A_CHANGE: u64 = 500;

/// A bridge whose second configuration file the test rewrites.
struct Changing {
    bridge: Bridge,
    over: PathBuf,
    first: String,
    second: String,
}

impl Changing {
    async fn start(lab: &Lab) -> Self {
        let config = lab.numbers("kafka nats");
        let first = format!("{ORDINARY_HEARTBEAT}\n[http]\ntoken = \"t0ken\"\n");
        // Other limits; and the routes in another order, one with another name and writer.
        let routes = &config[config.find("[[routes]]").unwrap()..];
        let (system, numbers) = routes.split_at(routes.rfind("[[routes]]").unwrap());
        let numbers = numbers.replace("name = \"numbers\"", "name = \"figures\"");
        let numbers = numbers.replace("writer = \"aggregate\"", "writer = \"external\"");
        let second = format!(
            "{first}[log]\nlevel = \"debug\"\n[backpressure]\npause_threshold = 30_000\n\
             [writers.aggregate]\nbatch_rows = 700\n[writers.external]\nlinger = \"200ms\"\n\
             [breaker]\nmax_failures = 7\n{numbers}{system}"
        );
        let over = lab.file("over.toml", &first);
        let files = [lab.file("config.toml", &config), over.clone()];
        let bridge = Bridge::spawn(lab.file("bridge.log", ""), &files).ready().await;
        let assigned = |health: &Json| health["metrics"]["sources"]["kafka"]["assigned"] != 0;
        bridge.wait_until("Kafka's partitions are ours", assigned).await;
        let connected = |health: &Json| health["metrics"]["sources"]["nats"]["connected"] == true;
        bridge.wait_until("NATS is connected", connected).await;
        Self { bridge, over, first, second }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.over, text).unwrap();
    }

    async fn put(&self, body: &str) -> (StatusCode, Json) {
        let url = format!("http://{}/admin/config", self.bridge.address());
        let request = Request::put(url).header("authorization", "Bearer t0ken");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (status, body) = ask(request, PATIENCE).await.unwrap();
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn reloads(&self, count: u64) -> Json {
        let reloaded = |health: &Json| number(&health["config"]["reloads"]) == count;
        self.bridge.wait_until("the change is in force", reloaded).await
    }

    /// Over and back, by signal and by request; and now and then by mistake.
    async fn change(&self, times: u64) {
        for change in 1..=times {
            let text = if change % 2 == 1 { &self.second } else { &self.first };
            self.write(text);
            if change % 3 == 0 {
                let (status, answer) = self.put("").await;
                assert_eq!(status, StatusCode::OK, "{answer:#}");
                assert!(answer.to_string().contains("routes.figures.writer"), "{answer:#}");
            } else {
                self.bridge.signal("HUP");
            }
            self.reloads(change).await;
            if change % 5 == 0 {
                let (status, answer) = self.put("[backpressure]\npause_threshold = 1\n").await;
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_lose_nothing_double_nothing_and_pause_nothing() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let changing = Changing::start(&lab).await;
    let changes = CHANGES * scale();
    let by_kafka = changes * MILLIS_A_CHANGE * RATE / 1_000;
    let all = by_kafka + by_kafka / 2;
    tokio::join!(
        changing.change(changes),
        lab.numbers_to_kafka(0..by_kafka, RATE),
        lab.numbers_to_nats(by_kafka..all, RATE / 2),
    );
    let arrived =
        |health: &Json| settled(health, "kafka", by_kafka) && settled(health, "nats", by_kafka / 2);
    let health = changing.bridge.wait_until("all of it is stored", arrived).await;
    assert_accounts(&health);
    assert_eq!(lab.stored_numbers(&(0..all)).await, (all, all), "{health:#}");
    assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
    assert_eq!(health["metrics"]["backpressure"]["pause_count"], 0, "{health:#}");
    assert_eq!(number(&health["config"]["refusals"]), changes / 5);
    let routes = &health["metrics"]["routes"];
    let shares = [number(&routes["numbers"]["inserted"]), number(&routes["figures"]["inserted"])];
    assert!(shares.iter().all(|share| *share > 0), "both routes took some: {shares:?}");
    assert_eq!(shares.iter().sum::<u64>(), all);
    let said = changing.bridge.logged("configuration changed: ");
    assert_eq!(said.len() as u64, changes, "each is logged with its difference");
    assert!(said[0].contains("backpressure.pause_threshold: 40000 -> 30000"), "{}", said[0]);
    let debug = |line: &Json| line["level"] == "DEBUG";
    assert!(changing.bridge.log_lines().iter().any(debug), "the level of the log follows");
    changing.bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_by_signal_changes_nothing_and_stays_in_sight() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let changing = Changing::start(&lab).await;
    let before = changing.bridge.health().await["config"]["hash"].clone();
    changing.write(&format!(
        "{}[kafka]\ngroup_id = \"other\"\n[retry]\nmax_delay = \"9s\"\n",
        changing.first
    ));
    changing.bridge.signal("HUP");
    let refused = |health: &Json| number(&health["config"]["refusals"]) == 1;
    let health = changing.bridge.wait_until("it is refused", refused).await;
    let config = &health["config"];
    let why = config["last_refusal"]["why"].as_str().unwrap();
    assert!(why.contains("kafka.group_id") && why.contains("restart"), "{why}");
    assert_eq!((&config["hash"], number(&config["reloads"])), (&before, 0));
    assert_eq!(changing.bridge.logged("configuration not changed").len(), 1);
    // One that follows goes through, and a hangup at the stop ends nothing early.
    changing.write(&changing.second);
    changing.bridge.signal("HUP");
    changing.reloads(1).await;
    changing.bridge.signal("TERM");
    changing.bridge.signal("HUP");
    let Changing { mut bridge, .. } = changing;
    assert_eq!(bridge.ended(PATIENCE).await, 0, "{}", bridge.log_tail());
}

/// What the command says, and its exit code.
async fn reload(config: &[PathBuf; 2], arguments: &[&str]) -> (i32, String) {
    let mut command = program();
    for file in config {
        command.arg("--config").arg(file);
    }
    command.arg("reload").args(arguments).kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE, command.output()).await;
    let done = done.expect("it ends by itself").unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_tries_applies_and_refuses() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let changing = Changing::start(&lab).await;
    let url = format!("http://{}", changing.bridge.address());
    let token = lab.file("token", "t0ken\n");
    let config = [
        lab.file("here.toml", &lab.numbers("kafka nats")),
        lab.file("here-token.toml", "http.token = \"t0ken\"\n"),
    ];
    let (url, token) = (["--url", &url], ["--token-file", token.to_str().unwrap()]);
    let night = lab.file("night.toml", "[backpressure]\npause_threshold = 30_000\n");
    let over = ["--over", night.to_str().unwrap()];

    let (code, said) = reload(&config, &[&url[..], &over, &["--dry-run"]].concat()).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("would change") && said.contains("40000 -> 30000"), "{said}");
    let (code, said) = reload(&config, &[&url[..], &token, &over].concat()).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("backpressure.pause_threshold: 40000 -> 30000"), "{said}");
    let health = changing.reloads(1).await;
    assert_eq!(health["metrics"]["backpressure"]["pause_threshold"], 30_000);
    let (code, said) = reload(&config, &url).await;
    assert!(code == 0 && said.contains("30000 -> 40000"), "the files alone: {code} {said}");
    let (code, said) = reload(&config, &url).await;
    assert!(code == 0 && said.contains("nothing has changed"), "{code} {said}");

    changing.write(&format!("{}[kafka]\ngroup_id = \"other\"\n", changing.first));
    let (code, said) = reload(&config, &url).await;
    assert!(code == 1 && said.contains("kafka.group_id"), "{code} {said}");
    changing.write("nonsense = 1\n");
    let (code, said) = reload(&config, &url).await;
    assert!(code == 64 && said.contains("nonsense"), "{code} {said}");
    let wrong = lab.file("wrong", "wr0ng");
    let wrong = ["--token-file", wrong.to_str().unwrap()];
    let (code, said) = reload(&config, &[&url[..], &wrong].concat()).await;
    assert!(code == 1 && said.contains("Bearer"), "{code} {said}");
    changing.bridge.stop().await;
    let (code, said) = reload(&config, &url).await;
    assert!(code == 69 && said.contains("cannot reach"), "{code} {said}");
}
