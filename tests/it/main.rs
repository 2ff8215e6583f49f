//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bad_input;
mod bridge;
mod config;
mod lab;
mod nats_source;
mod old_failures_real;
mod outage;
mod rebalance;
mod stack;
mod stopping;
mod undisturbed;
