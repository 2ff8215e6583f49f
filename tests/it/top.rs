//! `data-bridge top` as a person has it: the real program in a terminal of its own, before a real
//! bridge that pauses, goes away and comes back; and without a terminal.

mod terminal;

use tokio::time::timeout;

use crate::bridge::{Bridge, PATIENCE, program};
use crate::dashboard::SMALL;
use crate::faults::proxy::Proxy;
use crate::lab::{Lab, settled};
use crate::stack::free_port;
use terminal::Terminal;

fn url(bridge: &Bridge) -> String {
    format!("http://{}", bridge.address())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_follows_a_bridge_through_a_pause_and_a_restart() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    let over = format!(
        "{SMALL}http.listen = \"127.0.0.1:{}\"\nclickhouse.url = \"{}\"\n\
         breaker.max_failures = 100_000\n",
        free_port(),
        proxy.url(),
    );
    let over = over.replace("critical_after = \"2s\"", "critical_after = \"10m\"");
    let config = lab.numbers("kafka nats");
    let bridge = lab.start(&config, &over).await;
    let mut top = Terminal::run(&["--url", &url(&bridge)], (80, 24), &[]).await;
    top.until(&["WAITING", "no record has come yet", "live "]).await;

    lab.numbers_to_kafka(0..300, 1_000).await;
    top.until(&["HEALTHY", "What comes goes into ClickHouse", "Records held"]).await;
    let bad = b"{\"n\": \"twelve and a half\"}";
    let sender = lab.kafka();
    sender.send(&lab.topic("numbers"), Some(2), None, Some(bad));
    sender.flush().await;
    top.press("3").await;
    top.until(&["Dead letters", "numbers [2] @"]).await;
    top.press("2").await;
    top.until(&["Sources", "reading, 6", "closed: inserts go"]).await;
    top.press("?").await;
    top.until(&["Keys, and what is what"]).await;
    top.press("x1").await;

    proxy.set_room(0);
    lab.numbers_to_nats(300..2_000, 1_000).await;
    top.until(&["PAUSED", "of at most 1,000 records are held.", "What to do:"]).await;
    top.until(&["░ while paused", "! Backpressure active for", "! dropped"]).await;
    top.picture("top-paused").await;
    top.resize((140, 52)).await;
    top.until(&["PAUSED", "Sources", "nats", "paused", "Routes"]).await;
    top.picture("top-large").await;
    top.resize((80, 24)).await;

    proxy.set_room(2);
    top.until(&["HEALTHY"]).await;
    bridge.stop().await;
    top.until(&["NO ANSWER", "below is what it said last", "Cannot reach http://127.0.0.1"]).await;
    let bridge = lab.start(&config, &over).await;
    top.until(&["WAITING", "live ", "╱ not heard"]).await;
    top.press("p").await;
    top.until(&["held at", "p goes on"]).await;
    top.press("q").await;
    assert_eq!(top.ended().await, 0);
    assert!(!top.is_full_screen(), "the terminal is given back as it was");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_colours_it_says_the_same_and_a_signal_gives_the_terminal_back() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka"), "").await;
    for (variables, is_colored) in [(&[("NO_COLOR", "1")][..], false), (&[], true)] {
        let mut top = Terminal::run(&["--url", &url(&bridge)], (80, 24), variables).await;
        top.until(&["WAITING", "breaker", "closed"]).await;
        assert_eq!(top.is_colored(), is_colored, "{variables:?}");
        top.press("\u{3}").await;
        assert_eq!(top.ended().await, 0, "Ctrl-C is q");
        assert!(!top.is_full_screen());
    }
    bridge.stop().await;
}

/// What it prints and how it ends, without a terminal.
async fn printed(arguments: &[&str]) -> (i32, String, String) {
    let mut command = program();
    command.arg("top").args(arguments).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_prints_everything_once() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka"), "http.token = \"s3cret\"\n").await;
    let token = lab.file("token", "s3cret\n");
    let token = token.to_str().unwrap();
    lab.numbers_to_kafka(0..300, 1_000).await;
    bridge.wait_until("all is stored", |health| settled(health, "kafka", 300)).await;
    let url = url(&bridge);
    let (code, text, error) = printed(&["--url", &url, "--token-file", token]).await;
    assert_eq!((code, error.as_str()), (0, ""));
    for wanted in ["HEALTHY", "Records held", "None fires.", "numbers → numbers", "at least once"]
    {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("s3cret"), "{text}");
    let (code, _, error) = printed(&["--once", "--url", &url]).await;
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("it wants its token: give --token-file"), "{error}");
    bridge.stop().await;
    let (code, _, error) = printed(&["--once", "--url", &url, "--token-file", token]).await;
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("cannot reach http://127.0.0.1"), "{error}");
    let (code, _, error) = printed(&["--url", "bridge:8080"]).await;
    assert_eq!(code, 64, "{error}");
}

/// NATS forbids little in a subject: whoever may publish could write on the operator's terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subject_is_called_cannot_write_on_the_terminal() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let config = lab.numbers("nats");
    let bridge = lab.start(&config, "").await;
    let client = lab.nats().await;
    let evil = lab.subject("numbers.\u{1b}]52;c;aGk=\u{7}\u{1b}[2J.\u{9b}1m");
    client.publish(evil, "no JSON".into()).await.unwrap();
    client.flush().await.unwrap();
    bridge.wait_until("it was refused", |health| settled(health, "nats", 1)).await;
    let (_, top, _) = printed(&["--once", "--url", &url(&bridge)]).await;
    let mut command = program();
    command.arg("--config").arg(lab.file("list.toml", &config)).args(["dead-letters", "list"]);
    let list = timeout(PATIENCE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    for shown in [top, list] {
        let is_tame = shown.chars().all(|c| !c.is_control() || c == '\n');
        assert!(shown.contains("]52;c;aGk=") && is_tame, "{shown:?}");
    }
    bridge.stop().await;
}
