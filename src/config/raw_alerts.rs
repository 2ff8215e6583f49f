//! `[alerts]` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Span;

/// What the bridge says by itself when a person should look: in the log, in `/health`, as metrics.
/// docs/runbook.md has an entry for each id. How long a pause may be is for `[backpressure]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Alerts {
    /// Ids of alerts that are switched off.
    pub(super) off: Vec<String>,
    /// So long it has to be quiet before an alert is resolved; a pause is over when it ends.
    pub(super) resolve_after: Span,
    /// Where your people read the runbook: `#id` is put behind it.
    pub(super) runbook: String,
    /// `pausing_often`: more pauses than that in 15 minutes.
    pub(super) pauses: u64,
    /// `buffer_high`: held above this share of max_buffer_size, or of max_buffer_bytes.
    #[schemars(range(min = 1, max = 99))]
    pub(super) buffer_percent: u8,
    /// `full_soon`: at the pace of now the buffer is full sooner than that.
    pub(super) full_within: Span,
    /// `dead_letters`: more of one route than that in 5 minutes.
    pub(super) dead_letters: u64,
    /// `records_dropped`: more of one route, or by one source's client, than that in 5 minutes.
    pub(super) drops: u64,
    /// `subscriber_drops`: subscribers of the live feed lose more messages than that in a minute.
    pub(super) subscriber_drops: u64,
    /// `lag_growing`: more records of one topic wait, and they become more.
    pub(super) lag: u64,
    /// `input_surge`: more comes in 5 minutes than this share of what is normal, which is the hour
    /// before.
    #[schemars(range(min = 101, max = 1_000_000))]
    pub(super) surge_percent: u32,
    /// `input_over_output`: more comes in 5 minutes than this share of what goes out.
    #[schemars(range(min = 101, max = 1_000_000))]
    pub(super) input_over_output_percent: u32,
    /// `input_low`: fewer records a second come in 5 minutes. Default: nothing is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(super) min_input: Option<u64>,
    /// `clock_skew`: records come from further in the future.
    pub(super) clock_ahead: Span,
    /// `window_running_out`: the table of an exactly-once route remembers no longer outage.
    pub(super) window: Span,
    /// By route, the longest time without a record that is nothing to worry about; beyond it `silent`
    /// fires. Nothing is expected of a route that is not here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) silent: BTreeMap<String, Span>,
    /// By id: for how long it has to be true before it fires, where that is not right as the
    /// Prometheus rule of the same id has it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pending: BTreeMap<String, Span>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            resolve_after: Span::seconds(60),
            runbook: "docs/runbook.md".to_owned(),
            pauses: 5,
            buffer_percent: 80,
            full_within: Span::seconds(5 * 60),
            dead_letters: 0,
            drops: 0,
            subscriber_drops: 1_000,
            lag: 10_000,
            surge_percent: 200,
            input_over_output_percent: 120,
            min_input: None,
            clock_ahead: Span::seconds(10),
            window: Span::seconds(10 * 60),
            silent: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }
}
