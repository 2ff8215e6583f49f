//! Sends to core NATS. Here alone the generator uses async-nats.
//!
//! A server that is handed more than it can pass on drops the subscribers, not the publisher: so
//! the socket is flushed after every few hundred records, and the end waits for an answer that
//! the server can only give when it has read everything before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::{Client, ConnectOptions, Event, RequestErrorKind};
use bytes::Bytes;

use super::Recipe;
use super::address::on_nats;
use super::run::{Item, Tally};
use crate::config::Nats;
use crate::source::nats::with_identity;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const FLUSH_EVERY_RECORDS: u64 = 500;

pub(super) struct NatsSender {
    client: Client,
    recipe: Recipe,
    tally: Arc<Tally>,
    disconnects: Arc<AtomicU64>,
    sent: u64,
}

impl NatsSender {
    pub(super) async fn connect(config: &Nats, recipe: Recipe, tally: Arc<Tally>) -> Result<Self> {
        let servers = config.servers.join(",");
        let disconnects = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&disconnects);
        let options = with_identity(ConnectOptions::new(), config)
            .await?
            .name("data-bridge-generate")
            .connection_timeout(CONNECT_TIMEOUT)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    counting.fetch_add(1, Ordering::Relaxed);
                }
                std::future::ready(())
            });
        let client = tokio::time::timeout(CONNECT_TIMEOUT, options.connect(&config.servers))
            .await
            .with_context(|| format!("no answer from NATS at {servers}"))?
            .with_context(|| format!("connecting to NATS at {servers}"))?;
        Ok(Self { client, recipe, tally, disconnects, sent: 0 })
    }

    pub(super) async fn send(&mut self, item: Item<'_>) -> Result<()> {
        let subject = on_nats(&self.recipe, item.stream.kind, item.seq);
        let payload = Bytes::copy_from_slice(item.payload);
        self.client.publish(subject, payload).await.context("publishing to NATS")?;
        self.tally.sent(item.stream.index, item.bad);
        self.sent += 1;
        if self.sent.is_multiple_of(FLUSH_EVERY_RECORDS) {
            self.client.flush().await.context("flushing to NATS")?;
        }
        Ok(())
    }

    /// Waits until the server has read everything.
    pub(super) async fn finish(self) -> Result<()> {
        self.client.flush().await.context("flushing to NATS")?;
        // Nobody listens there, and that is the answer.
        let asked = self.client.request("data-bridge.generate.done", Bytes::new());
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Err(_) => bail!("NATS has not read everything in a minute"),
            Ok(Err(error)) if error.kind() != RequestErrorKind::NoResponders => {
                return Err(error).context("asking NATS whether it has read everything");
            }
            Ok(_) => {}
        }
        match self.disconnects.load(Ordering::Relaxed) {
            0 => Ok(()),
            n => bail!("NATS was disconnected {n} times: what was under way then may be lost"),
        }
    }
}
