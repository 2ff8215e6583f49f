//! What a receiver was told, and what it was not yet. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::message::{Item, Notice, Status, What, most};
use crate::alert::{Alert, Key};
use crate::config::Webhook;

/// What fires as far as the receiver knows, and when it was told of each.
#[derive(Debug, Default)]
pub(super) struct Told {
    firing: BTreeMap<Key, (Alert, Instant)>,
}

impl Told {
    /// When some of what fires has to be told again; None while nothing fires as far as is told.
    pub(super) fn due_again(&self, every: Duration) -> Option<Instant> {
        self.firing.values().map(|(_, at)| *at + every).min()
    }

    /// What is to be told; None when there are no news, and it is not time to tell it again. What
    /// fires is told whole, as far as a message may be long, so that it can be understood by itself.
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
        let firing = fires.iter().map(|(key, alert)| match self.firing.get(key) {
            Some((_, at)) => (Some(*at), item(Status::Firing, alert)),
            None => (None, item(Status::Fired, alert)),
        });
        let over = self.firing.iter().filter(|(key, _)| !fires.contains_key(*key));
        let over = over.map(|(_, (alert, _))| (None, item(Status::Resolved, alert)));
        let mut items: Vec<(Option<Instant>, Item)> = firing.chain(over).collect();
        let is_news = |(_, item): &(_, Item)| again || item.status != Status::Firing;
        if !items.iter().any(is_news) {
            return None;
        }
        // A message may be cut: what is new and bad comes first, and of what is known that which was
        // not told for the longest time.
        items.sort_by_key(|(told_at, item)| (item.urgency(), *told_at));
        let left_out = items.len().saturating_sub(most(config.kind));
        items.truncate(most(config.kind));
        Some(Notice { items: items.into_iter().map(|(_, item)| item).collect(), left_out })
    }

    /// It arrived. What was left out of it was not told.
    pub(super) fn told(&mut self, notice: Notice, now: Instant) {
        for Item { status, what } in notice.items {
            let What::Alert(alert) = what else { continue };
            match status {
                Status::Resolved => drop(self.firing.remove(&alert.key())),
                Status::Fired | Status::Firing => {
                    self.firing.insert(alert.key(), (alert, now));
                }
            }
        }
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

    fn webhook(kind: &str) -> Webhook {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = format!(
            "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n\
             [webhooks.w]\nurl = 'http://h/'\nkind = '{kind}'\n"
        );
        std::fs::write(file.path(), text).unwrap();
        load(&[file.path().to_owned()]).unwrap().webhooks["w"].clone()
    }

    /// More than a message holds, of each kind: everything is told, and told again in time, in as many
    /// messages as it takes.
    #[test]
    fn what_a_message_has_no_room_for_is_in_the_next() {
        for (kind, most, messages) in [("slack", 30, 3), ("json", 200, 2), ("alertmanager", 200, 2)]
        {
            let (config, mut told, now) = (webhook(kind), Told::default(), Instant::now());
            let route = |n| Alert { of: Some(format!("route {n}")), ..alert(AlertId::DeadLetters) };
            let firing: Vec<Alert> = (0..messages * most - 7).map(route).collect();
            let mut tell = |firing: &[Alert], now| {
                let mut sizes = Vec::new();
                while let Some(notice) = told.news(firing, &config, now) {
                    sizes.push((notice.items.len(), notice.left_out));
                    told.told(notice, now);
                }
                sizes
            };
            let first = tell(&firing, now);
            assert_eq!((first.len(), first[0]), (messages, (most, firing.len() - most)), "{kind}");
            assert_eq!(tell(&firing, now + config.repeat_every / 2), [], "{kind}");
            assert_eq!(tell(&firing, now + config.repeat_every).len(), messages, "{kind}");
            let over = tell(&[], now + config.repeat_every);
            assert_eq!(over.iter().map(|(told, _)| told).sum::<usize>(), firing.len(), "{kind}");
        }
    }

    /// A message may be cut at its end.
    #[test]
    fn what_is_new_and_bad_comes_first_and_what_is_known_last() {
        let config = webhook("json");
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
