//! A [`Buffer`] between tasks: many producers, one consumer, both of which may wait.
//!
//! Owns the lock around the buffer and who is woken when. The lock is held for one decision at a
//! time and never across an await; an item that is let go is dropped outside of it. Cancelling a
//! wait loses nothing but the item that was being sent.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::buffer::{Buffer, Ended, Taken};
use super::metrics::{Metrics, Reason};
use super::{Strategy, Verdict};

/// Makes streams of one capacity and one strategy.
#[derive(Debug, Clone, Copy)]
pub struct Controller {
    capacity: usize,
    strategy: Strategy,
}

impl Controller {
    /// # Panics
    ///
    /// As [`Buffer::new`], when a stream is made.
    #[must_use]
    pub fn new(capacity: usize, strategy: Strategy) -> Self {
        Self { capacity, strategy }
    }

    /// A stream: its ends share nothing with those of another.
    #[must_use]
    pub fn stream<T>(&self) -> (Producer<T>, Consumer<T>) {
        let buffer = Buffer::new(self.capacity, self.strategy, Instant::now());
        let shared = Arc::new(Shared {
            state: Mutex::new(State { buffer, producers: 1 }),
            room: Notify::new(),
            items: Notify::new(),
        });
        (Producer { shared: Arc::clone(&shared) }, Consumer { shared })
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was taken, or nobody takes any more.
    room: Notify,
    /// Something was kept, or nothing comes any more.
    items: Notify,
}

#[derive(Debug)]
struct State<T> {
    buffer: Buffer<T>,
    producers: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no panic while held")
    }

    fn metrics(&self) -> Metrics {
        self.lock().buffer.metrics(Instant::now())
    }
}

/// What became of an item that was sent.
#[derive(Debug, PartialEq)]
#[must_use = "it may hold an item that has to be accounted for"]
pub enum Sent<T> {
    Kept,
    /// It waits to be taken; these, the oldest, do not any more.
    Replaced(Vec<T>),
    Dropped(T, Reason),
    /// The consumer was too slow, and was cut off: all that waited for it, and this one as the last.
    CutOff(Vec<T>),
}

/// Nobody takes anything any more: here is the item again.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

/// The end that sends. The stream is finished when the last one is gone.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Producer<T> {
    /// Sends an item, and waits for its turn and for room where the strategy wants it to.
    ///
    /// # Errors
    ///
    /// When the consumer is gone, or was cut off.
    pub async fn send(&self, item: T) -> Result<Sent<T>, Closed<T>> {
        self.wait(item, None).await
    }

    /// The same; a sample by key goes by this one.
    ///
    /// # Errors
    ///
    /// As [`Producer::send`].
    pub async fn send_keyed(&self, item: T, key: &[u8]) -> Result<Sent<T>, Closed<T>> {
        self.wait(item, Some(key)).await
    }

    /// Offers an item, and never waits.
    pub fn offer(&self, item: T) -> Verdict<T> {
        self.decide(item, None)
    }

    /// The same; a sample by key goes by this one.
    pub fn offer_keyed(&self, item: T, key: &[u8]) -> Verdict<T> {
        self.decide(item, Some(key))
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    async fn wait(&self, mut item: T, key: Option<&[u8]>) -> Result<Sent<T>, Closed<T>> {
        loop {
            // Before the offer, so that what is taken between the two is not slept through; and
            // enabled, because of two that wait each has to be woken.
            let mut room = pin!(self.shared.room.notified());
            room.as_mut().enable();
            item = match self.decide(item, key) {
                Verdict::Kept => return Ok(Sent::Kept),
                Verdict::Replaced(oldest) => return Ok(Sent::Replaced(oldest)),
                Verdict::Dropped(item, reason) => return Ok(Sent::Dropped(item, reason)),
                Verdict::CutOff(items) => return Ok(Sent::CutOff(items)),
                Verdict::Closed(item) => return Err(Closed(item)),
                Verdict::Full(item) => {
                    room.await;
                    item
                }
                Verdict::TooFast(item, wait) => {
                    sleep(wait).await;
                    item
                }
            };
        }
    }

    fn decide(&self, item: T, key: Option<&[u8]>) -> Verdict<T> {
        let now = Instant::now();
        let verdict = {
            let buffer = &mut self.shared.lock().buffer;
            match key {
                Some(key) => buffer.offer_keyed(item, key, now),
                None => buffer.offer(item, now),
            }
        };
        match &verdict {
            Verdict::Kept | Verdict::Replaced(_) => self.shared.items.notify_one(),
            Verdict::CutOff(_) => {
                self.shared.items.notify_one();
                self.shared.room.notify_waiters();
            }
            _ => {}
        }
        verdict
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        self.shared.lock().producers += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.producers -= 1;
        if state.producers == 0 {
            state.buffer.finish();
            self.shared.items.notify_one();
        }
    }
}

/// The end that takes. What waits when it is dropped is dropped too, and counted as `left`.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Consumer<T> {
    /// The next item, with how many before it were dropped; waits for one.
    ///
    /// # Errors
    ///
    /// When nothing more comes: the producers are gone and all was taken, or this consumer was
    /// too slow.
    pub async fn next(&mut self) -> Result<Taken<T>, Ended> {
        loop {
            let mut items = pin!(self.shared.items.notified());
            items.as_mut().enable();
            if let Some(next) = self.look() {
                return next;
            }
            items.await;
        }
    }

    /// The next item or the end, if there is either.
    pub fn try_next(&mut self) -> Option<Result<Taken<T>, Ended>> {
        self.look()
    }

    fn look(&self) -> Option<Result<Taken<T>, Ended>> {
        let mut state = self.shared.lock();
        let Some(taken) = state.buffer.take(Instant::now()) else {
            return state.buffer.ended().map(Err);
        };
        drop(state);
        self.shared.room.notify_one();
        Some(Ok(taken))
    }

    /// A handle that stops and starts this consumer from elsewhere, and reads its metrics.
    #[must_use]
    pub fn control(&self) -> Control<T> {
        Control { shared: Arc::clone(&self.shared) }
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        let left = self.shared.lock().buffer.leave();
        self.shared.room.notify_waiters();
        drop(left);
    }
}

/// Pauses, resumes and measures a stream; keeps neither end alive.
#[derive(Debug)]
pub struct Control<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Control<T> {
    /// The consumer gets nothing from now on. Gives back what a sliding window lets go.
    pub fn pause(&self) -> Vec<T> {
        self.shared.lock().buffer.pause()
    }

    pub fn resume(&self) {
        self.shared.lock().buffer.resume();
        self.shared.items.notify_one();
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.lock().buffer.is_paused()
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }
}

impl<T> Clone for Control<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}
