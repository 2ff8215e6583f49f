//! Somebody outside who is told something over HTTP, and fails as such do, by script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bridge::PATIENCE;

/// How the receiver treats a request. When its script is at its end, all is well.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Status(u16),
    /// Not now: so many seconds later.
    Later(u16),
    /// All is well for this path; there is nothing at any other.
    Only(&'static str),
    /// The request is taken, and never answered.
    Hang,
    /// The connection ends instead of an answer.
    Close,
}

/// A request that came, with its head in lower case.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Came {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    came: mpsc::Receiver<Came>,
    _server: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, came) = mpsc::channel(64);
        let mut script = VecDeque::from(script.to_vec());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let reply = script.pop_front().unwrap_or(Reply::Status(200));
                open.spawn(serve(stream, reply, sender.clone()));
            }
        });
        Self { address, came, _server: server }
    }

    pub(crate) async fn next(&mut self) -> Came {
        timeout(PATIENCE, self.came.recv()).await.expect("a request comes").unwrap()
    }

    pub(crate) async fn quiet_for(&mut self, time: Duration) {
        let came = timeout(time, self.came.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

async fn serve(stream: TcpStream, reply: Reply, came: mpsc::Sender<Came>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap() == 0 {
            return; // a connection that was not needed
        }
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    came.send(Came { head: head.clone(), body }).await.unwrap();
    let asked = head.lines().next().unwrap();
    let code = match reply {
        Reply::Hang => std::future::pending().await,
        Reply::Close => return,
        Reply::Status(code) => code,
        Reply::Later(_) => 429,
        Reply::Only(path) if asked.contains(path) => 200,
        Reply::Only(_) => 404,
    };
    // As many servers do, with what they were asked for.
    let body = format!("sorry, cannot {asked}");
    let length = body.len();
    let later = match reply {
        Reply::Later(seconds) => format!("retry-after: {seconds}\r\n"),
        _ => String::new(),
    };
    let answer = format!(
        "HTTP/1.1 {code} Said\r\nlocation: http://127.0.0.1:9/\r\n{later}\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}
