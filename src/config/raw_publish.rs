//! `[live.publish]` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::RawRateLimit;
use super::units::{Size, Span};

/// Publishing into routes that say `publish = true`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Publish {
    /// Anybody who reaches `http.listen` may publish. Without it publishing needs `http.token`.
    pub(super) without_token: bool,
    /// Takes no more than that; a publisher that is over it is told when to come again. Default: no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// Of one request. Those of more than 64 KiB may have 64 MiB in memory together, beside what is
    /// held.
    pub(super) max_request_bytes: Size,
    /// Of one request.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_request_records: usize,
    /// Requests that may wait at a time for their records to be durable. Over HTTP each has one of
    /// the 512 connections meanwhile.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_waiting: usize,
    /// A request that waits for its records to be durable is answered after this at the latest:
    /// with how many are.
    pub(super) durable_timeout: Span,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            without_token: false,
            rate_limit: None,
            max_request_bytes: Size::mib(4),
            max_request_records: 10_000,
            max_waiting: 256,
            durable_timeout: Span::seconds(30),
        }
    }
}
