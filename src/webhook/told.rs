//! What a receiver was told, and what it was not yet. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::message::{Item, Notice, Status, What};
use crate::alert::{Alert, Key};
use crate::config::Webhook;

/// What fires as far as the receiver knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    firing: BTreeMap<Key, Alert>,
    at: Option<Instant>,
}

impl Told {
    /// When what fires has to be told again; None while nothing fires as far as is told.
    pub(super) fn due_again(&self, every: Duration) -> Option<Instant> {
        self.at.filter(|_| !self.firing.is_empty()).map(|at| at + every)
    }

    /// What is to be told; None when there are no news, and it is not time to tell it again. What
    /// fires is told whole, so that a message can be understood by itself.
    pub(super) fn news(
        &mut self,
        firing: &[Alert],
        config: &Webhook,
        now: Instant,
    ) -> Option<Notice> {
        let fires: BTreeMap<Key, &Alert> = firing
            .iter()
            .filter(|alert| alert.id.severity() >= config.min_severity)
            .map(|alert| (alert.key(), alert))
            .collect();
        if !config.resolved {
            self.firing.retain(|key, _| fires.contains_key(key));
        }
        let again = self.due_again(config.repeat_every).is_some_and(|at| at <= now);
        let item = |status, alert: &Alert| Item { status, what: What::Alert(alert.clone()) };
        let firing = fires.iter().map(|(key, alert)| match self.firing.contains_key(key) {
            true => item(Status::Firing, alert),
            false => item(Status::Fired, alert),
        });
        let over = self.firing.iter().filter(|(key, _)| !fires.contains_key(*key));
        let over = over.map(|(_, alert)| item(Status::Resolved, alert));
        let mut items: Vec<Item> = firing.chain(over).collect();
        // A message may be cut: what is new and bad comes first.
        items.sort_by_key(Item::urgency);
        let is_news = |item: &Item| again || item.status != Status::Firing;
        items.iter().any(is_news).then_some(Notice { items })
    }

    /// It arrived.
    pub(super) fn told(&mut self, notice: Notice, now: Instant) {
        self.at = Some(now);
        let firing = notice.items.into_iter().filter(|item| item.status != Status::Resolved);
        let alerts = firing.filter_map(|item| match item.what {
            What::Alert(alert) => Some((alert.key(), alert)),
            What::Test { .. } => None,
        });
        self.firing = alerts.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::AlertId;
    use crate::config::load;

    fn alert(id: AlertId) -> Alert {
        Alert { id, of: None, since: 0, summary: String::new(), runbook: String::new() }
    }

    /// A message may be cut at its end.
    #[test]
    fn what_is_new_and_bad_comes_first_and_what_is_known_last() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n\
                    [webhooks.w]\nurl = 'http://h/'\n";
        std::fs::write(file.path(), text).unwrap();
        let config = load(&[file.path().to_owned()]).unwrap().webhooks["w"].clone();
        let (now, mut told) = (Instant::now(), Told::default());
        let before = [AlertId::Paused, AlertId::BufferHigh].map(alert);
        let first = told.news(&before, &config, now).unwrap();
        told.told(first, now);
        let then = [AlertId::Paused, AlertId::DeadLetters, AlertId::AccountingGap].map(alert);
        let notice = told.news(&then, &config, now).unwrap();
        let order = notice.items.iter().map(|item| match &item.what {
            What::Alert(alert) => (item.status, alert.id),
            What::Test { .. } => unreachable!("nobody tests"),
        });
        let expected = [
            (Status::Fired, AlertId::AccountingGap),
            (Status::Fired, AlertId::DeadLetters),
            (Status::Resolved, AlertId::BufferHigh),
            (Status::Firing, AlertId::Paused),
        ];
        assert_eq!(order.collect::<Vec<_>>(), expected);
    }
}
