//! Who is told of alerts: the valid form, and the only way to it.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::problem::Problems;
use super::raw_webhook::{self as raw, Kind, Least};
use super::units::Span;
use super::{Tls, connection, secret};
use crate::alert::Severity;

/// A receiver of alerts.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub kind: WebhookKind,
    /// Never shown: whoever knows it may post there.
    pub url: SecretString,
    pub token: Option<SecretString>,
    pub min_severity: Severity,
    /// It is told what is over.
    pub resolved: bool,
    pub group_wait: Duration,
    pub repeat_every: Duration,
    pub timeout: Duration,
    pub tls: Option<Tls>,
}

/// What a receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    Json,
    Slack,
    Alertmanager,
}

impl WebhookKind {
    /// As the configuration has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Alertmanager => "alertmanager",
        }
    }
}

impl Webhook {
    /// Scheme and host, as in `https://hooks.example`: what may be shown of its address.
    #[must_use]
    pub fn host(&self) -> String {
        let (scheme, authority) = split(self.url.expose_secret());
        // an IPv6 address has colons of its own, in brackets
        let end = authority.rfind(']').unwrap_or_default();
        let port = authority.get(end..).and_then(|tail| tail.find(':')).map(|at| end + at);
        format!("{scheme}://{}", &authority[..port.unwrap_or(authority.len())])
    }
}

pub(super) fn webhooks(
    raw: &BTreeMap<String, raw::Webhook>,
    problems: &mut Problems,
) -> BTreeMap<String, Webhook> {
    let valid = |(name, raw): (&String, &raw::Webhook)| {
        Some((name.clone(), webhook(&format!("webhooks.{name}"), raw, problems)?))
    };
    raw.iter().filter_map(valid).collect()
}

fn webhook(key: &str, raw: &raw::Webhook, problems: &mut Problems) -> Option<Webhook> {
    let of = |name: &str| format!("{key}.{name}");
    let token = secret::of(&of("token"), raw.token.as_ref(), raw.token_file.as_ref(), problems);
    let tls = connection::tls(&of("tls"), raw.tls.as_ref(), problems);
    let (kind, repeat_every) = match raw.kind {
        Kind::Json => (WebhookKind::Json, Span::seconds(4 * 60 * 60)),
        Kind::Slack => (WebhookKind::Slack, Span::seconds(4 * 60 * 60)),
        Kind::Alertmanager => (WebhookKind::Alertmanager, Span::seconds(60)),
    };
    let repeat_every = raw.repeat_every.unwrap_or(repeat_every);
    for (name, span) in [("repeat_every", repeat_every), ("timeout", raw.timeout)] {
        if span < Span::seconds(1) {
            problems.text(&of(name), &span.to_string(), "must be at least \"1s\"");
        }
    }
    if raw.url.is_none() && raw.url_file.is_none() {
        problems.bare(&of("url"), "is missing; give the address, or url_file");
    }
    let url = secret::of(&of("url"), raw.url.as_ref(), raw.url_file.as_ref(), problems)?;
    if let Some(wrong) = wrong_url(url.expose_secret(), raw.tls.is_some()) {
        problems.bare(&of("url"), wrong);
    }
    let min_severity = match raw.min_severity {
        Least::Warning => Severity::Warning,
        Least::Critical => Severity::Critical,
    };
    Some(Webhook {
        kind,
        url,
        token,
        min_severity,
        resolved: raw.resolved,
        group_wait: raw.group_wait.0,
        repeat_every: repeat_every.0,
        timeout: raw.timeout.0,
        tls,
    })
}

/// Scheme and authority, each empty where there is none.
fn split(url: &str) -> (&str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    (scheme, rest.split(['/', '?', '#']).next().unwrap_or_default())
}

/// What is wrong with an address, in words that do not hold it.
pub(super) fn wrong_url(url: &str, tls: bool) -> Option<&'static str> {
    const EXAMPLE: &str = "must be an address with http:// or https://, such as \
                           \"https://alerts.example/hook\"";
    let (scheme, host) = split(url);
    if !matches!(scheme, "http" | "https") || !connection::is_address(host) {
        return Some(EXAMPLE);
    }
    if host.contains('@') {
        return Some("must not hold credentials: they have a key of their own");
    }
    (tls && scheme == "http").then_some("must start with https:// for tls to have a meaning")
}

#[cfg(test)]
mod tests {
    use super::super::{Config, load, load_over};

    const BASE: &str = "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n";

    fn config(more: &str) -> Result<Config, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("{BASE}{more}")).unwrap();
        load(&[file]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_wrong_receiver_is_refused_without_its_address() {
        for (more, said) in [
            ("", "webhooks.a.url: is missing; give the address, or url_file"),
            ("url = 'hooks.example/s3cret'", "webhooks.a.url: must be an address with http://"),
            ("url = 'ftp://h/s3cret'", "must be an address with http://"),
            ("url = 'https://s3cret@h/x'", "must not hold credentials"),
            ("url = 'http://h/s3cret'\n[webhooks.a.tls]", "must start with https://"),
            ("url = 'http://h/s3cret'\nrepeat_every = '0s'", "webhooks.a.repeat_every"),
            ("url = 'http://h/s3cret'\nkind = 'teams'", "\"json\" or \"slack\""),
        ] {
            let error = config(&format!("[webhooks.a]\n{more}\n")).unwrap_err();
            assert!(error.contains(said) && !error.contains("s3cret"), "{more}: {error}");
        }
    }

    #[test]
    fn another_address_is_a_change_that_needs_a_restart_and_is_not_shown() {
        let loaded = |url: &str| {
            let dir = tempfile::TempDir::new().unwrap();
            let file = dir.path().join("c.toml");
            std::fs::write(&file, format!("{BASE}[webhooks.a]\nurl = '{url}'\n")).unwrap();
            load_over(&[file], None).unwrap()
        };
        let (from, to) = (loaded("http://h/s3cret"), loaded("http://h/s3cret-2"));
        let changes: Vec<String> = from.changes(&to).iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["webhooks.a.url: *** -> ***"]);
        assert_eq!(from.needs_restart(&to).len(), 1);
        assert!(!format!("{:?}", from.config).contains("s3cret"));
    }

    #[test]
    fn of_an_address_only_scheme_and_host_are_shown() {
        for (url, shown) in [
            ("https://hooks.example/s3cret", "https://hooks.example"),
            ("http://am:9093", "http://am"),
            ("http://h?key=s3cret", "http://h"),
            ("https://[::1]:8443/s3cret", "https://[::1]"),
            ("https://[::1]/s3cret", "https://[::1]"),
        ] {
            let config = config(&format!("[webhooks.a]\nurl = '{url}'\n")).unwrap();
            assert_eq!(config.webhooks["a"].host(), shown);
        }
    }

    #[test]
    fn of_alerts_only_what_there_is_can_be_named() {
        for (more, said) in [
            ("[alerts]\noff = ['pausd']", "did you mean `paused`?"),
            ("[alerts.pending]\npaused = '1m'", "is backpressure.warn_after; set that instead"),
            ("[alerts.pending]\nsilent = '1m'", "is [alerts.silent]; set that instead"),
            ("[alerts.pending]\nbufer_high = '1m'", "did you mean `buffer_high`?"),
            ("[alerts.silent]\ny = '1m'", "alerts.silent.y: no route is called so"),
            ("[alerts]\nsurge_percent = 100", "from 101"),
        ] {
            let error = config(more).unwrap_err();
            assert!(error.contains(said), "{more}: {error}");
        }
    }
}
