//! `data-bridge health`: asks a running bridge how it is, in one line and an exit code, so that a
//! container's health check needs nothing but our own binary.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde::Deserialize;

use super::Failure;
use crate::thousands::thousands;
use crate::{config, tls};

/// The bridge answers in milliseconds or not at all; health checks are usually given 5 s.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Far above any honest answer: thousands of subjects.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// What we say of the answer; a newer bridge may send more, an older one less.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    wedged: Option<String>,
    #[serde(default)]
    needs_person: Vec<String>,
    metrics: AnswerMetrics,
}

#[derive(Debug, Deserialize)]
struct AnswerMetrics {
    backpressure: AnswerBackpressure,
    #[serde(default)]
    dead_letters: u64,
    #[serde(default)]
    dropped: u64,
}

#[derive(Debug, Deserialize)]
struct AnswerBackpressure {
    active: bool,
    current_buffer: u64,
    max_buffer_size: u64,
    pause_count: u64,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge health                              the bridge that this configuration starts
  data-bridge health --url http://10.0.0.7:8080   another one
  data-bridge health --url https://bridge.internal:8443 --ca-file ca.pem")]
pub(super) struct Args {
    /// Where the bridge listens [default: http.listen of the configuration, https with http.tls]
    #[arg(long)]
    url: Option<String>,

    /// Authorities to trust (PEM) [default: the system's; without --url the very certificate of
    /// http.tls.cert_file, whatever name it is for]
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

pub(super) fn command(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let (url, trust) = place(args, files)?;
    super::block_on(run(&url, trust))
}

/// Where to ask, and whom to trust there.
fn place(args: Args, files: &[PathBuf]) -> Result<(String, ClientConfig), Failure> {
    let ca_file = args.ca_file.as_deref();
    if let Some(url) = args.url {
        return Ok((url, trusting(tls::client(ca_file, None))?));
    }
    let http = config::load(files)?.http;
    let trust = match (&http.tls, ca_file) {
        (Some(own), None) => tls::certificates(&own.cert_file)
            .and_then(|mut chain| tls::pinned(chain.swap_remove(0))),
        _ => tls::client(ca_file, None),
    };
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    Ok((url_of(scheme, http.listen), trusting(trust)?))
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

/// Asks, prints one line, and says by the exit code whether the bridge serves: 0 or 1.
#[expect(clippy::print_stdout, reason = "a command talks on stdout")]
async fn run(url: &str, trust: ClientConfig) -> anyhow::Result<ExitCode> {
    let uri = health_uri(url)?;
    match tokio::time::timeout(TIMEOUT, ask(uri.clone(), trust)).await {
        Ok(Ok((status, body))) => {
            println!("{}", summary(status, &body));
            Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ok(Err(error)) => {
            println!("unreachable: {error:#}");
            Ok(ExitCode::FAILURE)
        }
        Err(_) => {
            println!("unreachable: no answer from {uri} within {} s", TIMEOUT.as_secs());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The address of `/health`, from a base like `http://localhost:8080` (or the whole address).
fn health_uri(url: &str) -> anyhow::Result<Uri> {
    let base = url.trim_end_matches('/').trim_end_matches("/health");
    let uri: Uri = format!("{base}/health")
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

async fn ask(uri: Uri, trust: ClientConfig) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(trust).https_or_http();
    let connector = connector.enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let answer = client.get(uri.clone()).await.map_err(|error| {
        let error = anyhow::Error::new(error);
        let advice = tls::advice(&format!("{error:#}"), &tls::Keys::HEALTH);
        advice.map_or_else(|| error.context(format!("cannot reach {uri}")), anyhow::Error::msg)
    })?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await;
    Ok((status, body.context("reading the answer")?.to_vec()))
}

/// `healthy, buffer 812/50,000, 3 pauses, 0 dead letters, 0 dropped`, and what is wrong.
fn summary(status: StatusCode, body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        let speaks_tls = String::from_utf8_lossy(body).contains("https://");
        let hint = if speaks_tls { "; it speaks TLS: ask with https://" } else { "" };
        return format!("HTTP {status}, and not the answer of a data-bridge{hint}");
    };
    let backpressure = &answer.metrics.backpressure;
    let mut line = format!(
        "{}{}, buffer {}/{}, {} pauses, {} dead letters, {} dropped",
        answer.status,
        if backpressure.active { " (paused)" } else { "" },
        thousands(backpressure.current_buffer),
        thousands(backpressure.max_buffer_size),
        thousands(backpressure.pause_count),
        thousands(answer.metrics.dead_letters),
        thousands(answer.metrics.dropped),
    );
    for trouble in answer.wedged.iter().chain(&answer.needs_person) {
        line.push_str("; ");
        line.push_str(trouble);
    }
    line
}

#[cfg(test)]
mod tests;
