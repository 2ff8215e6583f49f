//! How fast: limits on a rate, and a rate that finds its limit.
//!
//! Pure: time is passed in, nothing waits, nothing is logged. [`TokenBucket`] and [`WindowLimit`]
//! hold others to a rate, [`SlidingWindow`] measures one, [`Aimd`] searches for the one that a sink
//! can take, and [`Judge`] tells it what was seen of the sink. Whoever asks decides what a refusal
//! means: a source waits, a pushed record is dropped.

mod aimd;
mod bucket;
mod signal;
mod window;

pub use aimd::{Aimd, Signal, Steps};
pub use bucket::TokenBucket;
pub use signal::{Criteria, Judge, Seen};
pub use window::{SlidingWindow, WindowLimit};
