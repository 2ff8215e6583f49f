//! How long to wait before the next attempt: exponential backoff with full jitter. Pure.
//!
//! The number of attempts is unlimited: giving up would lose data.

use std::time::Duration;

use crate::config;

/// The longest wait before attempt number `attempt + 1`, after `attempt` failures.
#[must_use]
pub fn ceiling(config: &config::Retry, attempt: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
    config.base_delay.saturating_mul(factor).min(config.max_delay)
}

/// The wait before the next attempt, after `attempt` failures. Full jitter: anything from zero to
/// the ceiling, so that many batches (and many bridges) do not come back at the same moment.
#[must_use]
pub fn delay(config: &config::Retry, attempt: u32) -> Duration {
    ceiling(config, attempt).mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let config = config::Retry {
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
        };
        let millis = |attempt| ceiling(&config, attempt).as_millis();
        assert_eq!(
            [1, 2, 3, 9, 10, 4_000_000].map(millis),
            [100, 200, 400, 25_600, 30_000, 30_000]
        );
        assert!((0..1_000).all(|_| delay(&config, 3) <= Duration::from_millis(400)));
    }
}
