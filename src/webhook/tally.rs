//! What became of the messages to a receiver, for whoever wants to see whether it hears of alerts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::config::{Webhook, WebhookKind};
use crate::record::UnixMs;

/// Of every receiver, by name.
pub type Tallies = Arc<[Arc<Tally>]>;

/// One receiver. Written by its task, read by whoever asks.
#[derive(Debug)]
pub struct Tally {
    pub name: String,
    pub kind: WebhookKind,
    /// Scheme and host of its address, of which the rest is a secret.
    pub to: String,
    sent: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Last>,
}

/// What became of the last message, and since when it is so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    pub delivery: Delivery,
    /// None while it is untold.
    pub since: Option<UnixMs>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Delivery {
    /// There was nothing to tell yet.
    #[default]
    Untold,
    Delivered,
    /// It did not arrive, or was not taken: why, in words that hold no secret.
    Refused(String),
}

impl Tally {
    #[must_use]
    pub fn new(name: &str, config: &Webhook) -> Self {
        Self {
            name: name.to_owned(),
            kind: config.kind,
            to: config.host(),
            sent: AtomicU64::default(),
            failed: AtomicU64::default(),
            last: Mutex::default(),
        }
    }

    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn last(&self) -> Last {
        self.last.lock().expect("no panic while held").clone()
    }

    pub(super) fn delivered(&self, at: UnixMs) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.became(Delivery::Delivered, at);
    }

    pub(super) fn refused(&self, why: &str, at: UnixMs) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.became(Delivery::Refused(why.to_owned()), at);
    }

    /// Another reason is still the same state.
    fn became(&self, delivery: Delivery, at: UnixMs) {
        let mut last = self.last.lock().expect("no panic while held");
        let same = std::mem::discriminant(&last.delivery) == std::mem::discriminant(&delivery);
        let since = last.since.filter(|_| same).or(Some(at));
        *last = Last { delivery, since };
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::alert::Severity;
    use crate::status::health::Receiver;

    #[test]
    fn a_receiver_is_shown_by_its_last_message_and_without_its_address() {
        let config = Webhook {
            kind: WebhookKind::Slack,
            url: SecretString::from("https://hooks.example:8443/t0psecret".to_owned()),
            token: None,
            min_severity: Severity::Warning,
            resolved: true,
            group_wait: std::time::Duration::ZERO,
            repeat_every: std::time::Duration::ZERO,
            timeout: std::time::Duration::ZERO,
            tls: None,
        };
        let tally = Tally::new("oncall", &config);
        let shown = || serde_json::to_value(Receiver::from(&tally)).unwrap();
        let untold = serde_json::json!({
            "name": "oncall", "kind": "slack", "to": "https://hooks.example", "state": "untold",
            "since": null, "reason": null, "sent": 0, "failed": 0,
        });
        assert_eq!(shown(), untold);
        tally.refused("404 Not Found", 1_000);
        tally.refused("no answer within 10 s", 2_000);
        let refused = shown();
        assert_eq!((&refused["state"], &refused["failed"]), (&"refused".into(), &2.into()));
        assert_eq!(refused["reason"], "no answer within 10 s", "the last one");
        assert_eq!(refused["since"], "1970-01-01T00:00:01.000Z", "the first one");
        tally.delivered(3_000);
        let delivered = shown();
        assert_eq!(
            (&delivered["state"], &delivered["reason"]),
            (&"delivered".into(), &serde_json::Value::Null)
        );
        assert_eq!(delivered["since"], "1970-01-01T00:00:03.000Z");
    }
}
