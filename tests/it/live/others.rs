//! The clients of `docs/examples`, as they are there: by Python's `websockets`, by Node's `ws`, by the
//! WebSocket that Node has as browsers have it, and in a browser.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value as Json, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::Feed;
use super::client::payloads;
use crate::bridge::PATIENCE;
use crate::dashboard::browser::Browser;

/// What `docs/examples/live.py` was written for.
const WEBSOCKETS: &str = "websockets==17.4";

/// And `docs/examples/live.mjs`, where Node has no WebSocket itself.
const WS: &str = "ws@8.23.0";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)
}

/// What is installed comes over the network, which may fail: three attempts.
async fn install(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut went_wrong = Vec::new();
    for _ in 0..3 {
        match timeout(PATIENCE, command.output()).await {
            Err(_) => went_wrong.push(format!("not within {PATIENCE:?}")),
            Ok(ended) => {
                let output = ended.unwrap();
                if output.status.success() {
                    return;
                }
                went_wrong.push(String::from_utf8_lossy(&output.stderr).into_owned());
            }
        }
    }
    panic!("{command:?}: {went_wrong:#?}");
}

/// The lines that a command prints, as JSON; it must end well.
async fn lines(command: &mut Command) -> Vec<Json> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Five from before and five that come while it watches.
async fn watches(command: &mut Command) {
    let feed = Feed::start("").await;
    feed.topic("desk").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("desk", 0..5).await;
    let url = format!("ws://{}/ws", feed.bridge.address());
    let watching = lines(command.args([&url, "desk", "10"]));
    let publishing = async {
        feed.until("/stats", |stats| stats["topics"]["desk"]["subscribers"] == 1).await;
        publisher.publish_all("desk", 5..10).await;
    };
    let (seen, ()) = tokio::join!(watching, publishing);
    assert_eq!((&seen[0]["type"], &seen[0]["replayed"]), (&json!("ack"), &json!(5)));
    assert!(payloads(&seen).into_iter().eq(0..10), "{seen:?}");
    feed.until("/stats", |stats| stats["totals"]["connections"] == 1).await;
}

#[tokio::test]
async fn python_watches() {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-python");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
    install(pip.arg("--target").arg(&packages).arg(WEBSOCKETS)).await;
    let mut python = Command::new("python3");
    watches(python.arg(example("live.py")).env("PYTHONPATH", packages)).await;
}

#[tokio::test]
async fn node_watches_as_a_browser_would() {
    watches(Command::new("node").arg("--experimental-websocket").arg(example("live.mjs"))).await;
}

#[tokio::test]
async fn node_watches_with_ws() {
    // A module looks for packages beside itself.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-node");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(example("live.mjs"), folder.join("live.mjs")).unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix"]);
    install(npm.arg(&folder).arg(WS)).await;
    watches(Command::new("node").arg("--no-experimental-websocket").arg(folder.join("live.mjs")))
        .await;
}

/// A page that somebody else serves: let in where its origin is allowed, and only there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_watches_from_a_page_of_somebody_elses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let html = std::fs::read_to_string(example("live.html")).unwrap();
    let page = axum::Router::new()
        .route("/live.html", axum::routing::get(|| async { axum::response::Html(html) }));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async { axum::serve(listener, page).await.unwrap() });
    for (allowed, shows) in [(true, "^9\\s.*\\s0\\sack$"), (false, "^$")] {
        let origins = if allowed { format!("[\"{origin}\"]") } else { "[]".to_owned() };
        let feed = Feed::start(&format!("allowed_origins = {origins}")).await;
        feed.topic("desk").await;
        let mut publisher = feed.connect().await;
        publisher.publish_all("desk", 0..5).await;
        let url = format!("{origin}/live.html?topic=desk&url=ws://{}/ws", feed.bridge.address());
        let mut browser = Browser::of(&url, "").await;
        if allowed {
            feed.until("/stats", |stats| stats["topics"]["desk"]["subscribers"] == 1).await;
            publisher.publish_all("desk", 5..10).await;
            browser.until("#seen", shows).await;
        } else {
            browser.until_complaint("WebSocket connection to .* failed").await;
            browser.until("#seen", shows).await;
        }
    }
}
