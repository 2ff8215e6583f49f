//! `[dead_letters]` as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Size;

/// Where records go that ClickHouse refuses.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeadLetters {
    /// What keeps them.
    pub(super) to: Destination,
    /// For `clickhouse`. Default: `dead_letters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    /// For `clickhouse`: the table is made at start if it is missing and permitted. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) create: Option<bool>,
    /// For `kafka`: a topic of the brokers of `[kafka]`; no route may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    /// For `nats`: a subject that a JetStream stream takes; no route may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// For `file`: one JSON object a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    /// For `file`: a file this large is set aside as `PATH.000001` and so on. Default: 128MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_file_bytes: Option<Size>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Destination {
    #[default]
    ClickHouse,
    Kafka,
    Nats,
    File,
}
