//! `[otlp]` as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::Tls;
use super::units::{Secret, Span};

/// Traces and metrics to an OpenTelemetry collector, over OTLP (HTTP, protobuf).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Otlp {
    /// Where it takes them, without `/v1/traces` and `/v1/metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    /// Sent along with each request, by name: what the collector wants to know us by. Secrets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, Secret>,
    /// Files that hold such a header's value, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers_file: BTreeMap<String, PathBuf>,
    /// How often the metrics go there.
    pub(super) interval: Span,
    /// Send the metrics of `/metrics`; `false` where a scraper fetches them.
    pub(super) metrics: bool,
    /// Batches of which a trace is sent, in percent of all; 0: none.
    #[schemars(range(min = 0, max = 100))]
    pub(super) sample_percent: u32,
    /// What else is said of this process, by OpenTelemetry's names, such as
    /// `"deployment.environment.name"`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) resource: BTreeMap<String, String>,
    /// For one request.
    pub(super) timeout: Span,
    /// Only with an https endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            headers_file: BTreeMap::new(),
            interval: Span::seconds(15),
            metrics: true,
            sample_percent: 100,
            resource: BTreeMap::new(),
            timeout: Span::seconds(10),
            tls: None,
        }
    }
}
