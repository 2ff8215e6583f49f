//! A client by another library than the server's handlers: tokio-tungstenite, as a program would
//! use it. Every wait is under a time-out.

use std::net::SocketAddr;
use std::ops::Range;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::bridge::PATIENCE;

pub(super) struct Client {
    socket: WebSocketStream<TcpStream>,
    asked: u64,
}

/// Small, so that what a client does not read waits at the server and not on the way.
const RECEIVE_BUFFER: u32 = 4 * 1024;

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, address, &[]).await.unwrap()
    }

    /// One that takes little at a time.
    pub(super) async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        Self::over(socket.connect(address).await.unwrap(), address, &[]).await.unwrap()
    }

    /// With these headers; else the status that it was refused with.
    pub(super) async fn with(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, address, headers).await
    }

    async fn over(
        stream: TcpStream,
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match timeout(PATIENCE, client_async(request, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(Self { socket, asked: 0 }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        timeout(PATIENCE, self.socket.send(message)).await.unwrap()
    }

    /// The next message; the code, if there was one, when it was closed.
    pub(super) async fn next(&mut self) -> Result<Json, Option<u16>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a message in time") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|f| f.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// Sends a request under a name of its own, and gives its answer; events that come meanwhile are
    /// not wanted.
    pub(super) async fn ask(&mut self, mut message: Json) -> Json {
        self.asked += 1;
        let id = json!(format!("r{}", self.asked));
        message["request_id"] = id.clone();
        self.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let answer = self.next().await.unwrap();
            if answer["request_id"] == id {
                return answer;
            }
        }
    }

    pub(super) async fn publish(&mut self, topic: &str, payload: &Json) -> Json {
        self.ask(message(topic, payload)).await
    }

    /// Publishes numbers as fast as it can, and waits until all were taken.
    pub(super) async fn publish_all(&mut self, topic: &str, numbers: Range<u64>) {
        self.publish_each(topic, numbers.map(|n| json!(n))).await;
    }

    pub(super) async fn publish_each(&mut self, topic: &str, payloads: impl Iterator<Item = Json>) {
        let mut waiting = 0;
        for payload in payloads {
            self.send(Message::text(message(topic, &payload).to_string())).await.unwrap();
            waiting += 1;
            while waiting > 64 {
                waiting -= usize::from(self.acked().await);
            }
        }
        while waiting > 0 {
            waiting -= usize::from(self.acked().await);
        }
    }

    async fn acked(&mut self) -> bool {
        let message = self.next().await.unwrap();
        assert_ne!(message["type"], "error", "{message}");
        message["type"] == "ack"
    }

    /// All until one of which this is true.
    pub(super) async fn until(&mut self, last: impl Fn(&Json) -> bool) -> Vec<Json> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().await.unwrap());
            if last(all.last().unwrap()) {
                return all;
            }
        }
    }

    /// The payloads of so many events, and nothing else comes between.
    pub(super) async fn payloads(&mut self, count: usize) -> Vec<u64> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let message = self.next().await.unwrap();
            assert_eq!(message["type"], "event", "{message}");
            all.push(message["message"]["payload"].as_u64().unwrap());
        }
        all
    }

    /// All until it was closed, and the code of that.
    pub(super) async fn until_closed(&mut self) -> (Vec<Json>, Option<u16>) {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Ok(message) => all.push(message),
                Err(code) => return (all, code),
            }
        }
    }
}

fn message(topic: &str, payload: &Json) -> Json {
    let message =
        json!({ "id": uuid::Uuid::from_u128(rand::random()).to_string(), "payload": payload });
    json!({ "type": "publish", "topic": topic, "message": message })
}

/// The payloads of the events among messages.
pub(super) fn payloads(messages: &[Json]) -> Vec<u64> {
    let events = messages.iter().filter(|message| message["type"] == "event");
    events.map(|event| event["message"]["payload"].as_u64().unwrap()).collect()
}

/// Whether all that is expected is there.
pub(super) fn has(found: &Json, expected: &Json) -> bool {
    match expected {
        Json::Object(members) => members.iter().all(|(key, value)| has(&found[key], value)),
        value => found == value,
    }
}

/// Server-sent events.
pub(super) struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    pub(super) async fn open(url: &str) -> Self {
        let client: Http<_, Body> = Http::builder(TokioExecutor::new()).build_http();
        let response = client.get(Request::get(url).body(()).unwrap().uri().clone());
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let body = Body::new(response.into_body()).into_data_stream();
        Self { body, text: String::new() }
    }

    pub(super) async fn next(&mut self) -> Json {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.strip_prefix("data: ").map(str::to_owned);
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return serde_json::from_str(&data).unwrap();
                }
                continue;
            }
            let part = timeout(PATIENCE, self.body.next()).await.unwrap().unwrap().unwrap();
            self.text.push_str(str::from_utf8(&part).unwrap());
        }
    }
}
