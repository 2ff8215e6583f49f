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
    tap.admitted(chunk, (0..chunk.len()).map(|index| (index, RouteId(0))));
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
    assert_eq!(seen(&newest), ["0", "1", "2"]);
    publish(&live, "t", 5..6);
    assert_eq!(seen(&newest), ["\"dropped\" 2", "5"]);
    let mut texts = Vec::new();
    let end = cut.mailbox().take(&mut texts, 10, &|| "now".to_owned());
    assert_eq!(end, Some(Err(End::SlowConsumer)));
    let told: Value = serde_json::from_slice(texts[0].bytes()).unwrap();
    assert_eq!(told["error"]["code"], "SLOW_CONSUMER");
    assert_eq!(topic(&live, "t").dropped, 2 + 2 + 4);
    assert_eq!(topic(&live, "t").subscribers, 2);
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
async fn what_a_route_carries_is_seen_by_those_who_listen() {
    let live = live_with("queue_size = 300");
    let (mut tap, feed) = tapped(&live, None);
    let one = subscribe(&live, json!({ "topic": "candles" })).await;
    admit(&mut tap, &chunk(0..200));
    admit(&mut tap, &chunk(200..201));
    fed(tap, feed).await;
    let expected: Vec<String> = (0..201).map(|n: u64| n.to_string()).collect();
    assert_eq!(seen(&one), expected);
    assert_eq!(topic(&live, "candles").messages, 201);
}

#[tokio::test]
async fn what_came_before_anybody_listened_is_replayed_and_keeps_little_memory() {
    let live = live_with("replay = 3");
    let (mut tap, feed) = tapped(&live, None);
    let large = chunk(0..1_000);
    admit(&mut tap, &large);
    admit(&mut tap, &chunk(1_000..1_001));
    fed(tap, feed).await;
    assert_eq!(Arc::strong_count(&large), 1, "nothing of it is kept for three of a thousand");
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.replay_depth), (1_001, 3));
    let late = subscribe(&live, json!({ "topic": "candles", "last_n": 10 })).await;
    assert_eq!(seen(&late), ["998", "999", "1000"]);
}

#[tokio::test]
async fn sub_topics_are_made_by_key_and_patterns_find_those_that_come_later() {
    let live = live_with("max_topics = 2");
    let (mut tap, feed) = tapped(&live, Some("@key"));
    let whole = subscribe(&live, json!({ "topic": "candles" })).await;
    let keys = subscribe(&live, json!({ "topic": "candles/*" })).await;
    admit(&mut tap, &chunk(0..4));
    fed(tap, feed).await;
    assert_eq!(seen(&whole), ["0", "1", "2", "3"]);
    assert_eq!(seen(&keys), ["0", "2"], "there was room for one more topic");
    let k0 = subscribe(&live, json!({ "topic": "candles/k0", "last_n": 9 })).await;
    let mail = mail(&k0);
    assert_eq!((mail.len(), &mail[1]["topic"]), (3, &json!("candles/k0")));
    assert_eq!(live.owner("candles/k0"), Some(Owner::Key));
}

/// One record of this key.
fn keyed(tap: &mut Tap, key: &str) {
    let mut chunk = Chunk::with_capacity(0, 1, 100);
    let (key, payload) = (Some(key.as_bytes()), Some(&b"1"[..]));
    chunk.push(NewRecord { subject: "s", key, payload, ..NewRecord::default() }, []);
    admit(tap, &Arc::new(chunk));
}

fn names(live: &Live) -> Vec<String> {
    live.topics().iter().map(|topic| topic.name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_key_takes_the_place_of_the_one_that_had_nothing_for_the_longest() {
    let live = live_with("max_topics = 4");
    let (mut tap, feed) = tapped(&live, Some("@key"));
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feed.run());
    let named = |key: &'static str| subscribe(&live, json!({ "topic": format!("candles/{key}") }));
    for key in ["a", "b", "c"] {
        keyed(&mut tap, key);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (of_a, all) = (named("a").await, subscribe(&live, json!({ "topic": "candles/*" })).await);
    keyed(&mut tap, "d");
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/b", "candles/c"], "none is idle");
    assert_eq!(live.keyless(), 1);
    keyed(&mut tap, "b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    keyed(&mut tap, "d");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/b", "candles/d"], "c had to go");
    keyed(&mut tap, "c");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(live.keyless(), 2, "a is subscribed to by its name, b and d had something");
    keyed(&mut tap, "c");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/c", "candles/d"]);
    let events = |session: &Session| mail(session).iter().filter(|m| m["type"] == "event").count();
    assert_eq!((events(&of_a), events(&all)), (0, 3), "b, d and c, and no word of who went");
    drop((tap, of_a));
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap();
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
async fn what_the_feed_cannot_take_is_counted_and_told_and_the_owner_never_waits() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let one = subscribe(&live, json!({ "topic": "candles" })).await;
    // Nobody takes; this is no async function: it cannot wait.
    for n in 0..300 {
        admit(&mut tap, &chunk(n..n + 1));
    }
    assert_eq!(topic(&live, "candles").overrun, 44);
    fed(tap, feed).await;
    let seen = seen(&one);
    assert_eq!((seen.len(), &*seen[0], &*seen[256]), (257, "\"dropped\" 44", "255"));
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.overrun, status.dropped), (300, 44, 44));
}

/// Records of so many bytes each.
fn heavy(count: usize, bytes: usize) -> Chunk {
    let mut chunk = Chunk::with_capacity(0, count, count * (bytes + 1));
    let payload = vec![b'x'; bytes];
    for _ in 0..count {
        let payload = Some(&*payload);
        chunk.push(NewRecord { subject: "s", payload, ..NewRecord::default() }, []);
    }
    chunk
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_feed_has_a_weight() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let chunks: Vec<_> = (0..5).map(|_| Arc::new(heavy(4, 1_500_000))).collect();
    chunks.iter().for_each(|chunk| admit(&mut tap, chunk));
    assert_eq!(topic(&live, "candles").overrun, 12, "16 MiB are two of 6 MB, and no third");
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feed.run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    admit(&mut tap, &chunks[0]);
    drop(tap);
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap();
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.overrun), (24, 12), "what has arrived weighs nothing");
}

#[tokio::test]
async fn what_nobody_listens_to_weighs_no_more_than_a_queue_and_keeps_nobody_waiting() {
    #[derive(Debug)]
    struct Deaf;
    impl crate::receipt::Receipt for Deaf {
        fn note(&self, _: crate::receipt::Outcome, _: usize) {}
    }
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let large = Arc::new(heavy(10, 500_000));
    admit(&mut tap, &large);
    let receipt = Arc::new(Deaf);
    let waited_for = heavy(3, 100).with_receipt(Arc::clone(&receipt) as _);
    admit(&mut tap, &Arc::new(waited_for));
    fed(tap, feed).await;
    assert_eq!(Arc::strong_count(&large), 1, "2 of 10 are a copy");
    assert_eq!(topic(&live, "candles").replay_depth, 5, "of 1 MiB: 2 of 500 kB, and the 3");
    assert_eq!(Arc::strong_count(&receipt), 1, "its publisher waits for nothing that is kept here");
}

#[tokio::test]
async fn who_takes_at_once_loses_nothing_of_what_comes_at_once() {
    for (more, chunk) in
        [("queue_size = 3", chunk(0..500)), ("queue_bytes = '64KiB'", Arc::new(heavy(100, 10_000)))]
    {
        let live = live_with(more);
        let (mut tap, feed) = tapped(&live, None);
        let one = subscribe(&live, json!({ "topic": "candles" })).await;
        admit(&mut tap, &chunk);
        let taking = async {
            let (mut taken, mut texts) = (0, Vec::new());
            while taken <= chunk.len() {
                one.mailbox().next(&mut texts, 1_000, || "now".to_owned()).await.unwrap();
                taken += texts.len();
                texts.clear();
            }
            taken
        };
        let all = async { tokio::join!(fed(tap, feed), taking) };
        let ((), taken) = timeout(Duration::from_secs(10), all).await.unwrap();
        assert_eq!(taken, chunk.len() + 1, "{more}: and the ack");
        assert_eq!(topic(&live, "candles").dropped, 0, "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_gets_that_of_one_who_leaves() {
    let live = live_with("queue_size = 1\nblock_timeout = '5s'");
    live.create("t", TopicOptions::default()).unwrap();
    let full = subscribe(&live, json!({ "topic": "t" })).await;
    publish(&live, "t", 0..1);
    let (to, raw) = (live.topic_of_user("t").unwrap(), serde_json::value::RawValue::NULL);
    let began = tokio::time::Instant::now();
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(full);
    };
    let (published, ()) = tokio::join!(live.publish_when_room(&to, Uuid::nil(), raw), leaving);
    assert_eq!(published, Ok(Published { subscribers: 0, dropped: 0 }));
    assert_eq!(began.elapsed(), Duration::from_millis(10));
}

#[tokio::test]
async fn the_last_losses_are_told_before_the_farewell() {
    let live = live_with("queue_size = 1");
    live.create("t", TopicOptions::default()).unwrap();
    let newest = json!({ "topic": "t", "policy": "drop_newest" });
    let (one, two) = (subscribe(&live, newest.clone()).await, subscribe(&live, newest).await);
    publish(&live, "t", 0..6);
    assert_eq!(seen(&two), ["0"]);
    assert_eq!(live.delete("t"), Ok(()));
    assert_eq!(seen(&one), ["0", "\"dropped\" 5", "\"topic_deleted\" null"]);
    assert_eq!(seen(&two), ["\"dropped\" 5", "\"topic_deleted\" null"]);
}

#[tokio::test]
async fn what_is_under_a_routes_name_is_the_routes() {
    let live = live_with("");
    let under = live.create("candles/EURUSD", TopicOptions::default());
    assert!(matches!(under, Err(Refusal::Invalid(why)) if why.contains("candles is a route")));
    live.create("bars/1m", TopicOptions::default()).unwrap();
    let (mut tap, _feed) = tapped(&live, None);
    let route = RouteTopic { name: "bars".to_owned(), key: None };
    tap.lay_routes([(RouteId(1), route)].into_iter());
    assert_eq!(names(&live), ["bars"], "a route that comes takes its names");
}

#[tokio::test]
async fn sub_topics_go_with_the_key_that_made_them() {
    let live = live_with("");
    let with = |key: Option<&str>| {
        let key = key.map(|key| Arc::new(key.parse().unwrap()));
        [(RouteId(0), RouteTopic { name: "candles".to_owned(), key })].into_iter()
    };
    for (next, left) in [(Some("@key"), 3), (Some("@subject"), 1), (None, 1)] {
        let (mut first, feed) = tapped(&live, Some("@key"));
        admit(&mut first, &chunk(0..2));
        fed(first, feed).await;
        assert_eq!(names(&live).len(), 3);
        let (mut again, _feed) = tap(&live);
        again.lay_routes(with(next));
        assert_eq!(names(&live).len(), left, "{next:?}");
    }
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
    tap.admitted(&both, [(0, RouteId(0)), (1, RouteId(1))].into_iter());
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
