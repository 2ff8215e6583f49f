//! What is said on a socket: messages of clients, parsed, and those of the server, written. Pure.
//!
//! Each is a JSON object with a `type`. What a client calls its request (`request_id`) comes back as
//! it was written. Every message of the server has `ts`, UTC.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::flow::Strategy;

/// Of what is said of a problem, in bytes: it may have what the client sent in it, and waits until
/// it is read.
const MAX_SAID: usize = 400;
/// Of a `request_id`, as it is written, and of a `client_id`, in bytes.
const MAX_ID: usize = 128;

/// A message of the server: JSON, written once, shared by all who get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    TopicNotFound,
    SlowConsumer,
    Unauthorized,
    RateLimited,
    Internal,
}

impl Code {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::TopicNotFound => "TOPIC_NOT_FOUND",
            Self::SlowConsumer => "SLOW_CONSUMER",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Why something was not done, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub message: String,
    /// When to ask again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_SAID {
            message.truncate(message.floor_char_boundary(MAX_SAID));
            message.push('…');
        }
        Self { code, message, retry_after: None }
    }

    /// It may be asked for again after so long.
    #[must_use]
    pub fn again_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }
}

/// What a client calls its request, as it was written.
pub type RequestId<'a> = Option<&'a RawValue>;

/// What a client wants.
#[derive(Debug)]
pub enum Ask<'a> {
    Subscribe(Subscribe<'a>),
    Unsubscribe { topic: Cow<'a, str> },
    Publish(Publish<'a>),
    Ping,
}

#[derive(Debug)]
pub struct Subscribe<'a> {
    /// A name or a pattern.
    pub topic: Cow<'a, str>,
    /// So many of those that were there before.
    pub last_n: usize,
    pub client_id: Option<Cow<'a, str>>,
    pub queue_size: Option<usize>,
    pub policy: Option<Strategy>,
}

#[derive(Debug)]
pub struct Publish<'a> {
    pub topic: Cow<'a, str>,
    pub id: Uuid,
    pub payload: &'a RawValue,
    /// It waits for room at every subscriber.
    pub block: bool,
    /// The answer waits until it is in ClickHouse.
    pub durable: bool,
}

/// All that a message may have. One struct: with arbitrary precision numbers do not survive serde's
/// tagged enums.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request_id: RequestId<'a>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    last_n: Option<usize>,
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    queue_size: Option<usize>,
    #[serde(borrow)]
    policy: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<RawMessage<'a>>,
    #[serde(default)]
    block: bool,
    #[serde(default)]
    durable: bool,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Only what an answer needs, of a message that is wrong otherwise.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    request_id: RequestId<'a>,
}

/// Reads a message. What the client calls it is there also when the rest is wrong.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(text: &str) -> (RequestId<'_>, Result<Ask<'_>, Problem>) {
    let (request_id, ask) = match serde_json::from_str::<Raw<'_>>(text) {
        Ok(raw) => (raw.request_id, ask(raw)),
        Err(error) => {
            let named = serde_json::from_str::<Named<'_>>(text).ok();
            (named.and_then(|named| named.request_id), Err(Problem::bad(error.to_string())))
        }
    };
    if request_id.is_some_and(|id| !is_short(id)) {
        let text = format!("request_id: a text or a number, of at most {MAX_ID} bytes");
        return (None, Err(Problem::bad(text)));
    }
    (request_id, ask)
}

fn is_short(id: &RawValue) -> bool {
    id.get().len() <= MAX_ID && !id.get().starts_with(['{', '['])
}

fn ask(raw: Raw<'_>) -> Result<Ask<'_>, Problem> {
    let missing = |key: &str| Problem::bad(format!("{key} is missing"));
    let topic = |topic: Option<_>| topic.ok_or_else(|| missing("topic"));
    match &*raw.kind {
        "subscribe" => Ok(Ask::Subscribe(Subscribe {
            topic: topic(raw.topic)?,
            last_n: raw.last_n.unwrap_or(0),
            client_id: raw.client_id,
            queue_size: raw.queue_size,
            policy: raw.policy.as_deref().map(policy).transpose()?,
        })),
        "unsubscribe" => Ok(Ask::Unsubscribe { topic: topic(raw.topic)? }),
        "publish" => {
            let RawMessage { id, payload } = raw.message.ok_or_else(|| missing("message"))?;
            let id = id.parse().map_err(|_| Problem::bad("message.id must be a UUID"))?;
            let (block, durable) = (raw.block, raw.durable);
            Ok(Ask::Publish(Publish { topic: topic(raw.topic)?, id, payload, block, durable }))
        }
        "ping" => Ok(Ask::Ping),
        other => {
            let known = "there are subscribe, unsubscribe, publish and ping";
            Err(Problem::bad(format!("no such type: {:.40}; {known}", other)))
        }
    }
}

/// What a connection is called in logs and statistics.
///
/// # Errors
///
/// What it may be.
pub(super) fn check_client_id(id: &str) -> Result<(), Problem> {
    if !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Problem::bad(format!("client_id: 1 to {MAX_ID} printable characters")))
}

/// What gives, by its name.
///
/// # Errors
///
/// Which there are.
pub fn policy(name: &str) -> Result<Strategy, Problem> {
    match name {
        "drop_oldest" => Ok(Strategy::DropOldest),
        "drop_newest" => Ok(Strategy::DropNewest),
        "disconnect" => Ok(Strategy::Disconnect),
        _ => Err(Problem::bad(format!(
            "policy {name:.40}: there are drop_oldest, drop_newest and disconnect; to wait for \
             subscribers is for publishers to ask for (`block`)"
        ))),
    }
}

/// The time as messages have it: UTC, to the millisecond.
#[must_use]
pub fn timestamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A message on its way to those who are subscribed.
#[must_use]
pub fn event(topic: &str, id: Uuid, payload: &str, ts: &str) -> Text {
    let mut text = String::with_capacity(payload.len() + topic.len() + 128);
    begin_event(&mut text, topic, id);
    text.push_str(payload);
    end_event(&mut text, ts);
    text.into()
}

/// Up to the payload.
pub(super) fn begin_event(text: &mut String, topic: &str, id: Uuid) {
    text.push_str(r#"{"type":"event","topic":"#);
    quote(text, topic);
    text.push_str(r#","message":{"id":""#);
    text.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    text.push_str(r#"","payload":"#);
}

/// From behind the message's last value.
pub(super) fn end_event(text: &mut String, ts: &str) {
    text.push_str(r#"},"ts":""#);
    text.push_str(ts);
    text.push_str("\"}");
}

/// It was done. `more` are further members, each with its comma before it.
#[must_use]
pub fn ack(request_id: RequestId<'_>, topic: &str, more: &str, ts: &str) -> Text {
    let mut text = begin("ack", request_id);
    text.push_str(r#","topic":"#);
    quote(&mut text, topic);
    text.push_str(more);
    end(text, ts)
}

#[must_use]
pub fn error(request_id: RequestId<'_>, problem: &Problem, ts: &str) -> Text {
    let mut text = begin("error", request_id);
    text.push_str(r#","error":{"code":""#);
    text.push_str(problem.code.as_str());
    text.push_str(r#"","message":"#);
    quote(&mut text, &problem.message);
    if let Some(after) = problem.retry_after {
        write!(text, r#","retry_after_ms":{}"#, after.as_millis()).expect("a String takes it");
    }
    text.push('}');
    end(text, ts)
}

#[must_use]
pub fn pong(request_id: RequestId<'_>, ts: &str) -> Text {
    end(begin("pong", request_id), ts)
}

/// What a client is told unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info<'a> {
    /// The bridge stops: the connection ends soon.
    Shutdown,
    /// It is subscribed to it no more.
    TopicDeleted(&'a str),
    /// So many of the messages for this subscription were dropped here.
    Dropped { topic: &'a str, count: u64 },
}

#[must_use]
pub fn info(info: Info<'_>, ts: &str) -> Text {
    let mut text = begin("info", None);
    let (event, topic) = match info {
        Info::Shutdown => ("shutdown", None),
        Info::TopicDeleted(topic) => ("topic_deleted", Some(topic)),
        Info::Dropped { topic, .. } => ("dropped", Some(topic)),
    };
    text.push_str(r#","event":""#);
    text.push_str(event);
    text.push('"');
    if let Some(topic) = topic {
        text.push_str(r#","topic":"#);
        quote(&mut text, topic);
    }
    if let Info::Dropped { count, .. } = info {
        write!(text, r#","dropped":{count}"#).expect("writing to a String cannot fail");
    }
    end(text, ts)
}

fn begin(kind: &str, request_id: RequestId<'_>) -> String {
    let mut text = String::with_capacity(160);
    text.push_str(r#"{"type":""#);
    text.push_str(kind);
    text.push('"');
    if let Some(id) = request_id {
        text.push_str(r#","request_id":"#);
        text.push_str(id.get());
    }
    text
}

fn end(mut text: String, ts: &str) -> Text {
    text.push_str(r#","ts":""#);
    text.push_str(ts);
    text.push_str("\"}");
    text.into()
}

/// A text as JSON.
pub(super) fn quote(into: &mut String, text: &str) {
    into.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

#[cfg(test)]
mod tests;
