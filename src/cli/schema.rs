//! `data-bridge schema`: the tables of the profile, from `schema/*.sql` beside the configuration.

use std::path::PathBuf;

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the .sql files are [default: schema/ beside the first configuration file]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Create the tables in the configured ClickHouse; those that exist are left as they are
    #[arg(long)]
    apply: bool,
}

pub(super) fn run(_args: Args, _files: &[PathBuf]) -> Result<(), Failure> {
    Ok(())
}
