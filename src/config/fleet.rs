//! `[fleet]`: as it is written, and as it is valid.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::jetstream;
use super::problem::Problems;
use super::units::Span;

/// Below it a server hears of nothing else.
const LEAST_INTERVAL: Span = Span::seconds(1);
/// An entry may be late twice before its instance counts as gone.
const INTERVALS_TO_FORGET: u32 = 3;

/// Instances that share a ClickHouse tell each other how they are, through a key-value bucket of
/// NATS; needs `[nats]` with JetStream. Leave the table out: no fleet. Losing NATS harms nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFleet {
    /// The key-value bucket; made if it is missing. One for each ClickHouse that is shared.
    pub(super) bucket: String,
    /// How often each says how it is, and hears of the others.
    pub(super) interval: Span,
    /// An instance that has said nothing for so long is gone; at least three times `interval`.
    pub(super) forget_after: Span,
    /// When the mean fill of all is above this, all pull more slowly. In percent of their caps.
    #[schemars(range(min = 1, max = 100))]
    pub(super) slow_above_percent: u8,
    /// When it is below this, they no longer do; and whoever is below it itself does not.
    #[schemars(range(min = 1, max = 100))]
    pub(super) slow_below_percent: u8,
    /// How slowly: in percent of what ClickHouse took from each pulled source (Kafka, JetStream) when
    /// it began. 100: as fast as ClickHouse takes.
    #[schemars(range(min = 1, max = 100))]
    pub(super) slow_to_percent: u8,
}

impl Default for RawFleet {
    fn default() -> Self {
        Self {
            bucket: "data-bridge-fleet".to_owned(),
            interval: Span::seconds(2),
            forget_after: Span::seconds(10),
            slow_above_percent: 60,
            slow_below_percent: 40,
            slow_to_percent: 80,
        }
    }
}

/// How instances tell each other how they are, and when all slow down.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub bucket: String,
    pub interval: Duration,
    pub forget_after: Duration,
    /// Of the caps, on average.
    pub slow_above_percent: u8,
    pub slow_below_percent: u8,
    /// Of what ClickHouse took when it began.
    pub slow_to_percent: u8,
}

pub(super) fn fleet(raw: &RawFleet, has_nats: bool, problems: &mut Problems) -> Fleet {
    if !has_nats {
        problems.bare("fleet", "needs NATS: add a [nats] table, with its servers".to_owned());
    }
    jetstream::bucket("fleet.bucket", &raw.bucket, problems);
    if raw.interval < LEAST_INTERVAL {
        let text = "must be at least \"1s\"; the default is \"2s\"";
        problems.text("fleet.interval", &raw.interval.to_string(), text);
    }
    let least = Span(raw.interval.0 * INTERVALS_TO_FORGET);
    if raw.forget_after < least {
        let text = format!("must be at least three times fleet.interval (\"{least}\")");
        problems.text("fleet.forget_after", &raw.forget_after.to_string(), text);
    }
    if raw.slow_below_percent >= raw.slow_above_percent {
        let text = format!("must be below slow_above_percent ({})", raw.slow_above_percent);
        problems.push("fleet.slow_below_percent", raw.slow_below_percent, text);
    }
    Fleet {
        bucket: raw.bucket.clone(),
        interval: raw.interval.0,
        forget_after: raw.forget_after.0,
        slow_above_percent: raw.slow_above_percent,
        slow_below_percent: raw.slow_below_percent,
        slow_to_percent: raw.slow_to_percent,
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_over;

    fn load(fleet: &str, nats: &str) -> Result<bool, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        let text = format!(
            "[kafka]\n{nats}\n[fleet]\n{fleet}\n[[routes]]\nname = 'x'\ntable = 't'\n\
             kafka_topics = ['x']\n"
        );
        std::fs::write(&file, text).unwrap();
        let loaded = load_over(&[file], None).map_err(|error| error.to_string())?;
        Ok(loaded.config.fleet.is_some())
    }

    #[test]
    fn a_fleet_is_work_enough_for_nats_and_needs_it() {
        assert_eq!(load("", "[nats]"), Ok(true));
        let error = load("", "").unwrap_err();
        assert!(error.contains("fleet: needs NATS"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_would() {
        for (key, says) in [
            ("bucket = 'a.b'", "fleet.bucket"),
            ("interval = '100ms'", "at least \"1s\""),
            ("forget_after = '3s'", "\"6s\""),
            ("slow_below_percent = 60", "slow_above_percent (60)"),
        ] {
            let error = load(key, "[nats]").unwrap_err();
            assert!(error.contains(says), "{key}: {error}");
        }
    }
}
