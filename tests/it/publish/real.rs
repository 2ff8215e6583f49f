//! On real servers, by the real program, over HTTP.

use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bridge::{Bridge, PATIENCE, ask, program};
use crate::lab::{Lab, assert_accounts, number, settled};

const TOKEN: &str = "of-those-who-publish";
const TABLE: &str = "CREATE TABLE published (n UInt64, topic String, at DateTime64(3)) \
                     ENGINE = MergeTree ORDER BY n";

fn config(lab: &Lab, more: &str) -> String {
    let sections = lab.sections("");
    format!(
        "{sections}http.token = \"{TOKEN}\"\n{more}\n[[routes]]\nname = \"published\"\n\
         publish = true\ntable = \"published\"\nwriter = \"aggregate\"\n\
         [routes.columns]\ntopic = \"@topic\"\nat = \"@timestamp\"\n"
    )
}

async fn lab_with_table(lab: Lab) -> Lab {
    lab.clickhouse.query(TABLE).await;
    lab
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// The status, and the answer.
async fn post(bridge: &Bridge, query: &str, body: String) -> (StatusCode, Json) {
    posted(url(bridge, query), "application/x-ndjson", Some(TOKEN), body).await
}

fn url(bridge: &Bridge, query: &str) -> String {
    format!("http://{}/topics/published/messages{query}", bridge.address())
}

async fn posted(
    url: String,
    media_type: &str,
    token: Option<&str>,
    body: String,
) -> (StatusCode, Json) {
    let mut request = Request::post(url).header("content-type", media_type);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let (status, text) = ask(request.body(Body::from(body)).unwrap(), PATIENCE).await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
}

async fn stored(lab: &Lab) -> (u64, u64) {
    let counts = "SELECT count() AS rows, uniqExact(n) AS different FROM published";
    let row = lab.clickhouse.row(counts).await;
    (number(&row["rows"]), number(&row["different"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_are_stored_when_it_says_so_and_strangers_store_nothing() {
    let lab = lab_with_table(Lab::new().await).await;
    let bridge = lab.start(&config(&lab, ""), "").await;
    let (status, answer) = post(&bridge, "?durable=true", lines(0..10_000)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(stored(&lab).await, (10_000, 10_000), "at the moment of the answer");
    assert_eq!((&answer["durable"], &answer["inserted"]), (&true.into(), &10_000.into()));
    let topics = "SELECT count() FROM published WHERE topic = 'live:published' \
                  AND abs(dateDiff('second', at, now64(3))) < 600";
    assert_eq!(lab.clickhouse.number(topics).await, 10_000);

    let (json, url) = ("application/json", url(&bridge, ""));
    for token in [None, Some("wrong")] {
        let (status, _) = posted(url.clone(), json, token, "{\"n\":1}".into()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let elsewhere = url.replace("published", "elsewhere");
    let (status, _) = posted(elsewhere, json, Some(TOKEN), "{\"n\":1}".into()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = posted(url.clone(), "text/plain", Some(TOKEN), "{\"n\":1}".into()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, _) = post(&bridge, "?durable=perhaps", lines(0..1)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let (status, answer) = posted(url, json, Some(TOKEN), "{\"n\":\n10000}".into()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let bad = format!("{}not a message\n", lines(10_001..10_004));
    let (status, answer) = post(&bridge, "?durable=true", bad).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["inserted"], &answer["dead_lettered"]), (&3.into(), &1.into()));
    let letters = "SELECT count() FROM dead_letters WHERE source = 'live' \
                   AND topic_or_subject = 'live:published' AND payload = 'not a message'";
    assert_eq!(lab.clickhouse.number(letters).await, 1);
    let health = bridge.wait_until("all is in", |health| settled(health, "live", 10_005)).await;
    assert_accounts(&health);
    assert_eq!(stored(&lab).await, (10_004, 10_004));
    bridge.stop().await;
}

/// With room for 800: what is accepted is stored once ClickHouse is back, and the rest was refused
/// with a word on where to go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_clickhouse_is_down_publishers_hear_how_far_it_goes() {
    let lab = lab_with_table(Lab::with_own_clickhouse().await).await;
    let limits = "live.publish = { durable_timeout = \"2s\" }\nbackpressure = { max_buffer_size = \
                  2000, pause_threshold = 800, resume_threshold = 400 }\n\
                  breaker.max_failures = 1000000\nshutdown.grace = \"60s\"";
    let bridge = lab.start(&config(&lab, limits), "").await;
    assert_eq!(post(&bridge, "?durable=true", lines(0..10)).await.0, StatusCode::OK);
    lab.kill_clickhouse().await;
    let began = Instant::now();
    let (status, answer) = post(&bridge, "?durable=true", lines(10..20)).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{answer}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!((&answer["pending"], &answer["durable"]), (&10.into(), &false.into()));
    let (status, answer) = post(&bridge, "", lines(20..1_020)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    let accepted = number(&answer["accepted"]);
    assert_eq!((accepted, number(&answer["next_line"])), (790, 791), "{answer}");
    let (status, answer) = post(&bridge, "", lines(810..1_020)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    let health = bridge.health().await;
    assert_eq!(health["metrics"]["sources"]["live"]["received"], 810);
    assert_eq!(health["metrics"]["dropped"], 0, "a refusal is no loss");
    lab.start_clickhouse().await;
    bridge.wait_until("it took all", |health| settled(health, "live", 810)).await;
    let (status, answer) = post(&bridge, "?durable=true", lines(810..1_020)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(stored(&lab).await, (1_020, 1_020));
    bridge.stop().await;
}

/// SIGTERM while ClickHouse is down and a publisher waits: it hears that its records are in when
/// ClickHouse is back within the grace period, and nobody else is let in meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_those_who_wait_and_lets_nobody_in() {
    let lab = lab_with_table(Lab::with_own_clickhouse().await).await;
    let limits = "live.publish = { durable_timeout = \"80s\" }\nshutdown.grace = \"80s\"";
    let mut bridge = lab.start(&config(&lab, limits), "").await;
    assert_eq!(post(&bridge, "?durable=true", lines(0..1)).await.0, StatusCode::OK);
    lab.kill_clickhouse().await;
    let mut waiting = JoinSet::new();
    let asked = url(&bridge, "?durable=true");
    waiting.spawn(posted(asked, "application/x-ndjson", Some(TOKEN), lines(1..100)));
    bridge
        .wait_until("they are held", |h| h["metrics"]["sources"]["live"]["received"] == 100)
        .await;
    bridge.signal("TERM");
    bridge.wait_for_log("stopping: draining").await;
    let (status, answer) = post(&bridge, "", lines(100..101)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    lab.start_clickhouse().await;
    let (status, answer) = waiting.join_next().await.unwrap().unwrap();
    assert_eq!((status, &answer["inserted"]), (StatusCode::OK, &99.into()), "{answer}");
    assert_eq!(bridge.ended(PATIENCE).await, 0);
    assert_eq!(stored(&lab).await, (100, 100));
}

/// `kill -9` in the midst of requests: whatever was called durable is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_bridge_has_lost_nothing_that_it_called_durable() {
    let lab = lab_with_table(Lab::new().await).await;
    let mut bridge = lab.start(&config(&lab, ""), "").await;
    let mut publishers = JoinSet::new();
    for publisher in 0..8_u64 {
        let url = url(&bridge, "?durable=true");
        publishers.spawn(async move {
            let mut durable = Vec::new();
            for round in 0.. {
                let first = publisher * 1_000_000 + round * 100;
                let request = Request::post(&url)
                    .header("content-type", "application/x-ndjson")
                    .header("authorization", format!("Bearer {TOKEN}"))
                    .body(Body::from(lines(first..first + 100)))
                    .unwrap();
                match ask(request, PATIENCE).await {
                    Ok((StatusCode::OK, _)) => durable.push(first),
                    Ok((status, answer)) => panic!("{status} {answer}"),
                    Err(_) => break,
                }
            }
            durable
        });
    }
    bridge
        .wait_until("many are in", |h| number(&h["metrics"]["sources"]["live"]["inserted"]) > 2_000)
        .await;
    bridge.kill().await;
    let mut called_durable = 0;
    while let Some(durable) = publishers.join_next().await {
        for first in durable.unwrap() {
            let there = format!(
                "SELECT uniqExact(n) FROM published WHERE n >= {first} AND n < {first} + 100"
            );
            assert_eq!(lab.clickhouse.number(&there).await, 100, "from {first}");
            called_durable += 1;
        }
    }
    assert!(called_durable >= 20, "{called_durable}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_is_replayed_when_its_route_was_mended() {
    let lab = lab_with_table(Lab::new().await).await;
    let written = config(&lab, "");
    let bridge = lab.start(&written, "").await;
    let (status, answer) = post(&bridge, "?durable=true", "{\"m\":5}\n".to_owned()).await;
    assert_eq!((status, &answer["dead_lettered"]), (StatusCode::OK, &1.into()), "{answer}");
    let mended = lab.file("mended.toml", &(written + "n = { from = [\"n\", \"m\"] }\n"));
    let replay = async || {
        let mut replay = program();
        replay.arg("--config").arg(&mended).args(["dead-letters", "replay", "--json"]);
        let running = replay.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, running).await.expect("it ends").unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    let replayed = replay().await;
    assert_eq!(replayed["replayed"]["published"], 1, "{replayed:#}");
    let row = lab.clickhouse.row("SELECT n, topic FROM published").await;
    assert_eq!((number(&row["n"]), &row["topic"]), (5, &"live:published".into()), "{row}");
    let again = replay().await;
    assert_eq!(again["replayed"], serde_json::json!({}), "once is enough: {again:#}");
    assert_eq!(stored(&lab).await, (1, 1));
    bridge.stop().await;
}

/// Its records go on; its place is another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_gone_waits_for_nothing() {
    let lab = lab_with_table(Lab::with_own_clickhouse().await).await;
    let limits = "live.publish = { durable_timeout = \"80s\", max_waiting = 1 }";
    let bridge = lab.start(&config(&lab, limits), "").await;
    assert_eq!(post(&bridge, "?durable=true", lines(0..1)).await.0, StatusCode::OK);
    lab.kill_clickhouse().await;
    let mut gone = TcpStream::connect(bridge.address()).await.unwrap();
    let head = format!(
        "POST /topics/published/messages?durable=true HTTP/1.1\r\nhost: localhost\r\n\
         authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: 7\r\n\r\n{{\"n\":1}}"
    );
    gone.write_all(head.as_bytes()).await.unwrap();
    bridge.wait_until("it is held", |h| h["metrics"]["sources"]["live"]["received"] == 2).await;
    let (status, answer) = post(&bridge, "?durable=true", lines(2..3)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    drop(gone);
    let mut waiting = JoinSet::new();
    let url = url(&bridge, "?durable=true");
    waiting.spawn(async move {
        let ndjson = "application/x-ndjson";
        while let (StatusCode::TOO_MANY_REQUESTS, _) =
            posted(url.clone(), ndjson, Some(TOKEN), lines(3..4)).await
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    bridge
        .wait_until("another is held", |h| h["metrics"]["sources"]["live"]["received"] == 3)
        .await;
    lab.start_clickhouse().await;
    tokio::time::timeout(PATIENCE, waiting.join_next()).await.expect("it is answered");
    assert_eq!(stored(&lab).await, (3, 3));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_publishes_what_is_stored_when_it_ends() {
    let lab = lab_with_table(Lab::new().await).await;
    let bridge = lab.start(&config(&lab, ""), "").await;
    let token = lab.file("token", TOKEN);
    let text = lines(0..2_000) + "no number\n\n{\"n\":2000}";
    let input = lab.file("lines", &text);
    for (topic, code, end) in [
        ("published", 0, "2,002 published to published: 2,001 stored, 1 dead letter"),
        ("nothing", 1, "a route of this name needs publish = true"),
    ] {
        let mut publish = crate::bridge::program();
        publish.args(["live", "--url", &format!("http://{}", bridge.address()), "--token-file"]);
        publish.arg(&token).args(["publish", topic, "--durable"]).kill_on_drop(true);
        publish.stdin(std::fs::File::open(&input).unwrap());
        let done = tokio::time::timeout(PATIENCE, publish.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{said}");
        assert!(said.trim().ends_with(end), "{said}");
    }
    assert_eq!(stored(&lab).await, (2_001, 2_001));
    bridge.stop().await;
}
