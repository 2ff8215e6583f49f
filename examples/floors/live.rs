//! Publishers and subscribers of the live feed, cheap enough to run beside it: one thread, frames
//! written and found by hand, nothing parsed that is only counted.
//!
//! A message carries the moment at which it was due, so that one that was sent late counts as old.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, interval_at, sleep, timeout};

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(5);
/// Without a rate: of one publisher, messages that are not answered yet.
const WINDOW: u64 = 64;
/// Nothing that begins in it is counted: connections and code are cold.
const WARM_UP: Duration = Duration::from_secs(1);
/// For what is on its way at the end.
const LAND_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;
/// Latencies are counted in buckets of so much.
const BUCKET: Duration = Duration::from_micros(100);
const BUCKETS: usize = 100_000;

const SENT: &str = r#""sent":"#;
const DIGITS: usize = 15;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) topics: usize,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Messages a second of all publishers; 0: as fast as they are answered.
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
}

/// What was seen, by all.
struct Seen {
    began: Instant,
    published: u64,
    refused: u64,
    delivered: u64,
    dropped: u64,
    /// Of what was published after the warm-up.
    counted: u64,
    latencies: Vec<u64>,
    last: Instant,
}

type Shared = Rc<RefCell<Seen>>;

/// Runs the load against topics `bench.0`…, which must be there, and says what became of it.
pub(crate) fn run(address: &str, load: Load) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(address, load))
}

/// Attaches so many subscribers to a topic, says so, and takes what comes until it is killed.
pub(crate) fn watch(address: &str, topic: &str, subscribers: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let seen = shared();
        let mut reading = JoinSet::new();
        for _ in 0..subscribers {
            let socket = subscribed(address, topic).await?;
            reading.spawn_local(subscriber(socket, Rc::clone(&seen)));
        }
        crate::say(&json!({ "subscribers": subscribers }))?;
        while let Some(ended) = reading.join_next().await {
            ended??;
        }
        Ok(())
    })
}

fn shared() -> Shared {
    let now = Instant::now();
    Rc::new(RefCell::new(Seen {
        began: now,
        published: 0,
        refused: 0,
        delivered: 0,
        dropped: 0,
        counted: 0,
        latencies: vec![0; BUCKETS],
        last: now,
    }))
}

async fn drive(address: &str, load: Load) -> Result<Value> {
    let seen = shared();
    let mut reading = JoinSet::new();
    for n in 0..load.subscribers {
        let socket = subscribed(address, &topic(n, load)).await?;
        reading.spawn_local(subscriber(socket, Rc::clone(&seen)));
    }
    let mut sockets = Vec::new();
    for _ in 0..load.publishers {
        sockets.push(Socket::connect(address).await?);
    }
    let began = Instant::now();
    seen.borrow_mut().began = began;
    let mut publishing = JoinSet::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        publishing.spawn_local(publisher(socket, n, load, Rc::clone(&seen)));
    }
    let mut by_topic = vec![0; load.topics];
    while let Some(published) = publishing.join_next().await {
        let (topic, count) = published??;
        by_topic[topic] += count;
    }
    let wall = began.elapsed();
    let expected: u64 = (0..load.subscribers).map(|n| by_topic[n % load.topics]).sum();
    let landed = async {
        while seen.borrow().delivered + seen.borrow().dropped < expected {
            sleep(TICK).await;
        }
    };
    let all_landed = timeout(LAND_WITHIN, landed).await.is_ok();
    let delivering = seen.borrow().last.duration_since(began).max(wall);
    reading.abort_all();
    let seen = seen.borrow();
    Ok(report(&seen, expected, all_landed, wall, delivering))
}

fn report(
    seen: &Seen,
    expected: u64,
    all_landed: bool,
    wall: Duration,
    delivering: Duration,
) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let per_s = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    json!({
        "published": seen.published,
        "refused": seen.refused,
        "expected": expected,
        "delivered": seen.delivered,
        "dropped": seen.dropped,
        "all_accounted_for": all_landed,
        "seconds": wall.as_secs_f64(),
        "published_per_s": per_s(seen.published, wall),
        "delivered_per_s": per_s(seen.delivered, delivering),
        "p50_ms": quantile(seen, 500),
        "p95_ms": quantile(seen, 950),
        "p99_ms": quantile(seen, 990),
        "max_ms": quantile(seen, 1_000),
    })
}

/// In milliseconds; None if nothing was counted.
fn quantile(seen: &Seen, per_mille: u64) -> Option<f64> {
    let wanted = (seen.counted * per_mille).div_ceil(1_000).max(1);
    let mut sum = 0;
    let reaches = |count: &u64| {
        sum += count;
        sum >= wanted
    };
    let bucket = u32::try_from(seen.latencies.iter().position(reaches)?).expect("few buckets");
    Some((BUCKET * (bucket + 1)).as_secs_f64() * 1_000.0)
}

fn topic(n: usize, load: Load) -> String {
    format!("bench.{}", n % load.topics)
}

/// Sends what is due, and counts the answers. Gives its topic, and how many were taken.
async fn publisher(socket: Socket, n: usize, load: Load, seen: Shared) -> Result<(usize, u64)> {
    let began = seen.borrow().began;
    let Socket { reading, mut writing } = socket;
    let answered = Rc::new(RefCell::new(Answers::default()));
    let mut answers = JoinSet::new();
    answers.spawn_local(count_answers(reading, Rc::clone(&answered)));
    let changed = Rc::clone(&answered.borrow().changed);
    let mut frame = Frame::new(&topic(n, load), n);
    let publishers = load.publishers as u64;
    // Each at its own moment: publishers do not send in step.
    let first = TICK * u32::try_from(n)? / u32::try_from(load.publishers)?;
    let mut ticks = interval_at(began + first, TICK);
    let (mut at, mut sent, mut batch) = (Duration::ZERO, 0_u64, Vec::new());
    while at < Duration::from_secs(load.seconds) {
        let due = match load.rate {
            0 => answered.borrow().all() + WINDOW,
            rate => rate * u64::try_from(at.as_millis())? / 1_000 / publishers,
        };
        while sent < due {
            frame.write(at, sent, &mut batch);
            sent += 1;
        }
        writing.write_all(&batch).await.context("publishing")?;
        batch.clear();
        at = match load.rate {
            0 => {
                tokio::select! {
                    () = changed.notified() => {}
                    ended = answers.join_next() => return Err(no_more_answers(ended)),
                }
                began.elapsed()
            }
            // When it was due, and not when it came: what is late is late.
            _ => ticks.tick().await.duration_since(began),
        };
    }
    let all = async {
        while answered.borrow().all() < sent {
            changed.notified().await;
        }
    };
    timeout(LAND_WITHIN, all).await.context("not all messages were answered")?;
    let Answers { taken, refused, .. } = *answered.borrow();
    let mut seen = seen.borrow_mut();
    seen.published += taken;
    seen.refused += refused;
    Ok((n % load.topics, taken))
}

/// Why nobody counts answers any more.
fn no_more_answers(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error.context("waiting for answers"),
        Some(Err(error)) => error.into(),
        Some(Ok(Ok(()))) | None => anyhow!("there are no more answers"),
    }
}

#[derive(Default)]
struct Answers {
    taken: u64,
    refused: u64,
    changed: Rc<tokio::sync::Notify>,
}

impl Answers {
    fn all(&self) -> u64 {
        self.taken + self.refused
    }
}

async fn count_answers(mut reading: Frames, answers: Rc<RefCell<Answers>>) -> Result<()> {
    loop {
        reading.more().await?;
        let mut all = answers.borrow_mut();
        while let Some(text) = reading.next() {
            if text.starts_with(br#"{"type":"ack""#) {
                all.taken += 1;
            } else if text.starts_with(br#"{"type":"error""#) {
                all.refused += 1;
            }
        }
        all.changed.notify_one();
    }
}

/// A message, of which only its time and its number change.
struct Frame {
    bytes: Vec<u8>,
    number_at: usize,
    sent_at: usize,
}

impl Frame {
    /// About what a candle takes.
    fn new(topic: &str, publisher: usize) -> Self {
        let text = format!(
            r#"{{"type":"publish","topic":"{topic}","message":{{"id":"{publisher:08}-0000-4000-8000-000000000000","payload":{{"sent":{:0DIGITS$},"symbol":"EURUSD","open":1.08543,"high":1.08571,"low":1.08512,"close":1.08560,"volume":12345}}}}}}"#,
            1
        );
        let bytes = client_frame(text.as_bytes());
        let at = |what: &str| {
            let found = bytes.windows(what.len()).position(|window| window == what.as_bytes());
            found.expect("it is in it") + what.len()
        };
        let (number_at, sent_at) = (at("-4000-8000-"), at(SENT));
        Self { bytes, number_at, sent_at }
    }

    /// JSON has no number that begins with 0: the time begins with a 1.
    fn write(&mut self, at: Duration, number: u64, into: &mut Vec<u8>) {
        digits(&mut self.bytes[self.number_at..self.number_at + 12], number);
        let micros = u64::try_from(at.as_micros()).expect("a benchmark is short");
        digits(&mut self.bytes[self.sent_at + 1..self.sent_at + DIGITS], micros);
        self.bytes[self.sent_at] = b'1';
        into.extend_from_slice(&self.bytes);
    }
}

fn digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("it is a digit");
        number /= 10;
    }
}

/// A text as a client sends it: masked, by a mask that changes nothing.
fn client_frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).expect("it is short") {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).expect("below 126")),
        len => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(text);
    frame
}

async fn subscribed(address: &str, topic: &str) -> Result<Socket> {
    let mut socket = Socket::connect(address).await?;
    let ask = json!({ "type": "subscribe", "topic": topic }).to_string();
    socket.writing.write_all(&client_frame(ask.as_bytes())).await?;
    let answer = timeout(CONNECT_WITHIN, socket.reading.one()).await.context("no answer")??;
    ensure!(answer["type"] == "ack", "{topic}: {answer}");
    Ok(socket)
}

async fn subscriber(socket: Socket, seen: Shared) -> Result<()> {
    let Socket { mut reading, writing: _writing } = socket;
    let mut sent_at = None;
    loop {
        reading.more().await?;
        let mut seen = seen.borrow_mut();
        let now = Instant::now();
        let elapsed = now.duration_since(seen.began);
        seen.last = now;
        while let Some(text) = reading.next() {
            if text.starts_with(br#"{"type":"event""#) {
                seen.delivered += 1;
                // Where it was in the last message, it is in this one: the topic is the same.
                let at = sent_at.filter(|&at| is_sent(text, at)).or_else(|| find_sent(text));
                sent_at = at;
                if let Some(at) = at {
                    seen.note(text, at, elapsed);
                }
            } else if text.starts_with(br#"{"type":"info""#) {
                let info: Value = serde_json::from_slice(text)?;
                seen.dropped += info["dropped"].as_u64().unwrap_or(0);
            }
        }
    }
}

fn is_sent(text: &[u8], at: usize) -> bool {
    at >= SENT.len() && text.get(at - SENT.len()..at) == Some(SENT.as_bytes())
}

fn find_sent(text: &[u8]) -> Option<usize> {
    let found = text.windows(SENT.len()).position(|window| window == SENT.as_bytes())?;
    Some(found + SENT.len())
}

impl Seen {
    fn note(&mut self, text: &[u8], at: usize, now: Duration) {
        let Some(digits) = text.get(at + 1..at + DIGITS) else { return };
        let micros = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let sent = Duration::from_micros(micros);
        if sent < WARM_UP {
            return;
        }
        let bucket = now.saturating_sub(sent).as_micros() / BUCKET.as_micros();
        let bucket = usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1);
        self.latencies[bucket] += 1;
        self.counted += 1;
    }
}

struct Socket {
    reading: Frames,
    writing: OwnedWriteHalf,
}

impl Socket {
    async fn connect(address: &str) -> Result<Self> {
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (reading, mut writing) = stream.into_split();
        let head = format!(
            "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        writing.write_all(head.as_bytes()).await?;
        let mut frames = Frames { stream: reading, buffer: Vec::new(), at: 0 };
        timeout(CONNECT_WITHIN, frames.head()).await.context("no answer")??;
        Ok(Self { reading: frames, writing })
    }
}

/// Finds frames in what a server sends.
struct Frames {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// What is before it was taken.
    at: usize,
}

impl Frames {
    async fn head(&mut self) -> Result<()> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            self.more().await?;
            if let Some(end) = self.buffer.windows(END.len()).position(|window| window == END) {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
                self.at = end + END.len();
                return Ok(());
            }
        }
    }

    /// Reads what is there, at least something.
    async fn more(&mut self) -> Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the bridge has closed the connection");
        }
        Ok(())
    }

    /// The payload of the next whole frame; empty for one that is no text.
    fn next(&mut self) -> Option<&[u8]> {
        let bytes = &self.buffer[self.at..];
        let (kind, short) = (*bytes.first()?, usize::from(*bytes.get(1)?));
        let (head, len) = match short {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => {
                let len = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
                (10, usize::try_from(len).ok()?)
            }
            len => (2, len),
        };
        let payload = self.at + head..self.at + head + len;
        if payload.end > self.buffer.len() {
            return None;
        }
        self.at = payload.end;
        Some(if kind == 0x81 { &self.buffer[payload] } else { &[] })
    }

    /// The next text, as JSON.
    async fn one(&mut self) -> Result<Value> {
        loop {
            if let Some(text) = self.next().filter(|text| !text.is_empty()) {
                return Ok(serde_json::from_slice(text)?);
            }
            self.more().await?;
        }
    }
}
