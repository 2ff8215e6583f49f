//! The documents that a bridge serves at `/docs` are held to what it answers: every status that they
//! have is shown by a real bridge, and validates; every message of the socket likewise. Objects are
//! closed for it, so that a member that nobody wrote down shows. (Paths, methods and tokens:
//! `src/http/docs/tests.rs`.)

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response, header};
use boon::{Compiler, Schemas};
use futures_util::stream;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value as Json, json};
use tokio::time::timeout;

use super::Feed;
use super::client::{Client, has};
use super::slow::{CUTS, cut_off, told_why};
use crate::bridge::{Bridge, PATIENCE};
use crate::lab::Lab;

/// Statuses that take a pipeline that hangs; `src/http/tests.rs` has them.
const NOT_SHOWN: [&str; 2] = ["get /health 503", "get /livez 503"];

/// Those who may watch `/health/stream` at a time.
const WATCHERS: usize = 16;

/// A document whose objects have no other members than those it names.
struct Document(Json);

impl Document {
    async fn served(bridge: &Bridge, path: &str) -> Self {
        let (_, body) =
            crate::bridge::get(&format!("http://{}{path}", bridge.address())).await.unwrap();
        let mut document = serde_json::from_str(&body).unwrap();
        close(&mut document);
        Self(document)
    }

    fn resolved<'a>(&'a self, value: &'a Json) -> &'a Json {
        match value["$ref"].as_str() {
            Some(path) => self.resolved(self.0.pointer(&path[1..]).unwrap()),
            None => value,
        }
    }

    /// What is wrong with a value, by a schema of this document.
    fn wrong(&self, schema: &Json, value: &Json) -> Vec<String> {
        let mut whole = schema.as_object().unwrap().clone();
        whole.insert("components".to_owned(), self.0["components"].clone());
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        compiler.add_resource("schema.json", Json::Object(whole)).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        schemas.validate(value, index).err().iter().map(|error| format!("{error:#}")).collect()
    }
}

fn close(schema: &mut Json) {
    match schema {
        Json::Object(members) => {
            members.values_mut().for_each(close);
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Json::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What was asked of bridges, and is held to the document.
struct Interview {
    document: Document,
    shown: BTreeSet<String>,
}

/// A request, and where the document has it.
#[derive(Clone, Copy)]
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    /// In place of `{name}`, with what is behind the `?`.
    name: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    /// Its body never comes.
    stalls: bool,
}

const fn ask<'a>(method: &'a str, path: &'a str) -> Ask<'a> {
    Ask { method, path, name: "t", query: "", headers: &[], body: b"", stalls: false }
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn answer(bridge: &Bridge, ask: Ask<'_>) -> Response<Incoming> {
    let Ask { method, path, name, query, headers, body, stalls } = ask;
    let url = format!("http://{}{}{query}", bridge.address(), path.replace("{name}", name));
    let mut request = Request::builder().method(method.to_uppercase().as_str()).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match stalls {
        true => Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>()),
        false => Body::from(body.to_vec()),
    };
    let client: Http<_, Body> = Http::builder(TokioExecutor::new()).build_http();
    timeout(PATIENCE, client.request(request.body(body).unwrap())).await.unwrap().unwrap()
}

impl Interview {
    async fn ask(&mut self, bridge: &Bridge, ask: Ask<'_>, status: u16) {
        let answer = answer(bridge, ask).await;
        self.hear(ask, answer, status).await;
    }

    async fn hear(&mut self, ask: Ask<'_>, answer: Response<Incoming>, status: u16) {
        let Ask { method, path, name, query, .. } = ask;
        let said = format!("{method} {path} {}", answer.status().as_u16());
        assert_eq!(answer.status().as_u16(), status, "{said} {name}{query}");
        let response = &self.document.0["paths"][path][method]["responses"][status.to_string()];
        let response = self.document.resolved(response);
        assert!(response.is_object(), "{said} is not in the document");
        for header in response["headers"].as_object().into_iter().flat_map(Map::keys) {
            assert!(answer.headers().contains_key(header.as_str()), "{said}: no {header}");
        }
        if let Some(contents) = response["content"].as_object() {
            let media_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            let media_type = media_type.split(';').next().unwrap();
            let content = contents.get(media_type);
            let content = content.unwrap_or_else(|| panic!("{said}: {media_type}"));
            if media_type == "application/json" {
                let body = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX);
                let body = timeout(PATIENCE, body).await.unwrap().unwrap();
                let body = serde_json::from_slice(&body).unwrap();
                let wrong = self.document.wrong(&content["schema"], &body);
                assert!(wrong.is_empty(), "{said}: {wrong:#?}\n{body:#}");
            }
        }
        self.shown.insert(said);
    }

    /// Every operation of a bridge that answers all of them alike.
    async fn ask_all(&mut self, bridge: &Bridge, status: u16) {
        let paths = self.document.0["paths"].clone();
        for (path, item) in paths.as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation["responses"].get(status.to_string()).is_some() {
                    self.ask(bridge, ask(method, path), status).await;
                }
            }
        }
    }

    async fn questions_without_a_token(&mut self) {
        let feed = Feed::start("").await;
        let _subscriber = {
            feed.topic("there").await;
            feed.subscribed(json!({ "topic": "there", "client_id": "me" })).await
        };
        let bridge = &feed.bridge;
        let open_metrics = [("accept", "application/openmetrics-text")];
        self.ask(bridge, Ask { headers: &open_metrics, ..ask("get", "/metrics") }, 200).await;
        for path in ["/health", "/livez", "/metrics", "/", "/live", "/docs", "/topics", "/stats"] {
            self.ask(bridge, ask("get", path), 200).await;
        }
        for path in ["openapi.yaml", "openapi.json", "asyncapi.yaml", "asyncapi.json"] {
            self.ask(bridge, ask("get", &format!("/docs/{path}")), 200).await;
        }
        self.ask(bridge, ask("get", "/subscriber-stats"), 200).await;
        let mut watchers = Vec::new();
        while watchers.len() < WATCHERS {
            watchers.push(answer(bridge, ask("get", "/health/stream")).await);
        }
        self.ask(bridge, ask("get", "/health/stream"), 503).await;
        for watcher in watchers {
            self.hear(ask("get", "/health/stream"), watcher, 200).await;
        }
        self.ask(bridge, ask("get", "/readyz"), 503).await;
        let create = Ask { body: br#"{"name":"t"}"#, ..ask("post", "/topics") };
        self.ask(bridge, create, 201).await;
        let create = Ask { body: br#"{"name":"t"}"#, ..ask("post", "/topics") };
        self.ask(bridge, create, 200).await;
        let json = [("content-type", "application/json")];
        let publish = ask("post", "/topics/{name}/messages");
        self.ask(bridge, Ask { headers: &json, body: b"1", ..publish }, 200).await;
        self.ask(bridge, Ask { body: b"{}", ..ask("post", "/topics") }, 400).await;
        let large = vec![b' '; 70_000];
        self.ask(bridge, Ask { body: &large, ..ask("post", "/topics") }, 413).await;
        let events = ask("get", "/topics/{name}/events");
        self.ask(bridge, Ask { query: "?last_n=1", ..events }, 200).await;
        let events = ask("get", "/topics/{name}/events");
        self.ask(bridge, Ask { name: "not%20a%20name", ..events }, 400).await;
        self.ask(bridge, ask("delete", "/topics/{name}"), 200).await;
        self.ask(bridge, ask("delete", "/topics/{name}"), 404).await;
        self.ask(bridge, ask("get", "/topics/{name}/events"), 404).await;
        self.ask(bridge, Ask { name: "candles", ..ask("delete", "/topics/{name}") }, 409).await;
        self.ask(bridge, ask("get", "/ws"), 400).await;
        self.ask(bridge, Ask { headers: &HANDSHAKE, ..ask("get", "/ws") }, 101).await;
    }

    async fn limits(&mut self) {
        let feed = Feed::start("max_topics = 1\nmax_connections = 1").await;
        let _client = feed.connect().await;
        let create = Ask { body: br#"{"name":"t"}"#, ..ask("post", "/topics") };
        self.ask(&feed.bridge, create, 429).await;
        let events = Ask { name: "candles", ..ask("get", "/topics/{name}/events") };
        self.ask(&feed.bridge, events, 429).await;
        self.ask(&feed.bridge, Ask { headers: &HANDSHAKE, ..ask("get", "/ws") }, 429).await;
    }

    async fn nobody_is_let_in(&mut self) {
        self.ask_all(&Feed::with_token("secret").await.bridge, 401).await;
        let public = Feed::listening("0.0.0.0:0", "").await;
        for (method, path) in [
            ("get", "/live"),
            ("get", "/ws"),
            ("get", "/topics"),
            ("post", "/topics"),
            ("delete", "/topics/{name}"),
            ("get", "/topics/{name}/events"),
            ("get", "/stats"),
            ("get", "/subscriber-stats"),
            ("get", "/admin/config"),
            ("put", "/admin/config"),
        ] {
            self.ask(&public.bridge, ask(method, path), 403).await;
        }
        let json = [("content-type", "application/json")];
        let publish = ask("post", "/topics/{name}/messages");
        self.ask(&public.bridge, Ask { headers: &json, name: "candles", ..publish }, 403).await;
        let none = Feed::start("enabled = false").await;
        for (method, path) in [
            ("get", "/live"),
            ("get", "/ws"),
            ("get", "/topics"),
            ("post", "/topics"),
            ("get", "/stats"),
            ("get", "/subscriber-stats"),
        ] {
            self.ask(&none.bridge, ask(method, path), 404).await;
        }
    }

    async fn changes(&mut self) {
        let feed = Feed::with_token("secret").await;
        let authorized = [("authorization", "Bearer secret")];
        let show = Ask { headers: &authorized, ..ask("get", "/admin/config") };
        self.ask(&feed.bridge, show, 200).await;
        for (body, status) in [
            (&b""[..], 200),
            (b"[retry]\nbase_delay = \"1s\"", 200),
            (b"\xff", 400),
            (b"http.listen = \"127.0.0.1:1\"", 409),
            (b"retry.base_delay = 5", 422),
            (&[b' '; 70_000], 413),
        ] {
            let put = ask("put", "/admin/config");
            let put = Ask { headers: &authorized, query: "?dry_run=true", body, ..put };
            self.ask(&feed.bridge, put, status).await;
        }
    }

    async fn publishing(&mut self) {
        let lab = Lab::with_own_clickhouse().await;
        lab.clickhouse.query("CREATE TABLE p (n UInt64) ENGINE = MergeTree ORDER BY n").await;
        let config = format!(
            "{}http.token = \"secret\"\nlive.publish.durable_timeout = \"20s\"\n\
             live.publish.max_request_records = 3\nlive.publish.max_waiting = 1\n\
             shutdown.grace = \"1m\"\nwriters.late.linger = \"1m\"\n\
             [[routes]]\nname = \"p\"\npublish = true\ntable = \"p\"\nwriter = \"aggregate\"\n\
             [[routes]]\nname = \"late\"\npublish = true\ntable = \"p\"\nwriter = \"late\"\n",
            lab.sections("")
        );
        let mut bridge = lab.start(&config, "").await;
        let headers =
            [("authorization", "Bearer secret"), ("content-type", "application/x-ndjson")];
        let lines = b"{\"n\":1}\nno number";
        for (name, query, body, status) in [
            ("p", "?durable=true", &lines[..], 200),
            ("p", "", lines, 202),
            ("p", "", b"", 400),
            ("nothing", "", lines, 404),
            ("p", "", b"1\n2\n3\n4", 413),
            ("late", "?durable=true", lines, 504),
        ] {
            let publish = ask("post", "/topics/{name}/messages");
            let publish = Ask { name, query, headers: &headers, body, ..publish };
            self.ask(&bridge, publish, status).await;
        }
        let plain = [headers[0], ("content-type", "text/plain")];
        let publish = Ask { headers: &plain, name: "p", ..ask("post", "/topics/{name}/messages") };
        self.ask(&bridge, publish, 415).await;
        self.ask(&bridge, ask("get", "/readyz"), 200).await;
        self.ask(&bridge, ask("get", "/health"), 200).await;
        self.silence(&bridge, &headers).await;
        lab.kill_clickhouse().await;
        self.stopping(&mut bridge, &headers).await;
    }

    /// Bodies that never come. One of them has the only place of those who wait until it is durable.
    async fn silence(&mut self, bridge: &Bridge, headers: &[(&'static str, &str)]) {
        let publish = ask("post", "/topics/{name}/messages");
        let publish = Ask { name: "p", query: "?durable=true", headers, ..publish };
        let stalled = [ask("put", "/admin/config"), ask("post", "/topics"), publish]
            .map(|ask| Ask { headers, stalls: true, ..ask });
        let [config, topic, messages] = stalled.map(|stalled| answer(bridge, stalled));
        let refused = async {
            loop {
                let answer = answer(bridge, publish).await;
                if answer.status().as_u16() != 400 {
                    return answer;
                }
            }
        };
        let (config, topic, messages, refused) = tokio::join!(config, topic, messages, refused);
        for (stalled, answer) in stalled.into_iter().zip([config, topic, messages]) {
            self.hear(stalled, answer, 408).await;
        }
        self.hear(publish, refused, 429).await;
    }

    /// It holds what nobody takes.
    async fn stopping(&mut self, bridge: &mut Bridge, headers: &[(&'static str, &str)]) {
        let token = &headers[..1];
        let publish = ask("post", "/topics/{name}/messages");
        let publish = Ask { name: "p", headers, body: b"{\"n\":1}", ..publish };
        self.ask(bridge, publish, 202).await;
        let mut client = Client::with(bridge.address(), token).await.ok().unwrap();
        bridge.signal("TERM");
        client.until(|message| message["event"] == "shutdown").await;
        let handshake: Vec<_> = token.iter().chain(&HANDSHAKE).copied().collect();
        let change = b"[retry]\nbase_delay = \"1s\"";
        for asked in [
            publish,
            Ask { body: br#"{"name":"t"}"#, headers: token, ..ask("post", "/topics") },
            Ask { headers: token, ..ask("delete", "/topics/{name}") },
            Ask { headers: token, ..ask("get", "/topics/{name}/events") },
            Ask { headers: token, body: change, ..ask("put", "/admin/config") },
            Ask { headers: &handshake, ..ask("get", "/ws") },
        ] {
            self.ask(bridge, asked, 503).await;
        }
        bridge.kill().await;
    }

    /// A bridge that cannot reach ClickHouse takes no records.
    async fn starting(&mut self) {
        let http = "listen = \"127.0.0.1:0\"\ntoken = \"secret\"";
        let route = "[[routes]]\nname = \"p\"\npublish = true\ntable = \"p\"";
        let feed = Feed::with(http, route).await;
        let headers = [("authorization", "Bearer secret"), ("content-type", "application/json")];
        let publish = ask("post", "/topics/{name}/messages");
        let publish = Ask { name: "p", headers: &headers, body: b"1", ..publish };
        self.ask(&feed.bridge, publish, 503).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_of_the_document_is_one_that_a_bridge_gives_and_the_other_way_round() {
    let feed = Feed::start("").await;
    let document = Document::served(&feed.bridge, "/docs/openapi.json").await;
    let mut interview = Interview { document, shown: BTreeSet::new() };
    interview.questions_without_a_token().await;
    interview.limits().await;
    interview.nobody_is_let_in().await;
    interview.changes().await;
    interview.starting().await;
    interview.publishing().await;

    let mut documented = BTreeSet::new();
    for (path, item) in interview.document.0["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().into_iter().flat_map(Map::keys);
            documented.extend(statuses.map(|status| format!("{method} {path} {status}")));
        }
    }
    let mut shown = interview.shown;
    for status in NOT_SHOWN {
        assert!(shown.insert(status.to_owned()), "{status} is shown");
    }
    assert_eq!(documented, shown);
}

/// What is said on sockets, held to the document.
struct Conversation {
    document: Document,
    /// `type`, and of infos and errors what they are about.
    told: BTreeSet<String>,
}

impl Conversation {
    fn message(&self, name: &str) -> &Json {
        let message = &self.document.0["components"]["messages"][name]["payload"];
        assert!(message.is_object(), "{name} is not in the document");
        message
    }

    fn hear(&mut self, message: &Json) {
        let kind = message["type"].as_str().unwrap();
        let wrong = self.document.wrong(self.message(kind), message);
        assert!(wrong.is_empty(), "{wrong:?}: {message}");
        let about = message["event"].as_str().or(message["error"]["code"].as_str());
        self.told.insert(format!("{kind} {}", about.unwrap_or_default()).trim().to_owned());
    }

    /// Says something that the document has, and hears the answer.
    async fn ask(&mut self, client: &mut Client, message: Json) -> Json {
        let kind = message["type"].as_str().unwrap();
        let wrong = self.document.wrong(self.message(kind), &message);
        assert!(wrong.is_empty(), "{wrong:?}: {message}");
        let answer = client.ask(message).await;
        self.hear(&answer);
        answer
    }

    /// One who takes little, and has room for one message.
    async fn with_slow(&mut self, feed: &Feed, policy: &str) -> Client {
        let mut slow = Client::narrow(feed.bridge.address()).await;
        let subscribe =
            json!({ "type": "subscribe", "topic": "t", "queue_size": 1, "policy": policy });
        self.ask(&mut slow, subscribe).await;
        slow
    }
}

fn publish(payload: &Json) -> Json {
    let message = json!({ "id": "6f2c1f0e-8f6c-4b9e-9a53-0d6a3c1b2a77", "payload": payload });
    json!({ "type": "publish", "topic": "t", "message": message })
}

#[tokio::test]
async fn every_message_of_the_document_is_said_and_all_that_is_said_is_in_it() {
    let mut feed = Feed::start("max_subscriptions = 2").await;
    let document = Document::served(&feed.bridge, "/docs/asyncapi.json").await;
    let mut talk = Conversation { document, told: BTreeSet::new() };
    feed.topic("t").await;
    let mut client = feed.connect().await;
    let subscribe = json!({ "type": "subscribe", "topic": "t", "last_n": 5, "client_id": "me",
        "queue_size": 50, "policy": "drop_newest" });
    talk.ask(&mut client, subscribe).await;
    let mut other = feed.connect().await;
    for payload in [json!({ "a": 1 }), json!("text"), json!(null), json!([1.5])] {
        talk.ask(&mut other, publish(&payload)).await;
        let event = client.next().await.unwrap();
        talk.hear(&event);
    }
    talk.ask(&mut other, json!({ "type": "ping" })).await;
    talk.ask(&mut other, json!({ "type": "subscribe", "topic": "nothing" })).await;
    for topic in ["*", "a/*", "b/*"] {
        talk.ask(&mut other, json!({ "type": "subscribe", "topic": topic })).await;
    }
    talk.ask(&mut other, json!({ "type": "unsubscribe", "topic": "*" })).await;

    // Nobody may publish to a route where nobody has a token.
    let mut record = publish(&json!(1));
    record["topic"] = json!("candles");
    talk.ask(&mut other, record).await;

    // What the document says must be there, must be there.
    for kind in ["subscribe", "unsubscribe", "publish", "ping"] {
        let whole = match kind {
            "publish" => publish(&json!(1)),
            kind => json!({ "type": kind, "topic": "t" }),
        };
        let required = talk.message(kind)["required"].as_array().unwrap().clone();
        for member in required.iter().map(|member| member.as_str().unwrap()) {
            let mut lacking = whole.clone();
            lacking.as_object_mut().unwrap().remove(member);
            assert!(!talk.document.wrong(talk.message(kind), &lacking).is_empty(), "{lacking}");
            let answer = other.ask(lacking.clone()).await;
            assert_eq!(answer["error"]["code"], "BAD_REQUEST", "{lacking}");
            talk.hear(&answer);
        }
    }

    let mut slow = talk.with_slow(&feed, "drop_oldest").await;
    let large = (0..400).map(|n| json!({ "n": n, "fill": "x".repeat(7_000) }));
    feed.connect().await.publish_each("t", large).await;
    let said = slow.until(|message| message["event"] == "dropped").await;
    said.iter().for_each(|message| talk.hear(message));
    for _ in 0..CUTS {
        let slow = talk.with_slow(&feed, "disconnect").await;
        let (said, _) = cut_off(&feed, slow).await;
        said.iter().for_each(|message| talk.hear(message));
        if told_why(&said) {
            break;
        }
    }
    feed.http(axum::http::Method::DELETE, "/topics/t", Json::Null).await;
    let said = client.until(|message| message["event"] == "topic_deleted").await;
    said.iter().for_each(|message| talk.hear(message));
    feed.bridge.signal("TERM");
    let (said, _) = client.until_closed().await;
    said.iter().for_each(|message| talk.hear(message));
    feed.bridge.ended(PATIENCE).await;

    let mut documented = BTreeSet::from(["ack", "event", "pong"].map(str::to_owned));
    let values = |kind: &str, path: &str| {
        let values = talk.message(kind).pointer(path).unwrap().as_array().unwrap().clone();
        values.into_iter().map(move |value| value.as_str().unwrap().to_owned())
    };
    documented.extend(values("info", "/properties/event/enum").map(|v| format!("info {v}")));
    let codes = values("error", "/properties/error/properties/code/enum");
    // Nothing of ours fails.
    let codes = codes.filter(|code| code != "INTERNAL");
    documented.extend(codes.map(|code| format!("error {code}")));
    assert_eq!(talk.told, documented);
    let messages = talk.document.0["channels"]["socket"]["messages"].as_object().unwrap();
    assert_eq!(messages.len(), 4 + 5, "four that clients say, five of the bridge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_route_answers_on_the_socket_is_in_the_document() {
    let lab = Lab::new().await;
    lab.clickhouse.query("CREATE TABLE p (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    let config = format!(
        "{}http.token = \"secret\"\n[[routes]]\nname = \"p\"\npublish = true\ntable = \"p\"\n\
         writer = \"aggregate\"\n",
        lab.sections("")
    );
    let bridge = lab.start(&config, "").await;
    let feed = Feed::start("").await;
    let document = Document::served(&feed.bridge, "/docs/asyncapi.json").await;
    let mut talk = Conversation { document, told: BTreeSet::new() };
    let token = [("authorization", "Bearer secret")];
    let mut client = Client::with(bridge.address(), &token).await.ok().unwrap();
    for (payload, answer) in [
        (json!({ "n": 1 }), json!({ "type": "ack", "durable": true, "dead_letter": null })),
        (json!("no number"), json!({ "type": "ack", "durable": true, "dead_letter": true })),
    ] {
        let mut record = publish(&payload);
        record["topic"] = json!("p");
        record["durable"] = json!(true);
        let said = talk.ask(&mut client, record).await;
        assert!(has(&said, &answer), "{said}");
    }
    bridge.stop().await;
}

/// The lines of `docs/live.md`, said to a bridge: what it answers is what is written there. Between an
/// answer and an event there is no order.
#[tokio::test]
async fn the_protocol_is_as_it_is_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/live.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, talk) = text.split_once("\n```text\n-> ").unwrap();
    let (talk, _) = talk.split_once("\n```").unwrap();
    let feed = Feed::start("").await;
    feed.topic("desk").await;
    let mut client = feed.connect().await;
    let mut compared = 0;
    for turn in talk.split("\n-> ") {
        let (asked, answers) = turn.split_once("\n<- ").unwrap();
        client.send(tokio_tungstenite::tungstenite::Message::text(asked)).await.unwrap();
        let (mut written, mut said) = (Vec::new(), Vec::new());
        for answer in answers.split("\n<- ") {
            written.push(timeless(serde_json::from_str(answer).unwrap()));
            said.push(timeless(client.next().await.unwrap()));
            compared += 1;
        }
        written.sort();
        said.sort();
        assert_eq!(written, said, "{asked}");
    }
    assert_eq!(compared, 6);
}

/// Without its time, which has to be one.
fn timeless(mut message: Json) -> String {
    let ts = message.as_object_mut().unwrap().remove("ts").unwrap();
    assert!(ts.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{ts}");
    message.to_string()
}
