//! `data-bridge check`: would the bridge run with this configuration, and what would it guarantee?
//!
//! Asks every server, compares every route with its table, and tries the newest records of each
//! topic without inserting them. Creates nothing, joins no group, subscribes to nothing, commits
//! nothing. `ask` talks to the servers; all else is pure: `compare` judges, with `tables`, `topics`,
//! `streams`, `sampled` and `exact`; `render` shows to people, `json` to machines.

mod ask;
mod codes;
mod compare;
mod exact;
mod json;
mod render;
mod report;
mod sampled;
mod streams;
mod tables;
mod topics;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge check                                   before a first start, or after a change
  data-bridge --config prod.toml check && data-bridge --config prod.toml run
  data-bridge check --json | jq '.findings[] | select(.severity == \"error\") | .sql[]'

Nothing is changed: no group is joined, nothing committed, created or inserted. Some of the newest
records of each topic are read and decoded.

Exit codes: 0 all is well (there may be warnings), 1 something does not fit (login, topic, table,
column, promise), 64 wrong usage or configuration, 69 a server cannot be reached.")]
pub(super) struct Args {
    /// Writes one JSON document, for machines (docs/check.md describes it).
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    let found = super::block_on(async { Ok(Box::pin(ask::everything(&config)).await) })?;
    let report = compare::compare(&config, &found);
    super::print(&if args.json { json::json(&report) } else { render::render(&report) })?;
    Ok(ExitCode::from(report.exit_code()))
}
