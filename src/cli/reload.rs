//! `data-bridge reload`: has a running bridge read its files again, and says what that changed, or why
//! nothing did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Failure, bridge};
use crate::config;

/// The bridge reads files and waits for the pipeline, for 5 s at most.
const TIMEOUT: Duration = Duration::from_secs(20);

const PATH: &str = "/admin/config";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge reload                             the bridge that this configuration starts
  data-bridge reload --dry-run                   what would change, and whether it may
  data-bridge reload --over night.toml           with this file over its own, until the next reload
  data-bridge reload --url http://10.0.0.7:8080 --token-file token

The bridge reads the files that it was started with; those given here say only where it is and what its
token is. It has to have one (http.token or http.token_file).

Exit codes: 0 applied, or nothing has changed, or it would be (--dry-run); 64 the configuration is wrong,
here or there; 69 the bridge cannot be reached; 1 it refuses: a restart is needed, it is not possible
now, or the token is wrong.")]
pub(super) struct Args {
    #[command(flatten)]
    bridge: bridge::Which,

    /// The bridge's token, in a file [default: http.token of the configuration]
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// To be laid over the bridge's own files (TOML, or YAML and JSON by extension). It counts until
    /// the next reload or restart
    #[arg(long, value_name = "PATH")]
    over: Option<PathBuf>,

    /// Change nothing. What only the running pipeline can refuse is not asked
    #[arg(long)]
    dry_run: bool,
}

/// Both what was done and what was refused; and what any other refusal of the bridge says.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    hash: String,
    #[serde(default)]
    changes: Vec<config::Change>,
    #[serde(default)]
    reasons: Vec<String>,
    detail: Option<String>,
}

pub(super) fn command(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let Args { bridge, token_file, over, dry_run } = args;
    let (body, media_type) = over.as_deref().map_or(Ok((String::new(), "")), layer)?;
    let ((url, trust), token) = match token_file {
        Some(file) => (bridge.place(files)?, Some(bridge::token(&file)?)),
        None => {
            let http = config::load(files)?.http;
            (bridge.place_of(&http)?, http.token)
        }
    };
    let token: SecretString = token.ok_or_else(|| {
        Failure::usage(
            "the bridge changes nothing without a token: set http.token, or give --token-file",
        )
    })?;
    let query = if dry_run { "?dry_run=true" } else { "" };
    let uri = bridge::uri(&url, PATH).map_err(Failure::usage)?;
    let request = Request::put(format!("{uri}{query}"))
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(body))
        .map_err(|error| Failure::usage(format!("the token cannot be sent: {error}")))?;
    let answer = super::block_on(async { Ok(ask(request, trust).await) })?
        .map_err(|error| Failure::unavailable(format!("{error:#}")))?;
    said(answer.status, &answer.body, dry_run)
}

/// A file to be sent, and what it is.
fn layer(file: &Path) -> Result<(String, &'static str), Failure> {
    let media_type = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("yaml" | "yml") => "application/yaml",
        _ => "application/toml",
    };
    Ok((read(file)?, media_type))
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file);
    text.with_context(|| format!("cannot read {}", file.display()))
        .map_err(|error| Failure::usage(format!("{error:#}")))
}

async fn ask(request: Request<Body>, trust: ClientConfig) -> anyhow::Result<bridge::Answer> {
    let uri = request.uri().clone();
    let answer = tokio::time::timeout(TIMEOUT, bridge::ask(request, trust)).await;
    answer.with_context(|| format!("no answer from {uri} within {} s", TIMEOUT.as_secs()))?
}

/// Prints what has changed, or would; or fails with why not.
fn said(status: StatusCode, body: &[u8], dry_run: bool) -> Result<ExitCode, Failure> {
    let Ok(Answer { hash, changes, reasons, detail }) = serde_json::from_slice(body) else {
        return Err(Failure::other(bridge::strange(status, body)));
    };
    if status != StatusCode::OK {
        let why: Vec<String> = reasons.into_iter().chain(detail).collect();
        let why = format!("not applied: {}", why.join("\n  "));
        return Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY => Failure::usage(why),
            _ => Failure::other(why),
        });
    }
    let count = changes.len();
    let mut text = match (count, dry_run) {
        (0, _) => format!("nothing has changed; in force is {hash}\n"),
        (_, true) => format!("{count} would change, to {hash}:\n"),
        (_, false) => format!("{count} changed; in force is {hash}:\n"),
    };
    for change in &changes {
        text.push_str(&format!("  {change}\n"));
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: StatusCode, body: &str) -> (u8, String) {
        let failure = said(status, body.as_bytes(), false).unwrap_err();
        (failure.code, failure.message)
    }

    #[test]
    fn a_refusal_says_why_and_whose_fault_it_is() {
        let (code, why) =
            failed(StatusCode::UNPROCESSABLE_ENTITY, r#"{"reasons":["a: is wrong"]}"#);
        assert_eq!((code, why.as_str()), (Failure::USAGE, "not applied: a: is wrong"));
        let (code, why) =
            failed(StatusCode::CONFLICT, r#"{"reasons":["a: restart","b: restart"]}"#);
        assert_eq!((code, why.as_str()), (1, "not applied: a: restart\n  b: restart"));
        let (code, why) = failed(StatusCode::UNAUTHORIZED, r#"{"error":"x","detail":"send it"}"#);
        assert_eq!((code, why.as_str()), (1, "not applied: send it"));
        assert!(failed(StatusCode::BAD_GATEWAY, "<html>").1.contains("not the answer"));
    }
}
