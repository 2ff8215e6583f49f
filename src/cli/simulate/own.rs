//! A scenario out of arguments.

use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use bytesize::ByteSize;

use crate::flow::{Sampling, Strategy};
use crate::rate::Steps;
use crate::simulate::{Kind, Scenario, Shape, Stall, StreamPlan};

/// Your own numbers, instead of a scenario.
#[derive(Debug, clap::Args)]
pub(super) struct Own {
    /// Records a second that come
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// Records a second that are taken
    #[arg(long, value_name = "N", value_parser = rate, requires = "rate")]
    consume: Option<f64>,

    /// Records that fit into the buffer
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    buffer: u32,

    /// What gives when it is full: block, drop_newest, drop_oldest, sliding (keeps a tenth), sample
    /// (1 in 10, from half full on), disconnect, adaptive; several are compared
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "block",
          value_parser = strategy_name)]
    strategy: Vec<String>,

    /// How long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    duration: Duration,

    /// Nothing is taken for a while, for example 10s:5s: after 10 s, for 5 s
    #[arg(long, value_name = "AFTER:LASTS", value_parser = stall)]
    stall: Option<Stall>,
}

/// A hundred megabytes of what is kept of each record.
const MOST_RECORDS: f64 = 20e6;

impl Own {
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// None where no rate is given.
    pub(super) fn scenario(&self) -> Result<Option<Scenario>, String> {
        let Some(rate) = self.rate else { return Ok(None) };
        let Some(consume) = self.consume else {
            return Err("--rate needs --consume, the records a second that are taken".to_owned());
        };
        if self.duration > Duration::from_secs(3_600) {
            return Err("--duration: at most 1h".to_owned());
        }
        if rate * self.duration.as_secs_f64() > MOST_RECORDS {
            return Err("more than 20,000,000 records: divide --rate, --consume and --buffer by \
                        ten, or shorten --duration"
                .to_owned());
        }
        let capacity = usize::try_from(self.buffer).map_err(|error| error.to_string())?;
        let strategies = self.strategy.iter().map(|name| strategy(name, capacity, rate));
        let plan = StreamPlan {
            producer: Shape::Steady { rate },
            consumer: Shape::Steady { rate: consume },
            stall: self.stall,
            capacity,
            strategies: strategies.collect(),
            bucket: None,
            keys: 100,
        };
        let about = format!("{rate}/s into {consume}/s, a buffer of {capacity}");
        let kind = Kind::Stream(plan);
        Ok(Some(Scenario { name: "own".to_owned(), about, duration: self.duration, kind }))
    }
}

/// With what it takes besides, in proportion.
fn strategy(name: &str, capacity: usize, rate: f64) -> Strategy {
    let tenth = NonZeroU32::new(10).expect("ten is not zero");
    match name {
        "drop_newest" => Strategy::DropNewest,
        "drop_oldest" => Strategy::DropOldest,
        "sliding" => Strategy::Sliding { keep: (capacity / 10).max(1) },
        "sample" => Strategy::Sample { sampling: Sampling::OneIn(tenth), from: 0.5 },
        "disconnect" => Strategy::Disconnect,
        "adaptive" => {
            let increase = (rate / 100.0).max(1.0);
            let steps = Steps::rate((rate / 2.0).max(1.0), (rate * 10.0).max(10.0));
            Strategy::Adaptive(Steps { increase, ..steps })
        }
        _ => Strategy::Block,
    }
}

fn strategy_name(text: &str) -> Result<String, String> {
    let name = text.replace('-', "_");
    if Strategy::NAMES.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!("known: {}", Strategy::NAMES.join(", ")))
}

fn number(text: &str) -> Option<f64> {
    text.replace(['_', ','], "").parse().ok().filter(|number: &f64| number.is_finite())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = number(text.strip_suffix("/s").unwrap_or(text));
    rate.filter(|rate| (0.0..=1e7).contains(rate))
        .ok_or_else(|| "records a second, from 0 to 10,000,000, for example 5000".to_owned())
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text).filter(|n| *n > 0.0).ok_or_else(|| "a number above 0, for example 2.5".to_owned())
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| "a duration with its unit, for example \"10s\" or \"1m 30s\"".to_owned())
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    let size = ByteSize::from_str(text).ok().map(|size| size.as_u64());
    size.filter(|size| *size > 0).ok_or_else(|| "a size, for example 500B or 2KB".to_owned())
}

fn stall(text: &str) -> Result<Stall, String> {
    let wanted = || "AFTER:LASTS, for example 10s:5s".to_owned();
    let (after, lasts) = text.split_once(':').ok_or_else(wanted)?;
    let after = humantime::parse_duration(after).map_err(|_| wanted())?;
    Ok(Stall { after, lasts: time(lasts).map_err(|_| wanted())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_with_and_without_their_dressing() {
        assert_eq!(rate("5_000/s"), Ok(5_000.0));
        assert_eq!(size("2KiB"), Ok(2_048));
        assert_eq!(strategy_name("drop-oldest").as_deref(), Ok("drop_oldest"));
        let expected = Stall { after: Duration::from_secs(10), lasts: Duration::from_secs(5) };
        assert_eq!(stall("10s:5s"), Ok(expected));
    }

    #[test]
    fn wrong_arguments_are_told_what_is_valid() {
        assert!(rate("-1").is_err() && rate("inf").is_err() && rate("x").is_err());
        assert!(strategy_name("drop").unwrap_err().contains("drop_oldest"));
        assert!(stall("10s").unwrap_err().contains("10s:5s"));
        assert!(time("0s").is_err() && time("5").is_err());
        assert!(positive("0").is_err() && size("0B").is_err());
    }

    #[test]
    fn every_strategy_that_has_a_name_can_be_asked_for() {
        for name in Strategy::NAMES {
            assert_eq!(strategy(name, 100, 50.0).name(), name);
        }
    }
}
