//! `POST /topics/{name}/messages`: who may, what a body may be. What becomes of records is shown
//! with a pipeline behind it (`tests/it/publish.rs`).

use tokio::sync::mpsc;

use super::*;
use crate::credits::{Credits, Gate};
use crate::receipt::Outcome;
use crate::source::{Delivery, SourceEvent, SourceId, connect};

/// With a pipeline that has room for 50 records and stores each, at once unless it is said otherwise.
struct Taking {
    bridge: Running,
    _tasks: JoinSet<()>,
}

async fn taking(token: Option<&str>, without_token: bool) -> Taking {
    let publish = config::Publish { without_token, ..live::small_limits() };
    storing_after(Duration::ZERO, token, publish, Limits::default()).await
}

async fn storing_after(
    delay: Duration,
    token: Option<&str>,
    limits: config::Publish,
    server: Limits,
) -> Taking {
    let (publisher, hall) = live::connect(&limits);
    let (sender, mut events) = mpsc::channel(4);
    let (handle, port) = connect(SourceId(0), "live", Delivery::Offered, sender);
    let gate = Gate::from(Arc::new(Credits::new(50, 50)));
    let running = live::start(hall, &["a".to_owned()].into(), port, gate);
    let Some((_, SourceEvent::Assigned(_))) = events.recv().await else { panic!("no partition") };
    while !publisher.takes("a") {
        tokio::task::yield_now().await;
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _kept = (handle, running);
        while let Some((_, event)) = events.recv().await {
            if let SourceEvent::Records(chunk) = event {
                chunk.tell(Outcome::Admitted, chunk.len());
                tokio::time::sleep(delay).await;
                chunk.tell(Outcome::Inserted, chunk.len());
            }
        }
    });
    let config = config::Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: token.map(SecretString::from),
        token_file: None,
        tls: None,
    };
    let access = Access::new(&config).unwrap();
    let bridge = Running::taking(server, access, closed_door(), publisher).await;
    Taking { bridge, _tasks: tasks }
}

impl Taking {
    async fn post(&self, more: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "POST /topics/a/messages?durable=true HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/x-ndjson\r\n{more}content-length: {length}\r\n\r\n"
        );
        self.bridge.ask(&format!("{head}{body}")).await
    }
}

#[tokio::test]
async fn publishing_needs_the_token_or_a_word_that_it_needs_none() {
    const WITH: &str = "authorization: Bearer s3cret\r\n";
    let closed = taking(None, false).await.post("", "1\n").await;
    assert_eq!((closed.code, closed.body.contains("http.token")), (403, true), "{closed:?}");
    assert_eq!(taking(None, true).await.post("", "1\n").await.code, 200);
    let guarded = taking(Some("s3cret"), true).await;
    assert_eq!(guarded.post("", "1\n").await.code, 401, "a token that is there is asked for");
    assert_eq!(guarded.post(WITH, "1\n").await.code, 200);
}

#[tokio::test]
async fn the_answer_says_how_far_it_got() {
    let taking = taking(None, true).await;
    let all = taking.post("", "{\"n\":1}\n\n{\"n\":2}\n").await.json();
    assert_eq!(
        (&all["offered"], &all["inserted"], &all["durable"]),
        (&2.into(), &2.into(), &true.into())
    );
    assert_eq!(all.get("next_line"), None);
    let some = taking.post("", &"\n1\n".repeat(60)).await;
    assert_eq!(some.code, 429, "48 credits are left");
    assert!(some.head.contains("retry-after: 1"), "{}", some.head);
    let some = some.json();
    assert_eq!((&some["accepted"], &some["next_line"]), (&48.into(), &98.into()), "{some}");
    let none = taking.post("", "1\n").await;
    assert_eq!((none.code, none.json().get("accepted").cloned()), (429, None));
}

#[tokio::test]
async fn a_body_that_is_none_or_too_much_is_refused() {
    let taking = taking(None, true).await;
    assert_eq!(taking.post("", "\n \n").await.code, 400);
    let many = taking.post("", &"1\n".repeat(101)).await;
    assert_eq!((many.code, many.body.contains("at most 100 messages")), (413, true), "{many:?}");
    let announced = taking.post("", &"x".repeat(5_000)).await;
    assert_eq!(announced.code, 413);
    let chunked = format!(
        "POST /topics/a/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
         application/json\r\ntransfer-encoding: chunked\r\n\r\n1388\r\n{}\r\n0\r\n\r\n",
        "x".repeat(5_000)
    );
    assert_eq!(taking.bridge.ask(&chunked).await.code, 413);
    let get = taking.bridge.get("/topics/a/messages").await;
    assert_eq!(get.code, 405);
}

#[tokio::test]
async fn a_page_that_leads_a_name_of_its_own_here_publishes_nothing() {
    let taking = taking(None, true).await;
    let from = |host: &str, more: &str| {
        format!(
            "POST /topics/a/messages HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\
             content-type: application/json\r\ncontent-length: 1\r\n\r\n1"
        )
    };
    let evil = "origin: http://evil.example\r\n";
    for (host, more, code) in [
        ("evil.example", "", 403),
        ("evil.example", evil, 403),
        ("localhost", evil, 403),
        ("localhost", "origin: http://localhost\r\n", 202),
        ("127.0.0.1:8080", "", 202),
    ] {
        assert_eq!(taking.bridge.ask(&from(host, more)).await.code, code, "{host} {more}");
    }
}

#[tokio::test]
async fn who_waits_longer_than_a_connection_gets_old_is_answered() {
    let publish = config::Publish {
        without_token: true,
        durable_timeout: Duration::from_secs(10),
        ..live::small_limits()
    };
    let server = Limits {
        connection_age: Duration::from_millis(100),
        finish: Duration::from_millis(100),
        ..Limits::default()
    };
    let taking = storing_after(Duration::from_millis(500), None, publish, server).await;
    let answer = taking
        .bridge
        .ask(
            "POST /topics/a/messages?durable=true HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
             application/json\r\ncontent-length: 1\r\n\r\n1",
        )
        .await;
    assert_eq!((answer.code, &answer.json()["inserted"]), (200, &1.into()));
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
}

#[tokio::test]
async fn who_is_heard_when_the_server_stops_is_answered() {
    let publish = config::Publish { without_token: true, ..live::small_limits() };
    let taking = storing_after(Duration::from_millis(100), None, publish, Limits::default()).await;
    let mut asking = TcpStream::connect(taking.bridge.address).await.unwrap();
    let head = "POST /topics/a/messages?durable=true HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                application/json\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n";
    asking.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    timeout(SOON, asking.read_exact(&mut begun)).await.unwrap().unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&begun));
    taking.bridge.stop.cancel();
    asking.write_all(b"1").await.unwrap();
    let mut answer = String::new();
    timeout(SOON, asking.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"inserted\":1"), "{answer}");
    taking.bridge.stopped().await;
}

#[tokio::test]
async fn those_who_dawdle_are_in_nobodys_way() {
    let taking = taking(None, true).await;
    let head = "POST /topics/a/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                application/json\r\ncontent-length: 100\r\n\r\n{";
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(taking.bridge.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(taking.post("", "1\n").await.code, 200);
}

/// Those who dawdle hold their places for ten seconds at most, and the clock is not waited for.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_in_time_is_not_waited_for() {
    let taking = taking(None, true).await;
    let head = "POST /topics/a/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                application/json\r\ncontent-length: 100\r\n\r\n{\"n\":";
    let began = Instant::now();
    let mut slow = TcpStream::connect(taking.bridge.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = timeout(SOON * 2, slow.read_exact(&mut answer)).await;
    read.expect("it is answered").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(taking.post("", "1\n").await.code, 200, "its place is free again");
}
