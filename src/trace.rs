//! What is told of a batch on its way, from its cut until it is settled: a span, with one for each
//! thing that was done with it, linked to the producers of its records.
//!
//! ```text
//! Tracer --begin--> Trace (rides in the batch, into its jobs and back)
//!                     | dropped with the batch, wherever that ends
//!                     v
//!              bounded channel --> Spans (whoever tells them)
//! ```
//!
//! A [`Trace`] tells its span when it is dropped, so that no way out of the pipeline can be forgotten.
//! Nothing waits for it: what the channel has no room for is counted and gone. Without a [`Tracer`]
//! that is on, or where a batch is not sampled, all of it is a check for None, once a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::batch::Batch;

pub mod context;

pub use context::Context;

/// Spans of batches that were settled and are not told yet: some minutes of a busy bridge, a few MiB
/// at most.
const WAITING: usize = 1_024;

/// Records of a batch whose headers are looked at, spread evenly over it; so many links it has at most.
const LOOKED_AT: usize = 64;

/// Things done with a batch that are told one by one: an outage of hours is many attempts, and they
/// are all alike. Those beyond are counted.
const STEPS: usize = 32;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Inserted,
    DeadLettered,
    /// Some row of it was refused: two halves take its place.
    Halved,
    /// Not held any more without being durable: its records come again, or were given up.
    LetGo,
}

impl Outcome {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::DeadLettered => "dead_lettered",
            Self::Halved => "halved",
            Self::LetGo => "let_go",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    Encode,
    /// One attempt.
    Insert,
}

/// One thing that was done with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Drawn once: whoever is told of it again knows it by its id.
    pub context: Context,
    pub kind: StepKind,
    /// Since the batch was cut.
    pub after: Duration,
    pub took: Duration,
    /// Why it failed; quotes nothing of a record.
    pub error: Option<String>,
}

/// What is told of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub context: Context,
    /// The batch that it is a part of.
    pub parent: Option<Context>,
    /// Producers of some of its records.
    pub links: Vec<Context>,
    /// When it was cut: nanoseconds since the Unix epoch.
    pub began: u64,
    pub took: Duration,
    pub table: String,
    pub writer: String,
    /// What made it be cut.
    pub reason: &'static str,
    pub rows: usize,
    /// Bytes of its records.
    pub bytes: usize,
    /// Rows that became dead letters when it was encoded.
    pub rejected: usize,
    /// Inserts that were tried.
    pub attempts: usize,
    pub steps: Vec<Step>,
    pub steps_left_out: u32,
    pub outcome: Outcome,
}

/// Begins spans, and knows where they go.
#[derive(Debug, Clone)]
pub struct Tracer {
    on: Option<On>,
}

#[derive(Debug, Clone)]
struct On {
    /// Of all batches, from 0 to 1.
    share: f64,
    told: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub struct Spans {
    pub told: mpsc::Receiver<Span>,
    /// Spans for which there was no room.
    pub dropped: Arc<AtomicU64>,
}

/// A tracer of this share of all batches, in percent, and where its spans come out.
#[must_use]
pub fn channel(sample_percent: u32) -> (Tracer, Spans) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let dropped = Arc::<AtomicU64>::default();
    let on = (sample_percent > 0).then(|| On {
        share: f64::from(sample_percent) / 100.0,
        told: sender,
        dropped: Arc::clone(&dropped),
    });
    (Tracer { on }, Spans { told: receiver, dropped })
}

/// A batch's names, for its span.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub table: &'a str,
    pub writer: &'a str,
    /// What made it be cut.
    pub reason: &'static str,
}

impl Tracer {
    #[must_use]
    pub fn off() -> Self {
        Self { on: None }
    }

    /// A batch was cut; if it is sampled, its span begins.
    #[must_use]
    pub fn begin(&self, batch: &Batch, names: Names<'_>) -> Trace {
        let on = self.on.as_ref().filter(|on| rand::random::<f64>() < on.share);
        Trace { open: on.map(|on| Open::new(on, batch, names, Context::random(), None)) }
    }

    /// A batch was made out of another one: its span belongs to that one's, if that has one.
    #[must_use]
    pub fn begin_within(&self, whole: &Trace, batch: &Batch, names: Names<'_>) -> Trace {
        let open = whole.open.as_ref().zip(self.on.as_ref()).map(|(whole, on)| {
            let parent = whole.span.context;
            Open::new(on, batch, names, parent.child(), Some(parent))
        });
        Trace { open }
    }
}

/// A span that is not over, or nothing where the batch is not sampled. Over when it is dropped.
#[derive(Debug, Default)]
pub struct Trace {
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    span: Span,
    began: Instant,
    on: On,
}

impl Open {
    fn new(
        on: &On,
        batch: &Batch,
        names: Names<'_>,
        context: Context,
        parent: Option<Context>,
    ) -> Box<Self> {
        let now = jiff::Timestamp::now().as_nanosecond();
        let span = Span {
            context,
            parent,
            links: links(batch),
            began: u64::try_from(now).unwrap_or_default(),
            took: Duration::ZERO,
            table: names.table.to_owned(),
            writer: names.writer.to_owned(),
            reason: names.reason,
            rows: batch.len(),
            bytes: batch.bytes(),
            rejected: 0,
            attempts: 0,
            steps: Vec::new(),
            steps_left_out: 0,
            outcome: Outcome::LetGo,
        };
        Box::new(Self { span, began: Instant::now(), on: on.clone() })
    }
}

impl Trace {
    /// This was done with it, and ended now; `error`: why it failed.
    pub fn step(&mut self, kind: StepKind, began: Instant, error: impl FnOnce() -> Option<String>) {
        let Some(open) = &mut self.open else { return };
        let span = &mut open.span;
        span.attempts += usize::from(kind == StepKind::Insert);
        if span.steps.len() == STEPS {
            span.steps_left_out += 1;
            return;
        }
        let after = began.saturating_duration_since(open.began);
        let context = span.context.child();
        span.steps.push(Step { context, kind, after, took: began.elapsed(), error: error() });
    }

    /// So many of its rows became dead letters.
    pub fn rejected(&mut self, rows: usize) {
        if let Some(open) = &mut self.open {
            open.span.rejected += rows;
        }
    }

    /// What becomes of it; said before it is dropped.
    pub fn becomes(&mut self, outcome: Outcome) {
        if let Some(open) = &mut self.open {
            open.span.outcome = outcome;
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Open { mut span, began, on } = *open;
        span.took = began.elapsed();
        if on.told.try_send(span).is_err() {
            on.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The producers of some of its records, each once.
fn links(batch: &Batch) -> Vec<Context> {
    let mut links = Vec::new();
    for row in (0..batch.len()).step_by(batch.len().div_ceil(LOOKED_AT).max(1)) {
        let record = batch.record(row);
        let header = record.headers().find(|(name, _)| name.eq_ignore_ascii_case(Context::HEADER));
        let producer = header.and_then(|(_, value)| Context::sampled(value));
        links.extend(producer.filter(|producer| !links.contains(producer)));
    }
    links
}

#[cfg(test)]
mod tests;
