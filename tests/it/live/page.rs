//! The page at `/live`, as a person uses it: a real browser before a real bridge.

use serde_json::json;

use super::Feed;
use super::cutter::Cutter;
use crate::dashboard::browser::{Browser, Theme};

const MESSAGES: &str = "[aria-label='Messages']";
const WATCHED: &str = "[aria-label='Watched']";

async fn open(address: std::net::SocketAddr) -> Browser {
    let mut browser = Browser::of(&format!("http://{address}/live"), "").await;
    browser.was_built("[aria-label='Messages'], [aria-label='Token'], .link").await;
    browser
}

async fn watch(browser: &mut Browser, topic: &str) {
    browser.until(".link", "^live$").await;
    browser.fill("[aria-label='Watch'] [name=topic]", topic).await;
    browser.press("Enter").await;
    browser.until(WATCHED, "desk").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_comes_and_stands_still_on_request() {
    let feed = Feed::start("").await;
    feed.topic("desk").await;
    let mut publisher = feed.connect().await;
    publisher.publish_all("desk", 0..20).await;
    let mut browser = open(feed.bridge.address()).await;
    browser.until(MESSAGES, "Watch a topic to see what comes").await;
    watch(&mut browser, "desk").await;
    browser.until(".lines", "^\\S+\\s+desk\\s+19\\s.*desk\\s+10$").await;
    browser.until("[aria-label='Topics']", "desk\\s+user\\s+[\\d.]+/s\\s+20\\s+1\\s+0\\s").await;

    browser.fill("[aria-label='Publish'] [name=topic]", "desk").await;
    browser
        .fill("[aria-label='Publish'] [name=message]", "{\"price\": 1.10000000000000000001}")
        .await;
    browser.press("Enter").await;
    browser.until("[aria-label='Publish']", "published to desk, for 1 subscribers").await;
    browser.until(".lines", "desk\\s+\\{\"price\":1.10000000000000000001\\}").await;

    browser.click("button[aria-pressed]").await;
    publisher.publish_all("desk", 20..30).await;
    browser.until(MESSAGES, "paused, 10 more").await;
    // A time of day has such a number in it as well.
    let shown = browser.text(".lines").await;
    assert!(!regex::Regex::new(r"desk\s+29\b").unwrap().is_match(&shown), "{shown}");
    browser.click("button[aria-pressed]").await;
    browser.until(".lines", "^\\S+\\s+desk\\s+29\\s").await;

    let bars = (0..12).map(|n| json!({ "symbol": "EURUSD", "open": 1.0852, "close": 1.0854 + f64::from(n) / 10_000.0 }));
    publisher.publish_each("desk", bars).await;
    browser.until(".lines", "1.0865").await;
    browser.picture("live", 900).await;
    browser.is_for_everybody().await;
    browser.look(Theme::Dark, 390).await;
    browser.picture("live-phone", 1_300).await;

    browser.fill("[aria-label='Publish'] [name=topic]", "other").await;
    browser.click("button[value=create]").await;
    browser.until("[aria-label='Topics']", "other\\s+user").await;
    browser.click("[aria-label='Stop watching desk']").await;
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
    browser.complained_of_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_keeps_a_bounded_number_and_says_what_it_lost() {
    let feed = Feed::start("queue_size = 1").await;
    feed.topic("desk").await;
    let mut browser = open(feed.bridge.address()).await;
    watch(&mut browser, "desk").await;
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 1).await;
    feed.connect().await.publish_all("desk", 0..3_000).await;
    feed.connect().await.publish_all("desk", 3_000..3_001).await;
    browser.until(".lines", "^\\S+\\s+desk\\s+3000\\s").await;
    browser.until(WATCHED, "desk\\s*[\\d,]+ lost").await;
    let told = browser.text(WATCHED).await;
    let told = told.split_whitespace().find_map(|word| word.replace(',', "").parse::<u64>().ok());
    let stats = feed.get("/stats").await;
    assert_eq!(stats["topics"]["desk"]["dropped"].as_u64(), told);
    let lines = browser.text(".lines li time").await.lines().count();
    assert!(lines <= 200, "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_comes_again_and_shows_nothing_twice() {
    let feed = Feed::start("").await;
    feed.topic("desk").await;
    let mut publisher = feed.connect().await;
    let cutter = Cutter::before(feed.bridge.address()).await;
    let mut browser = open(cutter.address()).await;
    watch(&mut browser, "desk").await;
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 1).await;
    publisher.publish_all("desk", 0..3).await;
    browser.until(".lines", "^\\S+\\s+desk\\s+2\\s").await;
    cutter.set_down(true);
    feed.until("/stats", |stats| stats["totals"]["subscribers"] == 0).await;
    publisher.publish_all("desk", 3..6).await;
    browser.until(".link", "reconnecting|connecting").await;
    cutter.set_down(false);
    browser.until(".lines", "^\\S+\\s+desk\\s+5\\s").await;
    let payloads: Vec<String> =
        browser.text(".lines .payload").await.lines().map(str::to_owned).collect();
    assert_eq!(payloads, ["5", "4", "3", "2", "1", "0"]);
    browser.until(".link", "^live$").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_token_gets_in_by_the_keyboard_and_nobody_else() {
    let feed = Feed::with_token("s3cret?>~+/").await;
    let mut browser = open(feed.bridge.address()).await;
    browser.until(".link", "^locked$").await;
    browser.fill("[name=token]", "wrong").await;
    browser.press("Enter").await;
    browser.until("[role=alert]", "This is not the token").await;
    browser.is_for_everybody().await;
    browser.fill("[name=token]", "s3cret?>~+/").await;
    browser.press("Enter").await;
    browser.until(".link", "^live$").await;
    let mut reached = Vec::new();
    while !reached.iter().any(|name: &String| name == "/docs") {
        browser.press("Tab").await;
        reached.push(browser.focused().await);
        assert!(reached.len() < 40, "{reached:?}");
    }
    for name in ["Watch", "from before", "Pause", "Watch candles", "Topic", "Message", "Publish"] {
        assert!(reached.iter().any(|at| at.trim() == name), "{name}: {reached:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_are_a_page_for_everybody() {
    let feed = Feed::with_token("secret").await;
    let url = format!("http://{}/docs", feed.bridge.address());
    let mut browser = Browser::of(&url, "secret").await;
    browser.until("h1", "What can be asked of this bridge").await;
    browser.is_for_everybody().await;
    browser.click("#publish summary").await;
    browser.until("#publish", "All are durable").await;
    browser.is_for_everybody().await;
    browser.picture("docs", 900).await;
    browser.complained_of_nothing().await;
}
