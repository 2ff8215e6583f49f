//! The limits of what is held; and those that `thresholds = "auto"` chooses, as they are at the
//! start, with what they are planned from.

use std::time::Duration;

use super::BATCH_ROWS;
use super::problem::Problems;
use super::raw::{self, Raw, Thresholds};
use super::units::Size;
use crate::backpressure::auto::Auto;
use crate::backpressure::budget;
use crate::memory;
use crate::memory::limit::Limit;

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
    /// What the process may take in all, in bytes, where that is planned with.
    pub memory_budget: Option<usize>,
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

/// What memory may be taken, and what takes it besides the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// bytes
    pub budget: usize,
    /// Who says so.
    pub from: String,
    /// It is the system's, and may change while the bridge runs; else it was given.
    pub follows: bool,
    /// What the clients may have fetched before it is taken, and what is on its way to the owner.
    pub fetched: usize,
}

impl Memory {
    /// Of what there is this much is planned for; the rest is for what no plan knows:
    /// fragmentation, a burst of HTTP requests, the allocator's own.
    const PERCENT: usize = 80;

    #[must_use]
    pub fn within(limit: &Limit, fetched: usize) -> Self {
        let Limit { bytes, from } = limit;
        let from = format!("{} % of {} MiB: {from}", Self::PERCENT, bytes / Size::mib(1).0);
        Self { budget: bytes / 100 * Self::PERCENT, from, follows: true, fetched }
    }
}

/// What is held has at least so much; with less there is no room for two polls.
const LEAST_HELD: Size = Size::mib(8);

/// The clients that fetch ahead share this part of a budget, where they are not given more.
const FETCHED_SHARE: usize = 8;
const LEAST_FETCHED: Size = Size::mib(1);
const KAFKA_AHEAD: Size = Size::mib(32);
const STREAM_AHEAD: Size = Size::mib(16);

/// What may be held where neither it nor a budget is given.
pub(super) const MAX_BUFFER_BYTES: Size = Size::mib(256);

/// Chunks on their way to the owner, of 4 MiB at most each.
const ON_THEIR_WAY: usize = 4 * 4 * 1024 * 1024;

/// What the clients may fetch ahead where nothing is given, in bytes; None where something is, or
/// there is no such client. It follows from how many share a budget, and stays until a restart: the
/// clients have been given it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    kafka: Option<usize>,
    stream: Option<usize>,
}

impl Shares {
    /// Gives a configuration that leaves them open those that are in use; says what it leaves open,
    /// and is then.
    pub(super) fn keep(self, raw: &mut Raw) -> Self {
        let ahead = Ahead::of(raw);
        let keep = |open: &mut Option<Size>, used: Option<usize>, chosen: usize| match open {
            Some(_) => None,
            None => {
                *open = used.map(Size);
                Some(used.unwrap_or(chosen))
            }
        };
        let kafka = raw.kafka.as_mut();
        let jetstream = raw.nats.as_mut().and_then(|nats| nats.jetstream.as_mut());
        Self {
            kafka: kafka.and_then(|it| keep(&mut it.prefetch_bytes, self.kafka, ahead.kafka)),
            stream: jetstream
                .and_then(|it| keep(&mut it.prefetch_bytes, self.stream, ahead.stream)),
        }
    }
}

/// What each client may fetch ahead, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    pub(super) kafka: usize,
    /// Each consumer of JetStream.
    pub(super) stream: usize,
    streams: usize,
}

impl Ahead {
    /// As given; else the default, or within a budget a share of it, if that is less.
    pub(super) fn of(raw: &Raw) -> Self {
        let streams =
            raw.routes.iter().filter(|route| !route.jetstream_subjects.is_empty()).count();
        let clients = usize::from(raw.kafka.is_some()) + streams;
        let share = raw
            .backpressure
            .memory_budget
            .map(|budget| Size(budget.0 / FETCHED_SHARE / clients.max(1)).max(LEAST_FETCHED));
        let ahead = |given: Option<Size>, default: Size| {
            given.unwrap_or_else(|| share.map_or(default, |share| share.min(default))).0
        };
        let jetstream = raw.nats.as_ref().and_then(|nats| nats.jetstream.as_ref());
        let kafka = raw.kafka.as_ref();
        Self {
            kafka: kafka.map_or(0, |kafka| ahead(kafka.prefetch_bytes, KAFKA_AHEAD)),
            stream: jetstream.map_or(0, |stream| ahead(stream.prefetch_bytes, STREAM_AHEAD)),
            streams,
        }
    }

    /// What all of them may have fetched before it is taken, and what is on its way to the owner.
    fn in_all(self) -> usize {
        self.kafka + self.streams * self.stream + ON_THEIR_WAY
    }
}

/// Lays the limits that follow from what memory may be taken.
pub(super) fn lay(raw: &Raw, pull_percent: u8, limits: &mut Backpressure, problems: &mut Problems) {
    let (given, fetched) = (&raw.backpressure, Ahead::of(raw).in_all());
    if let Some(budget) = given.memory_budget {
        check_budget(budget, given.max_buffer_bytes, fetched, problems);
    }
    if given.thresholds == Thresholds::Fixed {
        limits.memory_budget = given.memory_budget.map(|budget| budget.0);
        if let (Some(budget), None) = (limits.memory_budget, given.max_buffer_bytes) {
            limits.max_buffer_bytes = budget::held(budget, fetched).max(LEAST_HELD.0);
        }
        return;
    }
    nothing_is_given(given, problems);
    let Some(memory) = memory(given, fetched, problems) else { return };
    let batch_rows = raw.writers.values().map(|writer| writer.batch_rows.unwrap_or(BATCH_ROWS));
    let least = 2 * batch_rows.max().unwrap_or(BATCH_ROWS).max(BATCH_ROWS);
    limits.memory_budget = Some(memory.budget);
    let auto = AutoThresholds { memory, pull_percent, least };
    Auto::new(auto.clone()).begin(limits);
    limits.auto = Some(auto);
}

/// What is given has to fit into the budget, and to leave room for what is not.
fn check_budget(budget: Size, held: Option<Size>, fetched: usize, problems: &mut Problems) {
    let needed = Size(budget::needed(held.unwrap_or(LEAST_HELD).0, fetched));
    if budget < needed {
        let text = format!(
            "must be at least \"{needed}\": {} for the process, {} for what is fetched ahead and \
             on its way, and three times what is held, {}; raise it, or lower prefetch_bytes or \
             max_buffer_bytes",
            Size(budget::ALWAYS),
            Size(fetched),
            held.unwrap_or(LEAST_HELD)
        );
        problems.text("backpressure.memory_budget", &budget.to_string(), text);
    }
}

/// What `thresholds = "auto"` plans with.
fn memory(given: &raw::Backpressure, fetched: usize, problems: &mut Problems) -> Option<Memory> {
    if let Some(Size(budget)) = given.memory_budget {
        let from = "memory_budget".to_owned();
        return Some(Memory { budget, from, follows: false, fetched });
    }
    let limit = memory::limit::of_this_process();
    if limit.is_none() {
        let text = "is missing: neither /proc/meminfo nor a cgroup says how much memory there is; \
                    give what the bridge may take, such as \"1GiB\"";
        problems.bare("backpressure.memory_budget", text);
    }
    limit.map(|limit| Memory::within(&limit, fetched))
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
    if let Some(bytes) = given.max_buffer_bytes {
        problems.text("backpressure.max_buffer_bytes", &bytes.to_string(), TEXT);
    }
}
