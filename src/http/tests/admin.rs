//! `/admin/config`, with a real reloader behind it and a pipeline that agrees or does not.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::*;
use crate::config::load_over;
use crate::reload::{Notice, Order, Reloader};

const BASE: &str = "[kafka]\n[clickhouse]\npassword = 's3cr3t'\n[[routes]]\nname = 'x'\n\
                    kafka_topics = ['x']\ntable = 't'\n";

struct Admin {
    bridge: Running,
    file: PathBuf,
    _dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

/// With a pipeline that answers so.
async fn admin(token: Option<&str>, pipeline: Result<(), &'static str>) -> Admin {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, BASE).unwrap();
    let (sender, mut notices) = mpsc::channel(4);
    let loaded = load_over(std::slice::from_ref(&file), None).unwrap();
    let files = vec![file.clone()];
    let (reloader, door) =
        Reloader::new(files, loaded, sender, Box::new(|_| true), |_, _| Ok(())).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(reloader.run(std::future::pending()));
    tasks.spawn(async move {
        while let Some(notice) = notices.recv().await {
            if let Notice::Apply(Order { begun, answer, .. }) = notice {
                begun.send(()).unwrap();
                answer.send(pipeline.map_err(str::to_owned)).unwrap();
            }
        }
    });
    let http = config::Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: token.map(SecretString::from),
        token_file: None,
        tls: None,
    };
    let access = Access::new(&http).unwrap();
    let bridge = Running::behind(Limits::default(), access, door).await;
    Admin { bridge, file, _dir: dir, _tasks: tasks }
}

impl Admin {
    async fn put(&self, body: &str) -> Answer {
        self.put_as("application/toml", body).await
    }

    async fn put_as(&self, media_type: &str, body: &str) -> Answer {
        self.put_to("/admin/config", media_type, body).await
    }

    /// Says what would be.
    async fn try_out(&self, body: &str) -> Answer {
        self.put_to("/admin/config?dry_run=true", "application/toml", body).await
    }

    async fn put_to(&self, path: &str, media_type: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer t0ken\r\ncontent-type: {media_type}\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.bridge.ask(&format!("{head}{body}")).await
    }

    async fn in_force(&self) -> String {
        let request = "GET /admin/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                       authorization: Bearer t0ken\r\n\r\n";
        self.bridge.ask(request).await.body
    }
}

#[tokio::test]
async fn without_a_configured_token_nobody_may_change_anything() {
    let admin = admin(None, Ok(())).await;
    let answer = admin.put("[retry]\nmax_delay = '10s'\n").await;
    assert_eq!(answer.code, 403);
    assert!(answer.body.contains("http.token"), "{answer:?}");
    assert_eq!(admin.bridge.code("/admin/config").await, 403);
    assert_eq!(admin.bridge.code("/health").await, 200);
}

#[tokio::test]
async fn with_another_token_nobody_may_either() {
    let admin = admin(Some("an0ther"), Ok(())).await;
    assert_eq!(admin.put("").await.code, 401);
    assert_eq!(admin.bridge.code("/admin/config").await, 401);
}

#[tokio::test]
async fn a_change_is_answered_with_the_difference_and_shown_as_in_force() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    let answer = admin.put("[retry]\nmax_delay = '10s'\n").await;
    assert_eq!(answer.code, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["applied"], true);
    let changes = json["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{json}");
    assert_eq!(changes[0]["key"], "retry.max_delay");
    assert_eq!((&changes[0]["from"], &changes[0]["to"]), (&"\"30s\"".into(), &"\"10s\"".into()));
    let in_force = admin.in_force().await;
    assert!(in_force.contains("max_delay = \"10s\""), "{in_force}");
    assert!(!in_force.contains("s3cr3t") && in_force.contains("***"), "{in_force}");
    // Without a body the files alone count.
    let back = admin.put("").await.json();
    assert_eq!(back["changes"][0]["to"], "\"30s\"");
    let json = admin.put_as("application/json", r#"{"retry":{"max_delay":"9s"}}"#).await.json();
    assert_eq!(json["changes"][0]["to"], "\"9s\"");
}

#[tokio::test]
async fn what_is_only_tried_changes_nothing_and_is_answered_like_a_change() {
    let admin = admin(Some("t0ken"), Err("the pipeline is not asked")).await;
    let before = admin.in_force().await;
    let answer = admin.try_out("[retry]\nmax_delay = '10s'\n").await;
    let json = answer.json();
    assert_eq!((answer.code, &json["applied"]), (200, &false.into()));
    assert_eq!(json["changes"][0]["to"], "\"10s\"");
    assert_eq!(admin.try_out("[retry]\nmax_dely = '1s'\n").await.code, 422);
    assert_eq!(admin.try_out("[kafka]\ngroup_id = 'g'\n").await.code, 409);
    assert_eq!(admin.in_force().await, before);
}

#[tokio::test]
async fn a_slip_in_the_query_changes_nothing() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    let before = admin.in_force().await;
    for query in ["dry_run=1", "dry_run", "dry_run=True", "dryrun=true", "dry_run=true%20", "x=1"] {
        let path = format!("/admin/config?{query}");
        let answer = admin.put_to(&path, "application/toml", "[retry]\nmax_delay = '10s'\n").await;
        assert_eq!(answer.code, 400, "{query}: {answer:?}");
        assert!(answer.body.contains("dry_run=true"), "{answer:?}");
    }
    assert_eq!(admin.in_force().await, before);
    let path = "/admin/config?dry_run=false";
    let answer = admin.put_to(path, "application/toml", "[retry]\nmax_delay = '10s'\n").await;
    assert_eq!(answer.json()["applied"], true);
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_explained() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    let before = admin.in_force().await;
    let answer = admin.put("[retry]\nmax_delay = '10s'\nmax_dely = '1s'\n").await;
    assert_eq!(answer.code, 422);
    let reason = answer.json()["reasons"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("the request") && reason.contains("max_dely"), "{reason}");
    let answer = admin.put("[retry\n").await;
    assert_eq!(answer.code, 422);
    assert_eq!(admin.put("[backpressure]\npause_threshold = 60000\n").await.code, 422);
    std::fs::write(&admin.file, "[kafka\n").unwrap();
    assert_eq!(admin.put("").await.code, 422);
    assert_eq!(admin.in_force().await, before);
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_with_all_that_came_with_it() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    let before = admin.in_force().await;
    let answer = admin.put("[kafka]\ngroup_id = 'g'\n[retry]\nmax_delay = '10s'\n").await;
    assert_eq!(answer.code, 409);
    let reasons = answer.json()["reasons"].to_string();
    assert!(reasons.contains("kafka.group_id") && !reasons.contains("max_delay"), "{reasons}");
    let answer = admin.put("[clickhouse]\npassword = 'an0ther'\n").await;
    assert_eq!(answer.code, 409);
    assert!(!answer.body.contains("an0ther"), "{answer:?}");
    assert_eq!(admin.in_force().await, before);
}

#[tokio::test]
async fn what_the_pipeline_refuses_is_not_in_force() {
    let admin = admin(Some("t0ken"), Err("the bridge stops")).await;
    let before = admin.in_force().await;
    let answer = admin.put("[retry]\nmax_delay = '10s'\n").await;
    assert_eq!((answer.code, &answer.json()["reasons"][0]), (503, &"the bridge stops".into()));
    assert_eq!(admin.in_force().await, before);
}

#[tokio::test]
async fn two_at_once_come_one_after_the_other() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    let (one, other) = tokio::join!(
        admin.put("[retry]\nmax_delay = '10s'\n"),
        admin.put("[retry]\nmax_delay = '11s'\n")
    );
    assert_eq!((one.code, other.code), (200, 200));
    let from = |answer: &Answer| answer.json()["changes"][0]["from"].clone();
    let to = |answer: &Answer| answer.json()["changes"][0]["to"].clone();
    assert!(from(&one) == to(&other) || from(&other) == to(&one), "{one:?} {other:?}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let admin = admin(Some("t0ken"), Ok(())).await;
    assert_eq!(admin.put(&"# x\n".repeat(20_000)).await.code, 413);
}
