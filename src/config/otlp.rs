//! The OpenTelemetry collector: the valid form, and the only way to it.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::problem::Problems;
use super::raw_otlp as raw;
use super::units::Span;
use super::{Tls, connection, secret, webhook};

/// Who gets traces and metrics.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Without the path of a signal, and without a `/` at its end.
    pub endpoint: String,
    /// By name, in small letters; valid in HTTP.
    pub headers: BTreeMap<String, SecretString>,
    /// Between two of the metrics.
    pub interval: Duration,
    pub metrics: bool,
    /// Of all batches, from 0 to 100.
    pub sample_percent: u32,
    pub resource: BTreeMap<String, String>,
    pub timeout: Duration,
    pub tls: Option<Tls>,
}

/// Each is written by us, and means one thing.
const OURS: [&str; 4] = ["content-type", "content-length", "host", "user-agent"];

pub(super) fn otlp(raw: Option<&raw::Otlp>, problems: &mut Problems) -> Option<Otlp> {
    let raw = raw?;
    for (name, span) in [("interval", raw.interval), ("timeout", raw.timeout)] {
        if span < Span::seconds(1) {
            problems.text(&format!("otlp.{name}"), &span.to_string(), "must be at least \"1s\"");
        }
    }
    let headers = headers(raw, problems);
    let tls = connection::tls("otlp.tls", raw.tls.as_ref(), problems);
    let Some(endpoint) = &raw.endpoint else {
        let text = "is missing; give the collector's address, such as \"http://localhost:4318\"";
        problems.bare("otlp.endpoint", text);
        return None;
    };
    let endpoint = endpoint.trim_end_matches('/');
    if let Some(wrong) = webhook::wrong_url(endpoint, raw.tls.is_some()) {
        problems.bare("otlp.endpoint", wrong);
    } else if let Some(signal) =
        ["/v1/traces", "/v1/metrics"].iter().find(|s| endpoint.ends_with(**s))
    {
        problems.text(
            "otlp.endpoint",
            endpoint,
            format!("must be without {signal}, which is added"),
        );
    }
    Some(Otlp {
        endpoint: endpoint.to_owned(),
        headers,
        interval: raw.interval.0,
        metrics: raw.metrics,
        sample_percent: raw.sample_percent,
        resource: raw.resource.clone(),
        timeout: raw.timeout.0,
        tls,
    })
}

fn headers(raw: &raw::Otlp, problems: &mut Problems) -> BTreeMap<String, SecretString> {
    let mut headers = BTreeMap::new();
    let names: std::collections::BTreeSet<_> =
        raw.headers.keys().chain(raw.headers_file.keys()).collect();
    for name in names {
        let key = format!("otlp.headers.{name}");
        let lower = name.to_ascii_lowercase();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || OURS.contains(&lower.as_str()) {
            problems
                .bare(&key, "is no name of a header that can be given, such as \"authorization\"");
            continue;
        }
        let (given, file) = (raw.headers.get(name), raw.headers_file.get(name));
        let value = match (given, file) {
            (Some(_), Some(_)) => {
                problems.bare(&key, "give it in headers or in headers_file, not in both");
                continue;
            }
            (Some(given), None) => Some(given.0.clone()),
            (None, file) => file
                .and_then(|file| secret::read(&format!("otlp.headers_file.{name}"), file, problems))
                .map(Into::into),
        };
        let Some(value) = value else { continue };
        let text = value.expose_secret();
        if text.trim().is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            problems.bare(
                &key,
                "is no text for a header: letters, digits and signs of ASCII in one line",
            );
            continue;
        }
        if headers.insert(lower, value).is_some() {
            problems.bare(&key, "is given twice, in small letters and in large ones");
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::super::{load, load_over};

    const BASE: &str = "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n";

    fn config(more: &str) -> Result<Option<super::Otlp>, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("{BASE}{more}")).unwrap();
        load(&[file]).map(|config| config.otlp).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_table_nothing_is_told() {
        assert!(config("").unwrap().is_none());
    }

    #[test]
    fn a_collector_is_where_it_is_said_and_gets_what_it_wants_to_know_us_by() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "from-a-file\n").unwrap();
        let more = format!(
            "[otlp]\nendpoint = 'http://c:4318/'\n[otlp.headers]\nAuthorization = 'Bearer s3cret'\n\
             [otlp.headers_file]\n\"x-api-key\" = '{}'\n",
            file.display()
        );
        let otlp = config(&more).unwrap().unwrap();
        assert_eq!((otlp.endpoint.as_str(), otlp.sample_percent), ("http://c:4318", 100));
        let names: Vec<&String> = otlp.headers.keys().collect();
        assert_eq!(names, ["authorization", "x-api-key"]);
        use secrecy::ExposeSecret as _;
        assert_eq!(otlp.headers["x-api-key"].expose_secret(), "from-a-file");
        assert!(!format!("{otlp:?}").contains("s3cret"));
    }

    #[test]
    fn a_wrong_collector_is_refused_without_its_secrets() {
        for (more, said) in [
            ("", "otlp.endpoint: is missing; give the collector's address"),
            ("endpoint = 'c:4318'", "otlp.endpoint: must be an address with http://"),
            ("endpoint = 'http://s3cret@c/x'", "must not hold credentials"),
            ("endpoint = 'http://c/v1/traces'", "must be without /v1/traces, which is added"),
            ("endpoint = 'http://c'\n[otlp.tls]", "must start with https://"),
            ("endpoint = 'http://c'\ninterval = '10ms'", "otlp.interval"),
            ("endpoint = 'http://c'\nsample_percent = 101", "otlp.sample_percent"),
            ("endpoint = 'http://c'\nheaders = { host = 's3cret' }", "is no name of a header"),
            ("endpoint = 'http://c'\nheaders = { a = \"s3cret\\n\" }", "is no text for a header"),
            ("endpoint = 'http://c'\nheaders = { a = '' }", "is no text for a header"),
            (
                "endpoint = 'http://c'\nheaders = { a = 's3cret' }\nheaders_file = { a = '/x' }",
                "give it in headers or in headers_file",
            ),
            ("endpoint = 'http://c'\nheaders = { a = 's3cret', A = 's3cret' }", "is given twice"),
        ] {
            let error = config(&format!("[otlp]\n{more}\n")).unwrap_err();
            assert!(error.contains(said) && !error.contains("s3cret"), "{more}: {error}");
        }
    }

    #[test]
    fn another_secret_is_a_change_that_needs_a_restart_and_is_not_shown() {
        let loaded = |secret: &str| {
            let dir = tempfile::TempDir::new().unwrap();
            let file = dir.path().join("c.toml");
            let more = format!("[otlp]\nendpoint = 'http://c'\nheaders = {{ a = '{secret}' }}\n");
            std::fs::write(&file, format!("{BASE}{more}")).unwrap();
            load_over(&[file], None).unwrap()
        };
        let (from, to) = (loaded("s3cret"), loaded("s3cret-2"));
        let changes: Vec<String> = from.changes(&to).iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["otlp.headers.a: *** -> ***"]);
        assert_eq!(from.needs_restart(&to).len(), 1);
    }
}
