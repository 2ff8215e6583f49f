//! The stream: what it says at first, then once a second; how many may watch; how it ends.

use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;

use super::*;
use crate::http::stream::WATCHERS;

struct Watching {
    lines: BufReader<TcpStream>,
    head: String,
}

impl Watching {
    async fn start(bridge: &Running) -> Self {
        let mut stream = TcpStream::connect(bridge.address).await.unwrap();
        let request = "GET /health/stream HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut watching = Self { lines: BufReader::new(stream), head: String::new() };
        loop {
            let line = watching.line().await.expect("a head");
            if line == "\r\n" {
                return watching;
            }
            watching.head += &line.to_ascii_lowercase();
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(SOON, self.lines.read_line(&mut line)).await.expect("in time").unwrap();
        (read > 0).then_some(line)
    }

    /// The next event's name and what it says; None at the end.
    async fn event(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let line = self.line().await?;
            if let Some(text) = line.strip_prefix("event: ") {
                text.trim().clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(text).unwrap()));
            }
        }
    }

    async fn status(&mut self) -> Value {
        let (name, said) = self.event().await.unwrap();
        assert_eq!(name, "status");
        said
    }
}

#[tokio::test]
async fn it_begins_with_what_was_and_goes_on_with_what_is() {
    let bridge = Running::plain().await;
    let mut watching = Watching::start(&bridge).await;
    assert!(watching.head.contains("content-type: text/event-stream"), "{}", watching.head);
    assert!(watching.head.contains("cache-control: no-store"), "{}", watching.head);
    // An old connection would be cut in the middle of a later stream.
    assert!(watching.head.contains("connection: close"), "{}", watching.head);
    let (name, history) = watching.event().await.unwrap();
    assert_eq!((name.as_str(), &history["samples"][0]["held"]), ("history", &Value::from(812)));
    assert_eq!(watching.event().await.unwrap().0, "config");
    let first = watching.status().await;
    assert_eq!(first["health"]["metrics"]["backpressure"]["current_buffer"], 812);
    assert_eq!(first["verdict"]["word"], "Healthy");
    let letter = &first["letters"][0];
    assert_eq!((&letter["why"], &letter["offset"]), (&"no valid JSON".into(), &4_711.into()));
    bridge.publish(|s| {
        s.backpressure.active = true;
        s.config.hash = "another".into();
    });
    let (name, _) = watching.event().await.unwrap();
    assert_eq!(name, "config", "it has changed");
    let second = watching.status().await;
    assert_eq!(second["verdict"]["word"], "Paused");
    assert_eq!(second["sample"]["paused"], true);
    bridge.stopped().await;
    while let Some((name, _)) = watching.event().await {
        assert_eq!(name, "status", "then it ends, well");
    }
}

#[tokio::test]
async fn so_many_may_watch_and_who_goes_makes_room() {
    let bridge = Running::plain().await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        watching.push(Watching::start(&bridge).await);
    }
    let refusal = bridge.get("/health/stream").await;
    assert_eq!(refusal.code, 503);
    assert!(refusal.head.contains("retry-after: "), "{}", refusal.head);
    assert_eq!(bridge.code("/health").await, 200, "the others are served");
    watching.pop();
    let room = async {
        while !Watching::start(&bridge).await.head.contains("200 ok") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, room).await.unwrap();
}
