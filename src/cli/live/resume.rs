//! What is subscribed to and what was seen of it, so that a connection that is made again goes on
//! where the last one ended: the bridge replays what it remembers, and of that only what is new is
//! shown. Pure.
//!
//! Order holds within a topic and nowhere else: a replay for a pattern comes topic by topic, and
//! several subscriptions take turns. So everything here is known by topic.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value as Json;

use crate::live::name;

/// So many messages are asked for of each topic, and as many of one moment are remembered.
pub(super) const REMEMBERED: usize = 1_000;

/// Of each topic so many messages are remembered, and all of the newest's moment: publishers that
/// write at the same time may be a few out of order.
const RECENT: usize = 32;

/// The topics of a pattern are as many as a bridge may have; of the one that was silent for the
/// longest time messages may be repeated.
const TOPICS: usize = 10_000;

/// Up to where a feed was seen.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// By what was asked for: a topic or a pattern.
    subscriptions: BTreeMap<String, Subscription>,
    /// By topic.
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Subscription {
    ask: Json,
    /// The number of the request that asked for it last.
    request: u64,
    /// The bridge's time when it began; its times are ordered as texts. None before.
    from: Option<String>,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// On the connection that it was asked for on: what comes is shown.
    First,
    /// Asked for again on another one. The bridge may have said already that it is not there.
    AskedAgain { was_missing: bool },
    /// There was no such topic: a bridge that has started again makes some with their first record.
    Missing,
    /// Again there, since that time of the bridge: what is not newer is a replay.
    Again { since: String },
}

impl Resume {
    /// Somebody asked for it: what comes is no repetition, whatever was seen of it.
    pub(super) fn asked_for(&mut self, topic: &str, ask: Json, request: u64) {
        let subscription = Subscription { ask, request, from: None, stage: Stage::First };
        self.subscriptions.insert(topic.to_owned(), subscription);
    }

    pub(super) fn forget(&mut self, topic: &str) {
        self.subscriptions.remove(topic);
    }

    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscriptions.contains_key(topic)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Another connection: nothing is subscribed to on it.
    pub(super) fn reconnected(&mut self) {
        for subscription in self.subscriptions.values_mut() {
            if subscription.from.is_some() {
                subscription.stage = Stage::Missing;
            }
        }
    }

    /// All that is to be asked for on another connection, with what to ask: the topics' names.
    pub(super) fn all(&self) -> Vec<(String, Json)> {
        self.subscriptions.iter().map(|(topic, of)| (topic.clone(), of.wish())).collect()
    }

    /// Those of them that the bridge did not have.
    pub(super) fn missing(&self) -> Vec<(String, Json)> {
        let missing = self.subscriptions.iter().filter(|(_, of)| of.stage == Stage::Missing);
        missing.map(|(topic, of)| (topic.clone(), of.wish())).collect()
    }

    /// It was asked for under this number, once more; `was_missing`: on this connection.
    pub(super) fn asked_again(&mut self, topic: &str, request: u64, was_missing: bool) {
        if let Some(subscription) = self.subscriptions.get_mut(topic) {
            subscription.request = request;
            if subscription.from.is_some() {
                subscription.stage = Stage::AskedAgain { was_missing };
            }
        }
    }

    /// The bridge has it, from this time on.
    pub(super) fn acknowledged(&mut self, request: u64, ts: &str) {
        let asked = self.subscriptions.values_mut().find(|of| of.request == request);
        let Some(subscription) = asked else { return };
        if subscription.from.is_none() {
            subscription.from = Some(ts.to_owned());
        } else {
            subscription.stage = Stage::Again { since: ts.to_owned() };
        }
    }

    /// The bridge has no such topic. If it had it before: its name, and whether that is news.
    pub(super) fn not_found(&mut self, request: u64) -> Option<(String, bool)> {
        let asked = self.subscriptions.iter().find(|(_, of)| of.request == request);
        let topic = asked.map(|(topic, _)| topic.clone())?;
        match self.subscriptions.get_mut(&topic) {
            Some(Subscription { stage: stage @ Stage::AskedAgain { .. }, .. }) => {
                let is_news = *stage == Stage::AskedAgain { was_missing: false };
                *stage = Stage::Missing;
                Some((topic, is_news))
            }
            _ => {
                self.forget(&topic);
                None
            }
        }
    }

    /// Whether this event was not seen before; from now on it was.
    pub(super) fn is_new(&mut self, topic: &str, id: &str, ts: &str) -> bool {
        let seen = self.seen.get(topic);
        let of_topic = |(asked, _): &(&String, &Subscription)| name::matches(asked, topic);
        let mut subscriptions = self.subscriptions.iter().filter(of_topic).peekable();
        let is_repeated = subscriptions.peek().is_some()
            && subscriptions.all(|(_, of)| of.may_repeat(ts) && !of.missed(seen, id, ts));
        if is_repeated {
            return false;
        }
        if seen.is_none() && self.seen.len() == TOPICS {
            let silent = self.seen.iter().min_by_key(|(_, seen)| seen.newest());
            if let Some(silent) = silent.map(|(topic, _)| topic.clone()) {
                self.seen.remove(&silent);
            }
        }
        self.seen.entry(topic.to_owned()).or_default().add(id, ts);
        true
    }
}

impl Subscription {
    /// What to ask for: where it began before, with all that came meanwhile.
    fn wish(&self) -> Json {
        let mut ask = self.ask.clone();
        if self.from.is_some() {
            ask["last_n"] = REMEMBERED.into();
        }
        ask
    }

    fn may_repeat(&self, ts: &str) -> bool {
        match &self.stage {
            Stage::First => false,
            Stage::AskedAgain { .. } | Stage::Missing => true,
            Stage::Again { since } => ts <= since.as_str(),
        }
    }

    /// It came after this began, and was not seen. The bridge gives what nobody heard the time at
    /// which somebody asked: that of the beginning is from before it.
    fn missed(&self, seen: Option<&Seen>, id: &str, ts: &str) -> bool {
        self.from.as_deref().is_none_or(|from| ts > from) && !seen.is_some_and(|s| s.has(id, ts))
    }
}

/// What was seen of a topic.
#[derive(Debug, Default)]
struct Seen {
    /// Ids and times, the newest last.
    recent: VecDeque<(String, String)>,
    /// The time of the last that is not among them any more, unless it is that of the newest.
    before: String,
}

impl Seen {
    fn add(&mut self, id: &str, ts: &str) {
        self.recent.push_back((id.to_owned(), ts.to_owned()));
        let is_of_now = |(_, first): &(String, String)| first == ts;
        while self.recent.len() > REMEMBERED
            || (self.recent.len() > RECENT && !self.recent.front().is_some_and(is_of_now))
        {
            let forgotten = self.recent.pop_front().filter(|(_, then)| then != ts);
            self.before = forgotten.map_or_else(|| std::mem::take(&mut self.before), |(_, ts)| ts);
        }
    }

    fn has(&self, id: &str, ts: &str) -> bool {
        ts <= self.before.as_str() || self.recent.iter().any(|(recent, _)| recent == id)
    }

    fn newest(&self) -> &str {
        self.recent.back().map_or("", |(_, ts)| ts)
    }
}

#[cfg(test)]
mod tests;
