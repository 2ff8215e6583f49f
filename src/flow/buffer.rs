//! A bounded buffer and its strategy. Pure: no clock, no lock, nothing that waits.
//!
//! Owns the items between producer and consumer, and the counts. It says with each item that it
//! gives out how many were dropped just before it, so that a consumer knows of every gap and where
//! it is.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::metrics::{Dropped, Metrics, Reason};
use super::pace::Pace;
use super::sample::Sampler;
use super::{Strategy, Verdict};
use crate::rate::SlidingWindow;

/// An item, and how many before it were dropped since the one that was taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken<T> {
    pub item: T,
    pub missed: u64,
}

/// Nothing more comes; `missed` were dropped after the last item that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub why: Why,
    pub missed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The producers are done, and all they left was taken.
    Finished,
    /// The consumer was too slow, and was cut off.
    SlowConsumer,
    /// The consumer has left.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The producers are done; what is here may still be taken.
    Finished,
    /// Nothing is here, and nothing comes.
    Cut(Why),
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    weight: usize,
    /// Dropped between the one before and this one.
    missed: u64,
}

/// Throughput is a mean over so long: it calms what comes in batches, and follows within seconds.
const THROUGHPUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Buffer<T> {
    capacity: usize,
    strategy: Strategy,
    entries: VecDeque<Entry<T>>,
    /// What all entries may weigh; one alone may weigh more.
    most_weight: usize,
    weight: usize,
    state: State,
    paused: bool,
    sampler: Option<Sampler>,
    pace: Option<Pace>,
    /// Dropped after the newest entry.
    missed: u64,
    /// An offer found no room, and since then it was never half as full.
    pressed: bool,
    peak: usize,
    produced: u64,
    consumed: u64,
    dropped: Dropped,
    events: u64,
    throughput: SlidingWindow,
}

impl<T> Buffer<T> {
    /// # Panics
    ///
    /// When the capacity is 0, or less than what a sliding window keeps.
    #[must_use]
    pub fn new(capacity: usize, strategy: Strategy, now: Instant) -> Self {
        assert!(capacity > 0, "a buffer for nothing");
        if let Strategy::Sliding { keep } = strategy {
            assert!((1..=capacity).contains(&keep), "{keep} of {capacity} cannot be kept");
        }
        let sampler = match strategy {
            Strategy::Sample { sampling, .. } => Some(Sampler::new(sampling)),
            _ => None,
        };
        let pace = match strategy {
            Strategy::Adaptive(steps) => Some(Pace::new(steps, now)),
            _ => None,
        };
        Self {
            capacity,
            strategy,
            entries: VecDeque::new(),
            most_weight: usize::MAX,
            weight: 0,
            state: State::Open,
            paused: false,
            sampler,
            pace,
            missed: 0,
            pressed: false,
            peak: 0,
            produced: 0,
            consumed: 0,
            dropped: Dropped::default(),
            events: 0,
            throughput: SlidingWindow::new(THROUGHPUT, now),
        }
    }

    /// It is full also when what is in it weighs so much; an item alone may weigh more.
    #[must_use]
    pub fn weighing_at_most(self, most_weight: usize) -> Self {
        Self { most_weight, ..self }
    }

    /// Offers an item that has no key.
    pub fn offer(&mut self, item: T, now: Instant) -> Verdict<T> {
        self.decide(item, 0, None, now)
    }

    /// Offers an item that weighs so much.
    pub fn offer_weighing(&mut self, item: T, weight: usize, now: Instant) -> Verdict<T> {
        self.decide(item, weight, None, now)
    }

    /// Offers an item; a sample by key goes by this one.
    pub fn offer_keyed(&mut self, item: T, key: &[u8], now: Instant) -> Verdict<T> {
        self.decide(item, 0, Some(key), now)
    }

    /// So many were lost on their way here: the consumer is told where, as of all that is dropped.
    pub fn lost(&mut self, count: u64) {
        if self.state == State::Open {
            self.produced += count;
            self.missed += count;
            self.dropped.add(Reason::Newest, count);
        }
    }

    fn decide(&mut self, item: T, weight: usize, key: Option<&[u8]>, now: Instant) -> Verdict<T> {
        if self.state != State::Open {
            return Verdict::Closed(item);
        }
        self.look(now);
        let full = self.is_full_for(weight);
        if full || self.is_sampling() {
            self.press();
        }
        if self.is_sampling() && !self.sampler.as_mut().is_none_or(|sampler| sampler.keeps(key)) {
            return self.refuse(item, Reason::Sampled);
        }
        if full {
            return self.overflow(item, weight);
        }
        if let Some(Err(wait)) = self.pace.as_mut().map(|pace| pace.pass(now)) {
            return Verdict::TooFast(item, wait);
        }
        self.keep(item, weight);
        Verdict::Kept
    }

    /// Whether there is no room for an item that weighs so much.
    #[must_use]
    pub fn is_full_for(&self, weight: usize) -> bool {
        let heavy = self.weight.saturating_add(weight) > self.most_weight;
        self.entries.len() >= self.room() || heavy && !self.entries.is_empty()
    }

    /// There is no room: the strategy decides.
    fn overflow(&mut self, item: T, weight: usize) -> Verdict<T> {
        match self.strategy {
            Strategy::Block | Strategy::Adaptive(_) => Verdict::Full(item),
            Strategy::DropNewest | Strategy::Sample { .. } => self.refuse(item, Reason::Newest),
            Strategy::DropOldest | Strategy::Sliding { .. } => {
                let mut oldest = Vec::with_capacity(1);
                while self.is_full_for(weight)
                    && let Some(item) = self.evict()
                {
                    oldest.push(item);
                }
                self.keep(item, weight);
                Verdict::Replaced(oldest)
            }
            Strategy::Disconnect => {
                self.produced += 1;
                let missed = std::mem::take(&mut self.missed);
                self.entries.push_back(Entry { item, weight, missed });
                Verdict::CutOff(self.cut(Why::SlowConsumer, Reason::Disconnected))
            }
        }
    }

    /// The oldest item, unless there is none or the consumer is paused.
    pub fn take(&mut self, now: Instant) -> Option<Taken<T>> {
        if self.paused {
            return None;
        }
        self.look(now);
        let Entry { item, weight, missed } = self.entries.pop_front()?;
        self.weight -= weight;
        self.consumed += 1;
        self.throughput.add(1, now);
        // Half as full as where it began, and not one less: a buffer that is overloaded for an
        // hour is one event, and not one for each item that is taken.
        self.pressed &= self.fill() * 2.0 > self.pressed_from();
        Some(Taken { item, missed })
    }

    /// What was dropped after the last item, of which nobody is told again.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Whether nothing more will ever come, and why.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let why = match self.state {
            State::Cut(why) => why,
            State::Finished if self.entries.is_empty() => Why::Finished,
            State::Open | State::Finished => return None,
        };
        Some(Ended { why, missed: self.missed })
    }

    /// Nothing is given out from now on. Gives back what a sliding window lets go.
    pub fn pause(&mut self) -> Vec<T> {
        self.paused = true;
        let surplus = self.entries.len().saturating_sub(self.room());
        (0..surplus).filter_map(|_| self.evict()).collect()
    }

    pub fn resume(&mut self) {
        self.paused = false;
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The producers are done: nothing is taken in any more, what is here may be taken.
    pub fn finish(&mut self) {
        if self.state == State::Open {
            self.state = State::Finished;
        }
    }

    /// The consumer has left: what is here is dropped, and nothing is taken in any more. Gives
    /// back what was dropped.
    pub fn leave(&mut self) -> Vec<T> {
        match self.state {
            State::Cut(_) => Vec::new(),
            State::Open | State::Finished => self.cut(Why::Left, Reason::Left),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What waits here weighs so much.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    #[must_use]
    pub fn metrics(&mut self, now: Instant) -> Metrics {
        self.look(now);
        Metrics {
            current_depth: self.entries.len(),
            peak_depth: self.peak,
            dropped_count: self.dropped,
            produced_count: self.produced,
            consumed_count: self.consumed,
            throughput_rate: self.throughput.rate(now),
            backpressure_events: self.events,
            current_rate_limit: self.pace.as_ref().map(Pace::limit),
        }
    }

    /// How many may wait here at present.
    fn room(&self) -> usize {
        match self.strategy {
            Strategy::Sliding { keep } if self.paused => keep,
            _ => self.capacity,
        }
    }

    fn is_sampling(&self) -> bool {
        match self.strategy {
            Strategy::Sample { from, .. } => self.fill() >= from,
            _ => false,
        }
    }

    /// How full it is when something has to give.
    fn pressed_from(&self) -> f64 {
        match self.strategy {
            Strategy::Sample { from, .. } => from.min(1.0),
            _ => 1.0,
        }
    }

    fn fill(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts far below 2^53")]
        let fill = self.entries.len() as f64 / self.capacity as f64;
        fill
    }

    fn look(&mut self, now: Instant) {
        let fill = self.fill();
        if let Some(pace) = &mut self.pace {
            pace.look(fill, now);
        }
    }

    fn press(&mut self) {
        self.events += u64::from(!std::mem::replace(&mut self.pressed, true));
    }

    fn keep(&mut self, item: T, weight: usize) {
        self.produced += 1;
        self.weight += weight;
        let missed = std::mem::take(&mut self.missed);
        self.entries.push_back(Entry { item, weight, missed });
        self.peak = self.peak.max(self.entries.len());
    }

    fn refuse(&mut self, item: T, reason: Reason) -> Verdict<T> {
        self.produced += 1;
        self.missed += 1;
        self.dropped.add(reason, 1);
        Verdict::Dropped(item, reason)
    }

    /// Lets the oldest go; the next one, or what comes, tells of the gap.
    fn evict(&mut self) -> Option<T> {
        let Entry { item, weight, missed } = self.entries.pop_front()?;
        self.weight -= weight;
        self.dropped.add(Reason::Oldest, 1);
        let next = self.entries.front_mut().map_or(&mut self.missed, |entry| &mut entry.missed);
        *next += missed + 1;
        Some(item)
    }

    fn cut(&mut self, why: Why, reason: Reason) -> Vec<T> {
        self.state = State::Cut(why);
        self.missed += self.entries.iter().map(|entry| entry.missed + 1).sum::<u64>();
        self.dropped.add(reason, self.entries.len() as u64);
        self.weight = 0;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.item).collect()
    }
}
