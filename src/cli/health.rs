//! `data-bridge health`: asks a running bridge how it is, in one line, what is wrong below it, and an
//! exit code, so that a container's health check needs nothing but our own binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use rustls::ClientConfig;
use serde::Deserialize;

use super::{Failure, bridge};
use crate::thousands::{counted, thousands};

/// The bridge answers in milliseconds or not at all; health checks are usually given 5 s.
const TIMEOUT: Duration = Duration::from_secs(3);

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
    #[serde(default)]
    sources: BTreeMap<String, AnswerSource>,
    breaker: Option<AnswerBreaker>,
}

#[derive(Debug, Deserialize)]
struct AnswerSource {
    connected: bool,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AnswerBreaker {
    state: String,
    reason: Option<String>,
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
    #[command(flatten)]
    bridge: bridge::Which,
}

pub(super) fn command(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let (url, trust) = args.bridge.place(files)?;
    let (code, said) = super::block_on(run(&url, trust))?;
    super::print(&format!("{said}\n"))?;
    Ok(code)
}

/// Asks, and says, also by the exit code, whether the bridge serves: 0 or 1.
async fn run(url: &str, trust: ClientConfig) -> anyhow::Result<(ExitCode, String)> {
    let uri = bridge::uri(url, "/health")?;
    let request = Request::get(uri.clone()).body(Body::empty())?;
    match tokio::time::timeout(TIMEOUT, bridge::ask(request, trust)).await {
        Ok(Ok(bridge::Answer { status, body, .. })) => {
            let serves = status == StatusCode::OK;
            let code = if serves { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            Ok((code, summary(status, &body)))
        }
        Ok(Err(error)) => Ok((ExitCode::FAILURE, format!("unreachable: {error:#}"))),
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            let said = format!("unreachable: no answer from {uri} within {seconds} s");
            Ok((ExitCode::FAILURE, said))
        }
    }
}

/// More than these are many consequences of one cause.
const SHOWN: usize = 5;

/// `healthy, buffer 812/50,000, 3 pauses, 0 dead letters, 0 dropped`, and below it what is wrong.
fn summary(status: StatusCode, body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return bridge::strange(status, body);
    };
    let backpressure = &answer.metrics.backpressure;
    let mut line = format!(
        "{}{}, buffer {}/{}, {}, {}, {} dropped",
        answer.status,
        if backpressure.active { " (paused)" } else { "" },
        thousands(backpressure.current_buffer),
        thousands(backpressure.max_buffer_size),
        counted(backpressure.pause_count, "pause"),
        counted(answer.metrics.dead_letters, "dead letter"),
        thousands(answer.metrics.dropped),
    );
    let troubles = troubles(answer);
    for trouble in troubles.iter().take(SHOWN) {
        line.push_str("\n  ");
        line.push_str(trouble);
    }
    if troubles.len() > SHOWN {
        line.push_str(&format!("\n  and {} more: see /health", troubles.len() - SHOWN));
    }
    line
}

/// Why it is not healthy, worst first.
fn troubles(answer: Answer) -> Vec<String> {
    let AnswerMetrics { sources, breaker, .. } = answer.metrics;
    // one that starts has not connected yet, and one that ends does not any more
    let runs = matches!(answer.status.as_str(), "degraded" | "critical");
    let away = sources.into_iter().filter(|(_, source)| runs && !source.connected);
    let away = away.map(|(name, source)| match source.error {
        Some(why) => format!("{name} is not connected: {why}"),
        None => format!("{name} is not connected yet"),
    });
    let broken = breaker.filter(|breaker| breaker.state != "closed").and_then(|b| b.reason);
    let broken = broken.map(|why| format!("ClickHouse is left alone: {why}"));
    answer.wedged.into_iter().chain(answer.needs_person).chain(broken).chain(away).collect()
}

#[cfg(test)]
mod tests;
