//! What is different between two configurations, key by key, and which of it may change while the
//! bridge runs. Owns the list of those keys. A secret is compared and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::problem::{join, shorten};
use super::units::HIDDEN;
use super::{Config, NatsAuth, Route, kafka_client};

/// What may change while the bridge runs: keys, and everything beneath a key that ends in a dot. What
/// is not listed needs a restart, so that a new key is never taken for one that was applied.
const LIVE: [&str; 16] = [
    "alerts.",
    "backpressure.",
    "breaker.",
    "clickhouse.max_in_flight",
    "heartbeat.interval",
    "kafka.rate_limit.",
    "live.publish.rate_limit.",
    "log.level",
    "overload.",
    "nats.jetstream.rate_limit.",
    "nats.rate_limit.",
    "retry.",
    "routes",
    "routes.",
    "shutdown.grace",
    "writers.",
];

/// Of a route, what nevertheless can't.
const NOT_LIVE_OF_ROUTES: [&str; 1] = ["delivery"];

/// One difference. `None`: the key was not there, or is not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A route's keys by its name: `routes.candles.table`.
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        write!(f, "{}: {} -> {}", self.key, shown(&self.from), shown(&self.to))
    }
}

/// A value at its key: what is shown of it, and what it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    shown: String,
    digest: u64,
}

/// A whole configuration as keys and values.
#[derive(Debug, Clone)]
pub(super) struct Leaves(BTreeMap<String, Leaf>);

impl Leaves {
    /// `text` is the effective configuration, with its secrets hidden; `config` has them.
    pub(super) fn new(text: &str, config: &Config) -> Self {
        let table: toml::Table = text.parse().expect("it was printed as TOML just now");
        let mut leaves = Self(BTreeMap::new());
        leaves.collect("", &toml::Value::Table(table));
        for (key, secret) in secrets(config) {
            let leaf = Leaf { shown: HIDDEN.to_owned(), digest: xxh3_64(secret.as_bytes()) };
            leaves.0.insert(key, leaf);
        }
        leaves
    }

    fn collect(&mut self, path: &str, value: &toml::Value) {
        match value {
            toml::Value::Table(table) if !table.is_empty() => {
                table.iter().for_each(|(key, value)| self.collect(&join(path, key), value));
            }
            toml::Value::Array(routes) if path == "routes" => {
                let name = |route: &toml::Value| {
                    route.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned()
                };
                let names: Vec<String> = routes.iter().map(name).collect();
                for (route, name) in routes.iter().zip(&names) {
                    self.collect(&join(path, name), route);
                }
                // Their order decides which of them takes a record.
                self.insert(path, &format!("{:?}", names.join(", ")));
            }
            value => self.insert(path, &value.to_string()),
        }
    }

    fn insert(&mut self, path: &str, text: &str) {
        let leaf = Leaf { shown: shorten(text), digest: xxh3_64(text.as_bytes()) };
        self.0.insert(path.to_owned(), leaf);
    }

    pub(super) fn changes(&self, new: &Self) -> Vec<Change> {
        let keys: BTreeSet<&String> = self.0.keys().chain(new.0.keys()).collect();
        let changed = keys.into_iter().filter(|key| self.0.get(*key) != new.0.get(*key));
        let shown = |leaves: &Self, key| leaves.0.get(key).map(|leaf| leaf.shown.clone());
        changed
            .map(|key| Change { key: key.clone(), from: shown(self, key), to: shown(new, key) })
            .collect()
    }
}

/// Every secret, by its key, wherever it was given. Not the token of [`super::Http`] when it comes
/// from a file: that one is renewed by itself.
fn secrets(config: &Config) -> Vec<(String, String)> {
    let mut secrets = Vec::new();
    let mut add = |key: &str, secret: &str| secrets.push((key.to_owned(), secret.to_owned()));
    if let Some(password) = &config.clickhouse.password {
        add("clickhouse.password", password.expose_secret());
    }
    if let Some(token) = config.http.token.as_ref().filter(|_| config.http.token_file.is_none()) {
        add("http.token", token.expose_secret());
    }
    for (name, webhook) in &config.webhooks {
        add(&format!("webhooks.{name}.url"), webhook.url.expose_secret());
        if let Some(token) = &webhook.token {
            add(&format!("webhooks.{name}.token"), token.expose_secret());
        }
    }
    for (name, value) in config.otlp.iter().flat_map(|otlp| &otlp.headers) {
        add(&format!("otlp.headers.{name}"), value.expose_secret());
    }
    match config.nats.as_ref().map(|nats| &nats.auth) {
        Some(NatsAuth::UserPassword { password, .. }) => {
            add("nats.password", password.expose_secret());
        }
        Some(NatsAuth::Token(token)) => add("nats.token", token.expose_secret()),
        Some(NatsAuth::None | NatsAuth::CredentialsFile(_) | NatsAuth::NkeyFile(_)) | None => {}
    }
    for (name, value) in config.kafka.iter().flat_map(|kafka| &kafka.client) {
        if kafka_client::is_secret(name) {
            add(&format!("kafka.client.{name}"), value);
        }
    }
    secrets
}

/// Of what changed, what needs a restart: the keys, each with what to do.
pub(super) fn needs_restart(old: &Config, new: &Config, changes: &[Change]) -> Vec<String> {
    let is_new = |name: &str| !old.routes.iter().any(|route| route.name == name);
    let is_gone = |name: &str| !new.routes.iter().any(|route| route.name == name);
    let mut needs = Vec::new();
    for change in changes {
        let route = change.key.strip_prefix("routes.").and_then(|rest| rest.rsplit_once('.'));
        // Of a route that comes or goes as a whole only what it takes is of interest.
        let whole = route.is_some_and(|(name, _)| is_new(name) || is_gone(name));
        let fixed = route.is_some_and(|(_, key)| NOT_LIVE_OF_ROUTES.contains(&key)) && !whole;
        if fixed || !is_live(&change.key) {
            needs.push(format!("{change}: restart the bridge for it"));
        }
    }
    needs.extend(other_kafka(old, new));
    needs.extend(other_nats(old, new));
    if old.has_live() != new.has_live() {
        let text =
            "routes: whether any route has publish = true can't change while the bridge runs";
        needs.push(format!("{text}: restart it for that"));
    }
    needs
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| key == *live || live.ends_with('.') && key.starts_with(live))
}

/// Kafka's topics may come and go; whether it is read at all, and whether its thread hands over what
/// was noted of a partition, is decided at the start.
fn other_kafka(old: &Config, new: &Config) -> Option<String> {
    let reads = |config: &Config| config.kafka.is_some() && !config.kafka_topics().is_empty();
    let once = |route: &&Route| route.is_exactly_once() && !route.kafka_topics.is_empty();
    // One that was there before is named by its own key.
    let is_new = |route: &&Route| !old.routes.iter().any(|known| known.name == route.name);
    let first = new.routes.iter().filter(once).find(is_new);
    let first = first.filter(|_| !old.routes.iter().any(|route| once(&route)));
    if reads(old) != reads(new) {
        let text =
            "routes: whether there are kafka_topics at all can't change while the bridge runs";
        return Some(format!("{text}: restart it for that"));
    }
    first.map(|route| {
        let name = &route.name;
        format!(
            "routes.{name}.delivery: the first route that reads Kafka exactly once needs a restart"
        )
    })
}

/// Subjects may come and go; whether core NATS, or JetStream, is read at all is decided at the start.
fn other_nats(old: &Config, new: &Config) -> Vec<String> {
    let has_streams = |config: &Config| config.routes.iter().any(|route| route.jetstream.is_some());
    let read = [
        ("nats_subjects", old.has_core_nats(), new.has_core_nats()),
        ("jetstream_subjects", has_streams(old), has_streams(new)),
    ];
    let changed = read.into_iter().filter(|(_, was, is)| was != is);
    changed
        .map(|(key, ..)| {
            format!(
                "routes: whether there are {key} at all can't change while the bridge runs: restart \
                 it for that"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Loaded, load_after, load_over};
    use super::LIVE;

    const BASE: &str = "[kafka]\n[clickhouse]\npassword = 's3cr3t'\n[[routes]]\nname = 'x'\n\
                        kafka_topics = ['x']\ntable = 't'\n[[routes]]\nname = 'y'\n\
                        kafka_topics = ['y']\ntable = 't'\n";

    fn loaded(text: &str) -> Loaded {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        load_over(&[file], None).unwrap()
    }

    /// As a bridge that runs with `from` reads `to`.
    fn said(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
        let from = loaded(from);
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, to).unwrap();
        let to = load_after(from.shares(), &[file], None).unwrap();
        let changes = from.changes(&to).iter().map(ToString::to_string).collect();
        (changes, from.needs_restart(&to))
    }

    #[test]
    fn the_document_lists_what_may_change() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reload.md");
        let text = std::fs::read_to_string(file).unwrap();
        let table = text.split("| key | what of it |").nth(1).expect("a table of keys");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let keys = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
        let listed: BTreeSet<&str> = keys.map(|key| key.trim().trim_matches('`')).collect();
        let live = LIVE.iter().map(|key| key.trim_end_matches('.'));
        assert_eq!(listed, live.collect());
    }

    #[test]
    fn the_same_settings_differ_in_nothing() {
        let (changes, needs) = said(BASE, &format!("{BASE}[retry]\nmax_delay = '30s'\n"));
        assert_eq!((changes.len(), needs.len()), (0, 0), "{changes:?} {needs:?}");
        assert_eq!(loaded(BASE).hash(), loaded(BASE).hash());
    }

    #[test]
    fn a_threshold_may_change_and_takes_what_follows_from_it_along() {
        let (changes, needs) =
            said(BASE, &format!("{BASE}[backpressure]\npause_threshold = 30000\n"));
        assert_eq!(
            changes,
            [
                "backpressure.pause_threshold: 40000 -> 30000",
                "backpressure.pull_limit: 40000 -> 30000"
            ]
        );
        assert_eq!(needs, [""; 0]);
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let (changes, needs) = said(BASE, &BASE.replace("s3cr3t", "an0ther"));
        assert_eq!(changes, ["clickhouse.password: *** -> ***"]);
        assert!(needs[0].contains("clickhouse.password") && needs[0].contains("restart"));
        assert!(!format!("{changes:?}{needs:?}").contains("an0ther"));
    }

    #[test]
    fn what_a_source_is_connected_to_needs_a_restart_and_is_named() {
        for (section, key) in [
            ("[kafka]\nbrokers = ['b:1']", "kafka.brokers"),
            ("[kafka]\ngroup_id = 'g'", "kafka.group_id"),
        ] {
            let (_, needs) = said(BASE, &BASE.replace("[kafka]", section));
            assert!(needs.len() == 1 && needs[0].contains(key), "{needs:?}");
        }
        let (_, needs) = said(BASE, &format!("{BASE}[http]\nlisten = '0.0.0.0:1'\n"));
        assert!(needs[0].contains("http.listen"), "{needs:?}");
    }

    #[test]
    fn routes_may_take_something_else_and_what_is_read_at_all_stays() {
        let swapped =
            BASE.replace("['x']", "['z']").replace("['y']", "['x']").replace("['z']", "['y']");
        let (changes, needs) = said(BASE, &swapped);
        assert_eq!((changes.len(), needs.len()), (2, 0), "{changes:?} {needs:?}");
        let (_, needs) = said(BASE, &BASE.replace("['x']", "['z']"));
        assert_eq!(needs, [""; 0], "Kafka's topics may be others");
        let stream = BASE
            .replace("[kafka]", "[nats.jetstream]")
            .replace("kafka_topics", "jetstream_subjects");
        let (changes, needs) = said(&stream, &stream.replace("['x']", "['z']"));
        assert_eq!((changes.len(), needs.len()), (1, 0), "{changes:?} {needs:?}");
        let (_, needs) = said(&stream, BASE);
        assert!(needs.iter().any(|need| need.contains("jetstream_subjects at all")), "{needs:?}");
    }

    #[test]
    fn what_the_clients_fetch_ahead_follows_a_budget_only_at_the_start() {
        let budget = "[backpressure]\nthresholds = 'auto'\nmemory_budget = '200MiB'\n";
        let stream = |name: &str| {
            format!("[[routes]]\nname = '{name}'\njetstream_subjects = ['{name}']\ntable = 't'\n")
        };
        let one = format!("{budget}[nats.jetstream]\n{BASE}{}", stream("s"));
        let (changes, needs) = said(&one, &format!("{one}{}", stream("u")));
        assert!(changes.iter().all(|change| change.starts_with("routes")), "{changes:?}");
        assert_eq!(needs, [""; 0]);
        let (changes, needs) = said(&one, &one.replace("200MiB", "150MiB"));
        assert!(!changes.iter().any(|change| change.contains("prefetch")), "{changes:?}");
        assert_eq!(needs, [""; 0]);
        // What is given is as it is written.
        let given =
            one.replace("[nats.jetstream]\n", "[nats.jetstream]\nprefetch_bytes = '2MiB'\n");
        let (_, needs) = said(&one, &given);
        assert!(
            needs.len() == 1 && needs[0].contains("nats.jetstream.prefetch_bytes"),
            "{needs:?}"
        );
        let (_, needs) = said(&given, &one);
        assert_eq!(needs.len(), 1, "{needs:?}");
    }

    #[test]
    fn the_delivery_of_a_route_needs_a_restart() {
        let once = BASE.replacen("table = 't'", "table = 't'\ndelivery = 'exactly_once'", 1);
        let (_, needs) = said(BASE, &once);
        assert!(needs.len() == 1 && needs[0].contains("routes.x.delivery"), "{needs:?}");
    }

    #[test]
    fn the_order_of_routes_is_a_change() {
        let other = "[kafka]\n[clickhouse]\npassword = 's3cr3t'\n[[routes]]\nname = 'y'\n\
                     kafka_topics = ['y']\ntable = 't'\n[[routes]]\nname = 'x'\n\
                     kafka_topics = ['x']\ntable = 't'\n";
        assert_eq!(said(BASE, other), (vec!["routes: \"x, y\" -> \"y, x\"".to_owned()], vec![]));
    }
}
