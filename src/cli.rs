//! The command line: what can be asked of the program, and the exit code it answers with.
//!
//! One file a command. A new one is a `mod` line, a variant of `Command` and an arm in `Cli::run`.

mod alerts;
mod audit;
mod bridge;
mod check;
mod config;
mod dead_letters;
mod generate;
mod health;
mod live;
mod logging;
mod reload;
mod run;
mod schema;
mod simulate;
mod table;
mod terminal;
mod top;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::ConfigError;
use crate::source::ProbeError;

pub(crate) use terminal::print;

const EXAMPLES: &str = "\
Examples:
  data-bridge config                             what the files and the environment amount to
  data-bridge --config base.toml --config prod.toml config
  DATA_BRIDGE__KAFKA__BROKERS=a:9092,b:9092 data-bridge config
  data-bridge schema --apply                     create the tables of schema/*.sql beside it
  data-bridge check                              do the servers, topics and tables fit?
  data-bridge top                                how is it, live
  data-bridge alerts test                        does a notice reach those who are on call?
  data-bridge reload --dry-run                   what would a reload change?
  data-bridge audit                              is everything there that was delivered?
  data-bridge simulate                           what happens under overload, without servers
  data-bridge live watch candles                 what comes on a topic, as it comes

Without --config, ./config/data-bridge.toml is read. Any key can be set by a variable:
DATA_BRIDGE__BACKPRESSURE__PAUSE_THRESHOLD=24000

Exit codes: 0 ok, 64 wrong usage or configuration, 69 a server cannot be reached, 1 anything else.";

/// Moves records from Kafka and NATS into ClickHouse, and stays in control when it is slow or down.
#[derive(Debug, Parser)]
#[command(name = "data-bridge", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// A configuration file (TOML, or YAML and JSON by extension); several are layered, a later
    /// one over those before it [default: config/data-bridge.toml]
    #[arg(long, global = true, value_name = "PATH")]
    config: Vec<PathBuf>,

    /// How log lines look [default: human on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Run,
    /// Ask a running bridge how it is; exit code 0 or 1
    Health(health::Args),
    /// Watch a running bridge in the terminal: the dashboard, live
    Top(top::Args),
    /// Have a running bridge read its configuration again; says what changed
    Reload(reload::Args),
    /// Compare the configuration with the servers; joins no group, subscribes to nothing
    Check(check::Args),
    /// Show the alerts, and test whether notices of them arrive
    Alerts(alerts::Args),
    /// Prove that what Kafka and JetStream delivered is in ClickHouse, offset by offset
    Audit(Box<audit::Args>),
    /// Print the effective configuration, or a JSON Schema for editors
    Config(config::Args),
    /// Print the tables of schema/*.sql beside the configuration, or create them
    Schema(schema::Args),
    /// Show what was refused and why, and send it through again
    DeadLetters(dead_letters::Args),
    /// Send realistic market records to Kafka and NATS
    Generate(Box<generate::Args>),
    /// Try out what happens under overload, without servers; read off thresholds
    Simulate(Box<simulate::Args>),
    /// Watch what the bridge carries, as it happens; publish; a prompt
    Live(Box<live::Args>),
}

impl Cli {
    /// The arguments of this process; on wrong ones, says so and gives the exit code.
    ///
    /// # Errors
    ///
    /// For `--help` and `--version` (code 0), and for arguments that make no sense (64).
    pub fn from_args() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // nobody is left to tell that stderr is closed
            drop(error.print());
            if error.use_stderr() { ExitCode::from(Failure::USAGE) } else { ExitCode::SUCCESS }
        })
    }

    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let log = logging::start(self.log_format);
        let files = self.config;
        let done = |()| ExitCode::SUCCESS;
        let result = match self.command {
            Command::Run => run::run(&files, log),
            Command::Health(args) => health::command(args, &files),
            Command::Top(args) => top::command(args, &files),
            Command::Reload(args) => reload::command(args, &files),
            Command::Check(args) => check::run(&args, &files),
            Command::Alerts(args) => alerts::run(args, &files),
            Command::Audit(args) => audit::run(*args, &files),
            Command::Config(args) => config::run(&args, &files).map(done),
            Command::Schema(args) => schema::run(args, &files).map(done),
            Command::DeadLetters(args) => dead_letters::run(&args, &files),
            Command::Generate(args) => generate::run(&args, &files).map(done),
            Command::Simulate(args) => simulate::run(&args).map(done),
            Command::Live(args) => live::run(*args, &files),
        };
        match result {
            Ok(code) => code,
            Err(failure) => failure.report(),
        }
    }
}

/// Why a command failed: a message for a person, and an exit code for a script.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Wrong usage or configuration (EX_USAGE).
    const USAGE: u8 = 64;
    /// A server cannot be reached (EX_UNAVAILABLE).
    const UNAVAILABLE: u8 = 69;

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { code: Self::USAGE, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self { code: Self::UNAVAILABLE, message: message.to_string() }
    }

    pub(crate) fn other(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    fn report(&self) -> ExitCode {
        terminal::note(&format!("data-bridge: {}", self.message));
        ExitCode::from(self.code)
    }
}

/// Runs a command that waits for servers.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::other(format!("cannot start the async runtime: {error}")))?;
    let result = runtime.block_on(command);
    // A client that does not close must not keep the process: all that it owes was done, or
    // given up and logged.
    runtime.shutdown_background();
    result.map_err(|error| Failure::other(format!("{error:#}")))
}

/// A server that could not be asked.
impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Unreachable(text) | ProbeError::Refused(text) => Self::unavailable(text),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}
