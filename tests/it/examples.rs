//! The configurations under `config/examples` do what they say, with real servers: records go in
//! over Kafka, and SQL gives their values back.

use std::path::{Path, PathBuf};

use data_bridge::config;
use serde_json::{Value as Json, json};

use crate::lab::{Lab, assert_accounts, settled};

const WEB: &str = "web-analytics/web-analytics.toml";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(example(name)).unwrap()
}

/// What one record of a topic looks like, and how to ask for what it became.
struct Case {
    topic: &'static str,
    payload: &'static str,
    sql: &'static str,
    row: fn() -> Json,
}

const CASES: [Case; 7] = [
    Case {
        topic: "web.page_views",
        payload: r#"{"event_id":"6f2c1a34-5b0e-4c7e-9a39-0d6a5f9a7c11","ts":1767263415123,
            "site":"shop","user":{"id":"u42","anonymous_id":"a7","geo":{"country":"DE",
            "city":"Köln"}},"page":{"url":"https://shop.example/p/7?utm=mail&n=2","path":"/p/7",
            "title":"A \"kettle\"","referrer":"https://news.example/","query":{"utm":"mail",
            "n":"2"}},"device":{"kind":"mobile","screen":[390,844]},"tags":["sale","new"],
            "timings":{"ttfb":0.125,"lcp":1.9}}"#,
        sql: "SELECT toString(event_id) AS id, toString(time) AS at, user_id, visitor, country, \
              city, title, referrer, query['utm'] AS utm, query['n'] AS n, toString(device) AS on, \
              screen.width AS width, screen.height AS height, tags, timings['ttfb'] AS ttfb, \
              length(timings) AS timed FROM page_views WHERE user_id = 'u42'",
        row: || {
            json!({"id": "6f2c1a34-5b0e-4c7e-9a39-0d6a5f9a7c11", "at": "2026-01-01 10:30:15.123",
                "user_id": "u42", "visitor": "a7", "country": "DE", "city": "Köln",
                "title": "A \"kettle\"", "referrer": "https://news.example/", "utm": "mail",
                "n": "2", "on": "mobile", "width": 390, "height": 844, "tags": ["sale", "new"],
                "ttfb": 0.125, "timed": 2})
        },
    },
    // Nearly everything that may be missing is, and null is as good as missing.
    Case {
        topic: "web.page_views",
        payload: r#"{"event_id":"00000000-0000-0000-0000-000000000002","ts":1767263415124,
            "site":"blog","user":{"id":null,"geo":null},"page":{"url":"https://b.example/",
            "path":"/","referrer":null},"tags":null}"#,
        sql: "SELECT user_id, visitor, country, city, title, referrer, query, toString(device) \
              AS on, screen.width AS width, tags, timings FROM page_views WHERE site = 'blog'",
        row: || {
            json!({"user_id": null, "visitor": "unknown", "country": null, "city": null,
                "title": "", "referrer": null, "query": {}, "on": "other", "width": 0, "tags": [],
                "timings": {}})
        },
    },
    Case {
        topic: "web.sessions",
        payload: r#"{"session_id":"00000000-0000-0000-0000-000000000004",
            "user":{"anonymous_id":"a7"},"started_at":1767263400000,"ended_at":null,
            "entry":{"path":"/"},"pages":2,"revenue":{"amount":"19.99","currency":"EUR"},
            "steps":[{"path":"/","at":1767263400000},{"at":1767263415123,"path":"/p/7"}],
            "revision":3}"#,
        sql: "SELECT visitor, ended_at, pages, toString(revenue) AS revenue, currency, \
              steps.path AS paths, toString(steps[2].at) AS second FROM sessions \
              WHERE session_id = '00000000-0000-0000-0000-000000000004'",
        row: || {
            json!({"visitor": "a7", "ended_at": null, "pages": 2, "revenue": "19.99",
                "currency": "EUR", "paths": ["/", "/p/7"], "second": "2026-01-01 10:30:15.123"})
        },
    },
    Case {
        topic: "web.sessions",
        payload: r#"{"session_id":"00000000-0000-0000-0000-000000000003",
            "user":{"anonymous_id":"a7"},"started_at":1767263400000,"ended_at":1767263500001,
            "entry":{"path":"/"},"pages":3,"revision":4}"#,
        sql: "SELECT pages, toString(ended_at) AS ended, revenue, steps FROM sessions FINAL \
              WHERE session_id = '00000000-0000-0000-0000-000000000003'",
        row: || json!({"pages": 3, "ended": "2026-01-01 10:31:40.001", "revenue": null, "steps": []}),
    },
    // an older revision that comes later changes nothing
    Case {
        topic: "web.sessions",
        payload: r#"{"session_id":"00000000-0000-0000-0000-000000000003",
            "user":{"anonymous_id":"a7"},"started_at":1767263400000,"ended_at":null,
            "entry":{"path":"/"},"pages":2,"revision":3}"#,
        sql: "SELECT count() AS rows, max(revision) AS revision FROM sessions FINAL \
              WHERE session_id = '00000000-0000-0000-0000-000000000003'",
        row: || json!({"rows": 1, "revision": 4}),
    },
    Case {
        topic: "web.errors",
        payload: r#"{"ts":1767263415125,"release":"1.2.3","error":{"type":"TypeError",
            "message":"x is undefined","stack":[{"file":"app.js","line":17,"column":4},
            {"file":"lib.js","line":900}]},"context":{"cart":{"items":[{"sku":7}]}}}"#,
        sql: "SELECT release, kind, message, frames.file AS files, frames.line AS lines, \
              frames.column AS columns, JSONExtractInt(context, 'cart', 'items', 1, 'sku') AS sku \
              FROM errors",
        row: || {
            json!({"release": "1.2.3", "kind": "TypeError", "message": "x is undefined",
                "files": ["app.js", "lib.js"], "lines": [17, 900], "columns": [4, null],
                "sku": 7})
        },
    },
    Case {
        topic: "web.custom.checkout",
        payload: r#"{"ts":1767263415126,"name":"step","properties":{"step":{"no":2},"ok":true,
            "coupons":["a","b"]}}"#,
        sql: "SELECT toString(ts) AS at, name, properties.step.no.:Int64 AS no, \
              properties.coupons.:`Array(Nullable(String))` AS coupons FROM custom_events",
        row: || {
            json!({"at": "2026-01-01 10:30:15.126", "name": "step", "no": 2,
                "coupons": ["a", "b"]})
        },
    },
];

#[test]
fn every_example_loads_as_it_stands() {
    for name in ["minimal.toml", WEB] {
        config::load(&[example(name)]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_minimal_example_has_less_than_15_lines() {
    assert!(read("minimal.toml").lines().count() < 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_events_of_a_website_come_back_out_of_sql() {
    let lab = Lab::new().await;
    lab.tables("config/examples/web-analytics/schema").await;
    let topics = ["page_views", "sessions", "errors", "custom.checkout"];
    let topics = topics.map(|topic| lab.topic(&format!("web.{topic}")));
    lab.create_topics(&topics, 1).await;
    let config = read(WEB)
        .replace("\"web.", &format!("\"{}.web.", lab.name))
        .replace("\"^web", &format!("\"^{}\\\\.web", lab.name));
    let bridge = lab.start(&config, &lab.sections("kafka")).await;

    let sender = lab.kafka();
    for case in &CASES {
        let payload = Some(case.payload.as_bytes());
        sender.send(&lab.topic(case.topic), Some(0), None, payload);
    }
    // a device that the table does not know is refused, and only it
    let unknown = CASES[0].payload.replace("\"mobile\"", "\"fridge\"");
    sender.send(&lab.topic("web.page_views"), Some(0), None, Some(unknown.as_bytes()));
    sender.flush().await;

    let all = u64::try_from(CASES.len()).unwrap() + 1;
    let health = bridge
        .wait_until("everything is settled", |health| {
            settled(health, "kafka", all) && health["metrics"]["dead_letters"] == 1
        })
        .await;
    assert_accounts(&health);
    for case in &CASES {
        assert_eq!(lab.clickhouse.row(case.sql).await, (case.row)(), "{}", case.sql);
    }
    let sql = "SELECT route, position(error, 'device') > 0 AS named FROM dead_letters";
    let letter = lab.clickhouse.row(sql).await;
    assert_eq!(letter, json!({"route": "page_views", "named": 1}));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_goes_into_one_table() {
    let lab = Lab::new().await;
    lab.tables("config/examples/schema").await;
    lab.create_topics(&[lab.topic("clicks")], 1).await;
    let topic = format!("kafka_topics = [\"{}\"]", lab.topic("clicks"));
    let config = read("minimal.toml").replace("kafka_topics = [\"clicks\"]", &topic);
    let bridge = lab.start(&config, &lab.sections("kafka")).await;
    let sender = lab.kafka();
    let payload = br#"{"time":1767263415123,"user":"u42","target":"buy","x":120,"y":null}"#;
    sender.send(&lab.topic("clicks"), Some(0), None, Some(payload));
    sender.flush().await;
    bridge.wait_until("it is stored", |health| settled(health, "kafka", 1)).await;
    let row = lab.clickhouse.row("SELECT toString(time) AS at, user, target, x, y FROM clicks");
    let expected = json!({"at": "2026-01-01 10:30:15.123", "user": "u42", "target": "buy",
        "x": 120, "y": null});
    assert_eq!(row.await, expected);
    bridge.stop().await;
}
