//! Starts the log: to stderr, human-readable on a terminal, JSON otherwise. `RUST_LOG` decides what;
//! without it the service's own `log.level`, which may change while it runs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use super::LogFormat;
use crate::reload::SetLogLevel;

/// What the clients log by themselves, silenced because our sources say it once, in our words and
/// at a bounded rate:
/// - `async_nats` repeats each event (`event: connected`, and for every record that it drops
///   `event: slow consumers for subscription 1`: thousands a second under pressure) and each
///   refused login at ERROR, at every attempt;
/// - `rdkafka` says at ERROR `Failed to close consumer queue on drop` of a consumer that was
///   closed before, or whose brokers are away: what matters of it is in our own line. What
///   librdkafka itself logs comes through our own callbacks, at DEBUG.
///
/// `RUST_LOG=info` keeps them silent; naming one brings it back: `RUST_LOG=info,async_nats=debug`.
const SILENT: &str = "async_nats=off,rdkafka=off";

/// Without `RUST_LOG`.
const DEFAULT: &str = "info";

/// The log that was started.
pub(super) struct Log {
    replace: Box<dyn Fn(EnvFilter) + Send + Sync>,
    /// `RUST_LOG` is set.
    decided: bool,
}

impl Log {
    /// Sets the level from here on, unless `RUST_LOG` has decided it; says whether it did.
    pub(super) fn into_setter(self) -> SetLogLevel {
        let Self { replace, decided } = self;
        Box::new(move |level| {
            if !decided {
                replace(filter(level.as_str()));
            }
            !decided
        })
    }
}

pub(super) fn start(format: Option<LogFormat>) -> Log {
    let by_place = if std::io::stderr().is_terminal() { LogFormat::Human } else { LogFormat::Json };
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter(&wanted)).with_writer(std::io::stderr);
    let decided = !wanted.trim().is_empty();
    let (started, replace) = match format.unwrap_or(by_place) {
        LogFormat::Human => {
            let log = log.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let replace = replacing(log.reload_handle());
            (log.try_init(), replace)
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let replace = replacing(log.reload_handle());
            (log.try_init(), replace)
        }
    };
    started.expect("the log is started once");
    Log { replace, decided }
}

fn replacing<S: 'static>(handle: Handle<EnvFilter, S>) -> Box<dyn Fn(EnvFilter) + Send + Sync> {
    Box::new(move |filter| handle.reload(filter).expect("the log lives as long as the process"))
}

/// Of two directives for one target the later counts.
fn filter(wanted: &str) -> EnvFilter {
    let wanted = if wanted.trim().is_empty() { DEFAULT } else { wanted };
    EnvFilter::builder().parse_lossy(format!("{SILENT},{wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(wanted: &str) -> Vec<String> {
        let mut all: Vec<_> = filter(wanted).to_string().split(',').map(str::to_owned).collect();
        all.sort();
        all
    }

    #[test]
    fn the_clients_are_silent_until_they_are_named() {
        let silent = ["async_nats=off", "info", "rdkafka=off"];
        assert_eq!(directives(""), silent);
        assert_eq!(directives("info"), silent);
        assert!(directives("info,async_nats=debug").contains(&"async_nats=debug".to_owned()));
        assert!(!directives("info,async_nats=debug").contains(&"async_nats=off".to_owned()));
    }
}
