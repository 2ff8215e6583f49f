//! Validates where the bridge connects to, and who it says it is.

use std::path::Path;

use super::jetstream;
use super::limits::Ahead;
use super::problem::Problems;
use super::rate;
use super::raw;
use super::route::is_identifier;
use super::secret;
use super::{ClickHouse, Compression, Endpoints, HttpTls, Nats, NatsAuth, Tls};
use crate::tls::Unusable;

pub(super) fn brokers(brokers: &[String], problems: &mut Problems) {
    const KEY: &str = "kafka.brokers";
    if brokers.is_empty() {
        problems.push(KEY, "[]", "must name a broker, such as [\"localhost:9092\"]");
    }
    for (index, broker) in brokers.iter().enumerate() {
        let wrong = match broker.rsplit_once(':') {
            _ if broker.contains("://") => "must be \"host:port\", without a scheme",
            _ if broker.contains(',') => "is several; write a list: [\"host:port\", \"host:port\"]",
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
                continue;
            }
            _ => "must be \"host:port\", such as \"localhost:9092\"",
        };
        problems.text(&format!("{KEY}[{index}]"), broker, wrong);
    }
}

/// `buffer`: how many records this instance may hold.
pub(super) fn nats(
    raw: &raw::Nats,
    ahead: Ahead,
    buffer: usize,
    problems: &mut Problems,
) -> Option<Nats> {
    if raw.servers.is_empty() {
        let text = "must name a server, such as [\"nats://localhost:4222\"]; to run without NATS, \
                    leave the [nats] table out";
        problems.push("nats.servers", "[]", text);
    }
    let servers = raw.servers.iter().enumerate();
    let servers = servers.map(|(index, server)| nats_server(index, server, problems)).collect();
    let group = &raw.queue_group;
    if group.is_empty() || group.contains(char::is_whitespace) {
        problems.text("nats.queue_group", group, "must be a name without spaces");
    }
    Some(Nats {
        servers,
        queue_group: group.clone(),
        auth: nats_auth(raw, problems)?,
        tls: tls("nats.tls", raw.tls.as_ref(), problems),
        rate_limit: rate::limit("nats.rate_limit", raw.rate_limit.as_ref(), problems),
        jetstream: raw
            .jetstream
            .as_ref()
            .map(|raw| jetstream::jetstream(raw, ahead, buffer, problems)),
    })
}

/// With its scheme: `nats://` if it has none.
fn nats_server(index: usize, server: &str, problems: &mut Problems) -> String {
    let key = format!("nats.servers[{index}]");
    let (scheme, address) = server.split_once("://").unwrap_or(("nats", server));
    let wrong = if !matches!(scheme, "nats" | "tls") {
        "must start with nats:// or tls://, such as \"nats://localhost:4222\""
    } else if address.contains('@') {
        "must not hold credentials; use nats.user and nats.password"
    } else if address.contains(',') {
        "is several; write a list: [\"nats://a:4222\", \"nats://b:4222\"]"
    } else if !is_address(address) {
        "must be \"nats://host:port\", such as \"nats://localhost:4222\""
    } else {
        return format!("{scheme}://{address}");
    };
    problems.text(&key, server, wrong);
    server.to_owned()
}

/// A host, and maybe a port.
pub(super) fn is_address(text: &str) -> bool {
    let text = text.trim_end_matches('/');
    let bad = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"');
    if text.is_empty() || text.contains(bad) {
        return false;
    }
    match text.rsplit_once(':') {
        Some((_, port)) if port.ends_with(']') => true, // an IPv6 address without a port
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => true,
    }
}

fn nats_auth(raw: &raw::Nats, problems: &mut Problems) -> Option<NatsAuth> {
    let password =
        secret::of("nats.password", raw.password.as_ref(), raw.password_file.as_ref(), problems);
    let token = secret::of("nats.token", raw.token.as_ref(), raw.token_file.as_ref(), problems);
    secret::exists("nats.credentials_file", raw.credentials_file.as_ref(), problems);
    secret::exists("nats.nkey_file", raw.nkey_file.as_ref(), problems);

    let has_password = raw.password.is_some() || raw.password_file.is_some();
    let ways = [
        ("user and password", raw.user.is_some() || has_password),
        ("token", raw.token.is_some() || raw.token_file.is_some()),
        ("credentials_file", raw.credentials_file.is_some()),
        ("nkey_file", raw.nkey_file.is_some()),
    ];
    let given: Vec<_> = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way).collect();
    if given.len() > 1 {
        let text = format!("authenticates in several ways ({}); give one", given.join("; "));
        problems.bare("nats", text);
        return None;
    }
    match (&raw.user, has_password) {
        (Some(user), false) => {
            problems.text("nats.user", user, "needs nats.password or nats.password_file");
            return None;
        }
        (None, true) => {
            problems.bare("nats.password", "needs nats.user");
            return None;
        }
        _ => {}
    }
    Some(match (raw.user.clone(), token, &raw.credentials_file, &raw.nkey_file) {
        (Some(user), ..) => NatsAuth::UserPassword { user, password: password? },
        (_, Some(token), ..) => NatsAuth::Token(token),
        (_, _, Some(file), _) => NatsAuth::CredentialsFile(file.clone()),
        (.., Some(file)) => NatsAuth::NkeyFile(file.clone()),
        _ => NatsAuth::None,
    })
}

pub(super) fn tls(key: &str, raw: Option<&raw::Tls>, problems: &mut Problems) -> Option<Tls> {
    let raw = raw?;
    if let Some(ca) = &raw.ca_file
        && let Err(error) = crate::tls::certificates(ca)
    {
        problems.push(&format!("{key}.ca_file"), secret::shown(ca), format!("{error:#}"));
    }
    match (&raw.cert_file, &raw.key_file) {
        (Some(cert), Some(private)) => identity(key, cert, private, problems),
        (Some(cert), None) => {
            let text = "needs key_file beside it";
            problems.push(&format!("{key}.cert_file"), secret::shown(cert), text);
        }
        (None, Some(private)) => {
            let text = "needs cert_file beside it";
            problems.push(&format!("{key}.key_file"), secret::shown(private), text);
        }
        (None, None) => {}
    }
    Some(Tls {
        ca_file: raw.ca_file.clone(),
        cert_file: raw.cert_file.clone(),
        key_file: raw.key_file.clone(),
    })
}

/// A certificate and its key, as TLS will use them.
fn identity(key: &str, cert: &Path, private: &Path, problems: &mut Problems) {
    if let Err(Unusable { key: name, why }) = crate::tls::identity(cert, private) {
        let file = if name == "cert_file" { cert } else { private };
        problems.push(&format!("{key}.{name}"), secret::shown(file), why);
    }
}

/// What the HTTP listener shows to those who ask it.
pub(super) fn http_tls(raw: Option<&raw::HttpTls>, problems: &mut Problems) -> Option<HttpTls> {
    let raw::HttpTls { cert_file, key_file } = raw?.clone();
    identity("http.tls", &cert_file, &key_file, problems);
    Some(HttpTls { cert_file, key_file })
}

pub(super) fn clickhouse(raw: &raw::ClickHouse, problems: &mut Problems) -> ClickHouse {
    let urls = clickhouse_urls(raw, problems);
    if !is_identifier(&raw.database) {
        let text = "must be a database's name: letters, digits and `_`";
        problems.text("clickhouse.database", &raw.database, text);
    }
    if raw.user.is_empty() {
        problems.text("clickhouse.user", &raw.user, "must be a user's name, such as \"default\"");
    }
    let password = secret::of(
        "clickhouse.password",
        raw.password.as_ref(),
        raw.password_file.as_ref(),
        problems,
    );
    if raw.insert_timeout.0.is_zero() {
        let text = "must be more than nothing, such as \"30s\"";
        problems.text("clickhouse.insert_timeout", &raw.insert_timeout.to_string(), text);
    }
    ClickHouse {
        urls,
        endpoints: match raw.endpoints {
            raw::Endpoints::Independent => Endpoints::Independent,
            raw::Endpoints::Replicas => Endpoints::Replicas,
        },
        database: raw.database.clone(),
        user: raw.user.clone(),
        password,
        tls: tls("clickhouse.tls", raw.tls.as_ref(), problems),
        compression: match raw.compression {
            raw::Compression::None => Compression::None,
            raw::Compression::Lz4 => Compression::Lz4,
            raw::Compression::Zstd => Compression::Zstd,
        },
        insert_timeout: raw.insert_timeout.0,
        max_in_flight: raw.max_in_flight,
        adaptive: raw.adaptive,
    }
}

/// Every server, each once.
fn clickhouse_urls(raw: &raw::ClickHouse, problems: &mut Problems) -> Vec<String> {
    const KEY: &str = "clickhouse.url";
    let urls = raw.url.as_slice();
    if urls.is_empty() {
        problems.push(KEY, "[]", "must name a server, such as \"http://localhost:8123\"");
    }
    let mut known: Vec<String> = Vec::new();
    for (index, url) in urls.iter().enumerate() {
        let key = if urls.len() == 1 { KEY.to_owned() } else { format!("{KEY}[{index}]") };
        let url = url.trim_end_matches('/').to_owned();
        if let Some(wrong) = wrong_url(&url, raw.tls.is_some()) {
            problems.text(&key, &url, wrong);
        } else if known.contains(&url) {
            problems.text(&key, &url, "is there twice; name each server once");
        }
        known.push(url);
    }
    known
}

fn wrong_url(url: &str, tls: bool) -> Option<&'static str> {
    match url.split_once("://") {
        Some(("http" | "https", rest)) if rest.contains('@') => {
            Some("must not hold credentials; use clickhouse.user and clickhouse.password")
        }
        Some(("http" | "https", rest)) if rest.contains('?') => {
            Some("must not hold parameters; use clickhouse.database and clickhouse.user")
        }
        Some((_, rest)) if rest.ends_with(":9000") || rest.ends_with(":9440") => {
            Some("is the native port; the bridge speaks HTTP, such as \"http://localhost:8123\"")
        }
        Some(("http" | "https", rest)) if is_address(rest.split('/').next().unwrap_or(rest)) => {
            (tls && url.starts_with("http:"))
                .then_some("must start with https:// for [clickhouse.tls] to have a meaning")
        }
        _ => Some("must be the HTTP interface, such as \"http://localhost:8123\" (or https://)"),
    }
}
