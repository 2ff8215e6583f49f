//! `data-bridge config`: what the files and the environment amount to.

use std::path::PathBuf;

use super::Failure;
use crate::config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge config                          the effective configuration, secrets shown as ***
  data-bridge config --schema > schema.json   then, on top of a file: #:schema ./schema.json
  data-bridge config --reference              every key, with its type, default and meaning")]
pub(super) struct Args {
    /// Print a JSON Schema of the configuration, for editors
    #[arg(long)]
    schema: bool,

    /// Print the reference of every key, as Markdown
    #[arg(long, conflicts_with = "schema")]
    reference: bool,
}

pub(super) fn run(args: &Args, files: &[PathBuf]) -> Result<(), Failure> {
    if args.schema {
        return super::print(&format!("{:#}\n", config::json_schema()));
    }
    if args.reference {
        return super::print(&config::reference());
    }
    super::print(&config::effective(files)?)
}
