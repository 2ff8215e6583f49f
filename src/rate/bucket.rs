//! A bucket that fills with tokens at a steady rate; what passes takes one.
//!
//! In any span of time t no more than rate x t + burst passes. The sums are of whole numbers, so
//! that this holds exactly, however often and however long it is asked.

use std::time::Duration;

use tokio::time::Instant;

/// Parts of a token: the rate is held in millionths of a record per second, time in nanoseconds.
const TOKEN: u128 = 1_000_000 * 1_000_000_000;

#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// millionths of a record per second
    rate_micros: u64,
    burst: u64,
    /// parts of a token; at most `burst` tokens
    tokens: u128,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket. `rate` is in records per second, to the millionth; without a rate, only the
    /// burst ever passes.
    #[must_use]
    pub fn new(rate: f64, burst: u64, now: Instant) -> Self {
        let tokens = u128::from(burst) * TOKEN;
        Self { rate_micros: micros(rate), burst, tokens, filled: now }
    }

    /// Lets `count` records pass, all or none.
    #[must_use]
    pub fn take(&mut self, count: u64, now: Instant) -> bool {
        self.fill(now);
        let wanted = u128::from(count) * TOKEN;
        let enough = wanted <= self.tokens;
        if enough {
            self.tokens -= wanted;
        }
        enough
    }

    /// Lets up to `count` records pass, and says how many.
    #[must_use]
    pub fn take_up_to(&mut self, count: u64, now: Instant) -> u64 {
        let taken = count.min(self.available(now));
        self.tokens -= u128::from(taken) * TOKEN;
        taken
    }

    /// Puts back what was taken and not used; the bucket never gets fuller than full.
    pub fn give_back(&mut self, count: u64) {
        self.tokens = self.tokens.saturating_add(u128::from(count) * TOKEN).min(self.full());
    }

    /// How many could pass now.
    #[must_use]
    pub fn available(&mut self, now: Instant) -> u64 {
        self.fill(now);
        u64::try_from(self.tokens / TOKEN).expect("no more than the burst")
    }

    /// How long until `count` records may pass; None when they never may: more than the burst, or
    /// there is no rate.
    #[must_use]
    pub fn wait_for(&mut self, count: u64, now: Instant) -> Option<Duration> {
        self.fill(now);
        let missing = (u128::from(count) * TOKEN).saturating_sub(self.tokens);
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        if count > self.burst || self.rate_micros == 0 {
            return None;
        }
        let nanos = missing.div_ceil(u128::from(self.rate_micros));
        // A rate so small that it takes centuries is no rate.
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }

    /// Another rate and burst from now on. What was saved under the old ones stays, up to the new
    /// burst.
    pub fn retune(&mut self, rate: f64, burst: u64, now: Instant) {
        self.fill(now);
        self.rate_micros = micros(rate);
        self.burst = burst;
        self.tokens = self.tokens.min(self.full());
    }

    /// How many the rate lets pass in so long: at least one, and no more than the burst.
    #[must_use]
    pub fn passes_in(&self, time: Duration) -> u64 {
        let tokens = time.as_nanos().saturating_mul(u128::from(self.rate_micros)) / TOKEN;
        u64::try_from(tokens).unwrap_or(u64::MAX).clamp(1, self.burst.max(1))
    }

    /// Records per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "made from a float in the first place")]
    pub fn rate(&self) -> f64 {
        self.rate_micros as f64 / 1e6
    }

    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    fn full(&self) -> u128 {
        u128::from(self.burst) * TOKEN
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        // A clock that is asked out of order fills nothing twice.
        self.filled = self.filled.max(now);
        let more = elapsed.saturating_mul(u128::from(self.rate_micros));
        self.tokens = self.tokens.saturating_add(more).min(self.full());
    }
}

/// Rounded down, so that nothing passes that should not; no rate from what is no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates: what is negative or no number is no rate, and 10^13/s is enough"
)]
fn micros(rate: f64) -> u64 {
    // A hair is added so that 0.1 is not a millionth less than it says.
    (rate * 1e6 + 1e-4) as u64
}

#[cfg(test)]
mod tests;
