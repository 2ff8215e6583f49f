//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod backpressure;
mod check;
mod config;
mod nats_source;
mod pipeline;
mod profile;
mod rig;
