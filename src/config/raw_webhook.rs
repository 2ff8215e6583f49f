//! `[webhooks.NAME]` as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::Tls;
use super::units::{Secret, Span};

/// A receiver of alerts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Webhook {
    /// What it understands.
    pub(super) kind: Kind,
    /// Its address; a secret, because often whoever knows it may post there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<Secret>,
    /// A file that holds the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url_file: Option<PathBuf>,
    /// Sent along as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// Nothing less bad is told there.
    pub(super) min_severity: Least,
    /// Tells also what is over.
    pub(super) resolved: bool,
    /// What happens so soon after the first news is told with it, in one message.
    pub(super) group_wait: Span,
    /// What fires is told again that often. Default: 4h; for `alertmanager` 1m, because it forgets
    /// what it does not hear of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeat_every: Option<Span>,
    /// For one request; after it the same is tried again, ever more rarely.
    pub(super) timeout: Span,
    /// Only with an https address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            kind: Kind::Json,
            url: None,
            url_file: None,
            token: None,
            token_file: None,
            min_severity: Least::Warning,
            resolved: true,
            group_wait: Span::seconds(10),
            repeat_every: None,
            timeout: Span::seconds(10),
            tls: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Json,
    Slack,
    Alertmanager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Least {
    Warning,
    Critical,
}
