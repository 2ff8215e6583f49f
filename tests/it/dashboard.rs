//! The page, as a person sees it: a real browser before a real bridge, in every state that it has a
//! word for. What it says is judged, not how it looks; pictures are only taken for the documents.

pub(crate) mod browser;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::bridge::{Bridge, PATIENCE};
use crate::faults::proxy::Proxy;
use crate::lab::{Lab, ORDINARY_HEARTBEAT};
use crate::receiver::{Receiver, Reply};
use crate::stack::free_port;
use browser::{Browser, Theme};

/// A small buffer, a breaker that is quick to open, and alarm after two seconds.
pub(crate) const SMALL: &str = "backpressure = { max_buffer_size = 1000, pause_threshold = 800, \
     resume_threshold = 400, warn_after = \"1s\", critical_after = \"2s\" }\n\
     writers.aggregate = { batch_rows = 100, linger = \"500ms\" }\n\
     writers.external = { batch_rows = 100, linger = \"1s\" }\n\
     shutdown.grace = \"60s\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_opened_before_anything_came_says_so_and_then_shows_all_of_it() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka nats"), ORDINARY_HEARTBEAT).await;
    let mut browser = Browser::at(&bridge).await;
    browser.word("Waiting").await;
    let why = browser.text(".headline").await;
    assert!(why.contains("Connected to kafka and nats; no record has come yet."), "{why}");
    assert!(why.contains("data-bridge check"), "{why}");
    browser.picture("empty", 900).await;

    lab.numbers_to_kafka(0..3_000, 1_000).await;
    lab.numbers_to_nats(3_000..4_000, 1_000).await;
    let bad = b"{\"n\": \"twelve <b>and</b> a half\"}";
    let sender = lab.kafka();
    sender.send(&lab.topic("numbers"), Some(2), None, Some(bad));
    sender.flush().await;
    browser.word("Healthy").await;
    let sources = "[aria-label='Sources']";
    browser.until(sources, "kafka\\s+reading, 6 partitions\\s+[\\d.,]+/s\\s+3,001\\s").await;
    browser.until(sources, "nats\\s+reading\\s+[\\d.,]+/s\\s+1,000\\s").await;
    browser.until("[aria-label='Writers']", "aggregate\\s+[\\d.,]+/s\\s+4,000\\s+0\\s+0\\s").await;
    let routes = browser.text("[aria-label='Routes']").await;
    assert!(routes.contains("numbers → numbers"), "{routes}");
    assert!(routes.contains("kafka at least once\nnats at most once"), "{routes}");
    assert!(routes.contains("system → counted only"), "{routes}");
    let letters = browser.until("[aria-label='Dead letters']", "numbers").await;
    assert!(letters.contains(&format!("{} [2] @", lab.topic("numbers"))), "{letters}");
    assert!(!letters.contains("twelve"), "values may be personal: {letters}");
    let servers = browser.text("[aria-label='ClickHouse']").await;
    assert!(servers.contains("closed: inserts go") && servers.contains("answers"), "{servers}");
    browser.picture("healthy", 1_900).await;
    browser.is_for_everybody().await;
    browser.look(Theme::Dark, 1280).await;
    browser.picture("healthy-dark", 900).await;
    browser.look(Theme::Light, 390).await;
    browser.picture("healthy-phone", 1_500).await;
    browser.complained_of_nothing().await;
    bridge.stop().await;
}

/// One who watches; whoever went away a moment ago may still have its place.
async fn watcher(bridge: &Bridge) -> TcpStream {
    loop {
        let mut stream = TcpStream::connect(bridge.address()).await.unwrap();
        stream.write_all(b"GET /health/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut status = [0; b"HTTP/1.1 200".len()];
        stream.read_exact(&mut status).await.unwrap();
        if status == *b"HTTP/1.1 200" {
            return stream;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A receiver that refuses, and one page too many: the bridge itself answers all the while, with
/// nothing behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_and_a_page_too_many_are_told_as_what_they_are() {
    // It is asked a few times in the time that this may take.
    let deaf = Receiver::start(&[Reply::Status(404); 60]).await;
    let desk = Receiver::start(&[]).await;
    let closed = free_port();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n\
         [clickhouse]\nurl = 'http://127.0.0.1:{closed}'\n[http]\nlisten = '127.0.0.1:0'\n\
         [heartbeat]\ninterval = '200ms'\n[alerts.pending]\nneeds_person = '1s'\n\
         [webhooks.oncall]\nurl = 'http://{}/t0psecret'\ngroup_wait = '100ms'\n\
         [webhooks.desk]\nurl = 'http://{}/t0psecret'\ngroup_wait = '100ms'\n",
        deaf.address, desk.address
    );
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    let mut bridge = Bridge::spawn_with(dir.path().join("bridge.log"), &[file], &[]);
    bridge.listening().await;
    let mut browser = Browser::at(&bridge).await;
    let alerts = browser.until("[aria-label='Alerts']", "Alerts do not reach oncall").await;
    assert!(alerts.contains("404") && !alerts.contains("t0psecret"), "{alerts}");
    let receivers = "[aria-label='Receivers of alerts']";
    browser.until(receivers, "desk json\\s+http://127.0.0.1\\s+delivered, since").await;
    let refused = "oncall json\\s+http://127.0.0.1\\s+refused since";
    let receivers = browser.until(receivers, refused).await;
    assert!(!receivers.contains("t0psecret"), "{receivers}");
    drop(browser);

    let mut watching = Vec::new();
    for _ in 0..16 {
        watching.push(timeout(PATIENCE, watcher(&bridge)).await.expect("there is room for 16"));
    }
    let mut browser = Browser::at(&bridge).await;
    browser.word("Not live").await;
    let headline = browser.text(".headline").await;
    assert!(headline.contains("as many watch as may (16)"), "{headline}");
    drop(watching);
    browser.word("Starting").await;
    bridge.stop().await;
}

/// Without a mouse: every chart, table and fold is reached, and does what it does. A browser shows
/// the token as a password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_token_reaches_everything_by_the_keyboard_and_the_secrets_nobody() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    // a server that asks for none takes any
    let over = "nats.token = \"s3cret-s3cret\"\nhttp.token = \"s3cret-too\"\n";
    let bridge = lab.start(&lab.numbers("kafka nats"), over).await;
    let mut browser = Browser::with_token(&bridge, "s3cret-too").await;
    let sender = lab.kafka();
    let bad = b"{\"n\": \"twelve <b>and</b> a half\"}";
    sender.send(&lab.topic("numbers"), Some(2), None, Some(bad));
    sender.flush().await;
    let letters = browser.until("[aria-label='Dead letters']", "numbers").await;
    assert!(!letters.contains("twelve"), "values may be personal: {letters}");
    browser.until(".link", "^live$").await;
    let mut reached = Vec::new();
    while !reached.iter().any(|name: &String| name.contains("/health/stream")) {
        browser.press("Tab").await;
        reached.push(browser.focused().await);
        assert!(reached.len() < 60, "{reached:?}");
    }
    for name in
        ["Records held", "Lag, the", "Sources, as", "Routes, as", "Configuration", "Runbook"]
    {
        assert!(reached.iter().any(|at| at.starts_with(name)), "{name}: {reached:?}");
    }
    for _ in 0..reached.len() {
        if browser.focused().await.starts_with("Configuration") {
            break;
        }
        browser.press("Shift+Tab").await;
    }
    browser.press("Enter").await;
    let config = browser.until("details[open] pre", "pause_threshold").await;
    assert!(config.contains("[nats]") && !config.contains("s3cret"), "{config}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_clickhouse_that_is_down_to_the_end_and_back_the_page_says_what_is() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    let over = format!(
        "{SMALL}http.listen = \"127.0.0.1:{}\"\nclickhouse.url = \"{}\"\n\
         breaker = {{ max_failures = 3, reset_timeout = \"2s\" }}\n",
        free_port(),
        proxy.url(),
    );
    let config = lab.numbers("kafka nats");
    let mut bridge = lab.start(&config, &over).await;
    let mut browser = Browser::at(&bridge).await;
    lab.numbers_to_kafka(0..300, 1_000).await;
    browser.word("Healthy").await;

    proxy.set_down(true);
    lab.numbers_to_nats(300..500, 1_000).await;
    browser.word("ClickHouse unavailable").await;
    let headline = browser.text(".headline").await;
    assert!(headline.contains("inserts in a row failed"), "{headline}");
    assert!(headline.contains("Bring ClickHouse back."), "{headline}");
    browser
        .until("[aria-label='ClickHouse']", "open: .*; (the next try at|a try is under way)")
        .await;
    browser.picture("clickhouse-down", 900).await;
    opens_the_runbook(&mut browser, "breaker_open").await;

    lab.numbers_to_nats(500..2_000, 1_000).await;
    browser.until("[aria-label='Sources']", "nats\\s+paused").await;
    browser.until("[aria-label='Alerts']", "Backpressure active for").await;
    browser.until(".since", "critical").await;
    let drops = browser.until("[aria-label='Dropped']", "nats, class market").await;
    assert!(drops.contains("numbers."), "{drops}");
    browser.picture("critical", 1_250).await;
    browser.is_for_everybody().await;

    bridge.signal("TERM");
    browser.word("Draining").await;
    browser.until(".headline", "[\\d,]+ records are still on their way").await;
    browser.picture("draining", 900).await;
    proxy.set_down(false);
    assert_eq!(bridge.ended(PATIENCE).await, 0, "{}", bridge.log_tail());
    browser.word("No answer").await;
    browser.until(".link", "^reconnecting$").await;
    browser.picture("no-answer", 900).await;

    let bridge = lab.start(&config, &over).await;
    browser.word("Waiting").await;
    browser.until(".link", "^live$").await;
    browser.until(".chart.tall .note", "no data").await;
    browser.complained_of_nothing().await;
    bridge.stop().await;
}

/// More than ClickHouse takes, without its being away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_says_how_full_it_is_and_ends_on_the_page_too() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    // a server that has no room answers, and is not away
    let patient = "breaker.max_failures = 100_000";
    let over = format!("{SMALL}clickhouse.url = \"{}\"\n{patient}\n", proxy.url());
    let over = over.replace("critical_after = \"2s\"", "critical_after = \"10m\"");
    let over = over.replace("warn_after = \"1s\"", "warn_after = \"9m\"");
    let bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    let mut browser = Browser::at(&bridge).await;
    lab.numbers_to_kafka(0..300, 1_000).await;
    browser.word("Healthy").await;
    proxy.set_room(0);
    lab.numbers_to_nats(300..2_000, 1_000).await;
    browser.word("Paused").await;
    let headline = browser.text(".headline").await;
    assert!(headline.contains("of at most 1,000 records are held"), "{headline}");
    assert!(headline.contains("resumes by itself below 400"), "{headline}");
    browser.until(".chart.tall .note", "paused").await;
    browser.until(".since", "for ([3-9]|\\d\\d) s").await;
    browser.picture("paused", 900).await;
    proxy.set_room(2);
    browser.word("Healthy").await;
    browser.until(".tiles", "pauses\\s+1\\s").await;
    bridge.stop().await;
}

/// CPU seconds that it has used.
fn cpu_seconds(bridge: &Bridge) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", bridge.pid())).unwrap();
    // behind the name, which may contain anything: the 14th and 15th field of all, in ticks
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / 100.0
}

/// The cores that it uses, over so many seconds; `/metrics` is scraped as Prometheus does.
async fn cores(bridge: &Bridge, seconds: u32) -> f64 {
    let before = cpu_seconds(bridge);
    for second in 0..seconds {
        if second % 15 == 0 {
            bridge.metrics().await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    (cpu_seconds(bridge) - before) / f64::from(seconds)
}

/// At rest, beside the same bridge in the same minute that nobody watches. It is the unoptimised
/// build: the release takes less. What else the machine has to do gets into both halves of a minute,
/// not always the same: what watching costs shows in each of three attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_watches_costs_under_a_hundredth_of_a_core() {
    const SECONDS: u32 = 30;
    const ATTEMPTS: u32 = 3;
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let bridge = lab.start(&lab.profile("kafka nats"), ORDINARY_HEARTBEAT).await;
    cores(&bridge, 5).await;
    let mut least = f64::INFINITY;
    for _ in 0..ATTEMPTS {
        let alone = cores(&bridge, SECONDS).await;
        let mut browser = Browser::at(&bridge).await;
        browser.until(".link", "^live$").await;
        let watched = cores(&bridge, SECONDS).await;
        assert!(connections(&bridge) > 0, "it is watched");
        let costs = watched - alone;
        let said = format!("alone {alone:.4} of a core, watched {watched:.4}, the page {costs:.4}");
        // past the test runner, which hides what a test that passes prints
        std::io::Write::write_all(&mut std::io::stderr().lock(), format!("{said}\n").as_bytes())
            .unwrap();
        least = least.min(costs);
        if least < 0.01 {
            break;
        }
        browser.leave().await;
        until_nobody_is_connected(&bridge).await;
    }
    assert!(least < 0.01, "the page costs {least:.4} of a core at least");
    bridge.stop().await;
}

/// Connections that are open at the bridge's end.
fn connections(bridge: &Bridge) -> usize {
    let port = format!(":{:04X}", bridge.address().port());
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", bridge.pid())).unwrap();
    let open = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // established, or closed by the other side only
        fields[1].ends_with(&port) && ["01", "08"].contains(&fields[3])
    });
    open.count()
}

/// The page's stream is gone.
async fn until_nobody_is_connected(bridge: &Bridge) {
    let began = Instant::now();
    while connections(bridge) > 0 {
        assert!(began.elapsed() < PATIENCE, "who left is still connected");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The entry that the headline names is in the page, folded until it is asked for.
async fn opens_the_runbook(browser: &mut Browser, anchor: &str) {
    let entry = format!("#{anchor}");
    assert!(!browser.is_visible(&entry).await);
    let link = format!("runbook: {anchor}");
    for _ in 0..60 {
        if browser.focused().await == link {
            break;
        }
        browser.press("Tab").await;
    }
    assert_eq!(browser.focused().await, link, "it is reached by the keyboard");
    browser.press("Enter").await;
    browser.until(&entry, anchor).await;
    assert!(browser.is_visible(&entry).await);
}
