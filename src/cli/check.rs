//! `data-bridge check`: would the bridge run with this configuration, and what would it guarantee?
//!
//! Asks every server and compares every route with its table. Creates nothing, joins no group,
//! subscribes to nothing. `ask` talks to the servers, `compare` judges (pure), `render` shows
//! (pure).

mod ask;
mod compare;
mod render;
mod tables;
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

Exit codes: 0 all is well, 1 something does not fit (login, topic, table, column), 64 wrong usage
or configuration, 69 a server cannot be reached.")]
pub(super) struct Args {}

pub(super) fn run(Args {}: &Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    let found = super::block_on(async { Ok(Box::pin(ask::everything(&config)).await) })?;
    let report = compare::compare(&config, &found);
    super::print(&render::render(&report))?;
    Ok(ExitCode::from(report.exit_code()))
}
