//! The live feed over real sockets: the real binary, and clients by another library. Topics of users
//! need no server: the bridge serves them while it still waits for ClickHouse.

mod client;
mod cutter;
mod hostile;
mod interfaces;
mod others;
mod page;
mod publish;
mod route;
mod slow;
mod terminal;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::bridge::{self, Bridge, PATIENCE};
use client::{Client, payloads};

/// A bridge with a live feed, and nothing behind it.
pub(crate) struct Feed {
    bridge: Bridge,
    _dir: TempDir,
}

impl Feed {
    /// With so much more in `[live]`.
    async fn start(live: &str) -> Self {
        Self::listening("127.0.0.1:0", live).await
    }

    async fn listening(address: &str, live: &str) -> Self {
        Self::with(&format!("listen = \"{address}\""), live).await
    }

    async fn with_token(token: &str) -> Self {
        Self::with(&format!("listen = \"127.0.0.1:0\"\ntoken = \"{token}\""), "").await
    }

    async fn with(http: &str, live: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("live.toml");
        let text = format!(
            "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[clickhouse]\nurl = \"http://127.0.0.1:1\"\n\
             [[routes]]\nname = \"candles\"\nkafka_topics = [\"x\"]\ntable = \"t\"\n\
             [http]\n{http}\n[live]\n{live}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut bridge = Bridge::spawn(dir.path().join("log"), &[file]);
        bridge.listening().await;
        Self { bridge, _dir: dir }
    }

    async fn connect(&self) -> Client {
        Client::connect(self.bridge.address()).await
    }

    async fn subscribed(&self, more: Json) -> Client {
        let mut client = self.connect().await;
        let mut ask = json!({ "type": "subscribe" });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = client.ask(ask).await;
        assert_eq!(answer["type"], "ack", "{answer}");
        client
    }

    async fn http(&self, method: Method, path: &str, body: Json) -> (u16, Json) {
        let url = format!("http://{}{path}", self.bridge.address());
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(url).body(body).unwrap();
        let (status, body) = bridge::ask(request, PATIENCE).await.unwrap();
        (status.as_u16(), serde_json::from_str(&body).unwrap_or(Json::String(body)))
    }

    async fn get(&self, path: &str) -> Json {
        self.http(Method::GET, path, Json::Null).await.1
    }

    async fn topic(&self, name: &str) {
        let (status, _) = self.http(Method::POST, "/topics", json!({ "name": name })).await;
        assert_eq!(status, 201, "{name}");
    }

    /// Waits until this is true of what is told at a path.
    async fn until(&self, path: &str, shows: impl Fn(&Json) -> bool) -> Json {
        let looking = async {
            loop {
                let told = self.get(path).await;
                if shows(&told) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {path}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_subscribers_get_every_message_once_and_in_order() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let subscribers = join_all((0..50).map(|_| feed.subscribed(json!({ "topic": "t" })))).await;
    let mut publisher = feed.connect().await;
    let publishing = publisher.publish_all("t", 0..500);
    let reading = subscribers.into_iter().map(|mut one| async move { one.payloads(500).await });
    let (_, all) = tokio::join!(publishing, join_all(reading));
    assert_eq!(all.len(), 50);
    assert!(all.iter().all(|seen| seen.iter().copied().eq(0..500)));
}

#[tokio::test]
async fn a_replay_comes_in_order_and_without_a_gap_before_what_is_new() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("t", 0..250).await;
    let mut late = feed.subscribed(json!({ "topic": "t", "last_n": 60 })).await;
    publisher.publish_all("t", 250..260).await;
    let seen = late.payloads(70).await;
    assert!(seen.iter().copied().eq(190..260), "{seen:?}");
    let stats = feed.get("/stats").await;
    assert_eq!(stats["topics"]["t"]["replay_depth"], 100, "the default");
    assert_eq!(stats["topics"]["t"]["messages"], 260);
}

#[tokio::test]
async fn who_comes_again_goes_on_where_it_was() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut publisher = feed.connect().await;
    let mut first = feed.subscribed(json!({ "topic": "t", "client_id": "desk" })).await;
    publisher.publish_all("t", 0..10).await;
    assert_eq!(first.payloads(10).await.len(), 10);
    drop(first);
    feed.until("/stats", |stats| stats["topics"]["t"]["subscribers"] == 0).await;
    publisher.publish_all("t", 10..20).await;
    let again = json!({ "topic": "t", "client_id": "desk", "last_n": 10 });
    let mut again = feed.subscribed(again).await;
    publisher.publish_all("t", 20..22).await;
    assert!(again.payloads(12).await.into_iter().eq(10..22));
    let stats = feed.get("/subscriber-stats").await;
    assert_eq!(stats["t/desk"]["delivered"], 12, "{stats}");
    assert_eq!(
        (&stats["t/desk"]["queue_max"], &stats["t/desk"]["dropped"]),
        (&json!(1000), &json!(0))
    );
}

#[tokio::test]
async fn a_topic_is_deleted_under_its_subscribers() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut subscribers = join_all((0..10).map(|_| feed.subscribed(json!({ "topic": "t" })))).await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("t", 0..5).await;
    let (status, _) = feed.http(Method::DELETE, "/topics/t", Json::Null).await;
    assert_eq!(status, 200);
    for one in &mut subscribers {
        let seen = one.until(|message| message["type"] == "info").await;
        assert_eq!(payloads(&seen), (0..5).collect::<Vec<_>>());
        assert_eq!(seen.last().unwrap()["event"], "topic_deleted");
        assert_eq!(one.ask(json!({ "type": "ping" })).await["type"], "pong", "it stays connected");
    }
    let refused = publisher.publish("t", &json!(1)).await;
    assert_eq!(refused["error"]["code"], "TOPIC_NOT_FOUND");
    for (method, path, status) in [
        (Method::DELETE, "/topics/t", 404),
        (Method::DELETE, "/topics/candles", 409),
        (Method::GET, "/topics/t/events", 404),
    ] {
        assert_eq!(feed.http(method, path, Json::Null).await.0, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_operations_on_topics_at_once_leave_what_they_should() {
    let feed = Feed::start("").await;
    let create =
        |n: usize| feed.http(Method::POST, "/topics", json!({ "name": format!("t{}", n % 10) }));
    let codes: Vec<u16> = join_all((0..50).map(create)).await.into_iter().map(|a| a.0).collect();
    assert_eq!(codes.iter().filter(|&&code| code == 201).count(), 10);
    assert_eq!(codes.iter().filter(|&&code| code == 200).count(), 40);
    let path = |n: usize| format!("/topics/t{}", n % 5);
    let deleted = join_all((0..50).map(|n| {
        let path = path(n);
        let feed = &feed;
        async move { feed.http(Method::DELETE, &path, Json::Null).await.0 }
    }))
    .await;
    assert_eq!(deleted.iter().filter(|&&code| code == 200).count(), 5);
    assert_eq!(deleted.iter().filter(|&&code| code == 404).count(), 45);
    let topics = feed.get("/topics").await;
    let names: Vec<&str> =
        topics["topics"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["candles", "t5", "t6", "t7", "t8", "t9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_and_subscribers_lose_nothing() {
    let feed = Feed::start("queue_size = 10000\nqueue_bytes = \"8MiB\"").await;
    for topic in 0..4 {
        feed.topic(&format!("t{topic}")).await;
    }
    let topics = |n: usize| format!("t{}", n % 4);
    let subscribers =
        join_all((0..16).map(|n| feed.subscribed(json!({ "topic": topics(n) })))).await;
    let publishing = join_all((0..8).map(|n| {
        let feed = &feed;
        async move { feed.connect().await.publish_all(&topics(n), 0..400).await }
    }));
    let reading = subscribers.into_iter().map(|mut one| async move { one.payloads(800).await });
    let (_, all) = tokio::join!(publishing, join_all(reading));
    // Two publishers to a topic: each one's messages are in its order, and all are there once.
    for seen in all {
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq((0..400).flat_map(|n| [n, n])));
    }
    let totals = feed.get("/stats").await["totals"].clone();
    assert_eq!((&totals["messages"], &totals["dropped"]), (&json!(3200), &json!(0)));
}

#[tokio::test]
async fn each_request_is_answered_under_its_name() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut client = feed.connect().await;
    for (ask, answer) in [
        (json!({ "type": "ping" }), json!({ "type": "pong" })),
        (
            json!({ "type": "subscribe", "topic": "t" }),
            json!({ "type": "ack", "topic": "t", "replayed": 0 }),
        ),
        (
            json!({ "type": "subscribe", "topic": "t" }),
            json!({ "error": { "code": "BAD_REQUEST" } }),
        ),
        (json!({ "type": "unsubscribe", "topic": "t" }), json!({ "type": "ack", "topic": "t" })),
        (
            json!({ "type": "unsubscribe", "topic": "t" }),
            json!({ "error": { "code": "TOPIC_NOT_FOUND" } }),
        ),
        (
            json!({ "type": "subscribe", "topic": "u" }),
            json!({ "error": { "code": "TOPIC_NOT_FOUND" } }),
        ),
        (json!({ "type": "nothing" }), json!({ "error": { "code": "BAD_REQUEST" } })),
    ] {
        let got = client.ask(ask.clone()).await;
        assert!(client::has(&got, &answer), "{ask} -> {got}");
        let ts = got["ts"].as_str().unwrap();
        assert!(ts.ends_with('Z') && ts.parse::<jiff::Timestamp>().is_ok(), "{got}");
    }
    let published = client.publish("t", &json!({ "a": 1 })).await;
    assert!(client::has(&published, &json!({ "type": "ack", "durable": false, "subscribers": 0 })));
    let route = client.publish("candles", &json!(1)).await;
    assert_eq!(route["error"]["code"], "UNAUTHORIZED", "there is no token: {route}");
}

#[tokio::test]
async fn events_come_over_plain_http_too() {
    let feed = Feed::start("").await;
    feed.topic("a/b").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("a/b", 0..3).await;
    let url = format!("http://{}/topics/a%2Fb/events?last_n=2", feed.bridge.address());
    let mut events = client::Events::open(&url).await;
    publisher.publish_all("a/b", 3..5).await;
    let mut seen = Vec::new();
    while payloads(&seen).len() < 4 {
        seen.push(events.next().await);
    }
    assert_eq!((&seen[0]["type"], payloads(&seen)), (&json!("ack"), vec![1, 2, 3, 4]));
    drop(events);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
}

#[tokio::test]
async fn at_the_stop_sockets_are_told_and_closed_as_going_away() {
    let mut feed = Feed::start("").await;
    feed.topic("t").await;
    let mut one = feed.subscribed(json!({ "topic": "t" })).await;
    feed.connect().await.publish_all("t", 0..3).await;
    feed.bridge.signal("TERM");
    let (seen, code) = one.until_closed().await;
    assert_eq!(payloads(&seen), [0, 1, 2]);
    assert_eq!(seen.last().unwrap()["event"], "shutdown");
    assert_eq!(code, Some(1001));
    assert_eq!(feed.bridge.ended(PATIENCE).await, 0);
}

#[tokio::test]
async fn who_says_farewell_is_answered() {
    let feed = Feed::start("").await;
    let mut client = feed.connect().await;
    let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    client.send(Message::Close(Some(farewell))).await.unwrap();
    assert_eq!(client.until_closed().await.1, Some(1000));
}

#[tokio::test]
async fn the_sizes_come_from_the_environment_too() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n[http]\nlisten = '127.0.0.1:0'\n[clickhouse]\nurl = 'http://127.0.0.1:1'\n").unwrap();
    let variables = [("DATA_BRIDGE__LIVE__QUEUE_SIZE", "7"), ("DATA_BRIDGE__LIVE__REPLAY", "2")];
    let mut bridge = Bridge::spawn_with(dir.path().join("log"), &[file], &variables);
    bridge.listening().await;
    let feed = Feed { bridge, _dir: dir };
    feed.topic("t").await;
    feed.connect().await.publish_all("t", 0..5).await;
    let mut late = feed.connect().await;
    let ack = late.ask(json!({ "type": "subscribe", "topic": "t", "last_n": 5 })).await;
    assert!(client::has(&ack, &json!({ "replayed": 2, "queue_size": 7 })), "{ack}");
}
