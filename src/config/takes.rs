//! What the routes together want of the sources.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Config, JetStreamRoute, RateLimit, Route};
use crate::subject::SubjectPattern;

/// What is to be subscribed to, over all routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takes {
    /// Of Kafka: names, and regular expressions.
    pub topics: Vec<String>,
    /// Of core NATS: what may be dropped under pressure, and what never is.
    pub subjects: Vec<SubjectPattern>,
    pub system: Vec<SubjectPattern>,
    /// The routes that are published into.
    pub published: BTreeSet<String>,
    /// Of JetStream: by the names of the routes.
    pub streams: BTreeMap<String, JetStreamRoute>,
}

impl Route {
    /// The table that it fills; None when it only counts.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        match &self.action {
            Action::Insert(insert) => Some(&insert.table),
            Action::Count => None,
        }
    }

    /// What is promised of its records, by the source that brings them.
    pub fn guarantees(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let stored = if self.is_exactly_once() { "exactly_once" } else { "at_least_once" };
        let by_source = [
            (!self.kafka_topics.is_empty(), "kafka", stored),
            (self.jetstream.is_some(), "jetstream", stored),
            (!self.nats_subjects.is_empty(), "nats", "at_most_once"),
            // Who publishes is told what became of it: what was called durable is kept, what was
            // only accepted is lost in a crash.
            (self.publish, "live", "as_answered"),
        ];
        by_source.into_iter().filter_map(|(takes, source, of)| takes.then_some((source, of)))
    }
}

impl Config {
    /// Of a source, by its name.
    #[must_use]
    pub fn rate_limit_of(&self, source: &str) -> Option<RateLimit> {
        let nats = self.nats.as_ref();
        match source {
            "kafka" => self.kafka.as_ref()?.rate_limit,
            "nats" => nats?.rate_limit,
            "jetstream" => nats?.jetstream.as_ref()?.rate_limit,
            "live" => self.live.publish.rate_limit,
            _ => None,
        }
    }

    /// What the routes want of the sources.
    #[must_use]
    pub fn takes(&self) -> Takes {
        let subjects = |system: bool| {
            let routes = self.routes.iter().filter(|route| (route.class == "system") == system);
            let subjects = routes.flat_map(|route| &route.nats_subjects);
            let parsed = subjects.map(|s| s.parse().expect("subjects are checked when loaded"));
            parsed.collect()
        };
        let published = self.routes.iter().filter(|route| route.publish);
        let of_stream = |route: &Route| Some((route.name.clone(), route.jetstream.clone()?));
        Takes {
            topics: self.kafka_topics(),
            subjects: subjects(false),
            system: subjects(true),
            published: published.map(|route| route.name.clone()).collect(),
            streams: self.routes.iter().filter_map(of_stream).collect(),
        }
    }

    /// The topics of all routes, each once.
    #[must_use]
    pub fn kafka_topics(&self) -> Vec<String> {
        let topics = self.routes.iter().flat_map(|route| route.kafka_topics.iter().cloned());
        topics.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether any route takes records by core NATS.
    #[must_use]
    pub fn has_core_nats(&self) -> bool {
        self.nats.is_some() && self.routes.iter().any(|route| !route.nats_subjects.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use crate::config;

    #[test]
    fn what_is_published_is_promised_as_it_was_answered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data-bridge.toml");
        let text = "clickhouse.url = 'http://a:8123'\nkafka.brokers = ['a:9092']\nhttp.token = 'long-enough'\n\
                    [[routes]]\nname = 'a'\nkafka_topics = ['a']\npublish = true\ntable = 'a'\n";
        std::fs::write(&file, text).unwrap();
        let config = config::load(&[file]).unwrap_or_else(|error| panic!("{error}"));
        let promised: Vec<_> = config.routes[0].guarantees().collect();
        assert_eq!(promised, [("kafka", "at_least_once"), ("live", "as_answered")]);
    }
}
