//! Scenarios as people write them, in TOML: read, checked, and refused with the key, the value and
//! what would be valid. Reads text; the file is somebody else's.

mod raw;

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use raw::{File, Raw, RawBridge, RawSample, RawShape, RawShare, RawSteps};

use super::scenario::{BridgePlan, Kind, Scenario, SharePlan, Stall, StreamPlan};
use super::shape::Shape;
use crate::config;
use crate::flow::{Sampling, Share, Strategy};
use crate::rate::Steps;

/// Nobody watches longer, and it is 720,000 steps.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Records of one run: a hundred megabytes of ages.
const MOST_RECORDS: f64 = 20e6;
const MOST_CAPACITY: usize = 10_000_000;

/// The scenarios of a file.
///
/// # Errors
///
/// Everything that is wrong with it, a line each.
pub fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
    let mut problems = Vec::new();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (index, raw) in file.scenarios.iter().enumerate() {
        let mut check = Check { index, name: &raw.name, problems: &mut problems };
        if raw.name.trim().is_empty() {
            check.wrong("name", "\"\"", "a name is missing");
        } else if scenarios.iter().any(|scenario| scenario.name == raw.name) {
            check.wrong("name", format!("{:?}", raw.name), "another scenario has this name");
        }
        scenarios.push(check.scenario(raw));
    }
    if file.scenarios.is_empty() {
        problems.push("scenarios = []: write at least one [[scenarios]] table".to_owned());
    }
    if problems.is_empty() { Ok(scenarios) } else { Err(problems.join("\n")) }
}

/// Checks one scenario. What is wrong is noted, and something valid put in its place, so that all
/// that is wrong is found.
struct Check<'a> {
    index: usize,
    name: &'a str,
    problems: &'a mut Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, key: &str, value: impl Display, valid: &str) {
        let Self { index, name, problems } = self;
        problems.push(format!("scenarios[{index}].{key} = {value}: {valid} (scenario {name:?})"));
    }

    fn scenario(&mut self, raw: &Raw) -> Scenario {
        let duration = self.time("duration", raw.duration.as_deref(), 60);
        if duration > LONGEST {
            self.wrong("duration", humantime::format_duration(duration), "at most \"1h\"");
        }
        let kind = match (&raw.bridge, &raw.share) {
            (Some(_), Some(_)) => {
                self.wrong("share", "{...}", "either share or bridge, not both");
                Kind::Bridge(Box::default())
            }
            (Some(bridge), None) => Kind::Bridge(Box::new(self.bridge(raw, bridge))),
            (None, Some(share)) => Kind::Share(self.share(raw, share)),
            (None, None) => Kind::Stream(self.stream(raw, duration)),
        };
        Scenario { name: raw.name.clone(), about: raw.about.clone(), duration, kind }
    }

    fn stream(&mut self, raw: &Raw, duration: Duration) -> StreamPlan {
        let producer = self.shape("producer", raw.producer.as_ref(), None);
        if producer.highest() * duration.as_secs_f64() > MOST_RECORDS {
            let valid = "more than 20,000,000 records; divide all rates and the capacity by ten, \
                         or shorten the duration";
            self.wrong("producer", producer.highest(), valid);
        }
        let capacity = self.capacity(raw);
        let names = match (&raw.strategy, &raw.strategies) {
            (Some(one), None) => vec![one.clone()],
            (None, Some(several)) if !several.is_empty() => several.clone(),
            (None, None) => vec!["block".to_owned()],
            _ => {
                self.wrong("strategies", "[...]", "either strategy, or strategies with some names");
                vec!["block".to_owned()]
            }
        };
        let strategies = names.iter().map(|name| self.strategy(name, raw, capacity)).collect();
        StreamPlan {
            producer,
            consumer: self.shape("consumer", raw.consumer.as_ref(), None),
            stall: self.stall(raw),
            capacity,
            strategies,
            bucket: raw.token_bucket.as_ref().map(|bucket| {
                if !(bucket.rate > 0.0 && bucket.rate <= 1e9) {
                    self.wrong("token_bucket.rate", bucket.rate, "records a second, above 0");
                }
                if bucket.burst == 0 {
                    self.wrong("token_bucket.burst", 0, "at least 1, or nothing ever passes");
                }
                (bucket.rate, bucket.burst)
            }),
            keys: raw.keys.unwrap_or(100).max(1),
        }
    }

    fn share(&mut self, raw: &Raw, share: &RawShare) -> SharePlan {
        self.foreign(raw, "share", &["consumer", "capacity", "aimd", "stall"]);
        if share.starts.is_empty() || !share.starts.iter().all(|start| is_positive(*start)) {
            let value = format!("{:?}", share.starts);
            self.wrong("share.starts", value, "the first limit of each source, above 0");
        }
        SharePlan {
            starts: if share.starts.is_empty() { vec![1.0] } else { share.starts.clone() },
            steps: self.steps(raw.aimd.as_ref()),
            consumer: self.shape("consumer", raw.consumer.as_ref(), None),
            stall: self.stall(raw),
            capacity: self.capacity(raw),
        }
    }

    fn bridge(&mut self, raw: &Raw, bridge: &RawBridge) -> BridgePlan {
        self.foreign(raw, "bridge", &["stall"]);
        let normal = BridgePlan::default();
        let limits = &normal.limits;
        let max = bridge.max_buffer_size.unwrap_or(limits.max_buffer_size);
        let pause = bridge.pause_threshold.unwrap_or(max / 10 * 8);
        let resume = bridge.resume_threshold.unwrap_or(max / 10 * 4);
        if !(0 < resume && resume < pause && pause < max && max <= MOST_CAPACITY) {
            let value = format!("{pause} between {resume} and {max}");
            let valid = "0 < resume_threshold < pause_threshold < max_buffer_size <= 10,000,000";
            self.wrong("bridge.pause_threshold", value, valid);
        }
        let pull_limit = bridge.pull_limit.unwrap_or(usize::midpoint(pause, resume));
        if !(resume < pull_limit && pull_limit <= max) {
            let valid = "above resume_threshold and at most max_buffer_size";
            self.wrong("bridge.pull_limit", pull_limit, valid);
        }
        let limits = config::Backpressure {
            max_buffer_size: max,
            pause_threshold: pause,
            resume_threshold: resume,
            pull_limit,
            ..limits.clone()
        };
        let batch_rows = bridge.batch_rows.unwrap_or(normal.batch_rows.min(max / 2));
        if batch_rows == 0 || batch_rows > max / 2 {
            self.wrong("bridge.batch_rows", batch_rows, "at most half of max_buffer_size");
        }
        let linger = bridge.linger.as_deref();
        BridgePlan {
            kafka: self.shape("bridge.kafka", bridge.kafka.as_ref(), Some(normal.kafka)),
            nats: self.shape("bridge.nats", bridge.nats.as_ref(), Some(normal.nats)),
            clickhouse: {
                let given = bridge.clickhouse.as_ref();
                self.shape("bridge.clickhouse", given, Some(normal.clickhouse))
            },
            stall: self.stall(raw),
            record_bytes: bridge.record_bytes.unwrap_or(normal.record_bytes),
            limits,
            batch_rows,
            linger: self.time("bridge.linger", linger, normal.linger.as_secs()),
            max_in_flight: bridge.max_in_flight.unwrap_or(normal.max_in_flight).max(1),
            heartbeat: normal.heartbeat,
        }
    }

    /// Keys that mean nothing in a scenario of this kind.
    fn foreign(&mut self, raw: &Raw, kind: &str, known: &[&str]) {
        let given = [
            ("producer", raw.producer.is_some()),
            ("consumer", raw.consumer.is_some()),
            ("capacity", raw.capacity.is_some()),
            ("strategy", raw.strategy.is_some()),
            ("strategies", raw.strategies.is_some()),
            ("keep", raw.keep.is_some()),
            ("sample", raw.sample.is_some()),
            ("aimd", raw.aimd.is_some()),
            ("token_bucket", raw.token_bucket.is_some()),
            ("keys", raw.keys.is_some()),
        ];
        for (key, _) in given.iter().filter(|(key, given)| *given && !known.contains(key)) {
            let valid = format!("a scenario with {kind} has beside it only {}", known.join(", "));
            self.wrong(key, "...", &valid);
        }
    }

    fn strategy(&mut self, name: &str, raw: &Raw, capacity: usize) -> Strategy {
        match name.replace('-', "_").as_str() {
            "block" => Strategy::Block,
            "drop_newest" => Strategy::DropNewest,
            "drop_oldest" => Strategy::DropOldest,
            "sliding" => {
                let keep = raw.keep.unwrap_or((capacity / 10).max(1));
                if !(1..=capacity).contains(&keep) {
                    self.wrong("keep", keep, &format!("from 1 to the capacity, {capacity}"));
                }
                Strategy::Sliding { keep: keep.clamp(1, capacity) }
            }
            "sample" => self.sample(raw.sample.as_ref().unwrap_or(&RawSample::default())),
            "disconnect" => Strategy::Disconnect,
            "adaptive" => Strategy::Adaptive(self.steps(raw.aimd.as_ref())),
            _ => {
                let valid = format!("known: {}", Strategy::NAMES.join(", "));
                self.wrong("strategy", format!("{name:?}"), &valid);
                Strategy::Block
            }
        }
    }

    fn sample(&mut self, raw: &RawSample) -> Strategy {
        let from = raw.from.unwrap_or(0.5);
        if !(0.0..=1.0).contains(&from) {
            self.wrong("sample.from", from, "how full it is when sampling begins, 0 to 1");
        }
        let tenth = NonZeroU32::new(10).expect("ten is not zero");
        let one_in = raw.one_in.and_then(NonZeroU32::new).unwrap_or(tenth);
        if raw.one_in == Some(0) {
            self.wrong("sample.one_in", 0, "at least 1");
        }
        let share = match raw.share.map(|share| (share, Share::new(share))) {
            None => Share::one_in(one_in),
            Some((_, Some(share))) => share,
            Some((wrong, None)) => {
                self.wrong("sample.share", wrong, "above 0 and at most 1");
                Share::one_in(tenth)
            }
        };
        let sampling = match raw.by.as_deref() {
            None | Some("turn") if raw.share.is_none() => Sampling::OneIn(one_in),
            Some("key") => Sampling::ByKey(share),
            Some("random") | None => Sampling::Random { share, seed: 0 },
            Some("turn") => {
                self.wrong("sample.by", "\"turn\"", "by turns takes one_in, not a share");
                Sampling::OneIn(one_in)
            }
            Some(other) => {
                self.wrong("sample.by", format!("{other:?}"), "known: turn, key, random");
                Sampling::OneIn(one_in)
            }
        };
        Strategy::Sample { sampling, from: from.clamp(0.0, 1.0) }
    }

    fn steps(&mut self, raw: Option<&RawSteps>) -> Steps {
        let normal = Steps::rate(100.0, 100_000.0);
        let Some(raw) = raw else { return normal };
        let steps = Steps {
            start: raw.start.unwrap_or(normal.start),
            min: raw.min.unwrap_or(normal.min),
            max: raw.max.unwrap_or(normal.max),
            increase: raw.increase.unwrap_or(normal.increase),
            decrease: raw.decrease.unwrap_or(normal.decrease),
            interval: self.time("aimd.interval", raw.interval.as_deref(), 1),
        };
        if !(0.0 < steps.min && steps.min <= steps.max && steps.max <= 1e9) {
            self.wrong(
                "aimd.min",
                steps.min,
                &format!("above 0 and at most aimd.max, {}", steps.max),
            );
        } else if !is_positive(steps.increase) {
            self.wrong("aimd.increase", steps.increase, "above 0: what an interval adds");
        } else if !(0.0 < steps.decrease && steps.decrease < 1.0) {
            self.wrong(
                "aimd.decrease",
                steps.decrease,
                "between 0 and 1: what is left of the rate",
            );
        } else if !is_positive(steps.start) {
            self.wrong("aimd.start", steps.start, "records a second, above 0");
        } else {
            return steps;
        }
        normal
    }

    fn capacity(&mut self, raw: &Raw) -> usize {
        let capacity = raw.capacity.unwrap_or(1_000);
        if !(1..=MOST_CAPACITY).contains(&capacity) {
            self.wrong("capacity", capacity, "from 1 to 10,000,000 records");
        }
        capacity.clamp(1, MOST_CAPACITY)
    }

    fn stall(&mut self, raw: &Raw) -> Option<Stall> {
        let stall = raw.stall.as_ref()?;
        let after = self.length("stall.after", &stall.after);
        Some(Stall { after, lasts: self.length("stall.lasts", &stall.lasts) })
    }

    fn shape(&mut self, key: &str, raw: Option<&RawShape>, normal: Option<Shape>) -> Shape {
        let wanted = "write { rate = 100 }, { low = 50, high = 200, every = \"10s\" } or { low = 0, \
                      high = 500, every = \"20s\", lasts = \"2s\" }, rates from 0 to 10,000,000";
        let shape = match raw {
            None => normal,
            Some(RawShape {
                rate: Some(rate),
                low: None,
                high: None,
                every: None,
                lasts: None,
            }) => Some(Shape::Steady { rate: *rate }),
            Some(RawShape { rate: None, low: Some(low), high: Some(high), every, lasts }) => {
                let (low, high) = (*low, *high);
                let every = self.time(&format!("{key}.every"), every.as_deref(), 10);
                let lasts = lasts.as_ref().map(|lasts| self.length(&format!("{key}.lasts"), lasts));
                Some(match lasts {
                    Some(lasts) => Shape::Bursts { low, high, every, lasts },
                    None => Shape::Wander { low, high, every },
                })
            }
            Some(_) => None,
        };
        let possible = |rate: f64| (0.0..=1e7).contains(&rate);
        match shape {
            Some(Shape::Steady { rate }) if possible(rate) => Shape::Steady { rate },
            Some(shape @ (Shape::Wander { low, high, .. } | Shape::Bursts { low, high, .. }))
                if possible(low) && possible(high) && low <= high =>
            {
                shape
            }
            _ => {
                self.wrong(key, raw.map_or("nothing".to_owned(), RawShape::to_string), wanted);
                Shape::Steady { rate: 1.0 }
            }
        }
    }

    fn time(&mut self, key: &str, given: Option<&str>, normal_seconds: u64) -> Duration {
        let normal = Duration::from_secs(normal_seconds);
        let time = given.map_or(normal, |text| self.length(key, text));
        if time.is_zero() {
            self.wrong(key, "\"0s\"", "longer than nothing");
            return normal;
        }
        time
    }

    fn length(&mut self, key: &str, text: &str) -> Duration {
        humantime::parse_duration(text).unwrap_or_else(|_| {
            self.wrong(key, format!("{text:?}"), "a duration with its unit, for example \"10s\"");
            Duration::from_secs(1)
        })
    }
}

/// Above nothing; not infinite, and a number.
fn is_positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}
