//! A route as it is written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::rate::RawRateLimit;
use super::raw_overload::RouteOverload;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Names the route in logs, metrics and dead letters.
    pub(super) name: String,
    /// Exact names; one that starts with `^` is a regular expression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kafka_topics: Vec<String>,
    /// `*` stands for one token, `>` at the end for all the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) nats_subjects: Vec<String>,
    /// Without loss, out of a stream; the same wildcards. None that `nats_subjects` overlap with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) jetstream_subjects: Vec<String>,
    /// The stream. Default: the one that takes the subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jetstream_stream: Option<String>,
    /// The durable consumer, made if it is missing. Default: `QUEUE_GROUP-ROUTE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jetstream_consumer: Option<String>,
    /// Whoever may publish hands records to it, over HTTP and sockets, at the topic of its name
    /// (docs/publishing.md). Needs `http.token`, or `live.publish.without_token`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) publish: bool,
    /// Any name; only `system` is special: the policy never drops it.
    #[serde(default = "default_name")]
    pub(super) class: String,
    /// What it takes of Kafka or JetStream waits there beyond this, in the long run: what is on its
    /// way still comes; publishers are told to wait. What it takes of core NATS is dropped beyond it,
    /// counted. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// What becomes of its records.
    #[serde(default)]
    pub(super) action: Action,
    /// A key of `writers`. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writer: Option<String>,
    /// `table` or `database.table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    /// `columns` decodes into typed columns; `json` passes the payload on as it is. Default:
    /// `columns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<Format>,
    /// `exactly_once` inserts no record twice, whatever breaks, where the source and the table
    /// allow it (`data-bridge check` says so). Default: `at_least_once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Delivery>,
    /// With `exactly_once`: what to do with a batch of which nobody can tell any more whether it
    /// landed, because ClickHouse's deduplication window has passed it. Default: `halt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_uncertain: Option<OnUncertain>,
    /// What becomes of its records when something must give.
    #[serde(default, skip_serializing_if = "RouteOverload::says_nothing")]
    pub(super) overload: RouteOverload,
    /// In the live feed, what names the sub-topics of the route's topic: a path into the payload
    /// or `@key`, `@subject[1]`, `@headers.NAME` and the like. Default: no sub-topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) live_key: Option<String>,
    /// By column; only where a column's name is not the payload's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) columns: BTreeMap<String, Column>,
}

fn default_name() -> String {
    "default".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Into the table.
    #[default]
    Insert,
    /// Known, counted, not stored.
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Columns,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnUncertain {
    /// Keep it, go on with nothing behind it, and call for a person.
    Halt,
    /// Insert it again: its rows may be there twice.
    AcceptDuplicates,
    /// Take it for inserted: its rows may be missing.
    AcceptLoss,
}

/// Where a column's value comes from: a source, or a table that says more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Column {
    Source(String),
    Full(FullColumn),
}

impl JsonSchema for Column {
    fn schema_name() -> Cow<'static, str> {
        "Column".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, FullColumn::json_schema(generator)] })
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FullColumn {
    /// A dotted path into the payload, `@metadata`, or a list of fallbacks. Default: the payload's
    /// key of the column's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<OneOrMany>,
    /// For a missing or null value.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub(super) default: Option<Value>,
    /// Of a time: `unix_s`, `unix_ms`, `unix_us`, `unix_ns`, `rfc3339`, or a strftime pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// With arbitrary precision a JSON number serializes as a private struct that only serde_json
/// understands: TOML gets plain numbers.
fn plain<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(super::print::plain).serialize(serializer)
}
