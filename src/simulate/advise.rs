//! From rates and sizes to thresholds: the arithmetic that people do on paper, with the numbers
//! it comes from beside the result.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;

use super::{float, whole};
use crate::thousands::thousands;

/// What is known of the load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// records a second, at the worst hour
    pub rate: f64,
    pub record_bytes: u64,
    /// How long ClickHouse may take nothing before the sources are paused.
    pub delay: Duration,
    /// For what was not foreseen.
    pub safety: f64,
    /// Records that may come at once.
    pub burst: u64,
}

/// Loads to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    Low,
    Medium,
    High,
}

impl Preset {
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The higher the rate, the shorter a delay a buffer can carry: what is beyond it waits in
    /// Kafka, at no cost.
    #[must_use]
    pub fn needs(self) -> Needs {
        let (rate, seconds, burst) = match self {
            Self::Low => (100.0, 60, 1_000),
            Self::Medium => (5_000.0, 5, 10_000),
            Self::High => (100_000.0, 2, 100_000),
        };
        let delay = Duration::from_secs(seconds);
        Needs { rate, record_bytes: 500, delay, safety: 2.0, burst }
    }
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub needs: Needs,
    /// rate x delay x safety
    pub by_rate: u64,
    /// Two to five times the burst.
    pub by_burst: (u64, u64),
    pub max_buffer_size: u64,
    pub pause_threshold: u64,
    pub resume_threshold: u64,
    pub max_buffer_bytes: u64,
    pub batch_rows: u64,
    pub linger: Duration,
    /// What the numbers do not say.
    pub notes: Vec<String>,
}

/// The configuration takes no smaller and no larger cap.
const CAP: std::ops::RangeInclusive<u64> = 100..=100_000_000;

const MIB: u64 = 1 << 20;

impl Advice {
    #[must_use]
    pub fn of(needs: &Needs) -> Self {
        let by_rate = whole((needs.rate * needs.delay.as_secs_f64() * needs.safety).ceil());
        let by_burst = (needs.burst.saturating_mul(2), needs.burst.saturating_mul(5));
        let wanted = by_rate.max(by_burst.0);
        let max_buffer_size = round(wanted.clamp(*CAP.start(), *CAP.end())).min(*CAP.end());
        let pause_threshold = max_buffer_size / 10 * 8;
        let resume_threshold = max_buffer_size / 10 * 4;
        // Twice: the payloads stay until their rows are durable, and what is being sent has a body
        // beside them.
        let bytes = max_buffer_size.saturating_mul(needs.record_bytes).saturating_mul(2);
        let max_buffer_bytes = bytes.div_ceil(MIB).max(16) * MIB;
        // ClickHouse likes an insert a second and table, and 10,000 rows; few rows wait longer.
        let linger = Duration::from_secs(if needs.rate < 1_000.0 { 5 } else { 1 });
        let batch = round(whole(needs.rate * linger.as_secs_f64()).max(1));
        let batch_rows = batch.clamp(10, 100_000).max(1_000).min(max_buffer_size / 2);
        let mut advice = Self {
            needs: *needs,
            by_rate,
            by_burst,
            max_buffer_size,
            pause_threshold,
            resume_threshold,
            max_buffer_bytes,
            batch_rows,
            linger,
            notes: Vec::new(),
        };
        advice.notes = advice.remarks(wanted);
        advice
    }

    fn remarks(&self, wanted: u64) -> Vec<String> {
        let needs = &self.needs;
        let mut notes = Vec::new();
        let lasts = float(self.pause_threshold) / needs.rate.max(1e-9);
        let shown = humantime::format_duration(Duration::from_secs(whole(lasts)));
        notes.push(format!("from empty to paused: {shown} without an insert, at the full rate"));
        if wanted > *CAP.end() {
            notes.push("more than one instance can hold: let instances share the load".to_owned());
        }
        if lasts < needs.delay.as_secs_f64() {
            notes.push(
                "it pauses within the expected delay: a safety factor of 1.25 makes up for pausing \
                 at 80 %"
                    .to_owned(),
            );
        }
        if float(needs.burst) > float(self.pause_threshold) {
            notes.push(
                "a burst alone pauses the sources; core NATS loses what comes then".to_owned(),
            );
        }
        if self.max_buffer_bytes > 4 << 30 {
            notes.push(
                "that is much memory: Kafka and JetStream keep a backlog for less; take a shorter \
                 delay"
                    .to_owned(),
            );
        }
        notes
    }

    /// The same as configuration.
    #[must_use]
    pub fn snippet(&self) -> String {
        let needs = &self.needs;
        let mut text = String::from("[backpressure]\n");
        let mut line = |key: &str, value: String, why: String| {
            writeln!(text, "{:<32} # {why}", format!("{key} = {value}"))
                .expect("a String takes every write");
        };
        let why = format!(
            "{}/s x {} x {}, and twice a burst of {}",
            thousands(whole(needs.rate)),
            humantime::format_duration(needs.delay),
            needs.safety,
            thousands(needs.burst)
        );
        line("max_buffer_size", number(self.max_buffer_size), why);
        line("pause_threshold", number(self.pause_threshold), "80 %".to_owned());
        line("resume_threshold", number(self.resume_threshold), "40 %".to_owned());
        let size = format!("\"{}MiB\"", self.max_buffer_bytes / MIB);
        let why = format!(
            "records of {}, twice: payloads, and bodies on their way",
            ByteSize::b(needs.record_bytes).display().iec()
        );
        line("max_buffer_bytes", size, why);
        text.push_str("\n[writers.default]\n");
        let mut line = |key: &str, value: String, why: &str| {
            writeln!(text, "{:<32} # {why}", format!("{key} = {value}"))
                .expect("a String takes every write");
        };
        line("batch_rows", number(self.batch_rows), "what comes while it lingers, at most 100,000");
        let linger = format!("\"{}\"", humantime::format_duration(self.linger));
        line("linger", linger, "about an insert a second and table");
        text
    }
}

/// Up to two digits and zeros: nobody's load is known better.
fn round(count: u64) -> u64 {
    let mut unit = 1;
    while count / unit >= 100 {
        unit *= 10;
    }
    count.div_ceil(unit) * unit
}

/// As TOML has it.
fn number(count: u64) -> String {
    thousands(count).replace(',', "_")
}
