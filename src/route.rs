//! Which record goes where: ordered routes, the first match wins.
//!
//! Pure. Matches by topic or subject only, never by payload; answers are remembered per name.

use std::collections::HashMap;

use anyhow::Context as _;
use regex::Regex;

use crate::config;
use crate::record::Record;
use crate::subject::SubjectPattern;

/// A route's number: its index in the first configuration, or one behind all those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

impl RouteId {
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What is published into the route `candles` comes on the topic `live:candles`: no topic of Kafka
/// has a `:` in its name, and no name of a published route a `/`, as partitions of JetStream have.
pub const LIVE_TOPIC: &str = "live:";

/// Names are chosen by whoever publishes, so what is remembered of them is bounded.
const REMEMBERED_NAMES: usize = 10_000;

#[derive(Debug)]
struct Matcher {
    topics: Vec<TopicPattern>,
    subjects: Vec<SubjectPattern>,
    /// Its consumer in JetStream.
    consumer: Option<String>,
    /// The topic at which it is published into.
    published: Option<String>,
}

impl Matcher {
    /// A partition of JetStream is called `STREAM/CONSUMER`; no topic has a `/` in it. No pattern of
    /// a topic matches what is published.
    fn takes_topic(&self, topic: &str) -> bool {
        match topic.split_once('/') {
            Some((_, consumer)) => self.consumer.as_deref() == Some(consumer),
            None if topic.starts_with(LIVE_TOPIC) => self.published.as_deref() == Some(topic),
            None => self.topics.iter().any(|pattern| pattern.matches(topic)),
        }
    }
}

#[derive(Debug)]
enum TopicPattern {
    Exact(String),
    Regex(Regex),
}

impl TopicPattern {
    fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Exact(name) => name == topic,
            Self::Regex(regex) => regex.is_match(topic),
        }
    }
}

/// The routes, in order.
#[derive(Debug)]
pub struct Router {
    matchers: Vec<(RouteId, Matcher)>,
    topics: HashMap<String, Option<RouteId>>,
    subjects: HashMap<String, Option<RouteId>>,
    /// Topics that no route takes any more, and that may still be read for a moment: where their
    /// records went before.
    left_over: HashMap<String, RouteId>,
    /// The same of subjects.
    subjects_left_over: Vec<(RouteId, SubjectPattern)>,
}

impl Router {
    /// Of these routes, numbered in their order.
    pub fn new(routes: &[config::Route]) -> anyhow::Result<Self> {
        Self::numbered((0..).map(RouteId).zip(routes))
    }

    /// Of these routes, in their order, each with its number.
    pub fn numbered<'a>(
        routes: impl IntoIterator<Item = (RouteId, &'a config::Route)>,
    ) -> anyhow::Result<Self> {
        let numbered = |(id, route)| Ok((id, matcher(route)?));
        let matchers = routes.into_iter().map(numbered).collect::<anyhow::Result<Vec<_>>>()?;
        let (topics, subjects) = Default::default();
        let (left_over, subjects_left_over) = Default::default();
        Ok(Self { matchers, topics, subjects, left_over, subjects_left_over })
    }

    /// The route that takes this record; None if no route does.
    pub fn route(&mut self, record: &Record<'_>) -> Option<RouteId> {
        if let Some(topic) = record.topic() {
            self.route_of_topic(topic)
        } else {
            let subject = record.subject().unwrap_or_default();
            let find = |matcher: &Matcher| matcher.subjects.iter().any(|p| p.matches(subject));
            remembered(&mut self.subjects, subject, || {
                let left_over = || {
                    let mut patterns = self.subjects_left_over.iter();
                    patterns.find(|(_, pattern)| pattern.matches(subject)).map(|(id, _)| *id)
                };
                first(&self.matchers, find).or_else(left_over)
            })
        }
    }

    /// The route that takes the records of this topic, or of this consumer of JetStream.
    pub fn route_of_topic(&mut self, topic: &str) -> Option<RouteId> {
        let find = |matcher: &Matcher| matcher.takes_topic(topic);
        let route = remembered(&mut self.topics, topic, || first(&self.matchers, find));
        route.or_else(|| self.left_over.get(topic).copied())
    }

    /// Of these topics, those that no route takes any more go on going where they went `before`; and
    /// so do the subjects of `before`, those that it had left over among them.
    pub fn leave_over<'a>(&mut self, topics: impl IntoIterator<Item = &'a str>, before: &mut Self) {
        for topic in topics {
            if self.route_of_topic(topic).is_none()
                && let Some(route) = before.route_of_topic(topic)
            {
                self.left_over.insert(topic.to_owned(), route);
            }
        }
        for (route, matcher) in &before.matchers {
            let gone = matcher.subjects.iter().filter(|pattern| {
                let mut now = self.matchers.iter().flat_map(|(_, matcher)| &matcher.subjects);
                !now.any(|other| other.covers(pattern))
            });
            self.subjects_left_over.extend(gone.map(|pattern| (*route, pattern.clone())));
        }
        // A stream delivers again what was delivered long ago.
        for left in before.subjects_left_over.drain(..) {
            if !self.subjects_left_over.contains(&left) {
                self.subjects_left_over.push(left);
            }
        }
    }

    /// The routes of what is left over.
    pub fn left_over(&self) -> impl Iterator<Item = RouteId> {
        let subjects = self.subjects_left_over.iter().map(|(route, _)| *route);
        self.left_over.values().copied().chain(subjects)
    }
}

fn matcher(route: &config::Route) -> anyhow::Result<Matcher> {
    let topic = |name: &String| {
        if name.starts_with('^') {
            let regex = Regex::new(name).with_context(|| format!("route `{}`", route.name))?;
            Ok(TopicPattern::Regex(regex))
        } else {
            Ok(TopicPattern::Exact(name.clone()))
        }
    };
    let subject = |pattern: &String| {
        pattern.parse().with_context(|| format!("route `{}`: subject `{pattern}`", route.name))
    };
    let topics = route.kafka_topics.iter().map(topic).collect::<anyhow::Result<_>>()?;
    let subjects = route.nats_subjects.iter().map(subject);
    let mut subjects = subjects.collect::<anyhow::Result<Vec<SubjectPattern>>>()?;
    subjects.extend(route.jetstream.iter().flat_map(|jetstream| jetstream.subjects.clone()));
    let consumer = route.jetstream.as_ref().map(|jetstream| jetstream.consumer.clone());
    let published = route.publish.then(|| format!("{LIVE_TOPIC}{}", route.name));
    Ok(Matcher { topics, subjects, consumer, published })
}

fn first(matchers: &[(RouteId, Matcher)], find: impl Fn(&Matcher) -> bool) -> Option<RouteId> {
    matchers.iter().find(|(_, matcher)| find(matcher)).map(|(id, _)| *id)
}

fn remembered(
    known: &mut HashMap<String, Option<RouteId>>,
    name: &str,
    find: impl FnOnce() -> Option<RouteId>,
) -> Option<RouteId> {
    if let Some(route) = known.get(name) {
        return *route;
    }
    let route = find();
    if known.len() < REMEMBERED_NAMES {
        known.insert(name.to_owned(), route);
    }
    route
}
