//! A running bridge, from outside: where it listens, whom to trust there, and one question to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use secrecy::SecretString;

use super::Failure;
use crate::config::Http;
use crate::{config, tls};

/// Far above any honest answer: thousands of subjects.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// All addresses of a name together. How long an answer may take, whoever asks knows.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Which one is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Where the bridge listens [default: http.listen of the configuration, https with http.tls]
    #[arg(long)]
    url: Option<String>,

    /// Authorities to trust (PEM) [default: the system's; without --url the very certificate of
    /// http.tls.cert_file, whatever name it is for]
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

impl Which {
    /// It was said where, and the configuration need not be.
    pub(super) fn is_named(&self) -> bool {
        self.url.is_some()
    }

    /// Where to ask, and whom to trust there. The configuration is read where it is needed.
    pub(super) fn place(self, files: &[PathBuf]) -> Result<(String, ClientConfig), Failure> {
        match self.url {
            Some(url) => Ok((url, trusting(tls::client(self.ca_file.as_deref(), None))?)),
            None => self.place_of(&config::load(files)?.http),
        }
    }

    /// The same, and the bridge's token: of the file, or else of the configuration, which is not read
    /// where an address is given.
    pub(super) fn place_with_token(
        self,
        token_file: Option<&Path>,
        files: &[PathBuf],
    ) -> Result<(String, ClientConfig, Option<SecretString>), Failure> {
        let token = token_file.map(token).transpose()?;
        if self.url.is_some() {
            let (url, trust) = self.place(files)?;
            return Ok((url, trust, token));
        }
        let http = config::load(files)?.http;
        let (url, trust) = self.place_of(&http)?;
        Ok((url, trust, token.or(http.token)))
    }

    /// The same as [`Self::place`], when the configuration was read already.
    pub(super) fn place_of(self, http: &Http) -> Result<(String, ClientConfig), Failure> {
        let ca_file = self.ca_file.as_deref();
        let trust = match (&self.url, &http.tls, ca_file) {
            (None, Some(own), None) => tls::certificates(&own.cert_file)
                .and_then(|mut chain| tls::pinned(chain.swap_remove(0))),
            _ => tls::client(ca_file, None),
        };
        let scheme = if http.tls.is_some() { "https" } else { "http" };
        let url = self.url.unwrap_or_else(|| url_of(scheme, http.listen));
        Ok((url, trusting(trust)?))
    }
}

/// A bridge's token, in a file.
pub(super) fn token(file: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()));
    text.map(|text| text.trim().into()).map_err(|error| Failure::usage(format!("{error:#}")))
}

fn trusting(trust: anyhow::Result<ClientConfig>) -> Result<ClientConfig, Failure> {
    trust.map_err(|error| Failure::usage(format!("--ca-file: {error:#}")))
}

/// Where to ask the bridge that listens on this address, from the same machine.
#[must_use]
pub(super) fn url_of(scheme: &str, listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(host, listen.port()))
}

/// The address of a path, from a base like `http://localhost:8080` (or the whole address).
pub(super) fn uri(url: &str, path: &str) -> anyhow::Result<Uri> {
    let base = url.trim_end_matches('/').trim_end_matches(path);
    let uri: Uri = format!("{base}{path}")
        .parse()
        .with_context(|| format!("--url {url:?} is not an address; try http://localhost:8080"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!(
            "--url {url:?} must start with http:// or https:// and name a host; try \
             http://localhost:8080"
        );
    }
    Ok(uri)
}

/// All of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long whoever was refused should stay away.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// The answer, whatever it says.
///
/// # Errors
///
/// When the bridge cannot be reached, with what to do about it where that is known.
pub(super) async fn ask(request: Request<Body>, trust: ClientConfig) -> anyhow::Result<Answer> {
    let (head, body) = begin(request, trust).await?.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await;
    let body = body.context("reading the answer")?.to_vec();
    Ok(Answer { status: head.status, retry_after: retry_after(&head.headers), body })
}

/// In seconds, as a bridge says it; a date, as something before it might, is not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The beginning of an answer; the rest comes as it comes.
///
/// # Errors
///
/// As [`ask`].
pub(super) async fn begin(
    request: Request<Body>,
    trust: ClientConfig,
) -> anyhow::Result<Response<Body>> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new().with_tls_config(trust).https_or_http();
    let connector = connector.enable_http1().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let uri = request.uri().clone();
    let answer = client.request(request).await.map_err(|error| {
        let error = anyhow::Error::new(error);
        let advice = tls::advice(&format!("{error:#}"), &tls::Keys::HEALTH);
        advice.map_or_else(|| error.context(format!("cannot reach {uri}")), anyhow::Error::msg)
    })?;
    Ok(answer.map(Body::new))
}

/// What an answer means that no data-bridge gives.
pub(super) fn strange(status: StatusCode, body: &[u8]) -> String {
    let speaks_tls = String::from_utf8_lossy(body).contains("https://");
    let hint = if speaks_tls { "; it speaks TLS: ask with https://" } else { "" };
    format!("HTTP {status}, and not the answer of a data-bridge{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_on_every_address_is_asked_on_this_machine() {
        let url = |listen: &str| url_of("http", listen.parse().unwrap());
        assert_eq!(url("0.0.0.0:8080"), "http://127.0.0.1:8080");
        assert_eq!(url("[::]:8080"), "http://[::1]:8080");
        assert_eq!(url("10.1.2.3:80"), "http://10.1.2.3:80");
    }

    #[test]
    fn an_address_is_taken_with_and_without_the_path() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/health", "http://h:1/health/"] {
            assert_eq!(uri(url, "/health").unwrap(), "http://h:1/health");
        }
        for wrong in ["h:1", "http://", "", "/health", "ftp://h"] {
            assert!(uri(wrong, "/health").is_err(), "{wrong}");
        }
    }
}
