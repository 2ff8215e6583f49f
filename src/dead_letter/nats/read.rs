//! Reads the letters of a stream through a consumer that the server forgets: nothing is acked,
//! and no durable consumer of anybody is touched.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{ANSWER_WITHIN, Subject, causes};
use crate::dead_letter::log::{LINES_AHEAD, Lines};

/// How long a record may take to come; a server that is away is given up after it.
const RECORD_WITHIN: Duration = Duration::from_secs(20);

impl Subject {
    /// The lines up to what is the end now.
    ///
    /// # Errors
    /// When there is no stream, or no answer.
    pub async fn scan(&self) -> anyhow::Result<Lines> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, async {
            let name = self.stream.stream_by_subject(self.name.clone()).await?;
            anyhow::Ok(self.stream.get_stream(name).await?)
        });
        let stream = answer.await.context("no answer from JetStream")??;
        let config = OrderedConfig {
            filter_subject: self.name.clone(),
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let mut consumer = stream.create_consumer(config).await?;
        let pending = consumer.info().await?.num_pending;
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let read = async {
                let mut records = consumer.messages().await?;
                for _ in 0..pending {
                    let next = tokio::time::timeout(RECORD_WITHIN, records.next()).await;
                    let Some(record) = next.context("no record came")? else {
                        bail!("the stream ended before its end");
                    };
                    let record = record.map_err(|error| anyhow::anyhow!(causes(&error)))?;
                    let info = record.info().map_err(|error| anyhow::anyhow!(error))?;
                    let spot = (0, info.stream_sequence);
                    if sender.send(Ok((spot, record.payload.clone()))).await.is_err() {
                        break;
                    }
                }
                anyhow::Ok(())
            };
            if let Err(error) = read.await {
                // Nobody listens any more: nobody needs to know.
                drop(sender.send(Err(error.context("reading dead letters"))).await);
            }
        });
        Ok(Lines { lines, reader })
    }
}
