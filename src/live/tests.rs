//! The feed without sockets: what a mailbox gets, in which order, and what is lost.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::hub::publish::publish as publish_to;
use super::samples::live_with;
use super::*;
use crate::record::{Chunk, NewRecord};
use crate::route::RouteId;

mod records;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn ask(session: &mut Session, message: Value) {
    assert!(session.hear(&message.to_string()).await.is_none());
}

async fn subscribe(live: &Arc<Live>, more: Value) -> Session {
    let mut session = live.connect(HERE).unwrap();
    let mut message = json!({ "type": "subscribe" });
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(&mut session, message).await;
    session
}

/// All that waits, as JSON.
fn mail(session: &Session) -> Vec<Value> {
    let mut texts = Vec::new();
    let ts = || "now".to_owned();
    while session.mailbox().take(&mut texts, usize::MAX, &ts) == Some(Ok(())) {}
    texts.iter().map(|text| serde_json::from_slice(text.bytes()).unwrap()).collect()
}

/// The payloads of the events, and what was told of losses, in order.
fn seen(session: &Session) -> Vec<String> {
    let told = |message: &Value| match message["type"].as_str().unwrap() {
        "event" => Some(message["message"]["payload"].to_string()),
        "info" => Some(format!("{} {}", message["event"], message["dropped"])),
        _ => None,
    };
    mail(session).iter().filter_map(told).collect()
}

fn publish(live: &Live, topic: &str, payloads: std::ops::Range<u64>) -> Vec<Published> {
    let raw = |n: u64| serde_json::value::RawValue::from_string(n.to_string()).unwrap();
    let to = live.topic_of_user(topic).unwrap();
    payloads.map(|n| publish_to(&to, Uuid::nil(), &raw(n)).unwrap()).collect()
}

fn topic(live: &Live, name: &str) -> TopicStatus {
    live.topics().into_iter().find(|topic| &*topic.name == name).unwrap()
}

/// A chunk of records of one subject each, with these payloads.
fn chunk(payloads: std::ops::Range<u64>) -> Arc<Chunk> {
    let mut chunk = Chunk::with_capacity(0, 10, 1_000);
    for n in payloads {
        let (payload, key) = (n.to_string(), format!("k{}", n % 2));
        let record = NewRecord {
            subject: "s",
            key: Some(key.as_bytes()),
            payload: Some(payload.as_bytes()),
            ..NewRecord::default()
        };
        chunk.push(record, []);
    }
    Arc::new(chunk)
}

fn admit(tap: &mut Tap, chunk: &Arc<Chunk>) {
    tap.admitted(chunk, std::iter::once((0..chunk.len(), RouteId(0))));
}

/// A tap with the route `candles`, and its feed.
fn tapped(live: &Arc<Live>, key: Option<&str>) -> (Tap, Feed) {
    let (mut tap, feed) = tap(live);
    let key = key.map(|key| Arc::new(key.parse().unwrap()));
    tap.lay_routes([(RouteId(0), RouteTopic { name: "candles".to_owned(), key })].into_iter());
    (tap, feed)
}

/// The feed has done all that was handed over.
async fn fed(tap: Tap, feed: Feed) {
    drop(tap);
    timeout(Duration::from_secs(10), feed.run()).await.unwrap();
}

#[tokio::test]
async fn what_is_subscribed_to_comes_in_order_and_once() {
    let live = live_with("");
    assert_eq!(live.create("t", TopicOptions::default()), Ok(Created::New));
    assert_eq!(live.create("t", TopicOptions::default()), Ok(Created::Known));
    let (one, two) = (subscribe(&live, json!({ "topic": "t" })).await, live.connect(HERE).unwrap());
    let published = publish(&live, "t", 0..3);
    assert_eq!(published[0], Published { subscribers: 1, dropped: 0 });
    assert_eq!(seen(&one), ["0", "1", "2"]);
    assert_eq!(mail(&two), [json!(null); 0]);
    let status = topic(&live, "t");
    assert_eq!((status.messages, status.subscribers, status.replay_depth), (3, 1, 3));
    drop(one);
    assert_eq!((topic(&live, "t").subscribers, live.connections()), (0, 1));
}

#[tokio::test]
async fn a_replay_goes_over_into_what_comes_without_a_gap() {
    let live = live_with("replay = 5");
    live.create("t", TopicOptions::default()).unwrap();
    publish(&live, "t", 0..10);
    let late = subscribe(&live, json!({ "topic": "t", "last_n": 3, "request_id": "r" })).await;
    publish(&live, "t", 10..12);
    let mail = mail(&late);
    assert_eq!((&mail[0]["type"], &mail[0]["replayed"]), (&json!("ack"), &json!(3)));
    let payloads: Vec<u64> =
        mail[1..].iter().map(|m| m["message"]["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, [7, 8, 9, 10, 11]);
    let all = subscribe(&live, json!({ "topic": "t", "last_n": 1_000 })).await;
    assert_eq!(seen(&all), ["7", "8", "9", "10", "11"]);
}

#[tokio::test]
async fn each_policy_loses_what_it_says_and_tells_where() {
    let live = live_with("queue_size = 3");
    live.create("t", TopicOptions::default()).unwrap();
    let with = |policy: &'static str| subscribe(&live, json!({ "topic": "t", "policy": policy }));
    let (oldest, newest, cut) =
        (with("drop_oldest").await, with("drop_newest").await, with("disconnect").await);
    publish(&live, "t", 0..5);
    assert_eq!(seen(&oldest), ["\"dropped\" 2", "2", "3", "4"]);
    assert_eq!(seen(&newest), ["0", "1", "2", "\"dropped\" 2"], "whether more comes or not");
    publish(&live, "t", 5..6);
    assert_eq!(seen(&newest), ["5"]);
    let mut texts = Vec::new();
    let end = cut.mailbox().take(&mut texts, 10, &|| "now".to_owned());
    assert_eq!(end, Some(Err(End::SlowConsumer)));
    let told: Value = serde_json::from_slice(texts[0].bytes()).unwrap();
    assert_eq!(told["error"]["code"], "SLOW_CONSUMER");
    assert_eq!(topic(&live, "t").dropped, 2 + 2 + 4);
    assert_eq!(topic(&live, "t").subscribers, 2);
    live.delete("t").unwrap();
    assert_eq!(super::tap(&live).0.subscriber_drops(), 8, "of topics that are gone too");
}

#[tokio::test]
async fn a_queue_weighs_no_more_than_it_may() {
    let live = live_with("queue_bytes = '64KiB'\nqueue_size = 1000");
    live.create("t", TopicOptions::default()).unwrap();
    let slow = subscribe(&live, json!({ "topic": "t" })).await;
    let large = format!("\"{}\"", "x".repeat(20_000));
    let large = serde_json::value::RawValue::from_string(large).unwrap();
    for _ in 0..10 {
        publish_to(&live.topic_of_user("t").unwrap(), Uuid::nil(), &large).unwrap();
    }
    let queue = &slow.mailbox().queues(tokio::time::Instant::now())[0];
    assert_eq!((queue.size, queue.dropped), (3, 7));
    assert!(queue.bytes <= 64 * 1024, "{}", queue.bytes);
    assert!(topic(&live, "t").replay_depth <= 3);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_it_waits_for_room_and_nobody_else_does() {
    let live = live_with("queue_size = 2\nblock_timeout = '5s'");
    live.create("t", TopicOptions::default()).unwrap();
    let slow = subscribe(&live, json!({ "topic": "t" })).await;
    publish(&live, "t", 0..2);
    let raw = serde_json::value::RawValue::from_string("9".to_owned()).unwrap();
    let to = live.topic_of_user("t").unwrap();
    let waiting = live.publish_when_room(&to, Uuid::nil(), &raw);
    let taken = async {
        tokio::task::yield_now().await;
        seen(&slow)
    };
    let (published, taken) = tokio::join!(waiting, taken);
    assert_eq!(published, Ok(Published { subscribers: 1, dropped: 0 }));
    assert_eq!((taken.len(), seen(&slow)), (2, vec!["9".to_owned()]));
    publish(&live, "t", 0..2);
    let refused = live.publish_when_room(&to, Uuid::nil(), &raw).await.unwrap_err();
    assert_eq!(refused.code, protocol::Code::SlowConsumer);
    assert_eq!(topic(&live, "t").dropped, 0);
}

#[tokio::test]
async fn a_deleted_topic_is_told_after_what_it_had_and_can_be_made_again() {
    let live = live_with("");
    live.create("a/b", TopicOptions::default()).unwrap();
    let mut exact = subscribe(&live, json!({ "topic": "a/b" })).await;
    let pattern = subscribe(&live, json!({ "topic": "a/*" })).await;
    publish(&live, "a/b", 0..2);
    assert_eq!(live.delete("a/b"), Ok(()));
    assert_eq!(live.delete("a/b"), Err(NoTopic::Unknown));
    assert_eq!(live.delete("candles"), Err(NoTopic::OfRoute));
    assert_eq!(seen(&exact), ["0", "1", "\"topic_deleted\" null"]);
    assert_eq!(seen(&pattern).len(), 3);
    live.create("a/b", TopicOptions::default()).unwrap();
    ask(&mut exact, json!({ "type": "subscribe", "topic": "a/b" })).await;
    publish(&live, "a/b", 5..6);
    assert_eq!((seen(&exact), seen(&pattern)), (vec!["5".to_owned()], vec!["5".to_owned()]));
}

#[tokio::test]
async fn limits_are_told_and_free_again_when_somebody_leaves() {
    let live = live_with(
        "max_connections = 3\nmax_connections_per_address = 2\nmax_topics = 3\n\
         max_subscribers = 2\nmax_subscriptions = 1\nmessage_rate = 4",
    );
    let mut first = live.connect(HERE).unwrap();
    let second = live.connect(HERE).unwrap();
    assert!(matches!(live.connect(HERE), Err(Refusal::TooMany(why)) if why.contains("address")));
    let _elsewhere = live.connect([10, 0, 0, 1].into()).unwrap();
    assert!(matches!(live.connect([10, 0, 0, 2].into()), Err(Refusal::TooMany(_))));
    drop(second);
    live.create("a", TopicOptions::default()).unwrap();
    live.create("b", TopicOptions::default()).unwrap();
    assert!(matches!(live.create("c", TopicOptions::default()), Err(Refusal::TooMany(_))));
    assert!(matches!(live.create("a b", TopicOptions::default()), Err(Refusal::Invalid(_))));
    for topic in ["a", "b"] {
        ask(&mut first, json!({ "type": "subscribe", "topic": topic })).await;
    }
    ask(&mut first, json!({ "type": "unsubscribe", "topic": "b" })).await;
    ask(&mut first, json!({ "type": "ping" })).await;
    ask(&mut first, json!({ "type": "ping", "request_id": 7 })).await;
    let mail = mail(&first);
    let codes: Vec<&str> = mail.iter().map(|m| m["error"]["code"].as_str().unwrap_or("")).collect();
    assert_eq!(codes, ["", "RATE_LIMITED", "TOPIC_NOT_FOUND", "", "RATE_LIMITED"]);
    assert_eq!(mail[4]["request_id"], 7);
}

#[tokio::test]
async fn what_is_for_a_route_is_handed_on_and_the_end_waits_for_its_answer() {
    let live = live_with("");
    let mut one = live.connect(HERE).unwrap();
    let publish = |n: usize| {
        let message = json!({ "id": Uuid::nil().to_string(), "payload": n });
        json!({ "type": "publish", "topic": "candles", "message": message, "request_id": n,
                "durable": true })
        .to_string()
    };
    let mut offers = Vec::new();
    for n in 0..64 {
        offers.push(one.hear(&publish(n)).await.expect("it is an offer"));
    }
    assert!(one.hear(&publish(64)).await.is_none());
    let told = mail(&one);
    assert_eq!((told.len(), &told[0]["request_id"]), (1, &json!(64)));
    assert_eq!(told[0]["error"]["code"], "RATE_LIMITED");
    assert_eq!(told[0]["error"]["retry_after_ms"], 1_000);
    let last = offers.pop().unwrap();
    assert_eq!((&*last.payload, &*last.topic, last.durable), (&b"63"[..], "candles", true));
    offers.into_iter().for_each(|offer| offer.accept(false));
    assert_eq!(mail(&one).len(), 63);
    let closing = live.close();
    let ending = async {
        let mut texts = Vec::new();
        let ts = || "now".to_owned();
        assert_eq!(one.mailbox().next(&mut texts, 10, ts).await, Ok(()), "it is told of the stop");
        texts.clear();
        assert_eq!(one.mailbox().take(&mut texts, 10, &ts), None, "an answer is still owed");
        last.accept(true);
        assert_eq!(one.mailbox().next(&mut texts, 10, ts).await, Ok(()));
        let ack: Value = serde_json::from_slice(texts[0].bytes()).unwrap();
        assert_eq!((&ack["type"], &ack["request_id"]), (&json!("ack"), &json!(63)));
        assert_eq!((&ack["durable"], &ack["dead_letter"]), (&json!(true), &json!(true)));
        assert_eq!(one.mailbox().next(&mut texts, 10, ts).await, Err(End::Shutdown));
        drop(one);
    };
    timeout(Duration::from_secs(10), async { tokio::join!(closing, ending) }).await.unwrap();
}

#[tokio::test]
async fn routes_that_go_and_come_take_their_topics_along() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    live.create("new", TopicOptions::default()).unwrap();
    let (old, new) = (
        subscribe(&live, json!({ "topic": "candles" })).await,
        subscribe(&live, json!({ "topic": "new" })).await,
    );
    let route = RouteTopic { name: "new".to_owned(), key: None };
    tap.lay_routes([(RouteId(1), route)].into_iter());
    assert_eq!(
        (seen(&old), seen(&new)),
        (vec!["\"topic_deleted\" null".to_owned()], vec!["\"topic_deleted\" null".to_owned()])
    );
    assert_eq!((live.owner("candles"), live.owner("new")), (None, Some(Owner::Route)));
    let again = subscribe(&live, json!({ "topic": "new" })).await;
    // What is left over of the first route is seen by nobody.
    let both = chunk(0..2);
    tap.admitted(&both, [(0..1, RouteId(0)), (1..2, RouteId(1))].into_iter());
    fed(tap, feed).await;
    assert_eq!(seen(&again), ["1"]);
}

#[tokio::test]
async fn at_the_stop_all_are_told_get_what_waits_and_nobody_new_comes_in() {
    let live = live_with("");
    live.create("t", TopicOptions::default()).unwrap();
    let one = subscribe(&live, json!({ "topic": "t" })).await;
    live.drain();
    assert!(matches!(live.connect(HERE), Err(Refusal::Draining)));
    assert_eq!(live.create("u", TopicOptions::default()), Err(Refusal::Draining));
    assert_eq!(live.delete("t"), Err(NoTopic::Draining));
    publish(&live, "t", 0..1);
    let closing = live.close();
    let taking = async {
        let mut texts = Vec::new();
        while one.mailbox().next(&mut texts, 10, || "now".to_owned()).await.is_ok() {}
        assert!(one.mailbox().has_ended());
        let told: Vec<Value> =
            texts.iter().map(|text| serde_json::from_slice(text.bytes()).unwrap()).collect();
        assert_eq!(told.iter().filter(|m| m["event"] == "shutdown").count(), 1);
        assert_eq!(told.iter().filter(|m| m["type"] == "event").count(), 1);
        drop(one);
    };
    timeout(Duration::from_secs(10), async { tokio::join!(closing, taking) }).await.unwrap();
}
