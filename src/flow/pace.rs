//! The rate of an adaptive buffer's producer: [`Aimd`] says how much, a [`TokenBucket`] lets as
//! much through. Owns both, and whether the limit was felt since it was last looked at.

use std::time::Duration;

use tokio::time::Instant;

use crate::rate::{Aimd, Criteria, Judge, Seen, Steps, TokenBucket};

#[derive(Debug)]
pub(super) struct Pace {
    aimd: Aimd,
    judge: Judge,
    bucket: TokenBucket,
    limited: bool,
}

impl Pace {
    pub(super) fn new(steps: Steps, now: Instant) -> Self {
        let aimd = Aimd::new(steps, now);
        let bucket = TokenBucket::new(aimd.limit(), burst(aimd.limit()), now);
        // A buffer knows how full it is, and nothing of what is behind it.
        let criteria = Criteria { overload: false, slowdown: None, ..Criteria::default() };
        Self { aimd, judge: Judge::new(criteria), bucket, limited: false }
    }

    pub(super) fn limit(&self) -> f64 {
        self.aimd.limit()
    }

    /// Lets one item pass, or says how long it has to wait.
    pub(super) fn pass(&mut self, now: Instant) -> Result<(), Duration> {
        if self.bucket.take(1, now) {
            return Ok(());
        }
        self.limited = true;
        // There is a rate and a burst of one at least.
        Err(self.bucket.wait_for(1, now).unwrap_or(Duration::from_secs(1)))
    }

    /// Moves the limit, if it is time.
    pub(super) fn look(&mut self, fill: f64, now: Instant) {
        if !self.aimd.is_due(now) {
            return;
        }
        let limit_reached = std::mem::take(&mut self.limited);
        let signal = self.judge.judge(&Seen { limit_reached, fill, ..Seen::default() });
        if self.aimd.apply(signal, now) {
            self.bucket.retune(self.limit(), burst(self.limit()), now);
        }
    }
}

/// What a producer that was late may catch up with at once: a hundredth of a second's worth, and
/// one more, so that what is left over of a token is not lost where the next one comes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a limit is positive"
)]
fn burst(limit: f64) -> u64 {
    (limit / 100.0).ceil() as u64 + 1
}
