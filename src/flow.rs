//! What happens when more comes than goes: bounded buffers whose overflow is a decision.
//!
//! [`Buffer`] is the whole of it, and pure: a state machine that is offered items and gives them
//! out, counts everything, waits for nothing, and takes the time as an argument. [`Controller`]
//! makes streams of it, for tasks that wait. Nothing here knows what an item is, who produces it,
//! or what a loss means; whoever lets go of an item gets it back, to account for it.
//!
//! An item is *produced* once the buffer has decided about it. What it refuses (`Full`, `TooFast`,
//! `Closed`) is still the producer's. So at every moment produced = consumed + dropped + depth.

mod buffer;
mod metrics;
mod pace;
mod sample;
mod stream;

use std::time::Duration;

pub use buffer::{Buffer, Ended, Taken, Why};
pub use metrics::{Dropped, Metrics, Reason};
pub use sample::{Sampler, Sampling, Share};
pub use stream::{Closed, Consumer, Control, Controller, Producer, Sent};

use crate::rate::Steps;

/// What gives when there is no room.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The producer waits; nothing is lost.
    Block,
    /// What comes while it is full is dropped: the past is kept.
    DropNewest,
    /// The oldest goes for what comes: the present is kept.
    DropOldest,
    /// The same; and while the consumer is paused only the latest `keep` stay, so that it goes on
    /// with what is new. `keep` is at least 1 and at most the capacity.
    Sliding { keep: usize },
    /// When it is fuller than `from` (0 to 1) only a sample gets in; what comes while it is full is
    /// dropped.
    Sample { sampling: Sampling, from: f64 },
    /// A consumer that is so slow that it is full is cut off, with all that it had waiting.
    Disconnect,
    /// The producer waits, and its rate is steered to what the consumer takes.
    Adaptive(Steps),
}

impl Strategy {
    /// Their names, as people write them.
    pub const NAMES: [&str; 7] =
        ["block", "drop_newest", "drop_oldest", "sliding", "sample", "disconnect", "adaptive"];

    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Sliding { .. } => "sliding",
            Self::Sample { .. } => "sample",
            Self::Disconnect => "disconnect",
            Self::Adaptive(_) => "adaptive",
        }
    }

    /// Whether everything that was produced is consumed, however slowly.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        matches!(self, Self::Block | Self::Adaptive(_))
    }
}

/// What became of an item that was offered.
#[derive(Debug, PartialEq)]
#[must_use = "it may hold an item that has to be accounted for"]
pub enum Verdict<T> {
    /// It is in the buffer.
    Kept,
    /// It is in the buffer, and these, the oldest, are not any more: one, or as many as weigh what
    /// it weighs.
    Replaced(Vec<T>),
    /// It was let go.
    Dropped(T, Reason),
    /// The consumer was too slow, and was cut off: all that waited for it, and this one as the last.
    CutOff(Vec<T>),
    /// There is no room: try again when something was taken.
    Full(T),
    /// Its turn is so much later.
    TooFast(T, Duration),
    /// Nobody takes anything any more.
    Closed(T),
}

#[cfg(test)]
mod tests;
