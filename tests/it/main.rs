//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod all_types;
mod audit;
mod backpressure;
mod bad_input;
mod breaker;
mod batching;
mod bridge;
mod check;
mod config;
mod deploy;
mod endpoints;
mod error_classes;
mod exactly_once;
mod faults;
mod fuzzed;
mod histories;
mod jetstream;
mod lab;
mod letters;
mod nats_source;
mod old_failures;
mod old_failures_real;
mod outage;
mod pipeline;
mod profile;
mod rebalance;
mod reload;
mod rig;
mod security;
mod share;
mod stack;
mod starting;
mod stopping;
mod tidy;
mod undisturbed;
