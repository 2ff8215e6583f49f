//! What happened within the last while: a count, a rate, and a limit on either.
//!
//! Time is cut into slots, and the window is the slots that lie in it at least in part. So it costs
//! the same few numbers at any rate, and errs to one side: a limit on it is never passed in any
//! window of that length.

use std::time::Duration;

use tokio::time::Instant;

/// Slots of a window: a limit errs by a tenth of the window at most.
const SLOTS: usize = 10;

/// Counts what happened within the last `window`.
#[derive(Debug, Clone)]
pub struct SlidingWindow {
    slot: Duration,
    began: Instant,
    /// The slot of the newest count, from the beginning on.
    newest: u64,
    /// By the slot's number, in a ring. One more than the window has: the oldest is there in part.
    counts: [u64; SLOTS + 1],
}

impl SlidingWindow {
    /// # Panics
    ///
    /// When the window is shorter than 10 nanoseconds.
    #[must_use]
    pub fn new(window: Duration, now: Instant) -> Self {
        let slot = window / u32::try_from(SLOTS).expect("there are ten");
        assert!(!slot.is_zero(), "a window of {window:?} has no length");
        Self { slot, began: now, newest: 0, counts: [0; SLOTS + 1] }
    }

    pub fn add(&mut self, count: u64, now: Instant) {
        self.advance(now);
        let index = index(self.newest);
        self.counts[index] = self.counts[index].saturating_add(count);
    }

    /// How many there were, the oldest slot counted whole.
    #[must_use]
    pub fn count(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.counts.iter().sum()
    }

    /// Per second, over as much of the window as has passed since the beginning; over a slot at
    /// least, or the very first record would be a rate of thousands.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    pub fn rate(&mut self, now: Instant) -> f64 {
        let count = self.count(now);
        let elapsed = now.saturating_duration_since(self.began);
        // The slots before this one, and what has passed of this one.
        let first = self.newest.saturating_sub(SLOTS as u64);
        let counted = elapsed.saturating_sub(self.length(first)).max(self.slot);
        count as f64 / counted.as_secs_f64()
    }

    /// When the oldest slot that has something in it has left the window.
    fn next_change(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let oldest = self.newest.saturating_sub(SLOTS as u64);
        let filled = (oldest..=self.newest).find(|&slot| self.counts[index(slot)] > 0);
        let leaves = self.length(filled.unwrap_or(self.newest) + SLOTS as u64 + 1);
        leaves.saturating_sub(now.saturating_duration_since(self.began))
    }

    /// So many slots.
    fn length(&self, slots: u64) -> Duration {
        let nanos = self.slot.as_nanos().saturating_mul(u128::from(slots));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Empties the slots that have passed out of the window.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        let current = u64::try_from(elapsed.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX);
        let passed = current.saturating_sub(self.newest).min(self.counts.len() as u64);
        for slot in 1..=passed {
            self.counts[index(self.newest + slot)] = 0;
        }
        self.newest = self.newest.max(current);
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % (SLOTS as u64 + 1)).expect("below eleven")
}

/// At most so many within any window.
#[derive(Debug, Clone)]
pub struct WindowLimit {
    limit: u64,
    seen: SlidingWindow,
}

impl WindowLimit {
    /// # Panics
    ///
    /// As [`SlidingWindow::new`].
    #[must_use]
    pub fn new(limit: u64, window: Duration, now: Instant) -> Self {
        Self { limit, seen: SlidingWindow::new(window, now) }
    }

    /// Lets `count` records pass, all or none.
    #[must_use]
    pub fn take(&mut self, count: u64, now: Instant) -> bool {
        let fits = self.seen.count(now).saturating_add(count) <= self.limit;
        if fits {
            self.seen.add(count, now);
        }
        fits
    }

    /// How long until it is worth asking again.
    #[must_use]
    pub fn wait(&mut self, now: Instant) -> Duration {
        if self.seen.count(now) < self.limit { Duration::ZERO } else { self.seen.next_change(now) }
    }
}

#[cfg(test)]
mod tests;
