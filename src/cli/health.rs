//! `data-bridge health`: asks a running bridge how it is, in one line and an exit code, so that a
//! container's health check needs nothing but our own binary.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use rustls::ClientConfig;
use serde::Deserialize;

use super::{Failure, bridge};
use crate::thousands::thousands;

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
    super::block_on(run(&url, trust))
}

/// Asks, prints one line, and says by the exit code whether the bridge serves: 0 or 1.
#[expect(clippy::print_stdout, reason = "a command talks on stdout")]
async fn run(url: &str, trust: ClientConfig) -> anyhow::Result<ExitCode> {
    let uri = bridge::uri(url, "/health")?;
    let request = Request::get(uri.clone()).body(Body::empty())?;
    match tokio::time::timeout(TIMEOUT, bridge::ask(request, trust)).await {
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

/// `healthy, buffer 812/50,000, 3 pauses, 0 dead letters, 0 dropped`, and what is wrong.
fn summary(status: StatusCode, body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return bridge::strange(status, body);
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
