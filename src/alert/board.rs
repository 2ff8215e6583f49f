//! From what the rules find to what is said: a finding fires when it has been so for long enough, and
//! is resolved when it has been quiet for long enough, so that what wavers is told once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::rules::{self, Finding};
use super::{Alert, Firing, Key};
use crate::config::Alerts;
use crate::record::UnixMs;
use crate::status::Snapshot;

/// Two looks say the beginning of one pause a little differently; of another pause by more.
const SAME_BEGINNING: Duration = Duration::from_secs(1);

/// What happened at a look, to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    Fired(Alert),
    /// It fires still, and is said again.
    Repeated(Alert),
    Resolved(Alert),
}

impl Transition {
    #[must_use]
    pub fn alert(&self) -> &Alert {
        match self {
            Self::Fired(alert) | Self::Repeated(alert) | Self::Resolved(alert) => alert,
        }
    }
}

/// What was found, and for how long.
#[derive(Debug)]
struct Watched {
    since: Instant,
    /// The last look that found it.
    seen_at: Instant,
    /// Said when, once it fires.
    said_at: Option<Instant>,
    alert: Alert,
}

impl Watched {
    /// Counted from when it was due first, not from when it was last said, so that late looks do not
    /// add up to a drift; and what was missed is said once.
    fn is_due_again(&self, settings: &Alerts, now: Instant) -> bool {
        let id = self.alert.id;
        let Some((said_at, every)) = self.said_at.zip(settings.repeats(id)) else { return false };
        let turn = |at: Instant| {
            let late = (at - self.since).saturating_sub(settings.pending(id));
            late.as_millis() / every.as_millis().max(1)
        };
        turn(said_at) < turn(now)
    }
}

/// Everything that is watched.
#[derive(Debug, Default)]
pub struct Board {
    history: History,
    watched: BTreeMap<Key, Watched>,
}

impl Board {
    /// Takes in a snapshot. `wall` is the same moment as `now`, for people.
    pub fn look(
        &mut self,
        settings: &Alerts,
        snapshot: &Snapshot,
        now: Instant,
        wall: UnixMs,
    ) -> Vec<Transition> {
        self.history.see(snapshot, now);
        let found = rules::look(settings, snapshot, &self.history, now);
        let mut said = Vec::new();
        for finding in found.findings {
            self.find(settings, finding, now, wall, &mut said);
        }
        if found.is_all {
            self.let_go(settings, now, &mut said);
        }
        self.fire(settings, now, &mut said);
        said
    }

    /// What fires now: the critical first, then in the order of the runbook.
    #[must_use]
    pub fn firing(&self) -> Firing {
        let firing = self.watched.values().filter(|watched| watched.said_at.is_some());
        let mut firing: Vec<Alert> = firing.map(|watched| watched.alert.clone()).collect();
        firing.sort_by_key(|alert| std::cmp::Reverse(alert.id.severity()));
        firing.into()
    }

    fn find(
        &mut self,
        settings: &Alerts,
        finding: Finding,
        now: Instant,
        wall: UnixMs,
        said: &mut Vec<Transition>,
    ) {
        let Finding { id, of, summary, held_for } = finding;
        let key = (id, of.clone());
        let since = held_for.map(|held| now - held);
        // It has begun anew, and no look saw the moment between.
        let is_other = |known: &Watched| since.is_some_and(|s| s > known.since + SAME_BEGINNING);
        if self.watched.get(&key).is_some_and(is_other)
            && let Some(before) = self.watched.remove(&key)
        {
            resolved(before, said);
        }
        let since = since.unwrap_or(now);
        let began = wall - i64::try_from((now - since).as_millis()).unwrap_or_default();
        // As it is configured now: a reload may move it.
        let runbook = format!("{}#{id}", settings.runbook);
        let watched = self.watched.entry(key).or_insert_with(|| {
            let (summary, runbook) = (String::new(), String::new());
            let alert = Alert { id, of, since: began, summary, runbook };
            Watched { since, seen_at: now, said_at: None, alert }
        });
        watched.seen_at = now;
        watched.alert.summary = summary;
        watched.alert.runbook = runbook;
    }

    /// What was not found any more: forgotten if it never fired, resolved if it was quiet for long
    /// enough.
    fn let_go(&mut self, settings: &Alerts, now: Instant, said: &mut Vec<Transition>) {
        let is_over = |key: &Key, watched: &mut Watched| {
            let quiet = now - watched.seen_at;
            let id = key.0;
            let may_end = watched.said_at.is_none() || id.ends_at_once();
            !quiet.is_zero() && (may_end || quiet >= settings.resolve_after)
        };
        for (_, watched) in self.watched.extract_if(.., is_over) {
            resolved(watched, said);
        }
    }

    /// What is due to be said, for the first time or again.
    fn fire(&mut self, settings: &Alerts, now: Instant, said: &mut Vec<Transition>) {
        let due = |key: &Key, watched: &Watched| {
            let for_now = watched.seen_at == now;
            for_now && now - watched.since >= settings.pending(key.0)
        };
        let all_due = self.watched.iter().filter(|(key, watched)| due(key, watched));
        let all_due: BTreeSet<Key> = all_due.map(|(key, _)| key.clone()).collect();
        for (key, watched) in &mut self.watched {
            if !all_due.contains(key) {
                continue;
            }
            let worse = key.0.outdone_by().map(|worse| (worse, key.1.clone()));
            let is_outdone = worse.is_some_and(|worse| all_due.contains(&worse));
            let transition = match watched.said_at {
                None => Transition::Fired(watched.alert.clone()),
                Some(_) if is_outdone || !watched.is_due_again(settings, now) => continue,
                Some(_) => Transition::Repeated(watched.alert.clone()),
            };
            watched.said_at = Some(now);
            said.push(transition);
        }
    }
}

fn resolved(watched: Watched, said: &mut Vec<Transition>) {
    if watched.said_at.is_some() {
        said.push(Transition::Resolved(watched.alert));
    }
}
