//! Alerts delivered to receivers: a URL that takes JSON, Slack's format, or Alertmanager's.
//!
//! ```text
//! what fires (watch) --differs from what was told--> wait a little --> one message --> receiver
//!                                  ^                                                     |
//!                                  +------------------ told ------ 2xx ------------------+
//! ```
//!
//! By state, not by messages: a receiver knows what it has told, compares that with what fires, and
//! tells the difference. So there is no queue that could fill up; what comes together is one message; a
//! receiver that was away is told how things are, not how they were; and each has a task of its own,
//! for which nobody waits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::alert::Alerts;
use crate::config::{Retry, Webhook, WebhookKind};
use crate::post::{Post, To};
use crate::{retry, tls};

pub mod message;
mod tally;
mod told;

use message::Notice;
pub use tally::{Delivery, Last, Tallies, Tally};
use told::Told;

/// Slower than inserts: a receiver that is down is a nuisance, no outage. But whoever wants to hear
/// of everything again more often is not kept waiting for longer: Alertmanager takes for over what it
/// does not hear of.
fn retry_of(config: &Webhook) -> Retry {
    let max_delay = Duration::from_secs(300).min(config.repeat_every);
    Retry { base_delay: Duration::from_secs(1), max_delay }
}

/// For a last word when the bridge stops.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Where Alertmanager takes alerts.
const ALERTMANAGER: &str = "/api/v2/alerts";

/// The way to a receiver.
///
/// # Errors
/// When the files of its TLS cannot be used any more.
pub fn post(config: &Webhook) -> anyhow::Result<Post> {
    let url = config.url.expose_secret();
    let url = match config.kind {
        WebhookKind::Alertmanager => SecretString::from(of_alertmanager(url)),
        WebhookKind::Json | WebhookKind::Slack => config.url.clone(),
    };
    let bearer = |token: &SecretString| format!("Bearer {}", token.expose_secret()).into();
    Post::new(To {
        url: &url,
        headers: config.token.iter().map(|token| ("authorization", bearer(token))).collect(),
        content_type: "application/json",
        tls: config.tls.as_ref(),
        timeout: config.timeout,
        keys: &tls::Keys::WEBHOOK,
        see: ["its token", "its url and kind"],
    })
}

/// Where it takes alerts, unless that is named already.
fn of_alertmanager(url: &str) -> String {
    let (place, query) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    let place = place.trim_end_matches('/');
    let place = place.strip_suffix(ALERTMANAGER).unwrap_or(place);
    format!("{place}{ALERTMANAGER}{query}")
}

/// The receivers, before they run.
#[derive(Debug)]
pub struct Webhooks {
    receivers: Vec<Receiver>,
    tallies: Tallies,
}

impl Webhooks {
    /// # Errors
    /// When the files of a receiver's TLS cannot be used any more.
    pub fn new<'a>(
        configured: impl IntoIterator<Item = (&'a String, &'a Webhook)>,
        instance: &str,
        alerts: &Alerts,
    ) -> anyhow::Result<Self> {
        let receiver = |(name, config): (&String, &Webhook)| {
            let post = post(config).with_context(|| format!("webhooks.{name}"))?;
            anyhow::Ok(Receiver {
                config: config.clone(),
                instance: instance.to_owned(),
                alerts: alerts.clone(),
                post,
                told: Told::default(),
                tally: Arc::new(Tally::new(name, config)),
            })
        };
        let receivers: Vec<_> =
            configured.into_iter().map(receiver).collect::<anyhow::Result<_>>()?;
        let tallies = receivers.iter().map(|receiver| Arc::clone(&receiver.tally)).collect();
        Ok(Self { receivers, tallies })
    }

    #[must_use]
    pub fn tallies(&self) -> Tallies {
        Arc::clone(&self.tallies)
    }

    /// Until `end`, and a last word after it.
    pub async fn run(self, end: CancellationToken) {
        let mut tasks = JoinSet::new();
        for receiver in self.receivers {
            tasks.spawn(receiver.run(end.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "notice_failed", %error, "a receiver of alerts failed; the others go on");
            }
        }
    }
}

#[derive(Debug)]
struct Receiver {
    config: Webhook,
    instance: String,
    alerts: Alerts,
    post: Post,
    told: Told,
    tally: Arc<Tally>,
}

impl Receiver {
    async fn run(mut self, end: CancellationToken) {
        while end.run_until_cancelled(self.tell_next()).await == Some(true) {}
        // What happened in the last moments.
        if self.notice().is_some() && timeout(LAST_WORD, self.attempt()).await.is_err() {
            tracing::warn!(
                event = "notice_not_told",
                webhook = self.tally.name,
                "stopped before a last notice was delivered"
            );
        }
    }

    /// Waits for news and tells them, however long that takes. False: nobody looks any more.
    async fn tell_next(&mut self) -> bool {
        while self.notice().is_none() {
            let again = self.told.due_again(self.config.repeat_every);
            tokio::select! {
                changed = self.alerts.changed() => if changed.is_err() { return false },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
        // What else comes now belongs to it.
        sleep(self.config.group_wait).await;
        let (retry_by, mut failures) = (retry_of(&self.config), 0);
        while self.attempt().await.is_err() {
            failures += 1;
            sleep(retry::delay(&retry_by, failures)).await;
        }
        true
    }

    /// What there is to say now.
    fn notice(&mut self) -> Option<Notice> {
        let firing = Arc::clone(&self.alerts.borrow_and_update());
        self.told.news(&firing, &self.config, Instant::now())
    }

    /// One message, if there is still something to say.
    async fn attempt(&mut self) -> Result<(), ()> {
        let Some(notice) = self.notice() else { return Ok(()) };
        let wall = jiff::Timestamp::now().as_millisecond();
        let body = message::body(&notice, &self.config, &self.instance, wall);
        let webhook = self.tally.name.as_str();
        let result = self.post.send(body).await;
        match &result {
            Ok(()) => {
                self.tally.delivered(wall);
                tracing::debug!(event = "notice_sent", webhook, "alerts delivered: {notice}");
                self.told.told(notice, Instant::now());
            }
            Err(error) => {
                let what = &error.what;
                self.tally.refused(what, wall);
                tracing::warn!(event = "notice_failed", webhook, "alerts not delivered: {what}");
            }
        }
        result.map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alertmanager_is_asked_where_it_takes_alerts_however_it_is_named() {
        for given in ["http://am:9093", "http://am:9093/", "http://am:9093/api/v2/alerts/"] {
            assert_eq!(of_alertmanager(given), "http://am:9093/api/v2/alerts");
        }
        let of_tenant = of_alertmanager("http://am/of/me/?tenant=a");
        assert_eq!(of_tenant, "http://am/of/me/api/v2/alerts?tenant=a");
    }
}
