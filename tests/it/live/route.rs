//! What the bridge carries, seen as it happens: real servers at both ends.

use serde_json::{Value as Json, json};

use super::client::{Client, has};
use crate::lab::{Lab, ORDINARY_HEARTBEAT};

#[tokio::test]
async fn what_goes_into_clickhouse_is_seen_on_its_topic_and_by_its_key() {
    const RECORDS: u64 = 2_000;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let config = lab
        .numbers("kafka")
        .replace("table = \"numbers\"\n", "table = \"numbers\"\nlive_key = \"@partition\"\n");
    let over = "[live]\nqueue_size = 10000\nqueue_bytes = \"16MiB\"";
    let bridge = lab.start(&config, over).await;
    let mut all = Client::connect(bridge.address()).await;
    let mut one = Client::connect(bridge.address()).await;
    for (client, topic) in [(&mut all, "numbers"), (&mut one, "numbers/*")] {
        let answer = client.ask(json!({ "type": "subscribe", "topic": topic })).await;
        assert_eq!(answer["type"], "ack", "{topic}: {answer}");
    }
    lab.numbers_to_kafka(0..RECORDS, 2_000).await;
    let (mut whole, mut by_key) = (Vec::new(), Vec::new());
    while whole.len() < usize::try_from(RECORDS).unwrap() {
        whole.push(all.next().await.unwrap());
        by_key.push(one.next().await.unwrap());
    }
    let mut numbers: Vec<u64> =
        whole.iter().map(|m| m["message"]["payload"]["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..RECORDS), "each once");
    for event in whole.iter().chain(&by_key) {
        let partition = &event["message"]["partition"];
        assert_eq!(event["topic"], format!("numbers/{partition}"), "{event}");
        assert!(has(event, &json!({ "message": { "topic": lab.topic("numbers") } })), "{event}");
    }
    // Of each partition in its order.
    let mut last = std::collections::BTreeMap::new();
    for event in &whole {
        let offset = event["message"]["offset"].as_i64().unwrap();
        let before = last.insert(event["topic"].to_string(), offset);
        assert!(before.is_none_or(|before| before < offset), "{event}");
    }
    lab.clickhouse.until("SELECT count() FROM numbers", RECORDS).await;
    bridge.stop().await;
}

/// The records are in ClickHouse all the same; a few that are lost are nothing to be told.
#[tokio::test]
async fn thousands_that_a_subscriber_loses_in_a_minute_are_an_alert() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let over = format!("{ORDINARY_HEARTBEAT}\n[live]\nqueue_size = 10\n");
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let mut slow = Client::narrow(bridge.address()).await;
    let answer = slow.ask(json!({ "type": "subscribe", "topic": "numbers" })).await;
    assert_eq!(answer["type"], "ack", "{answer}");
    let fires = |health: &Json| {
        let mut alerts = health["alerts"].as_array().unwrap().iter();
        alerts.find(|alert| alert["id"] == "subscriber_drops").cloned()
    };
    let fill = "x".repeat(3_000);
    let send = async |numbers: std::ops::Range<u64>| {
        let sender = lab.kafka();
        for n in numbers {
            let record = format!("{{\"n\":{n},\"fill\":\"{fill}\"}}");
            sender.send(&lab.topic("numbers"), None, None, Some(record.as_bytes()));
        }
        sender.flush().await;
    };
    send(0..500).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 500).await;
    assert_eq!(fires(&bridge.health().await), None);
    send(500..10_000).await;
    let health = bridge.wait_until("it is told", |health| fires(health).is_some()).await;
    let alert = fires(&health).unwrap();
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains("messages of the live feed lost by slow subscribers"), "{summary}");
    assert_eq!(alert["runbook"], "docs/runbook.md#subscriber_drops");
    lab.clickhouse.until("SELECT count() FROM numbers", 10_000).await;
    bridge.stop().await;
}
