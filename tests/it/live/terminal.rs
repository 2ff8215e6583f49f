//! `data-bridge live`, as it is called in a terminal and in scripts: the real program on both ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::Feed;
use super::client::payloads;
use super::cutter::Cutter;
use crate::bridge::{PATIENCE, program};
use crate::receiver::{Receiver, Reply};
use crate::stack::free_port;

/// The command, while it runs.
struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    fn start(address: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = live(&format!("http://{address}"), arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    async fn write(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.unwrap().expect("another line")
    }

    /// Lines until one that contains this.
    async fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    /// As Ctrl-C does.
    fn interrupt(&self) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("/bin/kill").args(["-s", "INT", &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, the lines that were left, and what it said on stderr.
    async fn ended(mut self) -> (i32, Vec<String>, String) {
        drop(self.input.take());
        let (mut left, mut errors) = (Vec::new(), String::new());
        let mut stderr = self.child.stderr.take().unwrap();
        let end = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                left.push(line);
            }
            stderr.read_to_string(&mut errors).await.unwrap();
            self.child.wait().await.unwrap().code().unwrap()
        };
        let code = timeout(PATIENCE, end).await.expect("it ends");
        (code, left, errors)
    }
}

fn live(url: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["live", "--url", url]).args(arguments);
    command
}

fn json_lines(lines: &[String]) -> Vec<Json> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn watch_shows_what_was_before_and_what_comes() {
    let feed = Feed::start("").await;
    feed.topic("desk/a").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("desk/a", 0..5).await;
    let arguments = ["watch", "desk/*", "--last", "2", "--count", "4", "--client-id", "me"];
    let people = Terminal::start(feed.bridge.address(), &arguments);
    let machine = Terminal::start(feed.bridge.address(), &[&arguments[..], &["--json"]].concat());
    feed.until("/stats", |stats| stats["topics"]["desk/a"]["subscribers"] == 2).await;
    publisher.publish_all("desk/a", 5..7).await;

    let (code, seen, said) = people.ended().await;
    assert_eq!(code, 0, "{said}");
    let shown: Vec<&str> = seen.iter().map(|line| &line["10:30:15.123  ".len()..]).collect();
    assert_eq!(shown, ["desk/a  3", "desk/a  4", "desk/a  5", "desk/a  6"]);
    assert!(said.contains("subscribed to desk/*; 2 from before follow"), "{said}");
    let (code, seen, said) = machine.ended().await;
    assert_eq!((code, said.as_str()), (0, ""));
    let messages = json_lines(&seen);
    assert_eq!((&messages[0]["type"], payloads(&messages)), (&json!("ack"), vec![3, 4, 5, 6]));
}

#[tokio::test]
async fn ctrl_c_leaves_and_says_farewell() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let watching = Terminal::start(feed.bridge.address(), &["watch", "t"]);
    let prompt = Terminal::start(feed.bridge.address(), &[]);
    feed.until("/stats", |stats| {
        stats["totals"]["connections"] == 2 && stats["totals"]["subscribers"] == 1
    })
    .await;
    for terminal in [watching, prompt] {
        terminal.interrupt();
        assert_eq!(terminal.ended().await.0, 0);
    }
    feed.until("/stats", |stats| stats["totals"]["connections"] == 0).await;
}

#[tokio::test]
async fn its_exit_code_says_whose_turn_it_is() {
    let feed = Feed::with_token("right").await;
    let dir = TempDir::new().unwrap();
    let file = |text: &str| -> PathBuf {
        let path = dir.path().join(text);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    };
    let (right, wrong) = (file("right"), file("wrong"));
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let here = format!("http://{}", feed.bridge.address());
    let nobody = "http://127.0.0.1:1";
    for (url, arguments, code, why) in [
        (nobody, &["watch", "t"][..], 69, "cannot reach"),
        (nobody, &["topics"], 69, "cannot reach"),
        (&here, &["watch", "t"], 1, "Authorization"),
        (&here, &["--token-file", wrong, "topics"], 1, "Authorization"),
        (&here, &["--token-file", right, "watch", "t"], 1, "TOPIC_NOT_FOUND"),
        (&here, &["--token-file", right, "delete", "candles"], 1, "it stays"),
        (&here, &["--token-file", "/nowhere", "topics"], 64, "--token-file"),
        (&here, &["watch"], 64, "TOPIC"),
        ("ftp://x", &["topics"], 64, "http://"),
        (&here, &["--token-file", right, "create", "t"], 0, "there is a topic t"),
        (&here, &["--token-file", right, "publish", "t", "1", "--durable"], 1, "in memory"),
        (&here, &["--token-file", right, "topics"], 0, "user"),
    ] {
        let mut asked = live(url, arguments);
        asked.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, asked.output()).await.unwrap().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn publish_takes_arguments_and_lines() {
    let feed = Feed::start("").await;
    feed.topic("desk").await;
    let mut subscriber = feed.subscribed(json!({ "topic": "desk" })).await;
    let words =
        Terminal::start(feed.bridge.address(), &["publish", "desk", "0", "{\"a\":\n1.50}", "hi"]);
    let (code, _, said) = words.ended().await;
    assert_eq!((code, said.trim()), (0, "3 published to desk"));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(subscriber.next().await.unwrap()["message"]["payload"].to_string());
    }
    assert_eq!(seen, ["0", "{\"a\":1.50}", "\"hi\""]);
    let mut lines = Terminal::start(feed.bridge.address(), &["publish", "desk"]);
    for n in 0..300 {
        lines.write(&n.to_string()).await;
    }
    let (code, _, said) = lines.ended().await;
    assert_eq!((code, said.trim()), (0, "300 published to desk"));
    assert!(subscriber.payloads(300).await.into_iter().eq(0..300));
}

/// It says so for longer than the command would wait by itself, which is half a second at first.
#[tokio::test]
async fn publish_stays_away_for_as_long_as_it_is_told_to() {
    let mut full = Receiver::start(&[Reply::Later(10)]).await;
    let publishing = Terminal::start(full.address, &["publish", "desk", "1"]);
    assert_eq!(full.next().await.body, b"1");
    full.quiet_for(Duration::from_secs(7)).await;
    assert_eq!(full.next().await.body, b"1", "the same again");
    let (code, _, said) = publishing.ended().await;
    assert!(code == 0 && said.contains("no room now; waiting"), "{code} {said}");

    let mut full = Receiver::start(&[Reply::Later(3_600)]).await;
    let publishing = Terminal::start(full.address, &["publish", "desk", "1"]);
    full.next().await;
    publishing.interrupt();
    let (code, _, said) = publishing.ended().await;
    assert!(code == 1 && said.contains("left before the end"), "{code} {said}");
    full.quiet_for(Duration::ZERO).await;
}

#[tokio::test]
async fn the_prompt_does_all_of_it() {
    let feed = Feed::start("").await;
    let mut prompt = Terminal::start(feed.bridge.address(), &[]);
    for (line, answer) in [
        ("create desk", "there is a topic desk"),
        ("publish desk {\"a\":1}", "published to desk"),
        ("subscribe desk", "subscribed to desk; 0 from before follow"),
        ("publish desk hello", "published to desk"),
        ("replay desk 2", "subscribed to desk; 2 from before follow"),
        ("ping", "pong"),
        ("topics", "user"),
        ("subscribe nothing", "TOPIC_NOT_FOUND"),
        ("subscribe", "write: subscribe TOPIC [N]"),
        ("help", "replay TOPIC [N]"),
        ("unsubscribe desk", "unsubscribed from desk"),
        ("delete nothing", "there is no such topic"),
    ] {
        prompt.write(line).await;
        prompt.until(answer).await;
    }
    prompt.write("quit").await;
    assert_eq!(prompt.ended().await.0, 0);
}

#[tokio::test]
async fn the_demonstration_adds_up_under_each_policy() {
    let feed = Feed::start("").await;
    for (policy, end) in [
        ("drop_oldest", "and was told of"),
        ("drop_newest", "and was told of"),
        ("disconnect", "cut off"),
    ] {
        let arguments =
            ["demo", "--rate", "2000", "--seconds", "4", "--reads", "10", "--policy", policy];
        let (code, lines, said) = Terminal::start(feed.bridge.address(), &arguments).ended().await;
        assert_eq!(code, 0, "{policy}: {said}\n{lines:#?}");
        let last = lines.last().unwrap();
        assert!(last.starts_with("8,000 published; the fast one saw 8,000"), "{policy}: {last}");
        assert!(last.contains(end) && !last.contains("told of 0"), "{policy}: {last}");
    }
    let topics = feed.get("/topics").await;
    assert_eq!(topics["topics"].as_array().unwrap().len(), 1, "it cleans up: {topics}");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_lost() {
    let feed = Feed::start("queue_size = 10").await;
    feed.topic("t").await;
    let mut slow = Terminal::start(feed.bridge.address(), &["watch", "t", "--slow", "50"]);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 1).await;
    let large = (0..300).map(|n| json!({ "n": n, "fill": "x".repeat(7_000) }));
    feed.connect().await.publish_each("t", large).await;
    slow.until("messages were lost here: read too slowly").await;
}

#[tokio::test]
async fn who_is_cut_off_comes_again_and_misses_and_repeats_nothing() {
    let feed = Feed::start("").await;
    feed.topic("t").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("t", 0..10).await;
    let cutter = Cutter::before(feed.bridge.address()).await;
    let mut watching =
        Terminal::start(cutter.address(), &["watch", "t", "--json", "--count", "50"]);
    watching.until("\"ack\"").await;
    publisher.publish_all("t", 10..30).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(watching.line().await);
    }
    cutter.set_down(true);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
    publisher.publish_all("t", 30..60).await;
    cutter.set_down(false);
    let (code, rest, said) = watching.ended().await;
    assert_eq!(code, 0, "{said}");
    seen.extend(rest);
    assert!(payloads(&json_lines(&seen)).into_iter().eq(10..60), "{seen:?}");
    assert!(said.contains("connecting again") && said.contains("connected again"), "{said}");
}

/// A replay comes topic by topic: what one topic showed says nothing of another.
#[tokio::test]
async fn who_watches_many_topics_misses_nothing_of_any_when_it_is_cut_off() {
    const TOPICS: [&str; 3] = ["desk/a", "desk/b", "other"];
    let feed = Feed::start("").await;
    for topic in TOPICS {
        feed.topic(topic).await;
    }
    let mut publisher = feed.connect().await;
    let cutter = Cutter::before(feed.bridge.address()).await;
    let arguments = ["watch", "desk/*", "other", "--json", "--count", "60"];
    let mut watching = Terminal::start(cutter.address(), &arguments);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 2).await;
    let mut lines = Vec::new();
    for topic in TOPICS {
        publisher.publish_all(topic, 0..10).await;
    }
    while payloads(&json_lines(&lines)).len() < 30 {
        lines.push(watching.line().await);
    }
    cutter.set_down(true);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
    // the newest is of the topic that is replayed first
    for topic in TOPICS.iter().rev() {
        publisher.publish_all(topic, 10..15).await;
    }
    cutter.set_down(false);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 2).await;
    for topic in TOPICS {
        publisher.publish_all(topic, 15..20).await;
    }
    let (code, rest, said) = watching.ended().await;
    assert_eq!(code, 0, "{said}");
    lines.extend(rest);
    for topic in TOPICS {
        let mut of_topic = json_lines(&lines);
        of_topic.retain(|message| message["topic"] == topic);
        assert!(payloads(&of_topic).into_iter().eq(0..20), "{topic}: {of_topic:#?}");
    }
}

/// A bridge that starts again makes the topics of keys with their first record.
#[tokio::test]
async fn a_topic_that_is_gone_after_a_restart_is_waited_for() {
    let place = format!("127.0.0.1:{}", free_port());
    let mut feed = Feed::listening(&place, "").await;
    feed.topic("desk/a").await;
    let mut watching =
        Terminal::start(feed.bridge.address(), &["watch", "desk/a", "--json", "--count", "2"]);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 1).await;
    feed.connect().await.publish_all("desk/a", 0..1).await;
    watching.until("\"event\"").await;
    feed.bridge.kill().await;
    let feed = Feed::listening(&place, "").await;
    let mut notes = BufReader::new(watching.child.stderr.as_mut().unwrap()).lines();
    let noting = async {
        while let Some(line) = notes.next_line().await.unwrap() {
            if line == "desk/a is not there any more; waiting until it is" {
                return;
            }
        }
        panic!("it ended");
    };
    timeout(PATIENCE, noting).await.expect("it says that it waits");
    feed.topic("desk/a").await;
    feed.connect().await.publish_all("desk/a", 1..2).await;
    let (code, lines, said) = watching.ended().await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(payloads(&json_lines(&lines)), [1]);
}

#[tokio::test]
async fn a_bridge_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let asked = [&["topics"][..], &["create", "t"], &["delete", "t"], &["publish", "t", "1"]];
    let asking = asked.map(|arguments| Terminal::start(address, arguments).ended());
    for (code, _, said) in futures_util::future::join_all(asking).await {
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(&format!("no answer from http://{address} within 10 s")), "{said}");
    }
}

#[tokio::test]
async fn a_script_with_a_line_that_is_none_ends_and_says_so() {
    let feed = Feed::start("").await;
    let mut script = Terminal::start(feed.bridge.address(), &[]);
    let input = script.input.as_mut().unwrap();
    input.write_all(b"create desk\n\xff\xfe\n").await.unwrap();
    let (code, lines, said) = script.ended().await;
    assert_eq!(lines, ["there is a topic desk"]);
    assert_eq!(code, 64);
    assert!(said.contains("cannot read stdin"), "{said}");
}
