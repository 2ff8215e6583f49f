//! Subscribers that are too slow: what they lose is exact, told to them, and nobody else's.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use super::Feed;
use super::client::{Client, payloads};
use crate::lab::scale;

/// A payload of 2 KiB: what a client does not read fills what is on the way soon.
fn large(n: u64) -> Json {
    json!({ "n": n, "fill": "x".repeat(2_000) })
}

/// More than all that is on the way can hold, in a thousand.
fn larger(n: u64) -> Json {
    json!({ "n": n, "fill": "x".repeat(7_000) })
}

fn numbers(messages: &[Json]) -> Vec<u64> {
    let events = messages.iter().filter(|message| message["type"] == "event");
    events.map(|event| event["message"]["payload"]["n"].as_u64().unwrap()).collect()
}

fn told(messages: &[Json]) -> u64 {
    let dropped = messages.iter().filter(|message| message["event"] == "dropped");
    dropped.map(|info| info["dropped"].as_u64().unwrap()).sum()
}

async fn subscribe(client: &mut Client, more: Json) {
    let mut ask = json!({ "type": "subscribe", "topic": "t" });
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(client.ask(ask).await["type"], "ack");
}

/// A client that has not read anything of so many large messages yet.
async fn behind(feed: &Feed, more: Json, messages: u64) -> Client {
    let mut slow = Client::narrow(feed.bridge.address()).await;
    subscribe(&mut slow, more).await;
    feed.connect().await.publish_each("t", (0..messages).map(larger)).await;
    slow
}

#[tokio::test]
async fn two_thousand_messages_and_a_slow_reader_account_for_each() {
    let feed = Feed::start("queue_size = 100\nqueue_bytes = \"8MiB\"").await;
    feed.topic("t").await;
    let mut slow = behind(&feed, json!({ "client_id": "slow" }), 2_000).await;
    let stats = feed.get("/subscriber-stats").await;
    let queue = &stats["t/slow"];
    assert_eq!((&queue["queue_size"], &queue["utilization"]), (&json!(100), &json!(1.0)));
    let dropped = queue["dropped"].as_u64().unwrap();
    assert_eq!(dropped + 100 + queue["delivered"].as_u64().unwrap(), 2_000);
    assert!(dropped > 0);
    let seen = slow.until(|message| message["message"]["payload"]["n"] == 1_999).await;
    let (numbers, told) = (numbers(&seen), told(&seen));
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once");
    assert_eq!((told, told + numbers.len() as u64), (dropped, 2_000));
    let metrics = feed.bridge.metrics().await;
    let line = format!("data_bridge_subscriber_drops_total{{topic=\"t\"}} {dropped}");
    assert!(metrics.contains(&line), "{line}");
    assert!(!feed.bridge.logged("Queue full for subscriber slow. Dropping").is_empty());
}

#[tokio::test]
async fn the_log_has_one_line_a_second_unless_each_is_wanted() {
    for (every, more) in [(false, ""), (true, "log_every_drop = true")] {
        let feed = Feed::start(&format!("queue_size = 10\n{more}")).await;
        feed.topic("t").await;
        let began = Instant::now();
        let _slow = behind(&feed, json!({ "client_id": "s" }), 1_000).await;
        let dropped = feed.get("/subscriber-stats").await["t/s"]["dropped"].as_u64().unwrap();
        let lines = feed.bridge.logged("Queue full for subscriber s. Dropping oldest message.");
        let most = if every { dropped } else { began.elapsed().as_secs() + 1 };
        assert!(!lines.is_empty() && lines.len() as u64 <= most, "{} of {most}", lines.len());
        assert_eq!(every, lines.len() as u64 == dropped);
    }
}

#[tokio::test]
async fn who_keeps_the_past_loses_what_is_new() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let ask = json!({ "policy": "drop_newest", "queue_size": 50, "client_id": "s" });
    let mut slow = behind(&feed, ask, 3_000).await;
    let count = feed.get("/stats").await["topics"]["t"]["dropped"].as_u64().unwrap();
    let line = "Queue full for subscriber s. Dropping newest message.";
    assert!(!feed.bridge.logged(line).is_empty());
    let last = async {
        feed.until("/subscriber-stats", |stats| stats["t/s"]["queue_size"] == 0).await;
        feed.connect().await.publish_each("t", (3_000..3_001).map(large)).await;
    };
    let reading = slow.until(|message| message["message"]["payload"]["n"] == 3_000);
    let ((), seen) = tokio::join!(last, reading);
    let numbers = numbers(&seen);
    assert!(numbers.iter().copied().take(50).eq(0..50), "the oldest stay");
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once");
    assert!(count > 0 && told(&seen) == count && count + numbers.len() as u64 == 3_001);
}

/// The word why it was cut off is kept for a second for who is cut off: on a machine that stalls it
/// may never be read. So often it is tried.
pub(super) const CUTS: u32 = 5;

/// Publishes to who reads nothing until it is cut off; what it then reads, and the code of its end.
pub(super) async fn cut_off(feed: &Feed, mut slow: Client) -> (Vec<Json>, Option<u16>) {
    const AT_A_TIME: u64 = 20;
    const MOST: u64 = 3_000;
    let cuts = || feed.bridge.logged("Disconnecting it.").len();
    let before = cuts();
    let mut publisher = feed.connect().await;
    let mut published = 0;
    while cuts() == before {
        assert!(published < MOST, "it is never cut off");
        publisher.publish_each("t", (0..AT_A_TIME).map(larger)).await;
        published += AT_A_TIME;
    }
    slow.until_closed().await
}

pub(super) fn told_why(messages: &[Json]) -> bool {
    messages.iter().any(|message| message["error"]["code"] == "SLOW_CONSUMER")
}

#[tokio::test]
async fn who_is_to_be_cut_off_is_told_why() {
    let feed = Feed::start("policy = \"disconnect\"\nqueue_size = 50").await;
    feed.topic("t").await;
    let mut ends = Vec::new();
    for _ in 0..CUTS {
        let mut slow = Client::narrow(feed.bridge.address()).await;
        subscribe(&mut slow, json!({})).await;
        let (seen, code) = cut_off(&feed, slow).await;
        ends.push((told_why(&seen), code));
        if ends.contains(&(true, Some(1008))) {
            break;
        }
    }
    assert!(ends.contains(&(true, Some(1008))), "{ends:?}");
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
}

#[tokio::test]
async fn a_publisher_that_asks_for_it_waits_for_room_and_nothing_is_lost() {
    let feed = Feed::start("queue_size = 20\nblock_timeout = \"60s\"").await;
    feed.topic("t").await;
    let mut slow = Client::narrow(feed.bridge.address()).await;
    subscribe(&mut slow, json!({})).await;
    let mut publisher = feed.connect().await;
    let publishing = async {
        for n in 0..1_000 {
            let message = json!({ "id": uuid::Uuid::nil().to_string(), "payload": large(n) });
            let ask = json!({ "type": "publish", "topic": "t", "message": message, "block": true });
            assert_eq!(publisher.ask(ask).await["type"], "ack");
        }
    };
    let reading = slow.until(|message| message["message"]["payload"]["n"] == 999);
    let ((), seen) = tokio::join!(publishing, reading);
    assert_eq!((numbers(&seen).len(), told(&seen)), (1_000, 0));
}

/// One that never reads among many that do, for 5 s; twelve times as long with `DATA_BRIDGE_TEST_SCALE=12`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ninety_nine_miss_nothing_because_of_one_that_never_reads() {
    const PER_TICK: u64 = 5;
    let ticks = 200 * u32::try_from(scale()).unwrap();
    let count = u64::from(ticks) * PER_TICK;
    let feed = Feed::start("queue_bytes = \"16MiB\"").await;
    feed.topic("t").await;
    let mut never = Client::narrow(feed.bridge.address()).await;
    subscribe(&mut never, json!({ "client_id": "never", "queue_size": 50 })).await;
    let readers = join_all((0..99).map(|_| feed.subscribed(json!({ "topic": "t" })))).await;
    let mut publisher = feed.connect().await;
    let publishing = async {
        let began = Instant::now();
        for tick in 0..ticks {
            sleep_until(began + Duration::from_millis(25) * tick).await;
            let first = u64::from(tick) * PER_TICK;
            publisher.publish_each("t", (first..first + PER_TICK).map(larger)).await;
        }
    };
    let reading = join_all(readers.into_iter().map(|mut one| async move {
        numbers(&one.until(|message| message["message"]["payload"]["n"] == count - 1).await)
    }));
    let ((), all) = tokio::join!(publishing, reading);
    assert!(all.into_iter().all(|seen| seen.into_iter().eq(0..count)), "the 99 miss nothing");
    let stats = feed.get("/stats").await;
    let queue = feed.get("/subscriber-stats").await["t/never"].clone();
    let dropped = queue["dropped"].as_u64().unwrap();
    assert_eq!(stats["topics"]["t"]["dropped"], dropped, "and nobody else lost any");
    assert!(dropped > 0);
    assert_eq!(dropped + 50 + queue["delivered"].as_u64().unwrap(), count);
    let memory = feed.bridge.peak_memory_mib();
    assert!(memory < 200, "{memory} MiB, however long it goes on");
    let _still = never.send(Message::text("{}")).await;
}

#[tokio::test]
async fn two_hundred_to_one_that_never_reads_wait_for_it() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut never = Client::narrow(feed.bridge.address()).await;
    subscribe(&mut never, json!({ "client_id": "never" })).await;
    feed.connect().await.publish_all("t", 0..200).await;
    let seen = never.until(|message| message["message"]["payload"] == 199).await;
    assert_eq!((payloads(&seen).len(), told(&seen)), (200, 0));
}
