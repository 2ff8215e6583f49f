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
/// Messages that are published at a time at most.
const MOST_A_TURN: usize = 128;
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
    /// Records of it that the feed could not take in time, and of which nobody was told yet.
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
    unwritten_rows: usize,
    /// The memory that they keep.
    unwritten_bytes: usize,
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
    /// Messages that its queue holds.
    pub(super) room: usize,
}

impl Subscriber {
    fn is(&self, mailbox: &Arc<Mailbox>, queue: QueueId) -> bool {
        self.queue == queue && Arc::ptr_eq(&self.mailbox, mailbox)
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

/// What is published at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) messages: usize,
    /// The last of them may go beyond.
    pub(super) bytes: usize,
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
            unwritten_rows: 0,
            unwritten_bytes: 0,
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
        Some(state.publish(texts, &self.settings, now))
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
        Offered::Done(state.publish(std::slice::from_ref(text), &self.settings, now))
    }

    /// What comes while nobody listens: the latest are remembered, and not written. Gives the rows
    /// back if somebody does.
    pub(super) fn pass(&self, chunk: &Arc<Chunk>, rows: Rows, now: Instant) -> Result<(), Rows> {
        let mut state = self.lock();
        if !state.subscribers.is_empty() {
            return Err(rows);
        }
        state.count(rows.len(), now);
        state.remember(chunk, rows, &self.settings);
        Ok(())
    }

    /// How much may be published before those who listen must have their turn: a part of what the
    /// smallest queue holds, or who takes at once would lose what comes at once.
    pub(super) fn turn(&self) -> Turn {
        let state = self.lock();
        let smallest = state.subscribers.iter().map(|subscriber| subscriber.room).min();
        let messages = smallest.map_or(MOST_A_TURN, |room| (room / 2).clamp(1, MOST_A_TURN));
        Turn { messages, bytes: self.settings.queue.bytes / 4 }
    }

    /// So many records came while the feed was busy with others.
    pub(super) fn overran(&self, records: usize) {
        self.overrun.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// How many these were since this was asked before.
    pub(super) fn take_overrun(&self, now: Instant) -> u64 {
        let lost = self.overrun.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let mut state = self.lock();
            state.count(usize::try_from(lost).expect("they came as such"), now);
            state.overrun += lost;
        }
        lost
    }

    /// So many messages are missing where this is subscribed to.
    pub(super) fn dropped(&self, messages: u64) {
        self.lock().dropped += messages;
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
        let put = subscriber.mailbox.put(subscriber.queue, &replayed, now);
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

    pub(super) fn detach(&self, mailbox: &Arc<Mailbox>, queue: QueueId) {
        self.lock().subscribers.retain(|subscriber| !subscriber.is(mailbox, queue));
    }

    /// Takes nothing any more. Gives back who was subscribed.
    pub(super) fn delete(&self) -> Vec<Subscriber> {
        let mut state = self.lock();
        state.deleted = true;
        (state.latest, state.unwritten) = (VecDeque::new(), VecDeque::new());
        (state.unwritten_rows, state.unwritten_bytes) = (0, 0);
        std::mem::take(&mut state.subscribers)
    }

    pub(super) fn status(&self, now: Instant) -> TopicStatus {
        let mut state = self.lock();
        TopicStatus {
            name: Arc::clone(&self.name),
            owner: self.owner,
            messages: state.messages,
            rate: state.rate.rate(now),
            subscribers: state.subscribers.len(),
            replay_depth: (state.latest.len() + state.unwritten_rows).min(self.settings.replay),
            dropped: state.dropped,
            overrun: state.overrun + self.overrun.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn publish(&mut self, texts: &[Text], settings: &Settings, now: Instant) -> Published {
        self.count(texts.len(), now);
        for text in texts {
            self.keep(text.clone(), settings);
        }
        let mut published = Published::default();
        self.subscribers.retain(|subscriber| {
            let put = subscriber.mailbox.put(subscriber.queue, texts, now);
            published.dropped += put.dropped;
            published.subscribers += usize::from(!put.gone);
            !put.gone
        });
        self.dropped += published.dropped;
        published
    }

    fn count(&mut self, messages: usize, now: Instant) {
        self.messages += messages as u64;
        self.rate.add(messages as u64, now);
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

    /// Keeps the references to the latest rows, of what a queue may weigh; what of a chunk is little
    /// is copied, so that it does not keep the memory of much, and what of it somebody waits to hear
    /// of, who would wait for this too.
    fn remember(&mut self, chunk: &Arc<Chunk>, mut rows: Rows, settings: &Settings) {
        if settings.replay == 0 {
            return;
        }
        rows.keep_newest(settings.replay);
        let (mut wanted, mut fit) = (0, 0);
        for row in rows.iter().rev() {
            let bytes = chunk.record(row).bytes();
            if fit > 0 && wanted + bytes > settings.queue.bytes {
                break;
            }
            (wanted, fit) = (wanted + bytes, fit + 1);
        }
        rows.keep_newest(fit);
        let most = settings.queue.bytes.min(wanted * SHARE_WORTH_KEEPING);
        let (chunk, rows) = if chunk.bytes() > most || chunk.has_receipt() {
            let indices: Vec<usize> = rows.iter().collect();
            let copy = chunk.extract(&indices).without_receipt();
            (Arc::new(copy), Rows::first(indices.len()))
        } else {
            (Arc::clone(chunk), rows)
        };
        self.unwritten_rows += rows.len();
        self.unwritten_bytes += chunk.bytes();
        self.unwritten.push_back((chunk, rows));
        while let Some((chunk, oldest)) = self.unwritten.front()
            && (self.unwritten_rows - oldest.len() >= settings.replay
                || self.unwritten.len() > 1 && self.unwritten_bytes > settings.queue.bytes)
        {
            self.unwritten_rows -= oldest.len();
            self.unwritten_bytes -= chunk.bytes();
            self.unwritten.pop_front();
        }
    }

    /// Somebody wants to see it.
    fn write(&mut self, name: &str, settings: &Settings, writer: &mut Writer, ts: &str) {
        (self.unwritten_rows, self.unwritten_bytes) = (0, 0);
        for (chunk, rows) in std::mem::take(&mut self.unwritten) {
            for row in rows.iter() {
                if let Some(text) = writer.event(name, &chunk.record(row), ts) {
                    self.keep(text, settings);
                }
            }
        }
    }
}
