//! Starts the log: to stderr, human-readable on a terminal, JSON otherwise; `RUST_LOG` decides what.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::LogFormat;

pub(super) fn start(format: Option<LogFormat>) {
    let by_place = if std::io::stderr().is_terminal() { LogFormat::Human } else { LogFormat::Json };
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format.unwrap_or(by_place) {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.expect("the log is started once");
}
