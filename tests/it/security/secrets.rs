//! A bridge under way with a secret in every place that takes one, told to say all that it can.
//! Whatever is said, at whatever level, on whatever page, holds neither a secret nor a value of a
//! record that was refused.

use std::path::{Path, PathBuf};
use std::process::Output;

use axum::body::Body;
use axum::http::{Request, header};
use tokio::time::timeout;

use super::authority::Authority;
use crate::bridge::{Bridge, PATIENCE, ask, get, program};
use crate::lab::Lab;
use crate::nats_source::server::Server;
use crate::stack::{Addresses, Stack, shared};

/// Everything, of everybody: what our own defaults silence is named.
const ALL: &str = "trace,async_nats=trace,rdkafka=trace,hyper=trace,hyper_util=trace,rustls=trace";

const CLICKHOUSE: &str = "Pl4nted-clickhouse-password";
const NATS: &str = "Pl4nted-nats-password";
const WRONG: &str = "Pl4nted-wrong-password";
const TOKEN: &str = "Pl4nted-http-token";
const KAFKA: &str = "Pl4nted-kafka-secret";
/// In a record that does not fit its table.
const PERSONAL: &str = "Pl4nted Jane Doe";

/// Every line of a private key.
fn lines_of(key: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(key).unwrap();
    text.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
}

fn assert_none(what: &str, text: &str, keys: &[String]) {
    let planted = ["Pl4nted".to_owned()];
    for secret in planted.iter().chain(keys) {
        if let Some(at) = text.find(secret.as_str()) {
            let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
            let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
            panic!("{what} shows {secret}: {}", &text[line..end]);
        }
    }
}

async fn page(bridge: &Bridge, path: &str, token: &str) -> (u16, String) {
    let request = Request::get(format!("http://{}{path}", bridge.address()))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let (status, body) = ask(request, PATIENCE).await.unwrap();
    (status.as_u16(), body)
}

async fn command(name: &str, files: &[PathBuf]) -> String {
    let mut command = program();
    for file in files {
        command.arg("--config").arg(file);
    }
    command.arg(name).env("RUST_LOG", ALL);
    let done = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let Output { stdout, stderr, .. } = done;
    (String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr)).into_owned()
}

struct Place {
    lab: Lab,
    _nats: Server,
    /// Secrets that are the same in every run.
    common: String,
    keys: Vec<String>,
}

impl Place {
    /// Servers that want passwords; a Kafka that does not, so that its client has secrets that it
    /// does not need.
    async fn new() -> Self {
        let stack = tokio::task::spawn_blocking(|| {
            let stack = Stack::reserve();
            stack.run(&["up", "clickhouse", "--password", CLICKHOUSE]);
            stack
        });
        let stack = stack.await.unwrap();
        let users = format!("authorization {{ user: bridge, password: \"{NATS}\" }}");
        let nats = Server::start(&users).await;
        let clickhouse = stack.address("CLICKHOUSE");
        let at = Addresses { kafka: shared("KAFKA"), nats: nats.url(), clickhouse };
        let lab = Lab::at(at, Some(stack)).await;
        lab.numbers_places().await;
        let key = Authority::new(nats.dir.path(), "ours").sign("client", &["bridge"]).key;
        let pem = std::fs::read_to_string(&key).unwrap();
        let token = lab.file("token", TOKEN);
        let common = format!(
            "[kafka.client]\ndebug = \"all\"\n\"sasl.username\" = \"bridge\"\n\
             \"sasl.password\" = \"{KAFKA}-1\"\n\"ssl.key.password\" = \"{KAFKA}-2\"\n\
             \"ssl.keystore.password\" = \"{KAFKA}-3\"\n\
             \"ssl.key.pem\" = \"\"\"{pem}\"\"\"\n[http]\ntoken_file = {token:?}\n",
        );
        Self { keys: lines_of(&key), lab, _nats: nats, common }
    }

    /// The files of a bridge with these passwords.
    fn files(&self, clickhouse: &str, nats: &str) -> [PathBuf; 2] {
        let common = &self.common;
        let over = format!(
            "{common}[clickhouse]\nuser = \"data_bridge\"\npassword = \"{clickhouse}\"\n\
             [nats]\nuser = \"bridge\"\npassword = \"{nats}\"\n"
        );
        let base = self.lab.numbers("kafka nats");
        [self.lab.file("base.toml", &base), self.lab.file("over.toml", &over)]
    }

    fn spawn(&self, clickhouse: &str, nats: &str) -> Bridge {
        let log = self.lab.file("bridge.log", "");
        Bridge::spawn_with(log, &self.files(clickhouse, nats), &[("RUST_LOG", ALL)])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_said_holds_a_secret_or_a_refused_value() {
    let place = Place::new().await;

    // all is well, and a record is refused
    let bridge = place.spawn(CLICKHOUSE, NATS).ready().await;
    place.lab.numbers_to_kafka(0..100, 1_000).await;
    let sender = place.lab.kafka();
    let bad = format!("{{\"n\": \"{PERSONAL}\"}}");
    sender.send(&place.lab.topic("numbers"), Some(0), None, Some(bad.as_bytes()));
    sender.flush().await;
    let health = bridge
        .wait_until("all is stored and one refused", |health| {
            health["metrics"]["sources"]["kafka"]["inserted"] == 100
                && health["metrics"]["dead_letters"] == 1
        })
        .await;
    assert_none("/health", &health.to_string(), &place.keys);
    assert_pages(&bridge, &place.keys).await;
    bridge.wait_for_log("dead letters: column n: expected").await;
    let kept = "SELECT count() FROM dead_letters WHERE payload LIKE '%Jane Doe%'";
    place.lab.clickhouse.until(kept, 1).await;
    assert_log(&bridge, &place.keys);
    bridge.stop().await;
    assert_commands(&place, CLICKHOUSE, NATS).await;

    // nobody lets us in
    let bridge = place.spawn(WRONG, WRONG).ready().await;
    bridge.wait_for_log("refused our login").await;
    bridge.wait_for_log("does not accept user").await;
    assert_none("/health", &bridge.health().await.to_string(), &place.keys);
    assert_pages(&bridge, &place.keys).await;
    assert_log(&bridge, &place.keys);
    bridge.stop().await;
    assert_commands(&place, WRONG, WRONG).await;
}

async fn assert_pages(bridge: &Bridge, keys: &[String]) {
    for path in ["/", "/metrics"] {
        let (code, body) = page(bridge, path, TOKEN).await;
        assert_eq!(code, 200, "{path}");
        assert_none(path, &body, keys);
        let (code, body) = page(bridge, path, "Pl4nted-guess").await;
        assert_eq!(code, 401, "{path}");
        assert_none(path, &body, keys);
        let (status, _) = get(&format!("http://{}{path}", bridge.address())).await.unwrap();
        assert_eq!(status, 401, "{path}");
    }
}

/// Also that there is much to search.
fn assert_log(bridge: &Bridge, keys: &[String]) {
    let log = bridge.log();
    for said in ["\"TRACE\"", "async_nats", "sasl.password = [redacted]"] {
        assert!(log.contains(said), "{said} is not in the log: is it told to say everything?");
    }
    assert_none("the log", &log, keys);
}

async fn assert_commands(place: &Place, clickhouse: &str, nats: &str) {
    let files = place.files(clickhouse, nats);
    for name in ["config", "check"] {
        assert_none(name, &command(name, &files).await, &place.keys);
    }
    let loaded = data_bridge::config::load(&files).unwrap();
    assert_none("Debug", &format!("{loaded:?} {loaded:#?}"), &place.keys);
}
