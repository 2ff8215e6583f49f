//! A receiver of alerts in `/health`: whether it hears of them. Its address is a secret; the machine is
//! named.

use serde::Serialize;

use super::rfc3339;
use crate::webhook::{Delivery, Tally};

/// Whether the last message to it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receiver {
    pub name: String,
    /// `json`, `slack` or `alertmanager`.
    pub kind: &'static str,
    /// Scheme and host: `https://hooks.example`.
    pub to: String,
    /// `untold` (nothing was to be told yet), `delivered` or `refused`.
    pub state: &'static str,
    /// Since when it is so; null while it is untold.
    pub since: Option<String>,
    /// Why the last message did not arrive; null unless it is refused.
    pub reason: Option<String>,
    /// Messages, since the start.
    pub sent: u64,
    pub failed: u64,
}

impl From<&Tally> for Receiver {
    fn from(tally: &Tally) -> Self {
        let last = tally.last();
        let (state, reason) = match last.delivery {
            Delivery::Untold => ("untold", None),
            Delivery::Delivered => ("delivered", None),
            Delivery::Refused(why) => ("refused", Some(why)),
        };
        Self {
            name: tally.name.clone(),
            kind: tally.kind.name(),
            to: tally.to.clone(),
            state,
            since: last.since.map(rfc3339),
            reason,
            sent: tally.sent(),
            failed: tally.failed(),
        }
    }
}
