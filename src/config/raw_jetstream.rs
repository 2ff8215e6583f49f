//! `[nats.jetstream]` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::RawRateLimit;
use super::units::{Size, Span};

/// NATS without loss: durable pull consumers, one a route that has `jetstream_subjects`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct JetStream {
    /// A record that is not acknowledged is delivered again after this long. While the bridge holds
    /// it, it says so every third of this; so only what a crashed instance held waits this long.
    pub(super) ack_wait: Span,
    /// Records that all instances together may hold of one consumer; beyond it the server waits.
    /// Default: twice `backpressure.max_buffer_size`. With fewer than a batch has rows, each batch
    /// waits for its linger.
    #[schemars(range(min = 1, max = 10_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_ack_pending: Option<usize>,
    /// Records asked for at a time, of one consumer; at most twice as many are on their way.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) batch: usize,
    /// Bytes that may be on their way, of one consumer. Default: 16MiB, or a share of
    /// `backpressure.memory_budget` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefetch_bytes: Option<Size>,
    /// Asks for no more than that; what is over it waits in its stream. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// A record that was delivered more often than this becomes a dead letter. Each crash while it
    /// was held is a delivery more.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub(super) max_deliver: u64,
    /// How the consumers acknowledge.
    pub(super) ack: Ack,
    /// Waits for the server to confirm each acknowledgement: slower, and fewer records come again
    /// after a crash of the server.
    pub(super) double_ack: bool,
    /// Where a consumer begins that does not exist yet.
    pub(super) deliver: Deliver,
    /// The key-value bucket in which routes with `exactly_once` keep who reads a consumer and how
    /// far it is; made if it is missing.
    pub(super) state_bucket: String,
    /// Its replicas when it is made. Default: as many as the stream of the route has.
    #[schemars(range(min = 1, max = 5))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state_replicas: Option<usize>,
    /// With `exactly_once` one instance reads a consumer. When it is not heard of for so long,
    /// another one takes over.
    pub(super) lease: Span,
    /// JetStream's domain, where the server has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) domain: Option<String>,
    /// The API's prefix, where it comes from another account. Default: `$JS.API`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_prefix: Option<String>,
}

impl Default for JetStream {
    fn default() -> Self {
        Self {
            ack_wait: Span::seconds(2 * 60),
            max_ack_pending: None,
            batch: 1_000,
            prefetch_bytes: None,
            rate_limit: None,
            max_deliver: 20,
            ack: Ack::Each,
            double_ack: false,
            deliver: Deliver::All,
            state_bucket: "data_bridge".to_owned(),
            state_replicas: None,
            lease: Span::seconds(10),
            domain: None,
            api_prefix: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ack {
    /// Record by record: instances may share a consumer.
    Each,
    /// One acknowledgement for all before it: cheaper, for one instance alone.
    All,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Deliver {
    /// With the oldest record of the stream.
    All,
    /// With what comes after it was made; what was there is never read.
    New,
}
