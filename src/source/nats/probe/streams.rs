//! Reads the newest records of streams, and says how they keep them, without leaving a trace: no
//! consumer is made, nothing acknowledged. Records are fetched by their subjects.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Message;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DiscardPolicy, Info, RetentionPolicy, StorageType, Stream};
use futures_util::StreamExt as _;

use super::super::jetstream::state::{self, Kept};
use super::super::{jetstream, options, subscriptions};
use super::{ANSWER_WITHIN, CONNECT_WITHIN};
use crate::config::{JetStreamRoute, Nats};
use crate::record::{Chunk, NewRecord, Partition, UnixMs};

/// Records of a route: each is a question and an answer of its own.
const RECORDS: usize = 48;

/// What a route's stream holds, and how it keeps it.
#[derive(Debug)]
pub struct StreamSample {
    pub stream: String,
    /// The newest record of some of its subjects.
    pub records: Chunk,
    /// Our clock when they were read.
    pub records_read_at: UnixMs,
    /// None: for ever.
    pub max_age: Option<Duration>,
    /// Oldest records give way when it is full: in bytes or records.
    pub overwrites: bool,
    /// Interest and work queue: what every consumer has acknowledged is deleted.
    pub deletes_acknowledged: bool,
    pub in_memory: bool,
    pub replicas: usize,
    /// Where the route promises exactly once: what is kept of it, or why that is not known.
    pub kept: Option<Result<Kept, String>>,
    /// None: there is no such consumer yet; the bridge makes it.
    pub consumer: Option<ConsumerFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// False: the server takes records for done that nobody has done.
    pub acknowledges: bool,
    /// Deliveries after which the server gives a record up; None: never.
    pub max_deliver: Option<u64>,
    pub pending: u64,
}

/// The newest records of each route's stream, in the order of the routes.
///
/// # Errors
/// When the server cannot be reached; each route's own trouble in words.
pub async fn sample(
    config: &Nats,
    instance: &str,
    routes: &[(&str, &JetStreamRoute)],
) -> Result<Vec<Result<StreamSample, String>>, String> {
    let servers = options::server_addresses(config).map_err(|error| format!("{error:#}"))?;
    let name = format!("data-bridge {instance} check");
    let options = options::probe_options(config, &name, CONNECT_WITHIN).await;
    let options = options.map_err(|error| format!("{error:#}"))?;
    let connecting = tokio::time::timeout(ANSWER_WITHIN, options.connect(servers)).await;
    let client = connecting
        .map_err(|_| format!("no answer within {ANSWER_WITHIN:?}"))?
        .map_err(|error| error.to_string())?;
    let context = jetstream::context(client, config);
    let mut samples = Vec::with_capacity(routes.len());
    for (name, route) in routes {
        let mut sample = of_route(&context, route).await;
        if let (Ok((sample, stream)), Some(settings)) = (&mut sample, &config.jetstream)
            && route.exactly_once
        {
            let kept = state::of_route(&context, settings, name, route, stream).await;
            sample.kept = Some(kept);
        }
        samples.push(sample.map(|(sample, _)| sample));
    }
    Ok(samples)
}

async fn of_route(
    context: &Context,
    route: &JetStreamRoute,
) -> Result<(StreamSample, Info), String> {
    let name = match (&route.stream, route.subjects.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(subject)) => context
            .stream_by_subject(subject.to_string())
            .await
            .map_err(|error| format!("no stream has the subject {subject}: {error}"))?,
        (None, None) => return Err("it has no subject".to_owned()),
    };
    let stream = context.get_stream(&name).await.map_err(|error| format!("{name}: {error}"))?;
    let records = newest(&stream, route).await?;
    let config = &stream.cached_info().config;
    let consumer = stream.consumer_info(&route.consumer).await.ok().map(|info| ConsumerFacts {
        acknowledges: info.config.ack_policy != AckPolicy::None,
        max_deliver: u64::try_from(info.config.max_deliver).ok().filter(|times| *times > 0),
        pending: info.num_pending,
    });
    let limited = config.max_bytes > 0 || config.max_messages > 0;
    let sample = StreamSample {
        records,
        records_read_at: now_ms(),
        max_age: (!config.max_age.is_zero()).then_some(config.max_age),
        overwrites: limited && config.discard == DiscardPolicy::Old,
        deletes_acknowledged: config.retention != RetentionPolicy::Limits,
        in_memory: config.storage == StorageType::Memory,
        replicas: config.num_replicas,
        kept: None,
        consumer,
        stream: name,
    };
    Ok((sample, stream.cached_info().clone()))
}

/// The last record of each subject of the route, up to a number.
async fn newest(stream: &Stream, route: &JetStreamRoute) -> Result<Chunk, String> {
    let mut chunk = Chunk::with_capacity(now_ms(), 0, 0);
    let name = &stream.cached_info().config.name;
    let partition =
        Arc::new(Partition { topic: format!("{name}/{}", route.consumer), number: 0, epoch: 0 });
    for pattern in &route.subjects {
        let subjects = stream.info_with_subjects(pattern.to_string()).await;
        let mut subjects = subjects.map_err(|error| format!("{name}: {error}"))?;
        while chunk.len() < RECORDS
            && let Some(Ok((subject, _))) = subjects.next().await
        {
            // Replicas answer where the stream allows it, else its leader.
            let direct = stream.cached_info().config.allow_direct;
            let last = match direct {
                true => stream.direct_get_last_for_subject(subject.as_str()).await.ok(),
                false => stream.get_last_raw_message_by_subject(&subject).await.ok(),
            };
            // One that was deleted meanwhile is none to decode.
            if let Some(message) = last {
                push(&mut chunk, &partition, message);
            }
        }
    }
    Ok(chunk)
}

fn push(chunk: &mut Chunk, partition: &Arc<Partition>, stored: StreamMessage) {
    let sequence = i64::try_from(stored.sequence).unwrap_or(i64::MAX);
    let published_ms = stored.time.unix_timestamp_nanos() / 1_000_000;
    let record = NewRecord {
        place: Some((chunk.partition(partition), sequence)),
        sequence: Some(sequence),
        timestamp: UnixMs::try_from(published_ms).ok(),
        ..NewRecord::default()
    };
    let message = Message {
        subject: stored.subject,
        reply: None,
        length: stored.payload.len(),
        payload: stored.payload,
        headers: Some(stored.headers),
        status: None,
        description: None,
    };
    subscriptions::push(chunk, &message, record);
}

fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
