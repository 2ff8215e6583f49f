//! Who may talk to whom, and what must never be seen: real certificates, wrong ones, secrets.

mod authority;
mod clickhouse;
mod kafka;
mod listener;
mod mistakes;
mod names;
mod nats;
mod proxy;
mod secrets;

use crate::bridge::Bridge;

/// Waits until `/health` says this, wherever it does.
async fn asks_for(bridge: &Bridge, words: &str) {
    bridge.wait_until(words, |health| health.to_string().contains(words)).await;
}
