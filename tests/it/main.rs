//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bridge;
mod config;
mod lab;
mod nats_source;
mod outage;
mod stack;
mod stopping;
mod undisturbed;
