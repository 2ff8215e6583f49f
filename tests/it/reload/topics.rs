//! Topics that come and go while records come.

use serde_json::Value as Json;

use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, ORDINARY_HEARTBEAT, assert_accounts, number, settled};

/// Records a second into each topic.
const RATE: u64 = 500;
/// Times that the second topic comes and goes.
const TURNS: u64 = 3;

struct Topics<'a> {
    lab: &'a Lab,
    bridge: Bridge,
    over: std::path::PathBuf,
}

impl Topics<'_> {
    /// One route for the topic of the lab, and one for another topic.
    fn routes(lab: &Lab, both: bool) -> String {
        let text = lab.numbers("kafka");
        let route = &text[text.rfind("[[routes]]").unwrap()..];
        let route = route.lines().filter(|line| !line.starts_with("nats_subjects"));
        let route = route.collect::<Vec<_>>().join("\n");
        let other = route
            .replace("name = \"numbers\"", "name = \"others\"")
            .replace(".numbers\"]", ".others\"]");
        let other = if both { other } else { String::new() };
        format!("{ORDINARY_HEARTBEAT}\n{route}\n{other}\n")
    }

    async fn start(lab: &Lab) -> Topics<'_> {
        let over = lab.file("over.toml", &Topics::routes(lab, false));
        let files = [lab.file("config.toml", &lab.numbers("kafka")), over.clone()];
        let bridge = Bridge::spawn(lab.file("bridge.log", ""), &files).ready().await;
        let topics = Topics { lab, bridge, over };
        topics.assigned(6).await;
        topics
    }

    async fn assigned(&self, partitions: u64) {
        let assigned = |health: &Json| {
            number(&health["metrics"]["sources"]["kafka"]["assigned"]) == partitions
        };
        self.bridge.wait_until("the partitions are ours, and no others", assigned).await;
    }

    async fn turns(&self) {
        for _ in 0..TURNS {
            std::fs::write(&self.over, Topics::routes(self.lab, true)).unwrap();
            self.bridge.signal("HUP");
            self.assigned(12).await;
            std::fs::write(&self.over, Topics::routes(self.lab, false)).unwrap();
            self.bridge.signal("HUP");
            self.assigned(6).await;
        }
        std::fs::write(&self.over, Topics::routes(self.lab, true)).unwrap();
        self.bridge.signal("HUP");
        self.assigned(12).await;
    }
}

/// Sends numbers into a topic at the rate.
async fn send(lab: &Lab, topic: &str, numbers: std::ops::Range<u64>) {
    let kafka = lab.kafka();
    let topic = lab.topic(topic);
    let mut paced = crate::lab::Paced::new(RATE);
    for number in numbers {
        paced.next().await;
        let payload = format!("{{\"n\":{number}}}");
        kafka.send(&topic, None, None, Some(payload.as_bytes()));
    }
    kafka.flush().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_and_goes_again_and_again_loses_nothing() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    lab.create_topics(&[lab.topic("others")], 6).await;
    let topics = Topics::start(&lab).await;
    let each = 30 * RATE;
    tokio::join!(
        topics.turns(),
        send(&lab, "numbers", 0..each),
        send(&lab, "others", each..2 * each),
    );
    let arrived = |health: &Json| settled(health, "kafka", 2 * each);
    let health = topics.bridge.wait_until_within(PATIENCE, "all of it is stored", arrived).await;
    assert_accounts(&health);
    let (rows, different) = lab.stored_numbers(&(0..2 * each)).await;
    assert_eq!(different, 2 * each, "{health:#}");
    let twice = rows - different;
    assert!(twice <= released(&health), "{twice} twice, of {} that were let go", released(&health));
    assert_eq!(number(&health["config"]["reloads"]), 2 * TURNS + 1);
    let routes = &health["metrics"]["routes"];
    assert!(number(&routes["others"]["inserted"]) >= each, "{health:#}");
    assert_eq!(health["metrics"]["sources"]["kafka"]["unrouted"], serde_json::json!({}));
    topics.bridge.stop().await;
}

fn released(health: &Json) -> u64 {
    number(&health["metrics"]["sources"]["kafka"]["released"])
}
