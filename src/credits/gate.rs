//! The way of one pulled source to its credits: through a token bucket while it is held to a rate.
//!
//! Owns the bucket. A limit loses nothing: what may not be taken yet stays where it is. It is never
//! waited for longer than whoever asks allows, and nobody waits in the pipeline.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::{Credits, Freed};
use crate::config::RateLimit;
use crate::rate::TokenBucket;

/// Rather than one record as soon as one may pass, some: what passes in so many milliseconds. A
/// chunk costs the owner a turn, and fifty a second are few.
const GRAIN: Duration = Duration::from_millis(20);

/// Credits, as one source gets them. Clones share the bucket.
#[derive(Debug, Clone)]
pub struct Gate {
    credits: Arc<Credits>,
    bucket: Arc<Mutex<Option<TokenBucket>>>,
    freed: Freed,
}

impl From<Arc<Credits>> for Gate {
    /// Without a limit.
    fn from(credits: Arc<Credits>) -> Self {
        Self { freed: credits.freed(), credits, bucket: Arc::default() }
    }
}

impl Gate {
    /// From now on; None: as fast as there are credits. What was saved under another limit stays, up
    /// to the new burst.
    pub fn set_limit(&self, limit: Option<RateLimit>) {
        let now = Instant::now();
        let mut bucket = self.bucket();
        match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.retune(limit.per_second(), limit.burst, now),
            (_, limit) => {
                *bucket = limit.map(|limit| TokenBucket::new(limit.per_second(), limit.burst, now))
            }
        }
    }

    /// Records per second; None without a limit.
    #[must_use]
    pub fn limit(&self) -> Option<f64> {
        self.bucket().as_ref().map(TokenBucket::rate)
    }

    /// Reserves up to `want` credits, as many as the rate lets pass; 0 when there are none.
    #[must_use]
    pub fn reserve(&self, want: usize) -> usize {
        let mut bucket = self.bucket();
        let Some(bucket) = bucket.as_mut() else { return self.credits.reserve(want) };
        let now = Instant::now();
        let may = usize::try_from(bucket.available(now)).unwrap_or(usize::MAX);
        let taken = self.credits.reserve(want.min(may));
        let passed = bucket.take(taken as u64, now);
        debug_assert!(passed, "no more was taken than was available");
        taken
    }

    /// Gives back credits that were reserved and not used.
    pub fn release(&self, unused: usize) {
        if let Some(bucket) = self.bucket().as_mut() {
            bucket.give_back(unused as u64);
        }
        self.credits.release(unused);
    }

    /// It is the rate that lets nothing pass, and not a lack of credits.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.bucket().as_mut().is_some_and(|bucket| bucket.available(Instant::now()) == 0)
    }

    /// Blocks the calling thread until credits were given back, the rate lets some pass, or
    /// `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        self.credits.wait(timeout.min(self.until_some_pass()));
    }

    /// Waits until credits were given back since the last wait, or the rate lets some pass; for the
    /// task that has this clone.
    pub async fn freed(&mut self) {
        let until = self.until_some_pass();
        let Self { credits, freed, .. } = self;
        if until == Duration::MAX {
            return freed.wait(credits).await;
        }
        tokio::select! {
            () = freed.wait(credits) => {}
            () = tokio::time::sleep(until) => {}
        }
    }

    /// How long until the rate lets some pass; without end while it is not the rate that stands in
    /// the way.
    #[must_use]
    pub fn until_some_pass(&self) -> Duration {
        let mut bucket = self.bucket();
        let now = Instant::now();
        let Some(bucket) = bucket.as_mut() else { return Duration::MAX };
        if bucket.available(now) > 0 {
            return Duration::MAX;
        }
        bucket.wait_for(bucket.passes_in(GRAIN), now).unwrap_or(Duration::MAX)
    }

    fn bucket(&self) -> MutexGuard<'_, Option<TokenBucket>> {
        self.bucket.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(records_per_second: u32, burst: u64) -> Gate {
        let gate = Gate::from(Arc::new(Credits::new(10_000, 10_000)));
        gate.set_limit(Some(RateLimit { records_per_second, burst }));
        gate
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_reserved_than_rate_and_burst_let_pass() {
        let mut gate = gate(100, 50);
        let began = Instant::now();
        let mut taken = 0_u64;
        while began.elapsed() < Duration::from_secs(10) {
            taken += gate.reserve(1_000) as u64;
            let passed = u64::try_from(began.elapsed().as_millis()).unwrap() / 10;
            assert!(taken <= passed + 50, "{taken} after {:?}", began.elapsed());
            gate.freed().await;
        }
        assert!(taken >= 1_000, "{taken}: all that the rate allows is taken");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_may_pass_again() {
        let gate = gate(10, 10);
        assert_eq!(gate.reserve(100), 10);
        assert!(gate.is_held_back());
        assert_eq!(gate.reserve(1), 0);
        gate.release(10);
        assert!(!gate.is_held_back());
        assert_eq!(gate.reserve(100), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_credits_is_no_matter_of_the_rate() {
        let credits = Arc::new(Credits::new(5, 5));
        let gate = Gate::from(Arc::clone(&credits));
        gate.set_limit(Some(RateLimit { records_per_second: 100, burst: 100 }));
        assert_eq!(gate.reserve(100), 5);
        assert_eq!(gate.reserve(100), 0);
        assert!(!gate.is_held_back());
        credits.release(5);
        assert_eq!(gate.reserve(100), 5, "and what there was no credit for was not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_holds_nothing_back() {
        let gate = gate(1, 1);
        assert_eq!(gate.reserve(100), 1);
        gate.set_limit(None);
        assert_eq!((gate.reserve(100), gate.limit()), (100, None));
        gate.set_limit(Some(RateLimit { records_per_second: 7, burst: 3 }));
        assert_eq!((gate.reserve(100), gate.limit()), (3, Some(7.0)));
    }
}
