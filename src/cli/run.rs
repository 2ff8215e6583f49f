//! `data-bridge run`: the service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Failure;
use crate::{app, config};

pub(super) fn run(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the async runtime").map_err(failure)?;
    let code = runtime.block_on(app::run(config)).map_err(failure);
    // A client that does not close must not keep the process: everything it owes was done or
    // given up, and logged.
    runtime.shutdown_background();
    code
}

fn failure(error: anyhow::Error) -> Failure {
    Failure::other(format!("{error:#}"))
}
