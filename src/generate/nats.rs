//! Sends to NATS, by core NATS or through JetStream. Here alone the generator uses async-nats.
//!
//! Through JetStream a record counts as sent when its stream has acknowledged it. By core NATS
//! nobody says so: a server that is handed more than it can pass on drops the subscribers, not the publisher: so
//! the socket is flushed after every few hundred records, and the end waits for an answer that
//! the server can only give when it has read everything before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{Client, ConnectOptions, Event, RequestErrorKind};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::Recipe;
use super::address::on_nats;
use super::run::{Item, Tally};
use crate::config::Nats;
use crate::source::nats::jetstream::context;
use crate::source::nats::with_identity;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const FLUSH_EVERY_RECORDS: u64 = 500;
/// So many records may wait for their acknowledgement: enough to fill a round trip.
const UNACKNOWLEDGED: usize = 1_024;

type Acknowledged = (usize, bool, Result<PublishAck, PublishError>);

/// Publishes into streams, and waits until they have it.
struct Streams {
    context: Context,
    waiting: FuturesUnordered<BoxFuture<'static, Acknowledged>>,
    failure: Option<String>,
}

pub(super) struct NatsSender {
    client: Client,
    recipe: Recipe,
    tally: Arc<Tally>,
    disconnects: Arc<AtomicU64>,
    sent: u64,
    /// None: core NATS.
    streams: Option<Streams>,
}

impl NatsSender {
    pub(super) async fn connect(
        config: &Nats,
        jetstream: bool,
        recipe: Recipe,
        tally: Arc<Tally>,
    ) -> Result<Self> {
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
        let streams = jetstream.then(|| Streams {
            context: context(client.clone(), config),
            waiting: FuturesUnordered::new(),
            failure: None,
        });
        Ok(Self { client, recipe, tally, disconnects, sent: 0, streams })
    }

    pub(super) async fn send(&mut self, item: Item<'_>) -> Result<()> {
        let subject = on_nats(&self.recipe, item.stream.kind, item.seq);
        let payload = Bytes::copy_from_slice(item.payload);
        if let Some(streams) = &mut self.streams {
            return streams.send(subject, payload, &item, &self.tally).await;
        }
        self.client.publish(subject, payload).await.context("publishing to NATS")?;
        self.tally.sent(item.stream.index, item.bad);
        self.sent += 1;
        if self.sent.is_multiple_of(FLUSH_EVERY_RECORDS) {
            self.client.flush().await.context("flushing to NATS")?;
        }
        Ok(())
    }

    /// Waits until the server has read everything.
    pub(super) async fn finish(mut self) -> Result<()> {
        if let Some(streams) = &mut self.streams {
            return streams.finish(&self.tally).await;
        }
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

impl Streams {
    async fn send(
        &mut self,
        subject: String,
        payload: Bytes,
        item: &Item<'_>,
        tally: &Tally,
    ) -> Result<()> {
        let ack =
            self.context.publish(subject, payload).await.context("publishing to JetStream")?;
        let (stream, bad) = (item.stream.index, item.bad);
        self.waiting.push(async move { (stream, bad, ack.await) }.boxed());
        while self.waiting.len() >= UNACKNOWLEDGED {
            self.acknowledged(tally).await;
        }
        Ok(())
    }

    /// Waits for one acknowledgement.
    async fn acknowledged(&mut self, tally: &Tally) {
        match self.waiting.next().await {
            Some((stream, bad, Ok(_))) => tally.sent(stream, bad),
            Some((stream, _, Err(error))) => {
                tally.failed(stream);
                self.failure.get_or_insert_with(|| error.to_string());
            }
            None => {}
        }
    }

    async fn finish(&mut self, tally: &Tally) -> Result<()> {
        while !self.waiting.is_empty() {
            self.acknowledged(tally).await;
        }
        match &self.failure {
            None => Ok(()),
            Some(why) => bail!(
                "JetStream has not acknowledged everything: {why} (is there a stream for each \
                 subject? `nats stream add`)"
            ),
        }
    }
}
