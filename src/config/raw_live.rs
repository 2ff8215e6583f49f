//! `[live]` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw_publish::Publish;
use super::units::{Size, Span};

/// The live feed: what the bridge carries, over WebSockets, as it happens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Live {
    /// Whether there is a feed at all.
    pub(super) enabled: bool,
    /// Whether those who have no token may see it although `http.listen` is not the loopback
    /// address. Only without `http.token`: where there is one, everybody needs it.
    pub(super) open: bool,
    /// Pages of these origins may connect and publish, over sockets and HTTP, such as "https://desk.example.com", or "*" for all; those
    /// that come from the bridge itself always may.
    pub(super) allowed_origins: Vec<String>,
    /// Messages that may wait for a subscriber.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) queue_size: usize,
    /// The most that a subscriber or a topic may ask for in place of `queue_size`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_queue_size: usize,
    /// What those that wait for a subscriber, or are kept for replay, may weigh; one alone may weigh
    /// more.
    pub(super) queue_bytes: Size,
    /// Messages that each topic keeps for those who come later.
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) replay: usize,
    /// What gives when a subscriber is too slow.
    pub(super) policy: Policy,
    /// A line in the log for each message that a subscriber lost, not one a second.
    pub(super) log_every_drop: bool,
    /// Topics at once, those of routes and keys among them.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_topics: usize,
    /// Subscriptions at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_subscribers: usize,
    /// Of these, on one connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_subscriptions: usize,
    /// Connections at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_connections: usize,
    /// Of these, from one address.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_connections_per_address: usize,
    /// A message from a client; larger ones end its connection.
    pub(super) max_message: Size,
    /// Messages a second from one connection, and as many at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) message_rate: u32,
    /// With `block` on a message, its publisher waits so long for room at every subscriber.
    pub(super) block_timeout: Span,
    /// How often a connection is asked for a sign of life.
    pub(super) ping_interval: Span,
    /// Without one for so long, it is closed; more than `ping_interval`.
    pub(super) idle_timeout: Span,
    /// Metrics by subscriber too, of at most 100 of them.
    pub(super) client_metrics: bool,
    pub(super) publish: Publish,
}

/// What gives when a subscriber is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Policy {
    /// The oldest goes for what comes: the present is kept.
    DropOldest,
    /// What comes is dropped: the past is kept.
    DropNewest,
    /// It is told SLOW_CONSUMER, and cut off.
    Disconnect,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            enabled: true,
            open: false,
            allowed_origins: Vec::new(),
            queue_size: 1_000,
            max_queue_size: 10_000,
            queue_bytes: Size::mib(1),
            replay: 100,
            policy: Policy::DropOldest,
            log_every_drop: false,
            max_topics: 1_000,
            max_subscribers: 1_000,
            max_subscriptions: 100,
            max_connections: 1_000,
            max_connections_per_address: 250,
            max_message: Size(64 * 1024),
            message_rate: 10_000,
            block_timeout: Span::seconds(5),
            ping_interval: Span::seconds(30),
            idle_timeout: Span::seconds(90),
            client_metrics: false,
            publish: Publish::default(),
        }
    }
}
