//! The live feed: as it is valid.

use std::time::Duration;

use super::problem::Problems;
use super::raw_live::{self, Policy};
use super::units::Size;
use super::{Http, Publish, publish, raw_route};
use crate::decode::{Metadata, Source};
use crate::flow;
use crate::live::name;

/// The live feed: what the bridge carries, over WebSockets.
#[derive(Debug, Clone)]
pub struct Live {
    pub enabled: bool,
    pub access: LiveAccess,
    pub allowed_origins: Vec<String>,
    pub queue: LiveQueue,
    pub max_queue_size: usize,
    /// messages of each topic
    pub replay: usize,
    pub log_every_drop: bool,
    pub max_topics: usize,
    pub max_subscribers: usize,
    /// of one connection
    pub max_subscriptions: usize,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// bytes
    pub max_message: usize,
    /// messages per second of one connection
    pub message_rate: u32,
    pub block_timeout: Duration,
    pub ping_interval: Duration,
    pub idle_timeout: Duration,
    pub client_metrics: bool,
    pub publish: Publish,
}

/// Who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveAccess {
    /// Who has `http.token`.
    Token,
    /// That was asked for.
    Everybody,
    /// There is no token, and nobody else can connect.
    ThisMachine,
    /// There is no token, and others can.
    Nobody,
}

/// What may wait for a subscriber, and what gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveQueue {
    /// messages
    pub size: usize,
    pub bytes: usize,
    pub strategy: flow::Strategy,
}

/// One whole message with its frame fits into what a queue may weigh.
const LEAST_QUEUE: Size = Size(64 * 1024);
const LEAST_MESSAGE: Size = Size(1024);

pub(super) fn live(raw: &raw_live::Live, http: &Http, problems: &mut Problems) -> Live {
    if raw.queue_size > raw.max_queue_size {
        let text = format!("must be at most max_queue_size ({})", raw.max_queue_size);
        problems.push("live.queue_size", raw.queue_size, text);
    }
    at_least("live.queue_bytes", raw.queue_bytes, LEAST_QUEUE, problems);
    at_least("live.max_message", raw.max_message, LEAST_MESSAGE, problems);
    for (index, origin) in raw.allowed_origins.iter().enumerate() {
        if !is_origin(origin) {
            let text = "must be an origin, such as \"https://desk.example.com\" or \
                        \"http://localhost:3000\", without a path; or \"*\" for all";
            problems.text(&format!("live.allowed_origins[{index}]"), origin, text);
        }
    }
    let ping_interval =
        super::validate::positive("live.ping_interval", raw.ping_interval, problems);
    if raw.idle_timeout.0 <= ping_interval {
        let text = format!(
            "must be more than ping_interval (\"{}\"), or nobody could answer in time",
            raw.ping_interval
        );
        problems.text("live.idle_timeout", &raw.idle_timeout.to_string(), text);
    }
    let strategy = match raw.policy {
        Policy::DropOldest => flow::Strategy::DropOldest,
        Policy::DropNewest => flow::Strategy::DropNewest,
        Policy::Disconnect => flow::Strategy::Disconnect,
    };
    Live {
        enabled: raw.enabled,
        access: access(raw.open, http),
        allowed_origins: raw.allowed_origins.clone(),
        queue: LiveQueue { size: raw.queue_size, bytes: raw.queue_bytes.0, strategy },
        max_queue_size: raw.max_queue_size,
        replay: raw.replay,
        log_every_drop: raw.log_every_drop,
        max_topics: raw.max_topics,
        max_subscribers: raw.max_subscribers,
        max_subscriptions: raw.max_subscriptions,
        max_connections: raw.max_connections,
        max_connections_per_address: raw.max_connections_per_address,
        max_message: raw.max_message.0,
        message_rate: raw.message_rate,
        block_timeout: super::validate::positive("live.block_timeout", raw.block_timeout, problems),
        ping_interval,
        idle_timeout: raw.idle_timeout.0,
        client_metrics: raw.client_metrics,
        publish: publish::limits(&raw.publish, problems),
    }
}

/// Where there is a token, everybody needs it.
fn access(open: bool, http: &Http) -> LiveAccess {
    if http.token.is_some() {
        LiveAccess::Token
    } else if open {
        LiveAccess::Everybody
    } else if http.listen.ip().is_loopback() {
        LiveAccess::ThisMachine
    } else {
        LiveAccess::Nobody
    }
}

fn at_least(key: &str, size: Size, least: Size, problems: &mut Problems) {
    if size < least {
        problems.text(key, &size.to_string(), format!("must be at least \"{least}\""));
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return text == "*" };
    let host_is_bare = !host.is_empty() && !host.contains(['/', '?', '#', '*', ' ', '@']);
    matches!(scheme, "http" | "https") && host_is_bare && text == text.to_ascii_lowercase()
}

/// Each route has a topic of its own, and with `live_key` all that is under it.
pub(super) fn topics(routes: &[raw_route::Route], problems: &mut Problems) {
    let topics: Vec<String> = routes.iter().map(|route| name::of_route(&route.name)).collect();
    for (index, (route, topic)) in routes.iter().zip(&topics).enumerate() {
        let key = format!("routes[{index}]");
        // A name that is there twice is told as such.
        let has_it =
            |(other, of): &(&raw_route::Route, &String)| *of == topic && other.name != route.name;
        if let Some((other, _)) = routes.iter().zip(&topics).take(index).find(has_it) {
            let text = format!(
                "is \"{topic}\" in the live feed, as the route \"{}\" is: change one of the names, or \
                 set live.enabled = false",
                other.name
            );
            problems.text(&format!("{key}.name"), &route.name, text);
        }
        let is_above = |(other, of): &(&raw_route::Route, &String)| {
            other.live_key.is_some() && name::is_below(of, topic)
        };
        if let Some((other, _)) = routes.iter().zip(&topics).find(is_above) {
            let text = format!(
                "is under \"{}\", a route whose live_key makes topics there: change one of the names, \
                 or leave out live_key",
                other.name
            );
            problems.text(&format!("{key}.name"), &route.name, text);
        }
        if let Some(live_key) = route.live_key.as_deref().filter(|_| !name::has_room_below(topic)) {
            let text = "the route's name leaves no room for topics under it: with live_key it may \
                        have 99 characters, in 7 segments with `/` between them";
            problems.text(&format!("{key}.live_key"), live_key, text);
        }
    }
}

/// What of a route's records names their sub-topic.
pub(super) fn key(route: &str, text: Option<&str>, problems: &mut Problems) -> Option<Source> {
    let text = text?;
    let key = format!("{route}.live_key");
    match text.parse::<Source>() {
        Ok(source) if can_name(&source) => Some(source),
        Ok(_) => {
            let wrong = "is another one for nearly every record: it names no topic; take what few \
                         values share, such as \"symbol\" or \"@key\"";
            problems.text(&key, text, wrong);
            None
        }
        Err(error) => {
            problems.text(&key, text, error);
            None
        }
    }
}

/// Sub-topics are named by what few values share.
fn can_name(source: &Source) -> bool {
    use Metadata::{Letter, Offset, Raw, ReceivedAt, Timestamp};
    !matches!(source, Source::Meta(Offset | Timestamp | ReceivedAt | Raw | Letter(_)))
}

#[cfg(test)]
mod tests {
    use super::super::load_over;

    /// What is wrong with routes of these names, each with its `live_key`.
    fn wrong(more: &str, routes: &[(&str, Option<&str>)]) -> Option<String> {
        let mut text = format!("[kafka]\n[live]\n{more}\n");
        for (index, (name, live_key)) in routes.iter().enumerate() {
            let route = format!("name = '{name}'\nkafka_topics = ['t{index}']\ntable = 't'\n");
            let key = live_key.map(|key| format!("live_key = '{key}'\n")).unwrap_or_default();
            text += &format!("[[routes]]\n{route}{key}");
        }
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, &text).unwrap();
        load_over(&[file], None).err().map(|error| error.to_string())
    }

    #[test]
    fn no_two_routes_have_one_topic() {
        let long = "x".repeat(150);
        for (one, other) in [
            ("a b", "a_b"),
            ("a b", "a*b"),
            ("é", "_"),
            (&*format!("{long} 1"), &*format!("{long} 2")),
        ] {
            let error = wrong("", &[("c", None), (one, None), (other, None)]).unwrap();
            assert!(error.contains("routes[2].name") && error.contains(one), "{error}");
            assert_eq!(wrong("enabled = false", &[(one, None), (other, None)]), None);
        }
        assert_eq!(wrong("", &[("a b", None), ("a/b", None), ("ab", None)]), None);
    }

    #[test]
    fn what_is_under_a_route_with_a_key_is_its_own() {
        for routes in [[("a", Some("@key")), ("a/b", None)], [("a/b/c", None), ("a", Some("@key"))]]
        {
            let error = wrong("", &routes).unwrap();
            assert!(error.contains(".name") && error.contains("is under \"a\""), "{error}");
            assert_eq!(wrong("", &routes.map(|(name, _)| (name, None))), None);
        }
        assert_eq!(wrong("", &[("a", Some("@key")), ("ab", Some("@key"))]), None);
    }

    #[test]
    fn whatever_a_key_says_its_topic_has_a_name() {
        for name in ["a/b/c/d/e/f/g/h", &*"x".repeat(100)] {
            let error = wrong("", &[(name, Some("@key"))]).unwrap();
            assert!(error.contains("routes[0].live_key") && error.contains("no room"), "{error}");
            assert_eq!(wrong("", &[(name, None)]), None);
        }
        assert_eq!(wrong("", &[(&*"x".repeat(99), Some("@key"))]), None);
    }
}
