//! The topics that routes have, and their sub-topics.

use std::sync::Arc;

use super::Live;
use crate::live::name;
use crate::live::tap::RouteTopic;
use crate::live::topic::{Owner, Topic};

impl Live {
    /// The topics of the configuration's routes, in its order. Those of routes that are gone are
    /// deleted.
    pub(in crate::live) fn lay_routes(&self, routes: &[RouteTopic]) -> Vec<Arc<Topic>> {
        let mut state = self.lock();
        let names: Vec<String> = routes.iter().map(|route| topic_name(&route.name)).collect();
        let stays = |topic: &Topic| match topic.owner {
            Owner::User => !names.iter().any(|name| **name == *topic.name),
            Owner::Route => names.iter().any(|name| **name == *topic.name),
            Owner::Key => names.iter().any(|name| {
                topic.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }),
        };
        let gone: Vec<Arc<str>> =
            state.topics.values().filter(|t| !stays(t)).map(|t| Arc::clone(&t.name)).collect();
        gone.iter().for_each(|name| state.delete(name));
        let settings = self.default_settings();
        names.iter().map(|name| state.add(name, Owner::Route, settings)).collect()
    }

    /// The sub-topic of a route; None when there are too many topics.
    pub(in crate::live) fn by_key(&self, name: &str) -> Option<Arc<Topic>> {
        let mut state = self.lock();
        if let Some(known) = state.topics.get(name) {
            return Some(Arc::clone(known));
        }
        if state.topics.len() >= self.settings.max_topics {
            return None;
        }
        Some(state.add(name, Owner::Key, self.default_settings()))
    }
}

/// A route's name as a topic's.
fn topic_name(route: &str) -> String {
    if name::check(route).is_ok() { route.to_owned() } else { name::segment(route) }
}
