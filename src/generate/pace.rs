//! How many records should have been sent by now. Pure: the senders ask on every tick and send
//! the difference, so that a late tick is caught up and the rate never drifts.

use std::time::Duration;

/// So many records at once, at the start and again after each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    pub period: Duration,
    pub records: u64,
}

impl std::str::FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("`{text}` is no burst; write PERIOD:RECORDS, for example 10s:5000");
        let (period, records) = text.split_once(':').ok_or_else(wanted)?;
        let period = humantime::parse_duration(period).map_err(|_| wanted())?;
        let records = records.replace('_', "").parse().map_err(|_| wanted())?;
        if period.is_zero() || records == 0 {
            return Err(wanted());
        }
        Ok(Self { period, records })
    }
}

/// A target's rate. Neither: as fast as it takes them. Only bursts: silence between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// records per second
    pub rate: Option<u64>,
    pub burst: Option<Burst>,
}

impl Pace {
    /// How many records are due when this much time has passed.
    #[must_use]
    pub fn due(&self, elapsed: Duration) -> u64 {
        if self.rate.is_none() && self.burst.is_none() {
            return u64::MAX;
        }
        let steady = self.rate.map_or(0, |rate| u128::from(rate) * elapsed.as_micros() / 1_000_000);
        let burst = self.burst.map_or(0, |burst| {
            (1 + elapsed.as_micros() / burst.period.as_micros().max(1)) * u128::from(burst.records)
        });
        u64::try_from(steady + burst).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met_exactly_however_late_the_tick() {
        let pace = Pace { rate: Some(5_000), burst: None };
        assert_eq!(pace.due(Duration::ZERO), 0);
        assert_eq!(pace.due(Duration::from_millis(10)), 50);
        assert_eq!(pace.due(Duration::from_secs(60)), 300_000);
    }

    #[test]
    fn a_burst_comes_at_once_and_again_after_its_period() {
        let pace = Pace { rate: None, burst: Some("10s:5_000".parse().unwrap()) };
        assert_eq!(pace.due(Duration::ZERO), 5_000);
        assert_eq!(pace.due(Duration::from_millis(9_999)), 5_000);
        assert_eq!(pace.due(Duration::from_secs(10)), 10_000);
    }

    #[test]
    fn without_a_pace_everything_is_due() {
        assert_eq!(Pace::default().due(Duration::ZERO), u64::MAX);
    }

    #[test]
    fn a_wrong_burst_is_refused_with_an_example() {
        for text in ["", "10s", "0s:5", "10s:0", "ten:5"] {
            assert!(text.parse::<Burst>().unwrap_err().contains("10s:5000"), "{text}");
        }
    }
}
