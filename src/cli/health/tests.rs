//! The line and the exit code.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::bridge::url_of;
use super::*;
use crate::alert;
use crate::history::Recorder;
use crate::http;
use crate::live::samples::live_with;
use crate::metrics::Metrics;
use crate::metrics::samples::exposition;
use crate::reload::closed_door;
use crate::source::live::for_nobody;
use crate::status::samples::busy;
use crate::status::{Identity, RunStage};

fn system() -> ClientConfig {
    crate::tls::client(None, None).unwrap()
}

#[test]
fn the_line_says_how_it_is() {
    let line = |snapshot: crate::status::Snapshot| {
        let health = snapshot.health(&Identity::new("x"), &[], Instant::now());
        summary(StatusCode::OK, &serde_json::to_vec(&health).unwrap())
    };
    let healthy = "healthy, buffer 812/50,000, 3 pauses, 13 dead letters, 15 dropped";
    assert_eq!(line(busy()), healthy);
    let mut paused = busy();
    paused.backpressure.active = true;
    paused.needs_person.push("create table market.ticks".into());
    assert_eq!(
        line(paused),
        "critical (paused), buffer 812/50,000, 3 pauses, 13 dead letters, 15 dropped\n  \
         create table market.ticks"
    );
    let mut away = busy();
    let kafka = away.sources.get_mut("kafka").unwrap();
    (kafka.connected, kafka.error) = (false, Some("nobody listens".into()));
    assert!(line(away.clone()).ends_with("dropped\n  kafka is not connected: nobody listens"));
    away.stage = RunStage::Draining;
    assert!(line(away.clone()).ends_with("15 dropped"), "it is not to be");
    away.needs_person = (0..7).map(|n| format!("create table t{n}")).collect();
    let many = line(away);
    assert!(many.ends_with("\n  create table t4\n  and 2 more: see /health"), "{many}");
    assert_eq!(
        summary(StatusCode::NOT_FOUND, b"<html>"),
        "HTTP 404 Not Found, and not the answer of a data-bridge"
    );
}

/// A busy machine may be silent for longer than we wait: asked once more.
async fn code(url: &str) -> ExitCode {
    let (code, said) = run(url, system()).await.unwrap();
    if said.contains("no answer from") { run(url, system()).await.unwrap().0 } else { code }
}

#[tokio::test]
async fn the_exit_code_follows_the_answer() {
    let (snapshots, receiver) = watch::channel(Arc::new(busy()));
    let (_recorder, histories) = Recorder::new(receiver.clone());
    let (identity, live) = (Identity::new("x"), live_with(""));
    let told = exposition(Metrics::new(), receiver.clone(), identity.clone(), Arc::clone(&live));
    let state = http::HttpState::new(http::Known {
        snapshots: receiver,
        alerts: alert::none(),
        webhooks: crate::webhook::Tallies::default(),
        histories,
        identity,
        exposition: Arc::new(told),
        door: closed_door(),
        publisher: for_nobody(),
        live,
    });
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = url_of("http", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    let never = std::future::pending();
    server.spawn(http::serve(
        listener,
        state,
        http::Access::default(),
        http::Limits::default(),
        never,
    ));
    assert_eq!(code(&url).await, ExitCode::SUCCESS);
    let mut draining = busy();
    draining.stage = RunStage::Draining;
    snapshots.send_replace(Arc::new(draining));
    assert_eq!(run(&url, system()).await.unwrap().0, ExitCode::FAILURE);
    server.shutdown().await;
    assert_eq!(run(&url, system()).await.unwrap().0, ExitCode::FAILURE, "nobody listens");
}

#[tokio::test]
async fn a_bridge_that_does_not_answer_is_given_up() {
    // Listens and never accepts: the kernel connects, nobody speaks.
    let silent = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let asked = Instant::now();
    let (code, _) = run(&url_of("http", silent.local_addr().unwrap()), system()).await.unwrap();
    assert_eq!(code, ExitCode::FAILURE);
    assert!(asked.elapsed() < TIMEOUT * 10);
}
