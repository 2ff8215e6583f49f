//! What waits for one connection: answers, and a bounded queue for each of its subscriptions.
//!
//! Owns the lock around them and the wake-ups: one of each for all queues, because a connection
//! waits for all of them at once (`flow`'s streams are for one who waits for one; the queue itself
//! is a [`Buffer`](crate::flow::Buffer)). The lock is held for one batch at a time, never across an await.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::protocol::{Code, Problem, Text, error};
use crate::config::LiveQueue;
use crate::flow::Verdict;
use crate::record::UnixMs;

mod queue;

use queue::Queue;
pub(super) use queue::QueueId;
pub use queue::QueueStatus;

/// Answers that may wait. Whoever asks reads the answers, or is not read any more.
const MAX_NOTES: usize = 256;
/// Answers that may be owed at a time: requests that go on while the next ones are read. Together with
/// those that wait already they are fewer than are ever forgotten.
const MAX_OWED: usize = 64;
/// Taken of one queue before it is another's turn.
const TURN: usize = 64;

/// Why nothing comes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was cut off.
    SlowConsumer,
    /// The bridge stops; what waits here may still be taken.
    Shutdown,
}

/// What waits for one connection.
#[derive(Debug)]
pub struct Mailbox {
    client_id: Mutex<Arc<str>>,
    state: Mutex<State>,
    /// Something waits, or nothing comes any more.
    mail: Notify,
    /// Something was taken: for those who wait for room in all mailboxes.
    drained: Arc<Notify>,
    /// What all subscribers of the feed lost.
    lost: Arc<AtomicU64>,
    /// It has ended.
    over: Notify,
    /// There is room for answers again.
    room: Notify,
    /// Whether all of what a subscriber loses is logged.
    log_every_drop: bool,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    notes: VecDeque<Text>,
    /// Answers that are still to come.
    owed: usize,
    queues: Vec<Queue>,
    next: u64,
    /// Whose turn it is.
    turn: usize,
    end: Option<End>,
}

/// What became of messages that were put into a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) dropped: u64,
    /// It takes nothing any more.
    pub(super) gone: bool,
}

impl Mailbox {
    pub(super) fn new(
        client_id: &str,
        log_every_drop: bool,
        drained: Arc<Notify>,
        lost: Arc<AtomicU64>,
    ) -> Self {
        Self {
            client_id: Mutex::new(client_id.into()),
            state: Mutex::default(),
            mail: Notify::new(),
            drained,
            lost,
            over: Notify::new(),
            room: Notify::new(),
            log_every_drop,
            ended: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client_id(&self) -> Arc<str> {
        Arc::clone(&self.client_id.lock().expect("no panic while held"))
    }

    pub(super) fn rename(&self, client_id: &str) {
        *self.client_id.lock().expect("no panic while held") = client_id.into();
    }

    /// An answer: whoever asks waited for room first. What is told unasked is rare, and forgotten
    /// if the client never reads.
    pub(super) fn note(&self, text: Text) {
        let mut state = self.lock();
        if state.notes.len() < 2 * MAX_NOTES {
            state.notes.push_back(text);
        }
        drop(state);
        self.mail.notify_one();
    }

    /// An answer will come: what ends this mailbox waits for it. None when too many are owed.
    pub(super) fn owe(self: &Arc<Self>) -> Option<Owed> {
        let mut state = self.lock();
        if state.owed >= MAX_OWED {
            return None;
        }
        state.owed += 1;
        Some(Owed(Arc::clone(self)))
    }

    /// Waits until there is room for an answer: nothing more is read of a client that does not read.
    pub async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().notes.len() < MAX_NOTES || self.has_ended() {
                return;
            }
            room.await;
        }
    }

    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// A queue that gives out nothing before [`Mailbox::start`].
    pub(super) fn open(
        &self,
        topic: &str,
        queue: LiveQueue,
        since: UnixMs,
        now: Instant,
    ) -> QueueId {
        let mut state = self.lock();
        let id = QueueId(state.next);
        state.next += 1;
        state.queues.push(Queue::new(id, topic, queue, since, now));
        id
    }

    /// From here on it gives out what it has; `note` comes before.
    pub(super) fn start(&self, id: QueueId, note: Text) {
        let mut state = self.lock();
        state.notes.push_back(note);
        if let Some(queue) = state.queue(id) {
            queue.buffer.resume();
        }
        drop(state);
        self.mail.notify_one();
    }

    /// It is gone, with what waited in it.
    pub(super) fn shut(&self, id: QueueId) {
        self.lock().queues.retain(|queue| queue.id != id);
        self.drained.notify_waiters();
    }

    /// It is gone as soon as what waits in it was taken, and `text` after it.
    pub(super) fn finish(&self, id: QueueId, text: Text) {
        if let Some(queue) = self.lock().queue(id) {
            queue.farewell = Some(text);
        }
        self.mail.notify_one();
        self.drained.notify_waiters();
    }

    /// So many messages for this queue were lost on their way. Says how many are missing there now:
    /// none if it takes nothing any more.
    pub(super) fn lose(&self, id: QueueId, lost: u64) -> u64 {
        let mut state = self.lock();
        let Some(queue) = state.queue(id).filter(|queue| queue.farewell.is_none()) else {
            return 0;
        };
        queue.buffer.lost(lost);
        drop(state);
        self.lost.fetch_add(lost, Ordering::Relaxed);
        self.mail.notify_one();
        lost
    }

    /// Puts messages into a queue.
    pub(super) fn put(&self, id: QueueId, texts: &[Text], now: Instant) -> Put {
        let mut put = Put::default();
        let mut state = self.lock();
        let Some(queue) = state.queue(id).filter(|queue| queue.farewell.is_none()) else {
            return Put { dropped: 0, gone: true };
        };
        let (mut cut, mut newest) = (false, false);
        let mut let_go = Vec::new();
        for text in texts {
            match queue.buffer.offer_weighing(text.clone(), text.len(), now) {
                Verdict::Replaced(texts) => let_go.extend(texts),
                Verdict::Dropped(text, _) => {
                    let_go.push(text);
                    newest = true;
                }
                Verdict::CutOff(texts) => {
                    let_go.extend(texts);
                    cut = true;
                }
                Verdict::Kept => {}
                // After it was cut; the others wait, and no queue here does.
                Verdict::Closed(_) | Verdict::Full(_) | Verdict::TooFast(..) => put.dropped += 1,
            }
        }
        put.dropped += let_go.len() as u64;
        self.lost.fetch_add(put.dropped, Ordering::Relaxed);
        let told = queue.drops.note(put.dropped, self.log_every_drop, now);
        let line = told.map(|count| (Arc::clone(&queue.topic), count, queue.buffer.capacity()));
        if cut {
            state.end = Some(End::SlowConsumer);
            self.ended.store(true, Ordering::Relaxed);
            put.gone = true;
        }
        drop(state);
        self.mail.notify_one();
        if cut {
            self.room.notify_waiters();
            self.over.notify_waiters();
            self.drained.notify_waiters();
        }
        if let Some((topic, count, queue_max)) = line {
            let what = match (cut, newest) {
                (true, _) => "Disconnecting it.",
                (false, true) => "Dropping newest message.",
                (false, false) => "Dropping oldest message.",
            };
            self.log(&topic, count, queue_max, what);
        }
        put
    }

    fn log(&self, topic: &str, dropped: u64, queue_max: usize, what: &str) {
        let client = self.client_id();
        tracing::warn!(
            event = "subscriber_queue_full",
            topic,
            dropped,
            queue_max,
            "Queue full for subscriber {client}. {what}"
        );
    }

    /// Nothing comes any more.
    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.ended.store(true, Ordering::Relaxed);
        self.mail.notify_one();
        self.room.notify_waiters();
        self.over.notify_waiters();
    }

    /// Waits until nothing comes any more.
    pub async fn over(&self) -> End {
        loop {
            let over = self.over.notified();
            if let Some(end) = self.lock().end {
                return end;
            }
            over.await;
        }
    }

    /// Waits until there is something to take, and takes until there are so many: answers first,
    /// then of each queue in turn.
    ///
    /// # Errors
    ///
    /// Why nothing comes any more.
    pub async fn next(
        &self,
        into: &mut Vec<Text>,
        most: usize,
        ts: impl Fn() -> String,
    ) -> Result<(), End> {
        loop {
            let mail = self.mail.notified();
            if let Some(done) = self.take(into, most, &ts) {
                return done;
            }
            mail.await;
        }
    }

    /// The same, if there is something.
    pub fn take(
        &self,
        into: &mut Vec<Text>,
        most: usize,
        ts: &impl Fn() -> String,
    ) -> Option<Result<(), End>> {
        let before = into.len();
        let mut state = self.lock();
        if state.end == Some(End::SlowConsumer) {
            let problem = "what waited for this connection was more than its queue holds";
            let problem = Problem::new(Code::SlowConsumer, problem);
            into.push(error(None, &problem, &ts()));
            return Some(Err(End::SlowConsumer));
        }
        let answers = state.notes.len().min(most.saturating_sub(before));
        into.extend(state.notes.drain(..answers));
        state.take_events(into, most, ts);
        let end = state.end.filter(|_| state.owed == 0);
        drop(state);
        if answers > 0 {
            self.room.notify_waiters();
        }
        self.drained.notify_waiters();
        if into.len() == before { end.map(Err) } else { Some(Ok(())) }
    }

    /// Messages that a queue holds; 0 of one that is gone.
    pub(super) fn capacity(&self, id: QueueId) -> usize {
        self.lock().queue(id).map_or(0, |queue| queue.buffer.capacity())
    }

    /// Whether there is room for a message that weighs so much; also when it takes nothing any more.
    pub(super) fn has_room_for(&self, id: QueueId, weight: usize) -> bool {
        let mut state = self.lock();
        state.queue(id).is_none_or(|queue| !queue.buffer.is_full_for(weight))
    }

    /// Its queues at this moment.
    #[must_use]
    pub fn queues(&self, now: Instant) -> Vec<QueueStatus> {
        self.lock().queues.iter_mut().map(|queue| queue.status(now)).collect()
    }
}

/// An answer that is still to come; dropped, it is not owed any more.
#[derive(Debug)]
pub(super) struct Owed(Arc<Mailbox>);

impl Owed {
    pub(super) fn pay(self, text: Text) {
        self.0.note(text);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.lock().owed -= 1;
        self.0.mail.notify_one();
    }
}

impl State {
    fn queue(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.id == id)
    }

    fn take_events(&mut self, into: &mut Vec<Text>, most: usize, ts: &impl Fn() -> String) {
        let now = Instant::now();
        let mut idle = 0;
        while idle < self.queues.len() && into.len() < most {
            let turn = self.turn % self.queues.len();
            let queue = &mut self.queues[turn];
            let before = into.len();
            queue.take(into, most.min(before + TURN), now, ts);
            if queue.buffer.is_empty()
                && let Some(farewell) = queue.farewell.take()
            {
                into.push(farewell);
                self.queues.remove(turn);
            } else {
                self.turn = turn + 1;
            }
            idle = if into.len() == before { idle + 1 } else { 0 };
        }
    }
}
