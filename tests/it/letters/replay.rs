//! `dead-letters list` and `dead-letters replay` on each place that keeps letters, beside a bridge
//! that runs; and a replay that is killed at random moments.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use super::{create_stream, numbers_lab, send_mixed};
use crate::bridge::{PATIENCE, program};
use crate::lab::{Lab, number, settled};

/// What was forgotten at first: other producers call it `m`.
const MENDED: &str = "n = { from = [\"n\", \"m\"] }\n";

struct Desk {
    files: Vec<PathBuf>,
}

impl Desk {
    fn new(lab: &Lab, name: &str, config: &str, over: &str) -> Self {
        let over = lab.file(&format!("{name}-over.toml"), over);
        Self { files: vec![lab.file(&format!("{name}.toml"), config), over] }
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = program();
        for file in &self.files {
            command.arg("--config").arg(file);
        }
        command.arg("dead-letters").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let running = self.command(arguments).output();
        tokio::time::timeout(PATIENCE, running).await.expect("it ends").unwrap()
    }

    /// What it says as JSON; its exit code must be this.
    async fn json(&self, arguments: &[&str], code: i32) -> Json {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}\n{err}"))
    }

    async fn count(&self, arguments: &[&str]) -> u64 {
        number(&self.json(&[&["list"], arguments].concat(), 0).await["count"])
    }
}

/// The whole story on one place: refused, listed, mended, replayed once, marked.
async fn story(lab: &Lab, over: &str) {
    let bridge = lab.start(&lab.numbers("kafka nats"), over).await;
    let mut bad: Vec<Vec<u8>> =
        (1_000..1_010).map(|m| format!("{{\"m\":{m}}}").into_bytes()).collect();
    bad.push(vec![0xFF, 0x00, b'\n', 0xFE]);
    let sent = send_mixed(lab, 0..30, &bad).await;
    bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;

    let old = Desk::new(lab, "old", &lab.numbers("kafka nats"), over);
    let new = Desk::new(lab, "new", &(lab.numbers("kafka nats") + MENDED), over);
    let listing = old.json(&["list"], 0).await;
    assert_eq!(number(&listing["count"]), 11, "{listing:#}");
    let count = |reason: &str| {
        let reasons = listing["reasons"].as_array().unwrap();
        reasons.iter().find(|r| r["reason"] == reason).map(|r| number(&r["count"]))
    };
    assert_eq!((count("missing_value"), count("invalid_utf8")), (Some(10), Some(1)), "{listing:#}");
    assert!(!listing.to_string().contains("\"payload\":"), "only on request: {listing:#}");
    assert!(
        old.json(&["list", "--payload", "--limit", "20"], 0)
            .await
            .to_string()
            .contains(r#"{\"m\":1009}"#)
    );
    assert_eq!(old.count(&["--reason", "missing_value", "--route", "numbers"]).await, 10);
    assert_eq!(old.count(&["--from", &lab.topic("numbers"), "--since", "1h"]).await, 11);
    assert_eq!(old.count(&["--until", "1h"]).await, 0);
    assert_eq!(old.count(&["--route", "nobody's"]).await, 0);
    let text = String::from_utf8(old.run(&["list"]).await.stdout).unwrap();
    assert!(text.contains("11 dead letters, not replayed"), "{text}");

    // a dry run says what would be, and changes nothing
    let dry = new.json(&["replay", "--dry-run"], 0).await;
    assert_eq!(dry["replayed"]["numbers"], 10, "{dry:#}");
    assert_eq!(dry["refused"][0]["reason"], "invalid_utf8", "{dry:#}");
    assert_eq!(lab.clickhouse.number("SELECT count() FROM numbers").await, 30);
    assert_eq!(old.count(&[]).await, 11);

    let replayed = new.json(&["replay"], 1).await;
    assert_eq!(replayed["replayed"]["numbers"], 10, "{replayed:#}");
    assert_eq!(replayed["at_least_once"], serde_json::json!({}), "the table has a window");
    let rows = "SELECT count() FROM numbers WHERE n >= 1000 AND _offset IS NOT NULL";
    assert_eq!(lab.clickhouse.number(rows).await, 10);
    assert_eq!((new.count(&[]).await, new.count(&["--replayed"]).await), (1, 10));
    assert_eq!(new.count(&["--all"]).await, 11);

    // once is enough
    let again = new.json(&["replay"], 1).await;
    assert_eq!(again["replayed"], serde_json::json!({}), "{again:#}");
    assert_eq!(lab.clickhouse.number("SELECT count() FROM numbers").await, 40);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_in_clickhouse_are_listed_and_replayed_once() {
    let lab = numbers_lab().await;
    story(&lab, "").await;
    // every byte is still there, in the letters that were marked and in the one that stayed
    let row = lab
        .clickhouse
        .row(
            "SELECT hex(payload) AS payload, key, headers FROM dead_letters FINAL \
              WHERE reason = 'invalid_utf8'",
        )
        .await;
    assert_eq!(row["payload"], "FF000AFE");
    assert_eq!((&row["key"], &row["headers"]), (&"a key".into(), &"{}".into()));
    let marked = "SELECT count() FROM dead_letters FINAL WHERE replayed AND key = 'a key' \
                  AND payload LIKE '{\"m\":100%' AND partition = 0 AND offset IS NOT NULL";
    assert_eq!(lab.clickhouse.number(marked).await, 10);
    let open = "SELECT count() FROM dead_letters FINAL WHERE NOT replayed";
    assert_eq!(lab.clickhouse.number(open).await, 1, "no plan is left open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_in_a_file_are_listed_and_replayed_once() {
    let lab = numbers_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    // set aside again and again, so that several files are read
    let place = format!("path = '{}'\nmax_file_bytes = '64KiB'", path.display());
    story(&lab, &format!("[dead_letters]\nto = 'file'\n{place}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_in_a_topic_are_listed_and_replayed_once() {
    let lab = numbers_lab().await;
    let topic = lab.topic("dead");
    lab.create_topics(std::slice::from_ref(&topic), 3).await;
    story(&lab, &format!("[dead_letters]\nto = 'kafka'\ntopic = '{topic}'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_in_a_stream_are_listed_and_replayed_once() {
    let lab = numbers_lab().await;
    let (subject, stream) = (lab.subject("dead"), lab.name.to_uppercase());
    create_stream(&lab.at.nats, &stream, &subject).await;
    story(&lab, &format!("[dead_letters]\nto = 'nats'\nsubject = '{subject}'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_again_and_again_stores_every_row_once() {
    let lab = numbers_lab().await;
    let ddl = include_str!("../../../config/schema/dead_letters.sql");
    lab.clickhouse.query(ddl).await;
    let topic = lab.topic("numbers");
    let letters = format!(
        "INSERT INTO dead_letters (id, time, record_time, instance, source, topic_or_subject, \
         partition, offset, headers, route, reason, error, payload) \
         SELECT generateUUIDv4(), now64(3), now64(3), 'i', 'kafka', '{topic}', 0, number, '{{}}', \
         'numbers', 'missing_value', 'e', concat('{{\"m\":', toString(number), '}}') \
         FROM numbers(15000)"
    );
    lab.clickhouse.query(&letters).await;
    let desk = Desk::new(&lab, "desk", &(lab.numbers("kafka") + MENDED), "");
    let (mut killed, mut wait) = (0, Duration::from_millis(60));
    loop {
        let mut replay = desk.command(&["replay"]).stdout(Stdio::null()).spawn().unwrap();
        if let Ok(ended) = tokio::time::timeout(wait, replay.wait()).await {
            assert!(ended.unwrap().success());
            break;
        }
        replay.kill().await.unwrap();
        killed += 1;
        assert!(wait < PATIENCE, "it makes no progress");
        // a little later each time, so that it dies everywhere
        wait += Duration::from_millis(rand::random_range(5..60));
    }
    assert!(killed >= 3, "killed {killed} times");
    assert_eq!(lab.stored_numbers(&(0..15_000)).await, (15_000, 15_000), "killed {killed} times");
    let open = "SELECT count() FROM dead_letters FINAL WHERE NOT replayed";
    assert_eq!(lab.clickhouse.number(open).await, 0);
    let letters = "SELECT count() FROM dead_letters FINAL WHERE reason = 'missing_value'";
    assert_eq!(lab.clickhouse.number(letters).await, 15_000);
}
