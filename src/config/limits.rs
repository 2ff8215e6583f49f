//! The limits of what is held; and those that `thresholds = "auto"` chooses, as they are at the
//! start, with what they are planned from.

use std::time::Duration;

use super::BATCH_ROWS;
use super::problem::Problems;
use super::raw::{self, Raw, Thresholds};
use super::units::Size;
use crate::backpressure::auto::Auto;
use crate::memory;

#[derive(Debug, Clone)]
pub struct Backpressure {
    /// records
    pub max_buffer_size: usize,
    pub pause_threshold: usize,
    pub resume_threshold: usize,
    /// Resolved: the key, or `pause_threshold`, or midway when core NATS is configured too.
    pub pull_limit: usize,
    /// bytes
    pub max_buffer_bytes: usize,
    pub warn_after: Duration,
    pub critical_after: Duration,
    pub repeat_every: Duration,
    /// The numbers above are where it begins: they are chosen, and move.
    pub auto: Option<AutoThresholds>,
}

/// What `thresholds = "auto"` plans with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoThresholds {
    pub memory: Memory,
    /// Where pulled sources stop, in percent of the cap.
    pub pull_percent: u8,
    /// The cap is never below this: two of the largest batches.
    pub least: usize,
}

/// What memory there is, and what takes it besides the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// bytes
    pub limit: usize,
    /// Who says so.
    pub from: String,
    /// It is the system's, and may change while the bridge runs; else it was given.
    pub follows: bool,
    /// What the clients may have fetched before it is taken, and what is on its way to the owner.
    pub fetched: usize,
}

/// Less than this is no memory to run in: the process alone takes half of it.
const LEAST_LIMIT: Size = Size::mib(96);

/// Chunks on their way to the owner, of 4 MiB at most each.
const ON_THEIR_WAY: usize = 4 * 4 * 1024 * 1024;

/// Lays the limits, if they are to be chosen; else only looks that nothing says otherwise.
pub(super) fn lay(raw: &Raw, pull_percent: u8, limits: &mut Backpressure, problems: &mut Problems) {
    let given = &raw.backpressure;
    if given.thresholds == Thresholds::Fixed {
        if let Some(limit) = given.memory_limit {
            let text = "only says something with thresholds = \"auto\"; leave it out";
            problems.text("backpressure.memory_limit", &limit.to_string(), text);
        }
        return;
    }
    nothing_is_given(given, problems);
    let Some((limit, from)) = limit(given, problems) else { return };
    let follows = given.memory_limit.is_none();
    let batch_rows = raw.writers.values().map(|writer| writer.batch_rows.unwrap_or(BATCH_ROWS));
    let least = 2 * batch_rows.max().unwrap_or(BATCH_ROWS).max(BATCH_ROWS);
    let memory = Memory { limit, from, follows, fetched: fetched(raw) };
    let auto = AutoThresholds { memory, pull_percent, least };
    Auto::new(auto.clone()).begin(limits);
    limits.auto = Some(auto);
}

fn limit(given: &raw::Backpressure, problems: &mut Problems) -> Option<(usize, String)> {
    const KEY: &str = "backpressure.memory_limit";
    let Some(limit) = given.memory_limit else {
        let Some(limit) = memory::limit::of_this_process() else {
            let text = "is missing: neither /proc/meminfo nor a cgroup says how much memory there \
                        is; give it, such as \"2GiB\"";
            problems.bare(KEY, text);
            return None;
        };
        return Some((limit.bytes, limit.from));
    };
    if limit < LEAST_LIMIT {
        let text = format!("must be at least \"{LEAST_LIMIT}\"");
        problems.text(KEY, &limit.to_string(), text);
    }
    Some((limit.0, "memory_limit".to_owned()))
}

/// What is chosen cannot be given too. What stands at its default may have been given: it is all
/// the same.
fn nothing_is_given(given: &raw::Backpressure, problems: &mut Problems) {
    const TEXT: &str = "is chosen by thresholds = \"auto\"; leave one of them out";
    let default = raw::Backpressure::default();
    let numbers = [
        ("max_buffer_size", given.max_buffer_size, default.max_buffer_size),
        ("pause_threshold", given.pause_threshold, default.pause_threshold),
        ("resume_threshold", given.resume_threshold, default.resume_threshold),
    ];
    for (key, number, _) in numbers.into_iter().filter(|(_, number, default)| number != default) {
        problems.push(&format!("backpressure.{key}"), number, TEXT);
    }
    if let Some(limit) = given.pull_limit {
        problems.push("backpressure.pull_limit", limit, TEXT);
    }
    if given.max_buffer_bytes != default.max_buffer_bytes {
        let bytes = given.max_buffer_bytes.to_string();
        problems.text("backpressure.max_buffer_bytes", &bytes, TEXT);
    }
}

/// What the clients may have fetched before it is taken.
fn fetched(raw: &Raw) -> usize {
    let kafka = raw.kafka.as_ref().map_or(0, |kafka| kafka.prefetch_bytes.0);
    let streams = raw.routes.iter().filter(|route| !route.jetstream_subjects.is_empty()).count();
    let jetstream = raw.nats.as_ref().and_then(|nats| nats.jetstream.as_ref());
    let of_stream = jetstream.map_or(0, |jetstream| jetstream.prefetch_bytes.0);
    kafka + streams * of_stream + ON_THEIR_WAY
}
