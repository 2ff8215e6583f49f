//! `data-bridge run`: the service.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::{app, config};

pub(super) fn run(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    super::block_on(app::run(config))
}
