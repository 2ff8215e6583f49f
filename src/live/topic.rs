//! A topic: its subscribers, and the latest for those who come later.
//!
//! Owns the order: whoever publishes does it under this lock, for the time that it takes to put a
//! batch of references into queues, so that each subscriber sees the same order and a replay goes
//! over into what comes without a gap. Nothing here waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::event::Writer;
use super::mailbox::{Mailbox, QueueId};
use super::protocol::Text;
use super::rows::Rows;
use crate::config::LiveQueue;
use crate::rate::SlidingWindow;
use crate::record::Chunk;

/// A rate is a mean over so long.
const RATE_OVER: Duration = Duration::from_secs(10);
/// A chunk is copied apart when what is wanted of it is less than this share.
const SHARE_WORTH_KEEPING: usize = 4;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// What a route carries.
    Route,
    /// The same, by a key.
    Key,
    /// Made by a user.
    User,
}

impl Owner {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Key => "key",
            Self::User => "user",
        }
    }

    /// Whether its messages are those of another topic too.
    #[must_use]
    pub fn is_part(self) -> bool {
        self == Self::Key
    }
}

/// What of a topic may be wanted otherwise than by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    pub(super) queue: LiveQueue,
    /// messages
    pub(super) replay: usize,
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) owner: Owner,
    pub(super) settings: Settings,
    /// Records of it that the feed could not take in time, since it last looked.
    overrun: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The latest, the oldest first.
    latest: VecDeque<Text>,
    latest_bytes: usize,
    /// Behind them, what came while nobody listened: not written yet, because nobody may ever want
    /// it.
    unwritten: VecDeque<(Arc<Chunk>, Rows)>,
    subscribers: Vec<Subscriber>,
    messages: u64,
    dropped: u64,
    overrun: u64,
    rate: SlidingWindow,
    /// When something came.
    newest: Instant,
    deleted: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) queue: QueueId,
}

impl Subscriber {
    fn is(&self, other: &Self) -> bool {
        self.queue == other.queue && Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

/// A topic at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicStatus {
    pub name: Arc<str>,
    pub owner: Owner,
    pub messages: u64,
    /// per second, over the last ten
    pub rate: f64,
    pub subscribers: usize,
    pub replay_depth: usize,
    /// Messages that subscribers lost.
    pub dropped: u64,
    /// Records that came faster than the feed could take.
    pub overrun: u64,
}

/// What became of a message that is published only if there is room for it everywhere.
#[derive(Debug)]
pub(super) enum Offered {
    Done(Published),
    /// A subscriber has none.
    Full,
    Deleted,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    pub subscribers: usize,
    pub dropped: u64,
}

impl Topic {
    pub(super) fn new(name: Arc<str>, owner: Owner, settings: Settings, now: Instant) -> Self {
        let state = State {
            latest: VecDeque::new(),
            latest_bytes: 0,
            unwritten: VecDeque::new(),
            subscribers: Vec::new(),
            messages: 0,
            dropped: 0,
            overrun: 0,
            rate: SlidingWindow::new(RATE_OVER, now),
            newest: now,
            deleted: false,
        };
        Self { name, owner, settings, overrun: AtomicU64::new(0), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// Gives messages to all who are subscribed. None when the topic was deleted.
    pub(super) fn publish(&self, texts: &[Text], now: Instant) -> Option<Published> {
        let mut state = self.lock();
        if state.deleted {
            return None;
        }
        let lost = self.overrun.swap(0, Ordering::Relaxed);
        Some(state.publish(texts, lost, &self.settings, now))
    }

    /// The same if every subscriber has room for it.
    pub(super) fn publish_if_room(&self, text: &Text, now: Instant) -> Offered {
        let mut state = self.lock();
        if state.deleted {
            return Offered::Deleted;
        }
        let has_room = |of: &Subscriber| of.mailbox.has_room_for(of.queue, text.len());
        if !state.subscribers.iter().all(has_room) {
            return Offered::Full;
        }
        Offered::Done(state.publish(std::slice::from_ref(text), 0, &self.settings, now))
    }

    /// What comes while nobody listens: the latest are remembered, and not written. Gives the rows
    /// back if somebody does.
    pub(super) fn pass(
        &self,
        chunk: &Arc<Chunk>,
        rows: Rows,
        now: Instant,
    ) -> Result<(), Rows> {
        let mut state = self.lock();
        if !state.subscribers.is_empty() {
            return Err(rows);
        }
        let lost = self.overrun.swap(0, Ordering::Relaxed);
        state.count(rows.len(), lost, now);
        state.remember(chunk, rows, self.settings.replay);
        Ok(())
    }

    /// So many records came while the feed was busy with others.
    pub(super) fn overran(&self, records: usize) {
        self.overrun.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// From here on it gets what is published, and before it the latest `last_n`. Says how many.
    pub(super) fn attach(
        &self,
        subscriber: Subscriber,
        last_n: usize,
        writer: &mut Writer,
        ts: &str,
        now: Instant,
    ) -> usize {
        let mut state = self.lock();
        if state.deleted {
            return 0;
        }
        state.write(&self.name, &self.settings, writer, ts);
        let skipped = state.latest.len().saturating_sub(last_n);
        let replayed: Vec<Text> = state.latest.iter().skip(skipped).cloned().collect();
        let put = subscriber.mailbox.put(subscriber.queue, &replayed, 0, now);
        state.dropped += put.dropped;
        state.subscribers.push(subscriber);
        replayed.len()
    }

    /// When something came, or it was made.
    pub(super) fn latest(&self) -> Instant {
        self.lock().newest
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.lock().deleted
    }

    pub(super) fn detach(&self, subscriber: &Subscriber) {
        self.lock().subscribers.retain(|other| !other.is(subscriber));
    }

    /// Takes nothing any more. Gives back who was subscribed.
    pub(super) fn delete(&self) -> Vec<Subscriber> {
        let mut state = self.lock();
        state.deleted = true;
        (state.latest, state.unwritten) = (VecDeque::new(), VecDeque::new());
        std::mem::take(&mut state.subscribers)
    }

    pub(super) fn status(&self, now: Instant) -> TopicStatus {
        let mut state = self.lock();
        let unwritten: usize = state.unwritten.iter().map(|(_, rows)| rows.len()).sum();
        TopicStatus {
            name: Arc::clone(&self.name),
            owner: self.owner,
            messages: state.messages,
            rate: state.rate.rate(now),
            subscribers: state.subscribers.len(),
            replay_depth: (state.latest.len() + unwritten).min(self.settings.replay),
            dropped: state.dropped,
            overrun: state.overrun + self.overrun.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn publish(
        &mut self,
        texts: &[Text],
        lost: u64,
        settings: &Settings,
        now: Instant,
    ) -> Published {
        self.count(texts.len(), lost, now);
        for text in texts {
            self.keep(text.clone(), settings);
        }
        let mut published = Published::default();
        self.subscribers.retain(|subscriber| {
            let put = subscriber.mailbox.put(subscriber.queue, texts, lost, now);
            published.dropped += put.dropped;
            published.subscribers += usize::from(!put.gone);
            !put.gone
        });
        self.dropped += published.dropped;
        published
    }

    fn count(&mut self, messages: usize, lost: u64, now: Instant) {
        let count = messages as u64;
        self.messages += count + lost;
        self.overrun += lost;
        self.rate.add(count + lost, now);
        self.newest = now;
    }

    fn keep(&mut self, text: Text, settings: &Settings) {
        if settings.replay == 0 {
            return;
        }
        self.latest_bytes += text.len();
        self.latest.push_back(text);
        while self.latest.len() > settings.replay
            || self.latest.len() > 1 && self.latest_bytes > settings.queue.bytes
        {
            let oldest = self.latest.pop_front().expect("there is more than one");
            self.latest_bytes -= oldest.len();
        }
    }

    /// Keeps the references to the latest rows; what of a chunk is little is copied, so that it
    /// does not keep the memory of much.
    fn remember(&mut self, chunk: &Arc<Chunk>, mut rows: Rows, replay: usize) {
        if replay == 0 {
            return;
        }
        rows.keep_newest(replay);
        let wanted: usize = rows.iter().map(|row| chunk.record(row).bytes()).sum();
        self.unwritten.push_back(if wanted * SHARE_WORTH_KEEPING < chunk.bytes() {
            let indices: Vec<usize> = rows.iter().collect();
            (Arc::new(chunk.extract(&indices)), Rows::first(indices.len()))
        } else {
            (Arc::clone(chunk), rows)
        });
        let mut count: usize = self.unwritten.iter().map(|(_, rows)| rows.len()).sum();
        while let Some((_, oldest)) = self.unwritten.front()
            && count - oldest.len() >= replay
        {
            count -= oldest.len();
            self.unwritten.pop_front();
        }
    }

    /// Somebody wants to see it.
    fn write(&mut self, name: &str, settings: &Settings, writer: &mut Writer, ts: &str) {
        for (chunk, rows) in std::mem::take(&mut self.unwritten) {
            for row in rows.iter() {
                if let Some(text) = writer.event(name, &chunk.record(row), ts) {
                    self.keep(text, settings);
                }
            }
        }
    }
}
