//! Limits on a rate: as they are written, and as they are valid.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::raw_route::Route;

/// Sources look at what may pass this often a second at least: a smaller burst would never let the
/// rate be reached.
const LOOKS_PER_SECOND: u32 = 10;

/// At most so many records: on average, and at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRateLimit {
    /// On average.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) records_per_second: u32,
    /// At once, after a time in which fewer came; at least a tenth of `records_per_second`. Default:
    /// as many as pass in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) burst: Option<u32>,
}

/// A limit on a rate: in any time t no more than rate x t + burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub records_per_second: u32,
    /// records
    pub burst: u64,
}

impl RateLimit {
    #[must_use]
    pub fn per_second(&self) -> f64 {
        f64::from(self.records_per_second)
    }
}

pub(super) fn limit(
    key: &str,
    raw: Option<&RawRateLimit>,
    problems: &mut Problems,
) -> Option<RateLimit> {
    let RawRateLimit { records_per_second, burst } = *raw?;
    let burst = burst.unwrap_or(records_per_second);
    let least = records_per_second.div_ceil(LOOKS_PER_SECOND);
    if burst < least {
        let text = format!(
            "must be at least a tenth of records_per_second ({least}), or the rate is never reached"
        );
        problems.push(&format!("{key}.burst"), burst, text);
    }
    Some(RateLimit { records_per_second, burst: u64::from(burst) })
}

/// The limit of a route. What is pulled waits, what core NATS brings is dropped: one route can't do
/// both with one limit, or the backlog of the one would use up what the other may bring.
pub(super) fn of_route(key: &str, raw: &Route, problems: &mut Problems) -> Option<RateLimit> {
    let key = format!("{key}.rate_limit");
    let limit = limit(&key, raw.rate_limit.as_ref(), problems)?;
    let pulls = !raw.kafka_topics.is_empty() || !raw.jetstream_subjects.is_empty();
    if (pulls || raw.publish) && !raw.nats_subjects.is_empty() {
        let text = "is not possible on a route with nats_subjects beside kafka_topics, \
                    jetstream_subjects or publish: of core NATS what is over the limit is dropped, the others \
                    wait; give the subjects a route of their own";
        problems.bare(&key, text);
    }
    if raw.class == "system" && !raw.nats_subjects.is_empty() {
        let text = "is not possible on a route of class \"system\" with nats_subjects: these are \
                    never dropped";
        problems.bare(&key, text);
    }
    Some(limit)
}

#[cfg(test)]
mod tests {
    use super::super::load_over;
    use super::*;

    fn load(sections: &str, route: &str) -> Result<Option<RateLimit>, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        let text = format!("{sections}\n[[routes]]\nname = 'x'\ntable = 't'\n{route}\n");
        std::fs::write(&file, text).unwrap();
        let loaded = load_over(&[file], None).map_err(|error| error.to_string())?;
        Ok(loaded.config.routes[0].rate_limit.or(loaded.config.rate_limit_of("kafka")))
    }

    const KAFKA: &str = "kafka_topics = ['x']";
    const NATS: &str = "nats_subjects = ['x']";

    #[test]
    fn a_burst_is_a_second_unless_it_is_given() {
        let limit = |burst| Some(RateLimit { records_per_second: 500, burst });
        let of_kafka = "[kafka]\nrate_limit = { records_per_second = 500 }";
        assert_eq!(load(of_kafka, KAFKA), Ok(limit(500)));
        let given = "rate_limit = { records_per_second = 500, burst = 50 }";
        assert_eq!(load("[kafka]", &format!("{KAFKA}\n{given}")), Ok(limit(50)));
    }

    #[test]
    fn a_burst_that_would_keep_the_rate_from_being_reached_is_refused() {
        let small = "[kafka]\nrate_limit = { records_per_second = 500, burst = 49 }";
        let error = load(small, KAFKA).unwrap_err();
        assert!(error.contains("kafka.rate_limit.burst = 49") && error.contains("50"), "{error}");
    }

    #[test]
    fn no_route_waits_and_drops_by_one_limit_and_system_is_never_dropped() {
        let limit = "rate_limit = { records_per_second = 5 }";
        assert!(load("[nats]", &format!("{NATS}\n{limit}")).is_ok());
        let both = load("[kafka]\n[nats]", &format!("{KAFKA}\n{NATS}\n{limit}")).unwrap_err();
        assert!(both.contains("routes[0].rate_limit") && both.contains("wait"), "{both}");
        let system = format!("{NATS}\nclass = 'system'\n{limit}");
        assert!(load("[nats]", &system).unwrap_err().contains("never dropped"));
    }
}
