//! Subjects of JetStream that come and go while records come: at least once and exactly once.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::stream;
use serde_json::Value as Json;

use crate::bridge::{Bridge, PATIENCE};
use crate::jetstream::{Numbers, received, source};
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, number};

/// Records a second on the subject that stays, and on the one that does not.
const RATE: u64 = 1_000;
/// Times that it comes and goes.
const TURNS: u64 = 4;
/// What a turn takes on a busy machine, so that records come until the last of them.
const SECONDS_A_TURN: u64 = 3;

struct Streams {
    numbers: Numbers,
    once: bool,
}

impl Streams {
    /// One stream for both subjects.
    async fn new(once: bool) -> Self {
        let numbers = Numbers::without_stream(Lab::new().await).await;
        let subjects = ["numbers.>", "others.>"].map(|subject| numbers.lab.subject(subject));
        let config = stream::Config {
            name: numbers.stream(),
            subjects: subjects.to_vec(),
            ..stream::Config::default()
        };
        numbers.jetstream.create_stream(config).await.unwrap();
        Self { numbers, once }
    }

    /// One route of the lab's table, that takes these subjects.
    fn route(&self, name: &str, subjects: &[&str]) -> String {
        let subjects: Vec<String> = subjects
            .iter()
            .map(|subject| format!("\"{}\"", self.numbers.lab.subject(subject)))
            .collect();
        let delivery = if self.once { "delivery = \"exactly_once\"\n" } else { "" };
        format!(
            "[[routes]]\nname = \"{name}\"\njetstream_subjects = [{}]\nwriter = \"aggregate\"\n\
             table = \"numbers\"\n{delivery}[routes.columns]\n_offset = \"@offset\"\n\
             _subject = \"@subject\"\n",
            subjects.join(", ")
        )
    }

    /// One that reads.
    async fn bridge(&self, instance: &str, routes: &str) -> Changing<'_> {
        let changing = self.instance(instance, routes).await;
        changing.said("JetStream consumer bound", 1).await;
        changing
    }

    /// A bridge whose second configuration file the test rewrites.
    async fn instance(&self, instance: &str, routes: &str) -> Changing<'_> {
        let lab = &self.numbers.lab;
        let bucket = format!("[nats.jetstream]\nstate_bucket = \"state_{}\"\n", lab.name);
        let config = lab.file("config.toml", &(lab.sections("nats") + &bucket));
        let over = lab.file(&format!("{instance}.toml"), "");
        let text = format!("instance = \"{instance}\"\n{ORDINARY_HEARTBEAT}\n");
        std::fs::write(&over, format!("{text}{routes}")).unwrap();
        let log = lab.file(&format!("{instance}.log"), "");
        let bridge = Bridge::spawn(log, &[config, over.clone()]).ready().await;
        Changing { numbers: &self.numbers, bridge, over, text }
    }

    async fn publish(&self, subject: &str, numbers: std::ops::Range<u64>) {
        let subject = self.numbers.lab.subject(subject);
        self.numbers.publish_to(|n| format!("{subject}.{}", n % 10), numbers, RATE).await;
    }
}

struct Changing<'a> {
    numbers: &'a Numbers,
    bridge: Bridge,
    over: PathBuf,
    text: String,
}

impl Changing<'_> {
    async fn change(&self, routes: &str, count: u64) {
        std::fs::write(&self.over, format!("{}{routes}", self.text)).unwrap();
        self.bridge.signal("HUP");
        let reloaded = |health: &Json| number(&health["config"]["reloads"]) == count;
        self.bridge.wait_until("the change is in force", reloaded).await;
    }

    async fn said(&self, what: &str, times: u64) {
        let began = tokio::time::Instant::now();
        while (self.bridge.logged(what).len() as u64) < times {
            assert!(began.elapsed() < PATIENCE, "{what}\n{}", self.bridge.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All of them are stored, each once, by this bridge alone.
    async fn stored(self, all: u64) {
        let arrived = |health: &Json| received(health) >= all && source(health)["held"] == 0;
        let health = self.bridge.wait_until("all of it is stored", arrived).await;
        assert_accounts(&health);
        self.numbers.assert_each_once(0..all).await;
        assert_eq!(source(&health)["unrouted"], serde_json::json!({}), "{health:#}");
        assert_eq!(health["metrics"]["dropped"], 0, "{health:#}");
        self.bridge.stop().await;
    }
}

async fn a_route_comes_and_goes(once: bool) {
    let streams = Streams::new(once).await;
    let fewer = streams.route("numbers", &["numbers.>"]);
    let more = format!("{fewer}{}", streams.route("others", &["others.>"]));
    let changing = streams.bridge("a", &fewer).await;
    let turns = async {
        for turn in 0..TURNS {
            changing.change(&more, 2 * turn + 1).await;
            changing.said("JetStream consumer bound", turn + 2).await;
            changing.change(&fewer, 2 * turn + 2).await;
            changing.said("JetStream consumer left", turn + 1).await;
        }
        changing.change(&more, 2 * TURNS + 1).await;
    };
    let each = TURNS * SECONDS_A_TURN * RATE;
    tokio::join!(
        turns,
        streams.publish("numbers", 0..each),
        streams.publish("others", each..2 * each),
    );
    changing.stored(2 * each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_of_a_stream_that_comes_and_goes_loses_and_doubles_nothing() {
    a_route_comes_and_goes(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_route_of_a_stream_that_comes_and_goes_loses_and_doubles_nothing() {
    a_route_comes_and_goes(true).await;
}

async fn a_subject_comes_and_goes(once: bool) {
    let streams = Streams::new(once).await;
    let fewer = streams.route("numbers", &["numbers.>"]);
    let more = streams.route("numbers", &["numbers.>", "others.>"]);
    let changing = streams.bridge("a", &fewer).await;
    let turns = async {
        for turn in 0..TURNS {
            for (half, text) in [(1, &more), (2, &fewer)] {
                changing.change(text, 2 * turn + half).await;
                changing.said("JetStream consumer bound", 2 * turn + half + 1).await;
            }
        }
        changing.change(&more, 2 * TURNS + 1).await;
        changing.said("JetStream consumer bound", 2 * TURNS + 2).await;
    };
    let staying = TURNS * SECONDS_A_TURN * RATE;
    tokio::join!(turns, streams.publish("numbers", 0..staying));
    streams.publish("others", staying..staying + RATE).await;
    changing.stored(staying + RATE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_of_a_route_that_comes_and_goes_loses_and_doubles_nothing() {
    a_subject_comes_and_goes(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_subject_of_a_route_that_comes_and_goes_loses_and_doubles_nothing() {
    a_subject_comes_and_goes(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_an_instance_that_stands_by_takes_over_also_after_a_change() {
    let streams = Streams::new(true).await;
    let fewer = streams.route("numbers", &["numbers.>"]);
    let more = streams.route("numbers", &["numbers.>", "others.>"]);
    let mut first = streams.bridge("a", &fewer).await;
    let second = streams.instance("b", &fewer).await;
    second.said("standing by", 1).await;
    streams.publish("numbers", 0..RATE).await;
    for changing in [&first, &second] {
        changing.change(&more, 1).await;
    }
    first.said("JetStream consumer bound", 2).await;
    first.bridge.kill().await;
    streams.publish("others", RATE..2 * RATE).await;
    second.said("JetStream consumer bound", 1).await;
    streams.numbers.assert_each_once(0..2 * RATE).await;
    second.bridge.stop().await;
}

/// Instances share the consumer, and one of them has not read the new configuration yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_not_reloaded_gives_back_what_it_does_not_know() {
    let streams = Streams::new(false).await;
    let fewer = streams.route("numbers", &["numbers.>"]);
    let more = streams.route("numbers", &["numbers.>", "others.>"]);
    let (first, second) = (streams.bridge("a", &fewer).await, streams.bridge("b", &fewer).await);
    let sent = 4 * RATE;
    let changes = async {
        first.change(&more, 1).await;
        first.said("JetStream consumer bound", 2).await;
        streams.publish("others", sent..2 * sent).await;
        let person = |health: &Json| health["needs_person"].to_string().contains("others.>");
        second.bridge.wait_until("it calls for the new configuration", person).await;
        second.change(&more, 1).await;
        second.said("JetStream consumer bound", 2).await;
        streams.publish("others", 2 * sent..3 * sent).await;
    };
    tokio::join!(changes, streams.publish("numbers", 0..sent));
    streams.numbers.assert_each_once(0..3 * sent).await;
    for changing in [first, second] {
        let health = changing.bridge.health().await;
        assert_eq!(source(&health)["unrouted"], serde_json::json!({}), "{health:#}");
        changing.bridge.stop().await;
    }
}
