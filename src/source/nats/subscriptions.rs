//! The subscriptions of one connection, and what of them makes the next chunk.
//!
//! A record that several patterns match comes once: the server gives each message to one member of
//! a queue group, whatever pattern made it a member (tested; plain subscriptions would bring it
//! several times). So nothing may be skipped here but what another *group* brings. Must never
//! wait for more than the first message: what is ready is taken, up to a bound.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use async_nats::{Client, Message, Subscriber};
use futures_util::Stream as _;

use crate::record::{Chunk, NewRecord};
use crate::subject::SubjectPattern;

/// One chunk takes at most so many records (as one poll of Kafka does) …
const CHUNK_RECORDS: usize = 1_000;
/// … and, in bytes, so much; one larger message still goes through.
const CHUNK_BYTES: usize = 1 << 20;

/// What one connection shall bring.
#[derive(Debug)]
pub(super) struct Wish {
    /// For the connection's name.
    pub role: &'static str,
    pub queue_group: String,
    pub patterns: Vec<SubjectPattern>,
    /// What another connection brings as well, by a queue group of its own: to be skipped.
    pub elsewhere: Vec<SubjectPattern>,
}

#[derive(Debug)]
struct Subscription {
    subscriber: Subscriber,
    ended: bool,
}

/// The subscriptions of one connection.
#[derive(Debug)]
pub(super) struct Subscriptions {
    all: Vec<Subscription>,
    elsewhere: Vec<SubjectPattern>,
    /// Where the next turn begins, so that a busy subject starves no other.
    turn: usize,
    /// Taken out of the channels, not yet in a chunk. Reused.
    waiting: Vec<Message>,
    waiting_bytes: usize,
    /// Taken out of the channels and skipped, since the last chunk.
    skipped: usize,
}

/// What a turn over the channels brought.
#[derive(Debug)]
pub(super) struct Taken {
    pub chunk: Chunk,
    /// Messages that came out of the channels, skipped ones among them.
    pub messages: u64,
    /// Every channel was found empty.
    pub emptied: bool,
}

impl Subscriptions {
    pub(super) async fn open(client: &Client, wish: Wish) -> anyhow::Result<Self> {
        let Wish { queue_group, patterns, elsewhere, .. } = wish;
        let mut all = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let subscriber = client
                .queue_subscribe(pattern.as_str().to_owned(), queue_group.clone())
                .await
                .with_context(|| format!("subscribing to {pattern} in group {queue_group:?}"))?;
            all.push(Subscription { subscriber, ended: false });
        }
        let waiting = Vec::with_capacity(CHUNK_RECORDS);
        Ok(Self { all, elsewhere, turn: 0, waiting, waiting_bytes: 0, skipped: 0 })
    }

    /// Waits until there is something to take. Loses nothing when it is dropped.
    pub(super) async fn ready(&mut self) {
        // Tokio's budget would make full channels look empty.
        tokio::task::unconstrained(std::future::poll_fn(|cx| {
            if self.taken() == 0 {
                self.poll_fill(cx, 1);
            }
            if self.taken() == 0 { Poll::Pending } else { Poll::Ready(()) }
        }))
        .await;
    }

    /// Takes what is there, without waiting.
    pub(super) async fn take(&mut self) -> Taken {
        let emptied = tokio::task::unconstrained(std::future::poll_fn(|cx| {
            Poll::Ready(self.poll_fill(cx, CHUNK_RECORDS))
        }))
        .await;
        let messages = self.taken() as u64;
        self.skipped = 0;
        Taken { chunk: self.chunk(), messages, emptied }
    }

    /// Messages out of the channels that no chunk has accounted for.
    fn taken(&self) -> usize {
        self.waiting.len() + self.skipped
    }

    /// Takes from the channels until `messages` were taken or every channel is empty, which it returns.
    fn poll_fill(&mut self, cx: &mut Context<'_>, messages: usize) -> bool {
        let count = self.all.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            loop {
                if self.taken() >= messages || self.waiting_bytes >= CHUNK_BYTES {
                    self.turn = (index + 1) % count;
                    return false;
                }
                let subscription = &mut self.all[index];
                if subscription.ended {
                    break;
                }
                match Pin::new(&mut subscription.subscriber).poll_next(cx) {
                    Poll::Ready(Some(message)) => self.took(message),
                    Poll::Ready(None) => subscription.ended = true,
                    Poll::Pending => break,
                }
            }
        }
        true
    }

    fn took(&mut self, message: Message) {
        if self.elsewhere.iter().any(|other| other.matches(&message.subject)) {
            self.skipped += 1;
        } else {
            self.waiting_bytes += message.length;
            self.waiting.push(message);
        }
    }

    /// Copies out what waits: a payload would keep a read buffer of 64 KiB alive.
    fn chunk(&mut self) -> Chunk {
        let now = jiff::Timestamp::now().as_millisecond();
        let mut chunk = Chunk::with_capacity(now, self.waiting.len(), self.waiting_bytes);
        for message in self.waiting.drain(..) {
            let record = NewRecord {
                subject: &message.subject,
                payload: Some(&message.payload),
                ..NewRecord::default()
            };
            let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
            let headers = headers.flat_map(|(name, values)| {
                let name: &str = name.as_ref();
                values.iter().map(move |value| (name, value.as_str().as_bytes()))
            });
            chunk.push(record, headers);
        }
        self.waiting_bytes = 0;
        chunk
    }

    /// Asks the server to deliver no more, while what is on its way still gets into the channels.
    ///
    /// The client's own `drain` and `unsubscribe` throw away what arrives before the server has
    /// read them. With a maximum the client keeps the subscription until that many have come; the
    /// server reads a maximum of more than nine digits as none at all and ends it at once. (One
    /// that took it literally would go on delivering until [`Self::close`]: counted, not lost
    /// silently.)
    pub(super) async fn end(&mut self) {
        for subscription in &mut self.all {
            if let Err(error) = subscription.subscriber.unsubscribe_after(u64::MAX).await {
                tracing::debug!(%error, "the NATS client has ended");
            }
        }
    }

    /// Ends them. What waits here was not handed over, and is not going to be.
    pub(super) fn close(&mut self) {
        self.all.clear();
        self.turn = 0;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.skipped = 0;
    }
}
