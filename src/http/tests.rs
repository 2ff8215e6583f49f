//! Real sockets, raw requests: what a stranger could send, and what a scraper gets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::history::Recorder;
use crate::live::samples::live_with;
use crate::metrics::Metrics;
use crate::metrics::samples::exposition;
use crate::reload::closed_door;
use crate::source::live;
use crate::status::samples::busy;
use crate::status::{RunStage, WEDGED_AFTER};
use crate::{alert, config};

mod admin;
pub(super) mod answer;
mod cors;
mod publish;
mod stream;
mod tls;

use answer::Answer;

/// No answer takes this long; a test that waits longer has failed.
const SOON: Duration = Duration::from_secs(10);
/// For limits that must not be reached: whoever waits for one has failed by `SOON`.
const LONG: Duration = Duration::from_secs(60);

pub(super) struct Running {
    pub(super) state: HttpState,
    address: SocketAddr,
    snapshots: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
    server: JoinSet<anyhow::Result<()>>,
}

impl Running {
    pub(super) async fn start(limits: Limits, token: Option<&str>) -> Self {
        let config = config::Http {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: token.map(SecretString::from),
            token_file: None,
            tls: None,
        };
        Self::with(limits, Access::new(&config).unwrap()).await
    }

    async fn with(limits: Limits, access: Access) -> Self {
        Self::behind(limits, access, closed_door()).await
    }

    async fn behind(limits: Limits, access: Access, door: Door) -> Self {
        Self::taking(limits, access, door, live::for_nobody()).await
    }

    async fn taking(limits: Limits, access: Access, door: Door, publisher: Publisher) -> Self {
        let (snapshots, receiver) = watch::channel(Arc::new(busy()));
        let (recorder, histories) = Recorder::new(receiver.clone());
        let (identity, live) = (Identity::new("bridge-1"), live_with(cors::ALLOWING));
        let exposition =
            exposition(Metrics::new(), receiver.clone(), identity.clone(), Arc::clone(&live));
        let state = HttpState::new(Known {
            snapshots: receiver,
            alerts: alert::none(),
            webhooks: Tallies::default(),
            histories,
            identity,
            exposition: Arc::new(exposition),
            door,
            publisher,
            live,
        });
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        let serving = stop.clone().cancelled_owned();
        server.spawn(serve(listener, state.clone(), access, limits, serving));
        let end = stop.clone().cancelled_owned();
        server.spawn(async {
            recorder.run_until(end).await;
            Ok(())
        });
        Self { state, address, snapshots, stop, server }
    }

    pub(super) async fn plain() -> Self {
        Self::start(Limits::default(), None).await
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = busy();
        change(&mut snapshot);
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    pub(super) async fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// The status alone: of some answers there is no end.
    pub(super) async fn status(&self, request: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut line = [0; "HTTP/1.1 200".len()];
        timeout(SOON, stream.read_exact(&mut line)).await.unwrap().unwrap();
        str::from_utf8(&line).unwrap()[9..].parse().unwrap()
    }

    async fn code(&self, path: &str) -> u16 {
        self.get(path).await.code
    }

    pub(super) async fn stopped(mut self) {
        self.stop.cancel();
        while let Some(ended) = timeout(SOON, self.server.join_next()).await.unwrap() {
            ended.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn health_says_what_the_snapshot_says() {
    let bridge = Running::plain().await;
    let answer = bridge.get("/health").await;
    assert_eq!(answer.code, 200);
    assert!(answer.head.contains("content-type: application/json"));
    assert!(answer.head.contains("cache-control: no-store"));
    assert_eq!(answer.json()["metrics"]["backpressure"]["current_buffer"], 812);
    bridge.publish(|s| s.backpressure.current_buffer = 41_234);
    let answer = bridge.get("/health").await.json();
    assert_eq!(answer["metrics"]["backpressure"]["current_buffer"], 41_234);
    bridge.stopped().await;
}

#[tokio::test]
async fn the_three_probes_answer_by_the_state() {
    let bridge = Running::plain().await;
    let probes = async |change: fn(&mut Snapshot)| {
        bridge.publish(change);
        let health = bridge.code("/health").await;
        [health, bridge.code("/livez").await, bridge.code("/readyz").await]
    };
    assert_eq!(probes(|_| ()).await, [200, 200, 200], "running");
    assert_eq!(probes(|s| s.stage = RunStage::Starting).await, [200, 200, 503], "starting");
    assert_eq!(probes(|s| s.backpressure.active = true).await, [200, 200, 200], "paused");
    assert_eq!(probes(|s| s.backpressure.critical = true).await, [200, 200, 200], "critical");
    assert_eq!(probes(|s| s.stage = RunStage::Draining).await, [503, 200, 503], "draining");
    assert_eq!(probes(|s| s.stage = RunStage::Stopped).await, [503, 200, 503], "stopped");
    let overdue = probes(|s| s.overdue = Some("an attempt is overdue".into())).await;
    assert_eq!(overdue, [503, 503, 503], "overdue");
    let stale = probes(|s| s.turned_at = Instant::now().checked_sub(WEDGED_AFTER * 2)).await;
    assert_eq!(stale, [503, 503, 503], "a loop that does not turn");
    let wedged = bridge.get("/health").await.json();
    assert_eq!(wedged["status"], "critical");
    assert_eq!(wedged["wedged"], "the owner loop has not turned for 120 s");
}

#[tokio::test]
async fn the_formats_of_metrics_are_negotiated() {
    let bridge = Running::plain().await;
    let classic = bridge.get("/metrics").await;
    assert!(classic.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(classic.body.contains("\ndata_bridge_buffer_records 812\n"));
    let accept = "accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1";
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{accept}\r\nconnection: close\r\n\r\n");
    let open = bridge.ask(&request).await;
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(open.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_page_is_self_contained_and_lets_no_name_break_out() {
    let bridge = Running::plain().await;
    bridge.publish(|s| s.needs_person.push("</script><script>alert(1)</script>__NONCE__".into()));
    let page = bridge.get("/").await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"));
    assert!(page.head.contains("content-security-policy: default-src 'none'"));
    assert!(!page.head.contains("unsafe"), "{}", page.head);
    assert!(page.body.contains("\"current_buffer\":812"));
    assert!(!page.body.contains("__FIRST__") && !page.body.contains("alert(1)</script>"));
    for loads in ["src=", "href=\"http", "url(http", "@import"] {
        assert!(!page.body.contains(loads), "{loads}");
    }
}

#[tokio::test]
async fn every_script_and_style_carries_a_nonce_of_its_own_answer() {
    let bridge = Running::plain().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let page = bridge.get("/").await.original;
        let nonce = page.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(nonce.len() >= 22, "{nonce}");
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        let tags = body.split("<script").skip(1).chain(body.split("<style").skip(1));
        let mut tags = tags.map(|rest| rest.split('>').next().unwrap());
        let bare = |tag: &str| !tag.contains(nonce) && !tag.contains("application/json");
        assert_eq!(tags.find(|tag| bare(tag)), None);
        nonces.push(nonce.to_owned());
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_in_json() {
    let bridge = Running::plain().await;
    let missing = bridge.get("/nothing").await;
    assert_eq!((missing.code, &missing.json()["error"]), (404, &Value::from("Not Found")));
    let post = "POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let post = bridge.ask(post).await;
    assert_eq!((post.code, &post.json()["error"]), (405, &Value::from("Method Not Allowed")));
    assert!(post.head.contains("allow: get,head"), "{}", post.head);
    let head = bridge.ask("HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    let large = "GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n";
    assert_eq!(bridge.ask(large).await.code, 413);
}

#[tokio::test]
async fn a_token_closes_all_but_the_probes() {
    let bridge = Running::start(Limits::default(), Some("s3cret")).await;
    for open in ["/health", "/livez", "/readyz"] {
        assert_eq!(bridge.code(open).await, 200, "{open}");
    }
    for closed in ["/", "/health/stream", "/metrics", "/nothing", "/health/", "//health"] {
        let refusal = bridge.get(closed).await;
        assert_eq!(refusal.code, 401, "{closed}");
        assert!(refusal.head.contains("www-authenticate: bearer"), "{closed}");
        assert!(!refusal.body.contains("s3cret"));
    }
    let with = async |authorization: &str| {
        let header = format!("authorization: {authorization}");
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{header}\r\nconnection: close\r\n\r\n");
        bridge.ask(&request).await.code
    };
    assert_eq!(with("Bearer s3cret").await, 200);
    assert_eq!(with("bearer s3cret").await, 200);
    // any:s3cret, as a browser sends it: for what it shows, and nothing else
    let basic = "authorization: Basic YW55OnMzY3JldA==";
    for (path, code) in [("/", 200), ("/health/stream", 200), ("/metrics", 401), ("/nothing", 401)]
    {
        let request =
            format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n{basic}\r\nconnection: close\r\n\r\n");
        assert_eq!(bridge.ask(&request).await.code, code, "{path}");
        let challenged = bridge.get(path).await.head.contains("www-authenticate: basic");
        assert_eq!(challenged, code == 200, "{path}");
    }
    for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer", "Basic s3cret", "s3cret"] {
        assert_eq!(with(wrong).await, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_client_that_dribbles_its_header_is_cut() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let bridge = Running::start(limits, None).await;
    let mut slow = TcpStream::connect(bridge.address).await.unwrap();
    let (mut from, mut to) = slow.split();
    let dribble = async {
        let header = "GET /health HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'a'));
        for byte in header {
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut rest = Vec::new();
    let cut = timeout(SOON, async {
        tokio::select! { _ = from.read_to_end(&mut rest) => (), () = dribble => () }
    });
    cut.await.expect("the server closes it");
    assert_eq!(bridge.code("/health").await, 200);
}

#[tokio::test]
async fn an_idle_connection_is_not_kept_for_ever() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let bridge = Running::start(limits, None).await;
    let mut stream = TcpStream::connect(bridge.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn an_old_connection_is_ended_even_when_it_is_busy() {
    let limits = Limits {
        connection_age: Duration::from_millis(300),
        finish: Duration::from_millis(200),
        ..Limits::default()
    };
    let bridge = Running::start(limits, None).await;
    let mut stream = TcpStream::connect(bridge.address).await.unwrap();
    let busy = async {
        loop {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await?;
            // Never reads: the answers pile up in the kernel until the server cannot write.
            tokio::task::yield_now().await;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        std::io::Result::Ok(())
    };
    timeout(SOON, busy).await.expect("it is ended").unwrap_err();
    assert_eq!(bridge.code("/livez").await, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let bridge = Running::start(limits, None).await;
    let first = TcpStream::connect(bridge.address).await.unwrap();
    let _second = TcpStream::connect(bridge.address).await.unwrap();
    let third = bridge.code("/livez");
    tokio::pin!(third);
    let early = timeout(Duration::from_millis(300), third.as_mut()).await;
    assert!(early.is_err(), "answered although two connections are open");
    drop(first);
    assert_eq!(timeout(SOON, third).await.unwrap(), 200);
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let bridge = Running::plain().await;
    let long = "a".repeat(100_000);
    let mut stream = TcpStream::connect(bridge.address).await.unwrap();
    let request = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n");
    // The server may close while we still write.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
}

/// Without a length nothing is announced; nobody reads it, and the client is told to stop.
#[tokio::test]
async fn a_body_without_end_is_not_read() {
    let bridge = Running::plain().await;
    let stream = TcpStream::connect(bridge.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let endless = async {
        to.write_all(b"POST /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x1_0000], b"\r\n"].concat();
        loop {
            to.write_all(&chunk).await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        std::io::Result::Ok(())
    };
    let mut answer = [0; 12];
    let (sent, _) = timeout(SOON, async { tokio::join!(endless, from.read_exact(&mut answer)) })
        .await
        .expect("it is cut");
    sent.unwrap_err();
    assert_eq!(&answer, b"HTTP/1.1 405");
    assert_eq!(bridge.code("/livez").await, 200);
}

/// 200 silent connections at a limit of 8: four of them stay, and the others are cut soon, so that
/// whoever speaks waits for 200 / 4 of these times at most.
#[tokio::test]
async fn a_crowd_that_says_nothing_does_not_lock_others_out() {
    let limits = Limits {
        connections: 8,
        header_timeout: 2 * SOON,
        crowded_header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let bridge = Running::start(limits, None).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(bridge.address).await.unwrap());
    }
    assert_eq!(timeout(SOON, bridge.code("/livez")).await.expect("it gets its turn"), 200);
}

#[tokio::test]
async fn health_answers_within_100_ms_with_thousands_of_subjects() {
    let bridge = Running::plain().await;
    bridge.publish(|s| {
        let nats = s.sources.get_mut("nats").unwrap();
        nats.dropped_subjects = (0..1_000).map(|n| (format!("market.sym{n}.1m"), n)).collect();
        nats.unrouted = nats.dropped_subjects.clone();
    });
    assert_eq!(bridge.code("/health").await, 200, "warm");
    let mut times = Vec::new();
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(bridge.code("/health").await, 200);
        times.push(asked.elapsed());
    }
    times.sort();
    // The median: this machine is shared, and a single answer may meet somebody's compiler.
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_frees_the_port() {
    let limits = Limits { finish: LONG, header_timeout: LONG, ..Limits::default() };
    let bridge = Running::start(limits, None).await;
    let address = bridge.address;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    bridge.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_for_a_stuck_client_no_longer_than_its_bound() {
    let finish = Duration::from_millis(300);
    let limits = Limits { finish, header_timeout: LONG, ..Limits::default() };
    let bridge = Running::start(limits, None).await;
    let mut half = TcpStream::connect(bridge.address).await.unwrap();
    half.write_all(b"GET /health HT").await.unwrap();
    // Nothing says when the server has read that. If it has not by then, it stops the sooner.
    tokio::time::sleep(Duration::from_millis(50)).await;
    bridge.stopped().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    let start = format!("cannot listen on {address}: address in use; set http.listen");
    assert!(error.starts_with(&start), "{error}");
}
