//! From a place in a stream to a consumer that goes on there: one that nobody else uses, that wants
//! no acknowledgements, and that the server forgets by itself. Asks and answers; owns nothing.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Info, RetentionPolicy};

use super::bind::{Bound, Unbound, Wish};

/// A consumer that nothing is asked of is forgotten after this long: longer than most pauses, so
/// that it need not be made again after each, and not for ever.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// Where to go on.
#[derive(Debug, Clone)]
pub(super) struct From {
    pub(super) stream: String,
    /// When that stream was made.
    pub(super) made: i64,
    pub(super) next: u64,
    /// The consumer before, which is of no use any more.
    pub(super) before: Option<String>,
}

#[derive(Debug)]
pub(super) enum Followed {
    Bound(Box<Bound>),
    /// The stream is not the one that was read: it was made then, and ends there.
    Another {
        made: i64,
        last: u64,
    },
}

impl Wish {
    pub(super) async fn follow(self, context: Context, from: From) -> Result<Followed, Unbound> {
        let stream = self.stream(&context).await?;
        self.must_keep(&stream)?;
        let name = &stream.config.name;
        if *name != from.stream {
            return Err(Unbound::NeedsPerson(format!(
                "route {}: its subjects are in stream {name} now, and were in {} when the bridge \
                 started: restart it, to begin there",
                self.route, from.stream
            )));
        }
        let (made, last) = (made(&stream), stream.state.last_sequence);
        if made != from.made || last + 1 < from.next {
            return Ok(Followed::Another { made, last });
        }
        let config = pull::Config {
            name: Some(format!("data-bridge-{}", uuid::Uuid::from_u128(rand::random()).simple())),
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.next.max(1) },
            inactive_threshold: FORGOTTEN_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..self.filtered()
        };
        let making = context.create_consumer_strict_on_stream(config, name);
        let (consumer, ()) = tokio::join!(making, forget(&context, name, from.before.as_deref()));
        let consumer = consumer.map_err(|error| {
            Unbound::Later(format!("making a consumer of stream {name}: {}", error.kind()))
        })?;
        tracing::debug!(stream = name, from = from.next, "reading a stream like a log");
        Ok(Followed::Bound(Box::new(Bound { consumer, stream_made: Some(made.into()) })))
    }

    /// What was acknowledged must stay: nothing is acknowledged here.
    pub(super) fn must_keep(&self, stream: &Info) -> Result<(), Unbound> {
        let retention = match stream.config.retention {
            RetentionPolicy::Limits => return Ok(()),
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::WorkQueue => "workqueue",
        };
        let name = &stream.config.name;
        Err(Unbound::NeedsPerson(format!(
            "route {}: stream {name} has the retention {retention}, which deletes records by their \
             acknowledgements; delivery = \"exactly_once\" reads it like a log: give it the retention \
             \"limits\" (a stream of its own with {name} as its source, or `nats stream edit {name} \
             --retention limits` where the server allows it), or leave exactly_once out",
            self.route,
        )))
    }
}

/// When a stream was made, in nanoseconds since the epoch.
pub(super) fn made(stream: &Info) -> i64 {
    i64::try_from(stream.created.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// The server would do it by itself, later.
pub(super) async fn forget(context: &Context, stream: &str, consumer: Option<&str>) {
    let Some(consumer) = consumer else { return };
    if let Err(error) = context.delete_consumer_from_stream(consumer, stream).await {
        tracing::debug!(stream, consumer, %error, "a consumer that was left is not deleted");
    }
}
