//! From records to messages: one task, which may be late, and never holds up the owner.
//!
//! A route that nobody listens to costs it the keeping of references. One with `live_key` is
//! always written, because its sub-topics are known by what its records say.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::event::{self, Writer};
use super::hub::Live;
use super::protocol::{self, Text};
use super::rows::Rows;
use super::topic::Topic;
use crate::decode::Source;
use crate::record::Chunk;

/// What was admitted of one chunk.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) chunk: Arc<Chunk>,
    pub(super) parts: Vec<Part>,
    pub(super) load: Load,
}

/// What is between the owner and the feed: room for so many bytes, whatever the number of chunks.
///
/// The feed looks whether anything found no room after it has made some, and the owner says so after
/// it found none. One order for all of it: so what is lost last is not overlooked.
#[derive(Debug, Default)]
pub(super) struct Way {
    bytes: AtomicUsize,
    overrun: AtomicBool,
}

impl Way {
    /// If there is room for it; one alone may be larger.
    pub(super) fn load(self: &Arc<Self>, bytes: usize, most: usize) -> Option<Load> {
        let fits = |there: usize| (there == 0 || there + bytes <= most).then_some(there + bytes);
        self.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok()?;
        Some(Load { of: Arc::clone(self), bytes })
    }

    /// Something found no room.
    pub(super) fn overran(&self) {
        self.overrun.store(true, Ordering::SeqCst);
    }

    /// Whether anything did since this was asked before.
    fn has_overrun(&self) -> bool {
        self.overrun.swap(false, Ordering::SeqCst)
    }
}

/// What is on its way to the feed.
#[derive(Debug)]
pub(super) struct Load {
    of: Arc<Way>,
    bytes: usize,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Of these, what is of one route.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) topic: Arc<Topic>,
    pub(super) key: Option<Arc<Source>>,
    pub(super) rows: Rows,
}

impl Part {
    /// Its rows, and none are left.
    pub(super) fn take(&mut self) -> Self {
        let (topic, key) = (Arc::clone(&self.topic), self.key.clone());
        Self { topic, key, rows: std::mem::take(&mut self.rows) }
    }
}

/// The task's end of the feed.
#[derive(Debug)]
pub struct Feed {
    live: Arc<Live>,
    batches: mpsc::Receiver<Batch>,
    way: Arc<Way>,
    writer: Writer,
    /// Sub-topics by name; no more than there are topics.
    by_key: HashMap<String, Arc<Topic>>,
}

impl Feed {
    pub(super) fn new(live: Arc<Live>, batches: mpsc::Receiver<Batch>, way: Arc<Way>) -> Self {
        Self { live, batches, way, writer: Writer::new(), by_key: HashMap::new() }
    }

    /// Runs until the owner has ended.
    pub async fn run(mut self) {
        while let Some(Batch { chunk, parts, load }) = self.batches.recv().await {
            for Part { topic, key, rows } in parts {
                if let Some(key) = key {
                    self.feed_keyed(&chunk, &topic, &key, &rows).await;
                } else if let Err(rows) = topic.pass(&chunk, rows, Instant::now()) {
                    self.feed(&chunk, &topic, &rows).await;
                }
            }
            drop(load);
            if self.way.has_overrun() {
                self.live.tell_overruns();
            }
        }
    }

    async fn feed(&mut self, chunk: &Chunk, topic: &Topic, rows: &Rows) {
        let mut rows = rows.iter().peekable();
        let mut texts = Vec::new();
        while rows.peek().is_some() {
            let (turn, ts) = (topic.turn(), now());
            let mut bytes = 0;
            while texts.len() < turn.messages
                && bytes < turn.bytes
                && let Some(row) = rows.next()
            {
                let text = self.writer.event(&topic.name, &chunk.record(row), &ts);
                bytes += text.as_ref().map_or(0, Text::len);
                texts.extend(text);
            }
            publish(topic, &texts);
            texts.clear();
            tokio::task::yield_now().await;
        }
    }

    /// Written under the name of the sub-topic, for those who listen to it and for those who listen
    /// to the whole.
    async fn feed_keyed(&mut self, chunk: &Chunk, topic: &Topic, key: &Source, rows: &Rows) {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let (turn, ts) = (topic.turn(), now());
            let (mut messages, mut bytes) = (0, 0);
            while messages < turn.messages
                && bytes < turn.bytes
                && let Some(row) = rows.next()
            {
                let record = chunk.record(row);
                let sub = event::key(key, &record).and_then(|key| self.sub_topic(topic, &key));
                let name = sub.as_ref().map_or(&topic.name, |sub| &sub.name);
                let Some(text) = self.writer.event(name, &record, &ts) else { continue };
                (messages, bytes) = (messages + 1, bytes + text.len());
                if let Some(sub) = &sub {
                    publish(sub, std::slice::from_ref(&text));
                }
                publish(topic, &[text]);
            }
            tokio::task::yield_now().await;
        }
    }

    fn sub_topic(&mut self, topic: &Topic, key: &str) -> Option<Arc<Topic>> {
        let name = format!("{}/{key}", topic.name);
        if let Some(known) = self.by_key.get(&name).filter(|known| !known.is_deleted()) {
            return Some(Arc::clone(known));
        }
        let found = self.live.by_key(&name)?;
        if self.by_key.len() >= self.live.settings.max_topics {
            self.by_key.retain(|_, known| !known.is_deleted());
        }
        self.by_key.insert(name, Arc::clone(&found));
        Some(found)
    }
}

/// Nobody is told of a topic that is gone.
fn publish(topic: &Topic, texts: &[Text]) {
    let _gone: Option<_> = topic.publish(texts, Instant::now());
}

fn now() -> String {
    protocol::timestamp(jiff::Timestamp::now())
}
