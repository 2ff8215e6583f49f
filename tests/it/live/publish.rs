//! Publishing: over a socket into a route, where it is as durable as over HTTP; over HTTP to a topic
//! of a user, where it is as fleeting as over a socket.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::Feed;
use super::client::{Client, has, payloads};
use crate::bridge::{self, Bridge, PATIENCE};
use crate::lab::{Lab, number, settled};

const TOKEN: &str = "of-those-who-publish";
const TABLE: &str = "CREATE TABLE published (n UInt64, id String) ENGINE = MergeTree ORDER BY n";

async fn lab_with_table(lab: Lab) -> Lab {
    lab.clickhouse.query(TABLE).await;
    lab
}

fn config(lab: &Lab, more: &str) -> String {
    let sections = lab.sections("");
    format!(
        "{sections}http.token = \"{TOKEN}\"\n{more}\n[[routes]]\nname = \"published\"\n\
         publish = true\ntable = \"published\"\nwriter = \"aggregate\"\n\
         [routes.columns]\nid = \"@headers.message-id\"\n"
    )
}

async fn connect(bridge: &Bridge) -> Client {
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    Client::with(bridge.address(), &headers).await.unwrap()
}

fn id(n: u64) -> String {
    uuid::Uuid::from_u128(u128::from(n)).to_string()
}

fn publish(n: u64, payload: &Json, durable: bool) -> Json {
    let message = json!({ "id": id(n), "payload": payload });
    json!({ "type": "publish", "topic": "published", "message": message, "durable": durable,
            "request_id": n })
}

async fn send(client: &mut Client, message: &Json) {
    client.send(Message::text(message.to_string())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_socket_publishes_into_a_route_is_stored_when_it_says_so() {
    const COUNT: u64 = 500;
    let lab = lab_with_table(Lab::new().await).await;
    let bridge = lab.start(&config(&lab, ""), "").await;
    let (mut client, mut watching) = (connect(&bridge).await, connect(&bridge).await);
    let subscribe = json!({ "type": "subscribe", "topic": "published", "queue_size": 1_000 });
    assert_eq!(watching.ask(subscribe).await["type"], "ack");
    let durable = client.ask(publish(1, &json!({ "n": 1 }), true)).await;
    let expected = json!({ "type": "ack", "topic": "published", "id": id(1), "durable": true });
    assert!(has(&durable, &expected), "{durable}");
    let stored = lab.clickhouse.row("SELECT n, id FROM published").await;
    assert_eq!((number(&stored["n"]), &stored["id"]), (1, &json!(id(1))), "at that moment");
    let event = watching.next().await.unwrap();
    assert!(has(&event, &json!({ "message": { "id": id(1), "payload": { "n": 1 } } })), "{event}");

    let letter = client.ask(publish(2, &json!({ "n": "none" }), true)).await;
    assert!(has(&letter, &json!({ "durable": true, "dead_letter": true })), "{letter}");
    let letters = "SELECT count() FROM dead_letters WHERE source = 'live'";
    assert_eq!(lab.clickhouse.number(letters).await, 1);
    watching.next().await.unwrap();

    // Many on their way at a time.
    let (mut sent, mut acked) = (0, Vec::new());
    while (acked.len() as u64) < COUNT {
        while sent < COUNT && sent - (acked.len() as u64) < 50 {
            send(&mut client, &publish(10 + sent, &json!({ "n": 10 + sent }), false)).await;
            sent += 1;
        }
        let ack = client.next().await.unwrap();
        assert!(has(&ack, &json!({ "type": "ack", "durable": false })), "{ack}");
        acked.push(ack["id"].clone());
    }
    acked.sort_by_key(ToString::to_string);
    let all: Vec<Json> = (10..10 + COUNT).map(|n| json!(id(n))).collect();
    assert_eq!(acked, all, "each once");
    let health = bridge.wait_until("all is in", |h| settled(h, "live", COUNT + 2)).await;
    assert_eq!(number(&health["metrics"]["sources"]["live"]["inserted"]), COUNT + 1);
    bridge.stop().await;
}

/// ClickHouse is away: those who wait for it wait, the socket goes on, and when there is no room any
/// more it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_goes_on_while_its_messages_wait_to_be_durable() {
    let lab = lab_with_table(Lab::with_own_clickhouse().await).await;
    let limits = "live.publish = { durable_timeout = \"80s\" }\nbackpressure = { max_buffer_size = \
                  2000, pause_threshold = 800, resume_threshold = 400 }\n\
                  breaker.max_failures = 1000000\nshutdown.grace = \"60s\"";
    let mut bridge = lab.start(&config(&lab, limits), "").await;
    let mut client = connect(&bridge).await;
    assert_eq!(client.ask(publish(1, &json!({ "n": 1 }), true)).await["durable"], true);
    lab.kill_clickhouse().await;
    for n in 2..42 {
        send(&mut client, &publish(n, &json!({ "n": n }), true)).await;
    }
    let began = Instant::now();
    assert_eq!(client.ask(json!({ "type": "ping" })).await["type"], "pong");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    bridge.wait_until("they are held", |h| live(h, "received") == 41).await;
    for n in 42..802 {
        assert_eq!(client.ask(publish(n, &json!({ "n": n }), false)).await["type"], "ack", "{n}");
    }
    let refused = client.ask(publish(900, &json!({ "n": 900 }), true)).await;
    assert_eq!(refused["error"]["code"], "RATE_LIMITED", "{refused}");
    assert!(number(&refused["error"]["retry_after_ms"]) >= 1_000, "{refused}");
    // It stops while they wait; who waits is answered before the socket is closed.
    bridge.signal("TERM");
    bridge.wait_for_log("stopping: draining").await;
    let late = client.ask(publish(901, &json!({ "n": 901 }), true)).await;
    assert_eq!(late["error"]["code"], "RATE_LIMITED", "{late}");
    lab.start_clickhouse().await;
    let (seen, code) = client.until_closed().await;
    let mut ids: Vec<u64> = seen.iter().filter_map(|m| m["request_id"].as_u64()).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(2..42), "{ids:?}");
    let acks = seen.iter().filter(|message| message["durable"] == true).count();
    assert_eq!((acks, code), (40, Some(1001)));
    assert_eq!(bridge.ended(PATIENCE).await, 0);
    assert_eq!(lab.clickhouse.number("SELECT uniqExact(n) FROM published").await, 801);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_durable_in_time_is_not_called_so_and_lands_all_the_same() {
    let lab = lab_with_table(Lab::with_own_clickhouse().await).await;
    let limits = "live.publish = { durable_timeout = \"1s\" }\nbreaker.max_failures = 1000000";
    let bridge = lab.start(&config(&lab, limits), "").await;
    let mut client = connect(&bridge).await;
    assert_eq!(client.ask(publish(1, &json!({ "n": 1 }), false)).await["type"], "ack");
    lab.clickhouse.until("SELECT count() FROM published", 1).await;
    lab.kill_clickhouse().await;
    let late = client.ask(publish(2, &json!({ "n": 2 }), true)).await;
    let why = late["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("not durable yet, and still under way"), "{late}");
    lab.start_clickhouse().await;
    lab.clickhouse.until("SELECT count() FROM published", 2).await;
    bridge.stop().await;
}

fn live(health: &Json, what: &str) -> u64 {
    number(&health["metrics"]["sources"]["live"][what])
}

#[tokio::test]
async fn what_is_posted_to_a_users_topic_is_seen_by_those_who_listen() {
    let feed = Feed::start("").await;
    feed.topic("desk/alerts").await;
    let mut one = feed.subscribed(json!({ "topic": "desk/alerts" })).await;
    let post = async |topic: &str, kind: &str, origin: Option<&str>, query: &str, body: &str| {
        let at = feed.bridge.address();
        let mut request = Request::post(format!("http://{at}/topics/{topic}/messages{query}"))
            .header("content-type", kind);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (status, text) = bridge::ask(request, PATIENCE).await.unwrap();
        (status.as_u16(), serde_json::from_str::<Json>(&text).unwrap())
    };
    let (json_type, lines) = ("application/json", "application/x-ndjson");
    let (status, told) = post("desk%2Falerts", json_type, None, "", "1").await;
    let expected = json!({ "accepted": 1, "durable": false, "subscribers": 1 });
    assert!(status == 200 && has(&told, &expected), "{status} {told}");
    let own = format!("http://{}", feed.bridge.address());
    let (status, told) = post("desk%2Falerts", lines, Some(&own), "", "2\n\n3\n").await;
    assert!(status == 200 && has(&told, &json!({ "accepted": 2 })), "{status} {told}");
    for (topic, kind, origin, query, body, refused) in [
        ("desk%2Falerts", json_type, Some("https://evil.example"), "", "9", 403),
        ("desk%2Falerts", "text/plain", None, "", "9", 415),
        ("desk%2Falerts", json_type, None, "?durable=true", "9", 400),
        ("desk%2Falerts", lines, None, "", "\n", 400),
        ("desk%2Falerts", json_type, None, "", &*"9".repeat(70_000), 413),
        ("candles", json_type, None, "", "9", 403),
    ] {
        let (status, told) = post(topic, kind, origin, query, body).await;
        assert_eq!(status, refused, "{topic} {kind} {origin:?} {query}: {told}");
    }
    let (status, _) = post("desk%2Falerts", json_type, None, "", "4").await;
    assert_eq!(status, 200);
    let mut seen = Vec::new();
    while payloads(&seen).len() < 4 {
        seen.push(one.next().await.unwrap());
    }
    assert_eq!(payloads(&seen), [1, 2, 3, 4], "and nothing of what was refused");
}
