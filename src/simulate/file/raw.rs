//! The keys of a scenario file, and their types. They promise nothing: [`super::parse`] does.

use std::fmt;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) scenarios: Vec<Raw>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: String,
    #[serde(default)]
    pub(super) about: String,
    pub(super) duration: Option<String>,
    pub(super) producer: Option<RawShape>,
    pub(super) consumer: Option<RawShape>,
    pub(super) stall: Option<RawStall>,
    pub(super) capacity: Option<usize>,
    pub(super) strategy: Option<String>,
    pub(super) strategies: Option<Vec<String>>,
    pub(super) keep: Option<usize>,
    pub(super) sample: Option<RawSample>,
    pub(super) aimd: Option<RawSteps>,
    pub(super) token_bucket: Option<RawBucket>,
    pub(super) keys: Option<u32>,
    pub(super) share: Option<RawShare>,
    pub(super) bridge: Option<RawBridge>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawShape {
    pub(super) rate: Option<f64>,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    pub(super) every: Option<String>,
    pub(super) lasts: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStall {
    pub(super) after: String,
    pub(super) lasts: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSample {
    pub(super) one_in: Option<u32>,
    pub(super) share: Option<f64>,
    pub(super) by: Option<String>,
    pub(super) from: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSteps {
    pub(super) start: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) increase: Option<f64>,
    pub(super) decrease: Option<f64>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBucket {
    pub(super) rate: f64,
    pub(super) burst: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShare {
    pub(super) starts: Vec<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBridge {
    pub(super) kafka: Option<RawShape>,
    pub(super) nats: Option<RawShape>,
    pub(super) clickhouse: Option<RawShape>,
    pub(super) record_bytes: Option<usize>,
    pub(super) max_buffer_size: Option<usize>,
    pub(super) pause_threshold: Option<usize>,
    pub(super) resume_threshold: Option<usize>,
    pub(super) pull_limit: Option<usize>,
    pub(super) batch_rows: Option<usize>,
    pub(super) linger: Option<String>,
    pub(super) max_in_flight: Option<usize>,
}

impl fmt::Display for RawShape {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [("rate", self.rate), ("low", self.low), ("high", self.high)];
        let times = [("every", &self.every), ("lasts", &self.lasts)];
        let numbers = numbers.iter().filter_map(|(key, n)| n.map(|n| format!("{key} = {n}")));
        let times = times.iter().filter_map(|(key, t)| {
            let text = t.as_ref()?;
            Some(format!("{key} = {text:?}"))
        });
        write!(f, "{{ {} }}", numbers.chain(times).collect::<Vec<_>>().join(", "))
    }
}
