//! Validates `[live.publish]`, and what routes say of being published into.

use std::time::Duration;

use super::problem::Problems;
use super::rate::{self, RateLimit};
use super::raw_publish;
use super::raw_route::{self, Action, Delivery};
use super::units::Size;
use super::{Config, Route};

/// A topic's name stands in paths.
const NAME_CHARS: usize = 128;

/// What is not durable then is a matter of hours, and nobody waits that long for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Publishing into routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Also without a token, where there is none.
    pub without_token: bool,
    pub rate_limit: Option<RateLimit>,
    /// Of one request.
    pub max_request_bytes: usize,
    /// Of one request.
    pub max_request_records: usize,
    /// Requests that wait until their records are durable.
    pub max_waiting: usize,
    /// For how long at most.
    pub durable_timeout: Duration,
}

impl Config {
    /// Whether any route can be published into.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.routes.iter().any(|route| route.publish)
    }
}

pub(super) fn limits(raw: &raw_publish::Publish, problems: &mut Problems) -> Publish {
    let range = Size(1024)..=Size::mib(16);
    if !range.contains(&raw.max_request_bytes) {
        let text = "must be from \"1KiB\" to \"16MiB\"; the default is \"4MiB\"";
        let given = raw.max_request_bytes.to_string();
        problems.text("live.publish.max_request_bytes", &given, text);
    }
    if !(Duration::from_millis(1)..=LONGEST_WAIT).contains(&raw.durable_timeout.0) {
        let given = raw.durable_timeout.to_string();
        let text = "must be from \"1ms\" to \"10m\"; the default is \"30s\"";
        problems.text("live.publish.durable_timeout", &given, text);
    }
    let key = "live.publish.rate_limit";
    Publish {
        without_token: raw.without_token,
        rate_limit: rate::limit(key, raw.rate_limit.as_ref(), problems),
        max_request_bytes: raw.max_request_bytes.0,
        max_request_records: raw.max_request_records,
        max_waiting: raw.max_waiting,
        durable_timeout: raw.durable_timeout.0,
    }
}

/// What a route that is published into can't be.
pub(super) fn of_route(key: &str, raw: &raw_route::Route, problems: &mut Problems) {
    if !raw.publish {
        return;
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = &raw.name;
    if !name.chars().all(allowed) || name.starts_with('.') || name.len() > NAME_CHARS {
        let text = "with publish = true the name stands in paths: letters, digits, `_`, `-` and, \
                    not first, `.`, at most 128";
        problems.text(&format!("{key}.name"), name, text);
    }
    let refused = if raw.action == Action::Count {
        "a route with action = \"count\" stores nothing, and who publishes wants it stored; leave it \
         out, or set action = \"insert\""
    } else if raw.delivery == Some(Delivery::ExactlyOnce) {
        "is not possible with delivery = \"exactly_once\": what was published comes only once, so \
         after a crash nobody could bring the same batch again; give it a route of its own into the \
         same table"
    } else {
        return;
    };
    problems.push(&format!("{key}.publish"), true, refused);
}

/// Publishing is writing: who may do it was decided, or the route takes nothing.
pub(super) fn is_guarded(config: &Config, problems: &mut Problems) {
    if config.http.token.is_some() || config.live.publish.without_token {
        return;
    }
    let publish = |(_, route): &(usize, &Route)| route.publish;
    for (index, _) in config.routes.iter().enumerate().filter(publish) {
        let text = "needs http.token or http.token_file, which publishers then send; or set \
                    live.publish.without_token = true, if whoever reaches http.listen may write";
        problems.push(&format!("routes[{index}].publish"), true, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, load_over};

    const OPEN: &str = "[live.publish]\nwithout_token = true\n";
    const ROUTE: &str = "[[routes]]\nname = 'x'\ntable = 't'\npublish = true\n";

    fn load(text: &str) -> Result<Loaded, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        load_over(&[file], None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_route_may_have_no_other_source_than_its_publishers() {
        let config = load(&format!("{OPEN}{ROUTE}")).unwrap().config;
        assert!(config.has_live() && config.kafka.is_none() && config.nats.is_none());
        assert!(config.live.publish.rate_limit.is_none());
    }

    #[test]
    fn who_may_publish_must_be_said() {
        let error = load(ROUTE).unwrap_err();
        assert!(error.contains("routes[0].publish") && error.contains("http.token"), "{error}");
        assert!(load(&format!("[http]\ntoken = 'a-long-enough-secret'\n{ROUTE}")).is_ok());
    }

    #[test]
    fn what_cannot_be_kept_of_a_published_record_is_not_promised() {
        for (more, word) in [
            ("delivery = 'exactly_once'\n", "comes only once"),
            ("action = 'count'\n", "stores nothing"),
        ] {
            let route = ROUTE.replace(
                "table = 't'\n",
                if word.contains("stores") { "" } else { "table = 't'\n" },
            );
            let error = load(&format!("{OPEN}{route}{more}")).unwrap_err();
            assert!(error.contains("routes[0].publish") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_name_that_cannot_stand_in_a_path_is_refused() {
        for bad in ["a/b", "ticks eur", ".", "é"] {
            let route = ROUTE.replace("'x'", &format!("'{bad}'"));
            let error = load(&format!("{OPEN}{route}")).unwrap_err();
            assert!(error.contains("routes[0].name") && error.contains("paths"), "{error}");
        }
    }

    #[test]
    fn the_rate_may_change_while_the_bridge_runs_and_whether_there_is_the_source_may_not() {
        let base = format!("{OPEN}{ROUTE}");
        let limited = format!("{base}[live.publish.rate_limit]\nrecords_per_second = 5\n");
        let (from, to) = (load(&base).unwrap(), load(&limited).unwrap());
        assert_eq!(from.needs_restart(&to), [""; 0]);
        assert_eq!(to.config.rate_limit_of("live").map(|l| l.records_per_second), Some(5));
        let kafka = "[kafka]\n[[routes]]\nname = 'k'\nkafka_topics = ['k']\ntable = 't'\n";
        let without = load(&format!("{OPEN}{kafka}")).unwrap();
        let with = load(&format!("{OPEN}{kafka}{ROUTE}")).unwrap();
        let needs = without.needs_restart(&with);
        assert!(needs.len() == 1 && needs[0].contains("publish = true"), "{needs:?}");
    }
}
