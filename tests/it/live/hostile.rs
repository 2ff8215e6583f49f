//! What strangers send: nonsense, too much, too large, or nothing at all. The feed answers, or closes,
//! and keeps nothing of them.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::Feed;
use super::client::Client;
use crate::bridge::PATIENCE;
use crate::lab::scale;
use data_bridge::live::protocol;

#[tokio::test]
async fn nonsense_is_answered_and_the_connection_stays() {
    let feed = Feed::start("").await;
    let mut client = feed.connect().await;
    let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for text in [
        "",
        "null",
        "{",
        "[]",
        "\u{0}",
        r#"{"type":1}"#,
        r#"{"type":"subscribe","topic":"../../etc"}"#,
        &nested,
    ] {
        client.send(Message::text(text)).await.unwrap();
        let answer = client.next().await.unwrap();
        assert_eq!(answer["error"]["code"], "BAD_REQUEST", "{text:.40}: {answer}");
    }
    client.send(Message::binary(vec![0xff; 100])).await.unwrap();
    assert_eq!(client.next().await.unwrap()["error"]["code"], "BAD_REQUEST");
    assert_eq!(client.ask(json!({ "type": "ping" })).await["type"], "pong");
}

#[tokio::test]
async fn what_is_too_large_ends_the_connection_and_says_so() {
    let feed = Feed::start("max_message = \"4KiB\"").await;
    let mut client = feed.connect().await;
    client.send(Message::text("x".repeat(5_000))).await.unwrap();
    let (_, code) = client.until_closed().await;
    assert_eq!(code, Some(1009));
    // One that only announces it is not waited for.
    let mut raw = upgraded(&feed).await;
    raw.write_all(&[0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, raw.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(feed.connect().await.ask(json!({ "type": "ping" })).await["type"], "pong");
}

/// A socket that speaks no more than it must.
async fn upgraded(feed: &Feed) -> TcpStream {
    let mut raw = TcpStream::connect(feed.bridge.address()).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, raw.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    raw
}

/// The time-out is so long that one who answers may be late by seconds, on a machine that stalls.
#[tokio::test]
async fn who_gives_no_sign_of_life_is_closed() {
    let feed = Feed::start("ping_interval = \"500ms\"\nidle_timeout = \"10s\"").await;
    let mut silent = upgraded(&feed).await;
    let mut alive = feed.connect().await;
    let mut rest = Vec::new();
    // A client that reads answers pings by itself: it reads for as long as the other one is there.
    tokio::select! {
        ended = timeout(PATIENCE, silent.read_to_end(&mut rest)) => drop(ended.unwrap().unwrap()),
        told = alive.next() => panic!("it is told nothing, and stays: {told:?}"),
    }
    assert!(rest.starts_with(&[0x89, 0]), "it was pinged first");
    assert_eq!(alive.ask(json!({ "type": "ping" })).await["type"], "pong");
    feed.until("/stats", |stats| stats["totals"]["connections"] == 1).await;
}

#[tokio::test]
async fn a_flood_is_held_to_its_rate_and_nobody_else_is() {
    let feed = Feed::start("message_rate = 50").await;
    let (mut flood, mut other) = (feed.connect().await, feed.connect().await);
    let ping = json!({ "type": "ping" }).to_string();
    let mut codes = Vec::new();
    let began = Instant::now();
    for _ in 0..500 {
        flood.send(Message::text(ping.clone())).await.unwrap();
        codes.push(flood.next().await.unwrap()["error"]["code"].clone());
    }
    let took = began.elapsed();
    let passed = codes.iter().filter(|code| **code != "RATE_LIMITED").count();
    // a second's worth at once, and then the rate, for as long as it took on this machine
    let worth = Duration::from_millis(20) * u32::try_from(passed).unwrap();
    let allowed = Duration::from_millis(1_020) + took;
    assert!(passed >= 50 && worth <= allowed, "{passed} passed in {took:?}");
    assert_eq!(other.ask(json!({ "type": "ping" })).await["type"], "pong");
}

#[tokio::test]
async fn who_asks_and_never_reads_is_not_read_any_more() {
    let feed = Feed::start("message_rate = 1000000").await;
    let mut never = Client::narrow(feed.bridge.address()).await;
    let ask = json!({ "type": "subscribe", "topic": "x".repeat(150) }).to_string();
    let asking = async { while never.send(Message::text(ask.clone())).await.is_ok() {} };
    let stuck = timeout(Duration::from_secs(3), asking).await;
    assert!(stuck.is_err(), "its own writing waits");
    assert!(feed.bridge.peak_memory_mib() < 200, "{}", feed.bridge.peak_memory_mib());
    assert_eq!(feed.connect().await.ask(json!({ "type": "ping" })).await["type"], "pong");
}

/// Two thousand times; a million with `DATA_BRIDGE_TEST_SCALE=500`.
#[tokio::test]
async fn coming_and_going_leaves_nothing_behind() {
    let feed = Feed::start("message_rate = 1000000").await;
    feed.topic("t").await;
    let mut client = feed.connect().await;
    for _ in 0..2_000 * scale() {
        client.send(Message::text(r#"{"type":"subscribe","topic":"t"}"#)).await.unwrap();
        client.send(Message::text(r#"{"type":"unsubscribe","topic":"t"}"#)).await.unwrap();
        for _ in 0..2 {
            let answer = client.next().await.unwrap();
            assert_eq!(answer["type"], "ack", "{answer}");
        }
    }
    for _ in 0..100 {
        drop(feed.subscribed(json!({ "topic": "t" })).await);
    }
    drop(client);
    let quiet =
        |stats: &Json| stats["totals"]["connections"] == 0 && stats["totals"]["subscribers"] == 0;
    let stats = feed.until("/stats", quiet).await;
    assert_eq!(stats["topics"]["t"]["subscribers"], 0);
    assert!(feed.bridge.peak_memory_mib() < 200, "{}", feed.bridge.peak_memory_mib());
}

#[tokio::test]
async fn limits_on_connections_are_told_before_the_socket_opens() {
    let feed = Feed::start("max_connections_per_address = 2").await;
    let (first, _second) = (feed.connect().await, feed.connect().await);
    let third = Client::with(feed.bridge.address(), &[]).await.err();
    assert_eq!(third, Some(429));
    drop(first);
    feed.until("/stats", |stats| stats["totals"]["connections"] == 1).await;
    feed.connect().await;
}

#[tokio::test]
async fn pages_of_strangers_do_not_get_in() {
    let feed = Feed::start("allowed_origins = [\"https://desk.example\"]").await;
    let at = feed.bridge.address();
    for (origin, refused) in [
        ("https://evil.example", Some(403)),
        ("https://desk.example", None),
        (&*format!("http://{at}"), None),
    ] {
        assert_eq!(Client::with(at, &[("origin", origin)]).await.err(), refused, "{origin}");
    }
}

/// As a browser asks when a page reads from where it came from: it names no origin.
#[tokio::test]
async fn a_strangers_name_that_leads_to_this_machine_opens_nothing() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    for path in ["/topics", "/stats", "/subscriber-stats", "/topics/t/events"] {
        let mut stream = TcpStream::connect(feed.bridge.address()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: evil.example:8080\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403", "{path}");
    }
}

#[tokio::test]
async fn a_client_is_not_called_by_what_breaks_a_line() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    for name in ["", "a%0AERROR", &"x".repeat(200)] {
        let path = format!("/topics/t/events?client_id={name}");
        let (status, told) = feed.http(axum::http::Method::GET, &path, Json::Null).await;
        assert_eq!(status, 400, "{name}: {told}");
    }
}

#[tokio::test]
async fn a_token_opens_the_socket_in_a_header_or_as_a_subprotocol() {
    let feed = Feed::with_token("s3cret!").await;
    let at = feed.bridge.address();
    for (headers, refused) in [
        (vec![], Some(401)),
        (vec![("authorization", "Bearer wrong")], Some(401)),
        (vec![("authorization", "Bearer s3cret!")], None),
        (vec![("sec-websocket-protocol", "data-bridge.v1, bearer.czNjcmV0IQ")], None),
        (vec![("sec-websocket-protocol", "data-bridge.v1, bearer.d3Jvbmc")], Some(401)),
    ] {
        assert_eq!(Client::with(at, &headers).await.err(), refused, "{headers:?}");
    }
    for path in ["/topics", "/stats", "/subscriber-stats", "/topics/candles/events"] {
        assert_eq!(feed.http(axum::http::Method::GET, path, Json::Null).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_others_than_this_machine_are_told_what_to_set() {
    for (more, status) in [("", 403), ("open = true", 200), ("enabled = false", 404)] {
        let feed = Feed::listening("0.0.0.0:0", more).await;
        let (found, told) = feed.http(axum::http::Method::GET, "/topics", Json::Null).await;
        assert_eq!(found, status, "{more}: {told}");
        assert!(status != 403 || told["detail"].as_str().unwrap().contains("live.open"), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is sent: it is understood or refused in words, and what is answered is JSON.
    #[test]
    fn the_protocol_takes_any_text(text in any_text()) {
        let (request_id, ask) = protocol::parse(&text);
        let ts = "2026-01-01T00:00:00.000Z";
        let answer = match ask {
            Err(problem) => protocol::error(request_id, &problem, ts),
            Ok(protocol::Ask::Publish(publish)) => {
                protocol::event(&publish.topic, publish.id, publish.payload.get(), ts)
            }
            Ok(_) => protocol::pong(request_id, ts),
        };
        let json: Json = serde_json::from_slice(answer.bytes()).expect("it is JSON");
        prop_assert_eq!(&json["ts"], ts);
        if let (Some(id), Some(_)) = (request_id, json.get("request_id")) {
            let id: Json = serde_json::from_str(id.get()).unwrap();
            prop_assert_eq!(&json["request_id"], &id);
        }
    }
}

/// Text that is nearly, or wholly, a message.
fn any_text() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!("subscribe")),
        Just(json!("publish")),
        Just(json!("unsubscribe")),
        Just(json!("ping")),
        Just(json!({ "id": "6f2c1f0e-8f6c-4b9e-9a53-0d6a3c1b2a77", "payload": [1, "x\n", {}] })),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        any::<bool>().prop_map(|b| json!(b)),
        ".{0,20}".prop_map(|s| json!(s)),
        "[a-z/*]{0,30}".prop_map(|s| json!(s)),
    ];
    let keys = prop::sample::select(vec![
        "type",
        "topic",
        "request_id",
        "message",
        "last_n",
        "client_id",
        "queue_size",
        "policy",
        "block",
        "durable",
        "other",
    ]);
    let object =
        prop::collection::btree_map(keys, value, 0..6).prop_map(|map| json!(map).to_string());
    let cut = (object.clone(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let at = at.index(text.len() + 1);
        text.chars().take(at).collect()
    });
    prop_oneof![object, cut, ".{0,200}"]
}
