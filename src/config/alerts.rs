//! When to tell a person: the valid form, and the only way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::problem::Problems;
use super::raw_alerts as raw;
use super::suggest;
use super::units::Span;
use super::{Backpressure, Route};
use crate::alert::AlertId;

/// When what is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    pub off: BTreeSet<AlertId>,
    pub resolve_after: Duration,
    /// Without the `#id` that is put behind it.
    pub runbook: String,
    /// In 15 minutes.
    pub pauses: u64,
    pub buffer_percent: u8,
    pub full_within: Duration,
    /// Of a route, in 5 minutes.
    pub dead_letters: u64,
    /// Of a route, in 5 minutes.
    pub drops: u64,
    /// Of the live feed, in a minute.
    pub subscriber_drops: u64,
    /// records, of a topic
    pub lag: u64,
    pub surge_percent: u32,
    pub input_over_output_percent: u32,
    /// Records a second.
    pub min_input: Option<u64>,
    pub clock_ahead: Duration,
    pub window: Duration,
    /// By route.
    pub silent: BTreeMap<String, Duration>,
    /// Where it is not as the id has it.
    pending: BTreeMap<AlertId, Duration>,
    /// Pauses are said again in the log.
    pauses_repeat_every: Duration,
}

impl Alerts {
    /// For how long it has to be true before it fires.
    #[must_use]
    pub fn pending(&self, id: AlertId) -> Duration {
        self.pending.get(&id).copied().unwrap_or_else(|| id.pending())
    }

    /// How often it is said again in the log while it fires; None: it is said once.
    #[must_use]
    pub fn repeats(&self, id: AlertId) -> Option<Duration> {
        matches!(id, AlertId::Paused | AlertId::PausedLong).then_some(self.pauses_repeat_every)
    }
}

pub(super) fn alerts(
    raw: &raw::Alerts,
    limits: &Backpressure,
    routes: &[Route],
    problems: &mut Problems,
) -> Alerts {
    if raw.runbook.is_empty() || raw.runbook.contains(char::is_whitespace) {
        let text = "must be a path or an address, such as \"https://wiki.example/data-bridge\"";
        problems.text("alerts.runbook", &raw.runbook, text);
    }
    for name in raw.silent.keys().filter(|name| !routes.iter().any(|r| r.name == **name)) {
        let near = suggest::nearest(routes.iter().map(|route| route.name.as_str()), name);
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        problems.bare(&format!("alerts.silent.{name}"), format!("no route is called so{near}"));
    }
    Alerts {
        off: off(raw, problems),
        resolve_after: raw.resolve_after.0,
        runbook: raw.runbook.clone(),
        pauses: raw.pauses,
        buffer_percent: raw.buffer_percent,
        full_within: raw.full_within.0,
        dead_letters: raw.dead_letters,
        drops: raw.drops,
        subscriber_drops: raw.subscriber_drops,
        lag: raw.lag,
        surge_percent: raw.surge_percent,
        input_over_output_percent: raw.input_over_output_percent,
        min_input: raw.min_input,
        clock_ahead: raw.clock_ahead.0,
        window: raw.window.0,
        silent: raw.silent.iter().map(|(name, span)| (name.clone(), span.0)).collect(),
        pending: pending(&raw.pending, limits, problems),
        pauses_repeat_every: limits.repeat_every,
    }
}

fn off(raw: &raw::Alerts, problems: &mut Problems) -> BTreeSet<AlertId> {
    let mut off = BTreeSet::new();
    for (index, name) in raw.off.iter().enumerate() {
        match AlertId::of(name) {
            Some(id) => drop(off.insert(id)),
            None => problems.text(&format!("alerts.off[{index}]"), name, no_such_id(name)),
        }
    }
    off
}

fn pending(
    given: &BTreeMap<String, Span>,
    limits: &Backpressure,
    problems: &mut Problems,
) -> BTreeMap<AlertId, Duration> {
    // Where people have always said how long a pause may be, and a silence.
    let pauses = [
        (AlertId::Paused, "warn_after", limits.warn_after),
        (AlertId::PausedLong, "critical_after", limits.critical_after),
    ];
    let mut pending: BTreeMap<_, _> = pauses.iter().map(|(id, _, after)| (*id, *after)).collect();
    for (name, span) in given {
        let key = format!("alerts.pending.{name}");
        let Some(id) = AlertId::of(name) else {
            problems.push(&key, span, no_such_id(name));
            continue;
        };
        let pause = pauses.iter().find(|(pause, ..)| *pause == id);
        let instead = match (pause, id) {
            (Some((_, key, _)), _) => Some(format!("backpressure.{key}")),
            (None, AlertId::Silent) => Some("[alerts.silent]".to_owned()),
            (None, _) => None,
        };
        if let Some(instead) = instead {
            problems.push(&key, span, format!("is {instead}; set that instead"));
        }
        pending.insert(id, span.0);
    }
    pending
}

fn no_such_id(name: &str) -> String {
    match suggest::nearest(AlertId::ALL.iter().map(|id| id.name()), name) {
        Some(near) => format!("no alert is called so; did you mean `{near}`?"),
        None => {
            let all: Vec<&str> = AlertId::ALL.iter().map(|id| id.name()).collect();
            format!("no alert is called so; known are {}", all.join(", "))
        }
    }
}
