//! Arguments, then the command, then its exit code.

use std::process::ExitCode;

use data_bridge::cli::Cli;

fn main() -> ExitCode {
    match Cli::from_args() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
