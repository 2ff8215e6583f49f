//! `data-bridge run`: the service.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::logging::Log;
use crate::{app, config};

pub(super) fn run(files: &[PathBuf], log: Log) -> Result<ExitCode, Failure> {
    let loaded = config::load_over(files, None)?;
    let set_log_level = log.into_setter();
    set_log_level(loaded.config.log);
    super::block_on(app::run(files.to_vec(), loaded, set_log_level))
}
