//! The one integration-test binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod check;
mod config;
mod nats_source;
mod profile;
