//! Alerts on their way to a person: a real HTTP server as the receiver, that fails as receivers do,
//! and the real program before it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_bridge::alert::{Alert, AlertId, Firing};
use data_bridge::config::{self, Webhook};
use data_bridge::webhook::Webhooks;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bridge::{Bridge, PATIENCE, program};
use crate::receiver::{Came, Receiver, Reply};
use crate::rig::Rig;
use crate::stack::free_port;

fn alert(id: AlertId, of: Option<&str>) -> Alert {
    let summary = format!("{id} <of> {of:?}");
    let runbook = format!("https://wiki.example/runbook#{id}");
    Alert { id, of: of.map(str::to_owned), since: 1_767_263_415_123, summary, runbook }
}

/// What fires, and one receiver that is told of it, in a task.
struct Desk {
    firing: watch::Sender<Firing>,
    end: CancellationToken,
    task: JoinSet<()>,
    webhooks: data_bridge::webhook::Tallies,
}

impl Desk {
    fn start(address: SocketAddr, more: &str) -> Self {
        let (firing, alerts) = watch::channel(Firing::default());
        let configured =
            std::collections::BTreeMap::from([("oncall".to_owned(), webhook(address, more))]);
        let webhooks = Webhooks::new(&configured, "bridge-1", &alerts).unwrap();
        let (tallies, end, mut task) =
            (webhooks.tallies(), CancellationToken::new(), JoinSet::new());
        task.spawn(webhooks.run(end.clone()));
        Self { firing, end, task, webhooks: tallies }
    }

    fn fires(&self, alerts: &[Alert]) {
        self.firing.send_replace(Arc::from(alerts));
    }

    async fn stopped(mut self) {
        self.end.cancel();
        // well below the 60 s that the receivers that hang may take for an answer
        timeout(Duration::from_secs(30), self.task.join_next())
            .await
            .expect("it ends soon")
            .expect("there is one")
            .unwrap();
    }
}

/// Quick, so that the tests are.
fn webhook(address: SocketAddr, more: &str) -> Webhook {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("c.toml");
    let wait = if more.contains("group_wait") { "" } else { "group_wait = '200ms'\n" };
    // An answer that a stall of the machine holds up for so long would bring the notice twice.
    let patient = if more.contains("timeout") { "" } else { "timeout = '60s'\n" };
    let text = format!(
        "{BASE}[webhooks.oncall]\nurl = 'http://{address}/hook/t0psecret'\n\
         {patient}{wait}{more}"
    );
    std::fs::write(&file, text).unwrap();
    config::load(&[file]).unwrap_or_else(|error| panic!("{error}")).webhooks["oncall"].clone()
}

const BASE: &str = "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n";

/// `fired:paused`, in the order of the message.
fn said(came: &Came) -> Vec<String> {
    let body = came.json();
    let alerts = body["alerts"].as_array().unwrap().iter();
    alerts
        .map(|a| format!("{}:{}", a["status"].as_str().unwrap(), a["id"].as_str().unwrap()))
        .collect()
}

/// One of many, and it sends rarely: in most heartbeats no record of it is stored.
#[tokio::test(start_paused = true)]
async fn a_producer_whose_clock_is_ahead_is_told_of_although_it_sends_rarely() {
    let mut rig = Rig::nats_alone("");
    for _ in 0..3 {
        for ahead in [Duration::from_secs(3_600), Duration::ZERO, Duration::ZERO] {
            rig.nats().clock_ahead(ahead);
            rig.nats().push("market.x", 10).await;
            rig.after(Duration::from_secs(30)).await;
        }
        let firing: Vec<AlertId> = rig.firing().iter().map(|alert| alert.id).collect();
        assert_eq!(firing, [AlertId::ClockSkew]);
    }
    rig.after(Duration::from_secs(400)).await;
    assert_eq!(rig.firing().len(), 0, "six minutes after the last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fires_and_ends_is_told_together_and_once() {
    let mut receiver = Receiver::start(&[]).await;
    let desk = Desk::start(receiver.address, "token = 'g0ld'\ngroup_wait = '1s'\n");
    let (paused, letters) =
        (alert(AlertId::Paused, None), alert(AlertId::DeadLetters, Some("route x")));
    let began = Instant::now();
    desk.fires(std::slice::from_ref(&paused));
    desk.fires(&[paused.clone(), letters.clone()]);
    let first = receiver.next().await;
    assert!(began.elapsed() >= Duration::from_secs(1), "what comes with it is waited for");
    assert_eq!(said(&first), ["fired:paused", "fired:dead_letters"], "one message");
    assert!(first.head.starts_with("post /hook/t0psecret http/1.1\r\n"), "{}", first.head);
    assert!(first.head.contains("authorization: bearer g0ld\r\n"));
    assert_eq!(
        (&first.json()["instance"], &first.json()["status"]),
        (&"bridge-1".into(), &"firing".into())
    );
    let told = first.json()["alerts"][1].clone();
    assert_eq!((&told["of"], &told["severity"]), (&"route x".into(), &"warning".into()));
    assert_eq!(told["since"], "2026-01-01T10:30:15.123Z");
    assert_eq!(told["runbook"], "https://wiki.example/runbook#dead_letters");
    // Other figures of the same are no news.
    let summary = "another minute".to_owned();
    desk.fires(&[Alert { summary, ..paused.clone() }, letters.clone()]);
    receiver.quiet_for(Duration::from_secs(2)).await;
    desk.fires(&[letters]);
    assert_eq!(said(&receiver.next().await), ["resolved:paused", "firing:dead_letters"]);
    desk.fires(&[]);
    let last = receiver.next().await;
    assert_eq!(
        (said(&last), &last.json()["status"]),
        (vec!["resolved:dead_letters".to_owned()], &"resolved".into())
    );
    receiver.quiet_for(Duration::from_secs(2)).await;
    desk.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_is_asked_again_and_told_how_things_are_then() {
    let script = [Reply::Status(500), Reply::Hang, Reply::Close, Reply::Status(302)];
    let mut receiver = Receiver::start(&script).await;
    let desk = Desk::start(receiver.address, "timeout = '1s'\n");
    desk.fires(&[alert(AlertId::Paused, None), alert(AlertId::BufferHigh, None)]);
    for _ in &script {
        assert_eq!(said(&receiver.next().await), ["fired:paused", "fired:buffer_high"]);
    }
    // It ends while nobody could be told: then there is nothing to tell of it.
    desk.fires(&[alert(AlertId::Paused, None)]);
    let mut last = receiver.next().await;
    if said(&last).len() == 2 {
        // the request was under way already, and arrived
        last = receiver.next().await;
        assert_eq!(said(&last), ["resolved:buffer_high", "firing:paused"]);
    } else {
        assert_eq!(said(&last), ["fired:paused"]);
    }
    let tally = Arc::clone(&desk.webhooks[0]);
    desk.stopped().await;
    // one more where an answer took longer than the second that it may
    assert!(tally.failed() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_what_is_left_and_waits_for_nobody() {
    let mut receiver = Receiver::start(&[]).await;
    let desk = Desk::start(receiver.address, "group_wait = '1h'\n");
    desk.fires(&[alert(AlertId::Paused, None)]);
    desk.stopped().await;
    assert_eq!(said(&receiver.next().await), ["fired:paused"], "without waiting for more");
    // One that hangs, and one that is not there.
    let hanging = Receiver::start(&[Reply::Hang, Reply::Hang]).await;
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for address in [hanging.address, closed] {
        let desk = Desk::start(address, "");
        desk.fires(&[alert(AlertId::Paused, None)]);
        sleep(Duration::from_millis(300)).await;
        desk.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_told_what_it_wants_in_its_own_words_and_again() {
    let mut slack = Receiver::start(&[]).await;
    let desk =
        Desk::start(slack.address, "kind = 'slack'\nmin_severity = 'critical'\nresolved = false\n");
    desk.fires(&[alert(AlertId::Paused, None)]);
    slack.quiet_for(Duration::from_millis(600)).await;
    desk.fires(&[alert(AlertId::Paused, None), alert(AlertId::PausedLong, None)]);
    let text = slack.next().await.json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with(
            "*data-bridge bridge-1*: 1 fired\n:red_circle: *CRITICAL* paused_long &lt;of&gt;"
        ),
        "{text}"
    );
    assert!(text.contains("(<https://wiki.example/runbook#paused_long|runbook>)"), "{text}");
    desk.fires(&[]);
    slack.quiet_for(Duration::from_millis(600)).await;
    desk.stopped().await;

    let mut manager = Receiver::start(&[]).await;
    let desk = Desk::start(manager.address, "kind = 'alertmanager'\nrepeat_every = '1s'\n");
    let asked = Timestamp::now();
    desk.fires(&[alert(AlertId::DeadLetters, Some("route x"))]);
    for _ in 0..2 {
        let came = manager.next().await;
        assert!(came.head.starts_with("post /hook/t0psecret/api/v2/alerts "), "{}", came.head);
        let body = came.json();
        let labels = &body[0]["labels"];
        assert_eq!(labels["alertname"], "DataBridgeDeadLetters");
        assert_eq!((&labels["instance"], &labels["of"]), (&"bridge-1".into(), &"route x".into()));
        assert_eq!(came.json()[0]["startsAt"], "2026-01-01T10:30:15.123Z");
        let ends: Timestamp = body[0]["endsAt"].as_str().unwrap().parse().unwrap();
        let left = ends.duration_since(asked);
        assert!(left > SignedDuration::from_secs(1), "over before it is told again: {left:?}");
    }
    desk.stopped().await;
}

/// ClickHouse is not there, and has never been: that needs a person, who is told; and when the bridge
/// is told to stop, it is gone at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_cannot_begin_tells_by_itself() {
    let mut receiver = Receiver::start(&[Reply::Status(404)]).await;
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dir = TempDir::new().unwrap();
    let text = format!(
        "{BASE}[clickhouse]\nurl = 'http://{closed}'\n[http]\nlisten = '127.0.0.1:0'\n\
         [heartbeat]\ninterval = '200ms'\n[alerts.pending]\nneeds_person = '1s'\n\
         [webhooks.oncall]\nurl = 'http://{}/t0psecret'\ngroup_wait = '100ms'\n",
        receiver.address
    );
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    let variables = [("RUST_LOG", "trace,hyper=trace,hyper_util=trace")];
    let log = dir.path().join("bridge.log");
    let mut bridge = Bridge::spawn_with(log.clone(), std::slice::from_ref(&file), &variables);
    bridge.listening().await;
    for _ in 0..2 {
        assert_eq!(said(&receiver.next().await), ["fired:needs_person"]);
    }
    let health =
        bridge.wait_until("it fires", |health| health["alerts"][0]["id"] == "needs_person");
    let alert = health.await["alerts"][0].clone();
    assert!(alert["summary"].as_str().unwrap().starts_with("waiting for ClickHouse"), "{alert}");
    assert_eq!((&alert["severity"], &alert["of"]), (&"critical".into(), &Json::Null));
    assert_eq!(alert["runbook"], "docs/runbook.md#needs_person");
    // It counts when it has read the answer.
    let counted = "data_bridge_alert_notices_total{webhook=\"oncall\",result=\"sent\"} 1";
    let counts = async {
        loop {
            let metrics = bridge.metrics().await;
            if metrics.contains(counted) {
                return metrics;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = timeout(PATIENCE, counts).await.expect("it is counted");
    let told = bridge.health().await["webhooks"][0].clone();
    assert_eq!((&told["name"], &told["to"]), (&"oncall".into(), &"http://127.0.0.1".into()));
    assert_eq!((&told["state"], &told["reason"]), (&"delivered".into(), &Json::Null));
    assert_eq!((&told["sent"], &told["failed"]), (&1.into(), &1.into()));
    assert!(!told.to_string().contains("t0psecret"), "{told}");
    for line in [
        "data_bridge_alert_firing{alert=\"needs_person\",severity=\"critical\"} 1",
        "data_bridge_alert_firing{alert=\"paused\",severity=\"warning\"} 0",
        "data_bridge_alert_notices_total{webhook=\"oncall\",result=\"failed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    bridge.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("alert_fired") && log.contains("sorry, cannot post ***"));
    assert!(!log.contains("t0psecret"), "the address is a secret");
    let mut command = program();
    let done = command.arg("--config").arg(&file).arg("config").output().await.unwrap();
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("[webhooks.oncall]") && !shown.contains("t0psecret"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_notice_says_what_came_back() {
    let mut good = Receiver::start(&[]).await;
    let bad = Receiver::start(&[Reply::Status(403)]).await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("c.toml");
    let text = format!(
        "{BASE}[webhooks.good]\nurl = 'http://{}/t0psecret'\n\
         [webhooks.bad]\nkind = 'slack'\nurl = 'http://{}/t0psecret'\n",
        good.address, bad.address
    );
    std::fs::write(&file, text).unwrap();
    let run = async |names: &[&str]| {
        let mut command = program();
        command.arg("--config").arg(&file).args(["alerts", "test"]).args(names);
        let done = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        (done.status.code().unwrap(), said.into_owned())
    };
    let (code, out) = run(&[]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("403") && out.contains("sorry, cannot post ***"), "{out}");
    assert!(out.contains("; see its token"), "{out}");
    assert!(out.contains("it took the notice") && !out.contains("t0psecret"), "{out}");
    assert_eq!(said(&good.next().await), ["fired:test"]);
    assert_eq!(run(&["good"]).await.0, 0);
    let (code, out) = run(&["gold"]).await;
    assert!(code == 64 && out.contains("there are: bad, good"), "{code} {out}");
}
