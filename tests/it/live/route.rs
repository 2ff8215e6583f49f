//! What the bridge carries, seen as it happens: real servers at both ends.

use serde_json::json;

use super::client::{Client, has};
use crate::lab::Lab;

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
