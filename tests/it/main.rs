//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod backpressure;
mod config;
mod histories;
mod nats_source;
mod old_failures;
mod pipeline;
mod rig;
mod tidy;
