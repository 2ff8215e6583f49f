//! The topics that routes have, and their sub-topics.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Live, State};
use crate::decode::Source;
use crate::live::name::{self, is_below};
use crate::live::tap::RouteTopic;
use crate::live::topic::{Owner, Topic};

/// A sub-topic that had nothing for so long may go for another one.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// All topics are looked through for one, while every new key would want it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Live {
    /// The topics of the configuration's routes, in its order. Those of routes that are gone are
    /// deleted.
    pub(in crate::live) fn lay_routes(&self, routes: &[RouteTopic]) -> Vec<Arc<Topic>> {
        let mut state = self.lock();
        let names: Vec<String> = routes.iter().map(|route| name::of_route(&route.name)).collect();
        let keys: BTreeMap<String, Option<Arc<Source>>> =
            names.iter().cloned().zip(routes.iter().map(|route| route.key.clone())).collect();
        let stays = |topic: &Topic| match topic.owner {
            Owner::User => {
                !names.iter().any(|name| **name == *topic.name || is_below(name, &topic.name))
            }
            Owner::Route => names.iter().any(|name| **name == *topic.name),
            Owner::Key => keys.iter().any(|(name, key)| {
                key.is_some() && is_below(name, &topic.name) && state.keys.get(name) == Some(key)
            }),
        };
        let gone: Vec<Arc<str>> =
            state.topics.values().filter(|t| !stays(t)).map(|t| Arc::clone(&t.name)).collect();
        gone.iter().for_each(|name| state.delete(name));
        state.keys = keys;
        let settings = self.default_settings();
        names.iter().map(|name| state.add(name, Owner::Route, settings)).collect()
    }

    /// Tells those who listen to a route, or to parts of it, how many of its records the feed could not
    /// take. Of parts too it is all of them: which keys they had nobody has read.
    pub(in crate::live) fn tell_overruns(&self) {
        let (state, now) = (self.lock(), Instant::now());
        for topic in state.topics.values().filter(|topic| topic.owner == Owner::Route) {
            let lost = topic.take_overrun(now);
            if lost > 0 {
                topic.dropped(state.tell_overrun(&topic.name, lost));
            }
        }
    }

    /// The sub-topic of a route; None when there are too many topics, and none of them may go.
    pub(in crate::live) fn by_key(&self, name: &str) -> Option<Arc<Topic>> {
        let mut state = self.lock();
        if let Some(known) = state.topics.get(name) {
            return Some(Arc::clone(known));
        }
        if state.topics.len() >= self.settings.max_topics && !state.let_idle_go(Instant::now()) {
            self.keyless.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(state.add(name, Owner::Key, self.default_settings()))
    }
}

impl State {
    /// Says how many messages are missing with all who listen, each of whom is told once.
    fn tell_overrun(&self, route: &str, lost: u64) -> u64 {
        let has_parts = self.keys.get(route).is_some_and(Option::is_some);
        let concerns = |asked: &str| {
            let whole = asked.rsplit_once('/').map(|(whole, _)| whole).filter(|_| has_parts);
            name::matches(asked, route) || whole.is_some_and(|whole| name::matches(whole, route))
        };
        let each = self.connections.values().flat_map(|connection| {
            let listens = connection.subscriptions.iter().filter(|(asked, _)| concerns(asked));
            listens.map(|(_, queue)| connection.mailbox.lose(*queue, lost))
        });
        each.sum()
    }

    /// The route under whose name this is.
    pub(super) fn route_above(&self, name: &str) -> Option<&str> {
        let mut above = name.match_indices('/').map(|(end, _)| &name[..end]);
        above.find_map(|above| self.keys.get_key_value(above)).map(|(route, _)| route.as_str())
    }

    /// Makes room for a sub-topic: the one goes that has had nothing for the longest, if that is
    /// long enough, and nobody has subscribed to it by its name. Who listens by a pattern is told
    /// nothing: for them it is as if nothing came.
    fn let_idle_go(&mut self, now: Instant) -> bool {
        if self.look_again.is_some_and(|at| now < at) {
            return false;
        }
        let named: HashSet<&str> = self
            .connections
            .values()
            .flat_map(|each| each.subscriptions.keys().map(|name| &**name))
            .collect();
        let may_go =
            |topic: &&Arc<Topic>| topic.owner == Owner::Key && !named.contains(&*topic.name);
        let latest = self.topics.values().filter(may_go).map(|topic| (topic.latest(), topic));
        match latest.min_by_key(|(latest, _)| *latest) {
            Some((latest, topic)) if now.duration_since(latest) >= IDLE_FOR => {
                topic.delete();
                let name = Arc::clone(&topic.name);
                self.topics.remove(&name);
                true
            }
            _ => {
                self.look_again = Some(now + LOOK_EVERY);
                false
            }
        }
    }
}
