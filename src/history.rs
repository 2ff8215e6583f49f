//! What was: a few numbers of the snapshot once a second, for the last ten minutes, so that a page
//! that is opened at 3 a.m. shows what happened before; and since when the bridge is in its state.
//!
//! One task owns it and publishes it by `watch`; who watches is woken once a second. It keeps 600
//! looks, and makes a few additions a second, whether anybody watches or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::record::UnixMs;
use crate::status::{Snapshot, Snapshots, Verdict};

/// How often a look is taken.
pub const EVERY: Duration = Duration::from_secs(1);

/// Ten minutes of them.
const SAMPLES: usize = 600;

/// How the history is published.
pub type Histories = watch::Receiver<History>;

/// One look. Counters count since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    pub at: UnixMs,
    pub held: usize,
    pub paused: bool,
    pub received: u64,
    pub inserted: u64,
    /// Over all sources; null while none of them knows.
    pub lag: Option<i64>,
    /// Inserts acknowledged, and what they took in all.
    pub inserts: u64,
    pub insert_seconds: f64,
}

impl Sample {
    #[must_use]
    pub fn of(snapshot: &Snapshot, at: UnixMs) -> Self {
        let level = &snapshot.backpressure;
        Self {
            at,
            held: level.current_buffer,
            paused: level.active,
            received: snapshot.received(),
            inserted: snapshot.inserted(),
            lag: snapshot.sources.values().filter_map(|source| source.lag).reduce(|a, b| a + b),
            inserts: snapshot.writers.values().map(|writer| writer.inserts).sum(),
            insert_seconds: snapshot.writers.values().map(|writer| writer.insert_seconds).sum(),
        }
    }
}

/// The last ten minutes.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    verdict: Verdict,
    since: UnixMs,
}

impl History {
    /// In the order of time.
    #[must_use]
    pub fn samples(&self) -> &VecDeque<Sample> {
        &self.samples
    }

    /// What is to be said first, and since when it is this.
    #[must_use]
    pub fn verdict(&self) -> (&Verdict, UnixMs) {
        (&self.verdict, self.since)
    }

    /// The same, and the last look: copies, so that no lock is held while they are made use of.
    #[must_use]
    pub fn latest(&self) -> (Verdict, UnixMs, Sample) {
        let sample = self.samples.back().copied().unwrap_or_default();
        (self.verdict.clone(), self.since, sample)
    }

    fn look(&mut self, snapshot: &Snapshot, now: Instant, at: UnixMs) {
        let verdict = snapshot.verdict(now);
        // Its sentence carries numbers and is another one each second.
        if verdict.word != self.verdict.word || self.samples.is_empty() {
            self.since = at;
        }
        self.verdict = verdict;
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample::of(snapshot, at));
    }
}

/// Takes the looks.
#[derive(Debug)]
pub struct Recorder {
    snapshots: Snapshots,
    histories: watch::Sender<History>,
}

impl Recorder {
    #[must_use]
    pub fn new(snapshots: Snapshots) -> (Self, Histories) {
        let mut recorder = Self { snapshots, histories: watch::channel(History::default()).0 };
        recorder.look();
        let histories = recorder.histories.subscribe();
        (recorder, histories)
    }

    /// Until `end`; whoever watches then sees the channel closed.
    pub async fn run_until(mut self, end: impl Future<Output = ()> + Send) {
        let mut ticks = interval(EVERY);
        // Looks that come late are not made up for: they would all see the same.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                _ = ticks.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        // Never two locks at a time: the owner of the snapshot would wait for whoever reads this.
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let (now, at) = (Instant::now(), jiff::Timestamp::now().as_millisecond());
        self.histories.send_modify(|history| history.look(&snapshot, now, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::busy;

    #[tokio::test(start_paused = true)]
    async fn it_remembers_ten_minutes_and_no_more() {
        let (snapshots, receiver) = watch::channel(Arc::new(busy()));
        let (recorder, histories) = Recorder::new(receiver);
        assert_eq!(histories.borrow().samples().len(), 1, "a first look before anybody asks");
        let end = tokio::time::sleep(EVERY * 700 + EVERY / 2);
        let mut later = busy();
        later.backpressure.current_buffer = 7;
        snapshots.send_replace(Arc::new(later));
        recorder.run_until(end).await;
        let history = histories.borrow();
        assert_eq!(history.samples().len(), SAMPLES);
        assert_eq!(history.samples()[0].held, 7, "the oldest goes first");
        let last = history.samples()[SAMPLES - 1];
        assert_eq!((last.received, last.inserted, last.lag), (125_854, 125_000, Some(1_234)));
    }

    #[test]
    fn since_when_is_the_moment_of_another_word_and_not_of_another_number() {
        let now = Instant::now();
        let mut history = History::default();
        let mut snapshot = busy();
        history.look(&snapshot, now, 1_000);
        snapshot.backpressure.current_buffer += 1;
        history.look(&snapshot, now, 2_000);
        assert_eq!((history.verdict().0.word, history.verdict().1), ("Healthy", 1_000));
        snapshot.backpressure.active = true;
        history.look(&snapshot, now, 3_000);
        history.look(&snapshot, now, 4_000);
        assert_eq!((history.verdict().0.word, history.verdict().1), ("Paused", 3_000));
    }
}
