//! The subscriptions of one connection, and what of them makes the next chunk.
//!
//! A record that several patterns match comes once: the server gives each message to one member of
//! a queue group, whatever pattern made it a member (tested; plain subscriptions would bring it
//! several times). So nothing may be skipped here but what another *group* brings. Must never
//! wait for more than the first message: what is ready is taken, up to a bound.

use std::task::{Context, Poll};

use anyhow::Context as _;
use async_nats::{Client, Message};

use super::channels::Channels;
use crate::record::{Chunk, NewRecord};
use crate::subject::SubjectPattern;

/// One chunk takes at most so many records (as one poll of Kafka does) …
pub(super) const CHUNK_RECORDS: usize = 1_000;
/// … and, in bytes, so much; one larger message still goes through.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

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

/// The subscriptions of one connection.
#[derive(Debug)]
pub(super) struct Subscriptions {
    channels: Channels,
    elsewhere: Vec<SubjectPattern>,
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
        let mut channels = Channels::default();
        for (key, pattern) in patterns.into_iter().enumerate() {
            let subscriber = client
                .queue_subscribe(pattern.as_str().to_owned(), queue_group.clone())
                .await
                .with_context(|| format!("subscribing to {pattern} in group {queue_group:?}"))?;
            channels.push(key, subscriber);
        }
        let waiting = Vec::with_capacity(CHUNK_RECORDS);
        Ok(Self { channels, elsewhere, waiting, waiting_bytes: 0, skipped: 0 })
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
        let Self { channels, elsewhere, waiting, waiting_bytes, skipped } = self;
        channels.poll_each(cx, |taken| {
            if let Some((_, message)) = taken {
                if elsewhere.iter().any(|other| other.matches(&message.subject)) {
                    *skipped += 1;
                } else {
                    *waiting_bytes += message.length;
                    waiting.push(message);
                }
            }
            waiting.len() + *skipped < messages && *waiting_bytes < CHUNK_BYTES
        })
    }

    /// Copies out what waits: a payload would keep a read buffer of 64 KiB alive.
    fn chunk(&mut self) -> Chunk {
        let now = jiff::Timestamp::now().as_millisecond();
        let mut chunk = Chunk::with_capacity(now, self.waiting.len(), self.waiting_bytes);
        for message in self.waiting.drain(..) {
            push(&mut chunk, &message, NewRecord::default());
        }
        self.waiting_bytes = 0;
        chunk
    }

    /// Asks the server to deliver no more; see [`Channels::end`].
    pub(super) async fn end(&mut self) {
        self.channels.end().await;
    }

    /// Ends them. What waits here was not handed over, and is not going to be.
    pub(super) fn close(&mut self) {
        self.channels.close();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.skipped = 0;
    }
}

/// Copies a message into the chunk; `record` says what else is known of it.
pub(super) fn push(chunk: &mut Chunk, message: &Message, record: NewRecord<'_>) {
    let record = NewRecord { subject: &message.subject, payload: Some(&message.payload), ..record };
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let headers = headers.flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| (name, value.as_str().as_bytes()))
    });
    chunk.push(record, headers);
}
