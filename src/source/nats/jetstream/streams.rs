//! Asks how far a stream and a route's consumer are, and reads stretches of the stream again. Takes
//! nothing from the consumer and acknowledges nothing: what is read again is read by an ordered
//! consumer that the server forgets by itself.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{Info, RetentionPolicy};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bind::{Unbound, Wish};
use super::state;
use crate::config::{self, JetStream, JetStreamRoute};
use crate::record::{Chunk, NewRecord, Partition};
use crate::source::nats::{probe, subscriptions};
use crate::source::{Extent, ProbeError};

/// Without anything new for so long the server counts as gone.
const SILENCE: Duration = Duration::from_secs(20);
/// So many records go in one chunk, or so many bytes.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// A connection to ask by.
#[derive(Debug, Clone)]
pub struct Streams {
    context: Context,
    settings: JetStream,
}

/// What is known of a route's consumer.
#[derive(Debug, Clone)]
pub struct Consumed {
    stream: String,
    extent: Extent,
    /// The stream forgets what was acknowledged: it cannot say what there was.
    forgets: bool,
}

impl Consumed {
    /// How far it is. Of a stream that forgets, nothing is there any more.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let low = if self.forgets { self.extent.end } else { self.extent.low };
        Extent { low, ..self.extent.clone() }
    }
}

impl Streams {
    /// Connects.
    ///
    /// # Errors
    /// When no server answers, or one refuses us.
    pub async fn connect(
        config: &config::Nats,
        settings: &JetStream,
        instance: &str,
    ) -> Result<Self, ProbeError> {
        let client = probe::connect(config, instance, "audit").await?;
        let context = super::context(client, config);
        Ok(Self { context, settings: settings.clone() })
    }

    /// How far a route's consumer is. The inner error says what a person should do.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn consumed(
        &self,
        route: &str,
        takes: &JetStreamRoute,
    ) -> Result<Result<Consumed, String>, ProbeError> {
        let wish =
            Wish { settings: self.settings.clone(), route: route.to_owned(), takes: takes.clone() };
        let asked = async {
            let stream = wish.stream(&self.context).await?;
            let next = self.next(&wish, &stream).await?;
            Ok((stream, next))
        };
        let (stream, next) = match asked.await {
            Ok(both) => both,
            Err(Unbound::NeedsPerson(what)) => return Ok(Err(what)),
            Err(Unbound::Later(why)) => return Err(ProbeError::Unreachable(why)),
        };
        let number = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
        let end = number(stream.state.last_sequence) + 1;
        let name = stream.config.name;
        Ok(Ok(Consumed {
            extent: Extent {
                topic: format!("{name}/{}", takes.consumer),
                number: 0,
                low: number(stream.state.first_sequence).max(1),
                end,
                committed: next.map(number),
                since: None,
            },
            stream: name,
            forgets: stream.config.retention != RetentionPolicy::Limits,
        }))
    }

    /// The first sequence that is not done; None: none is.
    async fn next(&self, wish: &Wish, stream: &Info) -> Result<Option<u64>, Unbound> {
        if wish.takes.exactly_once {
            return Ok(state::kept(wish, &self.context, stream).await?.next);
        }
        let consumer = wish.existing(&self.context, &stream.config.name).await?;
        let floor = consumer.map(|consumer| consumer.cached_info().ack_floor.stream_sequence);
        Ok(floor.filter(|floor| *floor > 0).map(|floor| floor + 1))
    }

    /// Hands over every record of the route that is there within the stretches, and maybe a few
    /// behind them.
    ///
    /// # Errors
    /// When the server falls silent. Nothing, when nobody receives any more.
    pub async fn reread(
        &self,
        consumed: &Consumed,
        takes: &JetStreamRoute,
        stretches: VecDeque<Range<i64>>,
        chunks: mpsc::Sender<Chunk>,
    ) -> Result<(), ProbeError> {
        let Extent { topic, number, .. } = &consumed.extent;
        let partition = Arc::new(Partition { topic: topic.clone(), number: *number, epoch: 0 });
        for stretch in stretches {
            let reading = self.stretch(consumed, takes, &partition, stretch, &chunks);
            Box::pin(reading).await.map_err(|why| {
                ProbeError::Unreachable(format!("reading stream {} again: {why}", consumed.stream))
            })?;
            if chunks.is_closed() {
                break;
            }
        }
        Ok(())
    }

    async fn stretch(
        &self,
        consumed: &Consumed,
        takes: &JetStreamRoute,
        partition: &Arc<Partition>,
        stretch: Range<i64>,
        chunks: &mpsc::Sender<Chunk>,
    ) -> Result<(), String> {
        let start_sequence = stretch.start.unsigned_abs();
        let config = pull::OrderedConfig {
            description: Some("data-bridge audit".to_owned()),
            filter_subjects: takes.subjects.iter().map(|s| s.as_str().to_owned()).collect(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ..pull::OrderedConfig::default()
        };
        let made = self.context.create_consumer_on_stream(config, &consumed.stream).await;
        let consumer = made.map_err(|error| error.to_string())?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(());
        }
        let mut messages = consumer.messages().await.map_err(|error| error.to_string())?;
        let mut chunk = new_chunk();
        loop {
            let next = timeout(SILENCE, messages.next()).await;
            let next = next.map_err(|_| format!("nothing for {SILENCE:?}"))?;
            let Some(message) = next else { return Err("the server ended it".to_owned()) };
            let message = message.map_err(|error| error.to_string())?;
            let info = message.info().map_err(|error| error.to_string())?;
            let sequence = i64::try_from(info.stream_sequence).unwrap_or(i64::MAX);
            if sequence < stretch.end {
                let place = Some((chunk.partition(partition), sequence));
                let published = info.published.unix_timestamp_nanos() / 1_000_000;
                let record = NewRecord {
                    place,
                    sequence: Some(sequence),
                    timestamp: i64::try_from(published).ok(),
                    ..NewRecord::default()
                };
                subscriptions::push(&mut chunk, &message, record);
            }
            let done = sequence + 1 >= stretch.end || info.pending == 0;
            let full = chunk.len() >= CHUNK_RECORDS || chunk.filled_bytes() >= CHUNK_BYTES;
            if done || full {
                let full = std::mem::replace(&mut chunk, new_chunk());
                if chunks.send(full).await.is_err() || done {
                    return Ok(());
                }
            }
        }
    }
}

fn new_chunk() -> Chunk {
    Chunk::with_capacity(jiff::Timestamp::now().as_millisecond(), CHUNK_RECORDS, 0)
}
