//! `data-bridge dead-letters`: what was refused and why, and how it is sent through again.
//!
//! Wherever letters are kept (`[dead_letters] to`), both commands read them there. Neither needs a
//! bridge that runs, nor minds one.

mod list;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::Failure;
use crate::config::{self, Config, DeadLetters};
use crate::dead_letter::Destination;
use crate::dead_letter::log::LogStore;
use crate::dead_letter::store::Filter;
use crate::record::UnixMs;
use crate::sink::clickhouse::ClickHouse;
use crate::sink::clickhouse::letters::LetterTable;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how many there are, why, and the newest of them
    List(list::Args),
    /// Send them through the current routes and mappings again
    Replay(replay::Args),
}

/// Which letters.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only of this route; may be given several times, like the next two
    #[arg(long, value_name = "NAME")]
    route: Vec<String>,

    /// Only with this reason
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,

    /// Only from this topic or subject, exactly
    #[arg(long, value_name = "TOPIC_OR_SUBJECT")]
    from: Vec<String>,

    /// Only refused from then on: a time (2026-01-31, 2026-01-31T12:00:00Z) or how long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<UnixMs>,

    /// Only refused before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<UnixMs>,
}

impl Which {
    fn filter(&self, replayed: Option<bool>) -> Filter {
        Filter {
            routes: self.route.clone(),
            reasons: self.reason.clone(),
            topics_or_subjects: self.from.clone(),
            since: self.since,
            until: self.until,
            replayed,
        }
    }
}

pub(super) fn run(args: &Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    match &args.command {
        Command::List(args) => list::run(args, &config).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::run(args, &config),
    }
}

/// Whatever keeps the letters.
enum Kept {
    Table(Box<LetterTable>),
    Log(Box<LogStore>),
}

impl Kept {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        if let DeadLetters::ClickHouse { table, .. } = &config.dead_letters {
            let server = ClickHouse::new(&config.clickhouse, None)?;
            return Ok(Self::Table(Box::new(LetterTable::new(server, table.clone()))));
        }
        let destination = Destination::open(config).await?;
        let destination = destination.context("dead_letters.to says where they are")?;
        let place = config.dead_letters.place();
        Ok(Self::Log(Box::new(LogStore::new(destination, place, config.retry))))
    }
}

/// A point in time, or how long ago it was.
fn time(text: &str) -> Result<UnixMs, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).map_err(|_| "too long ago".to_owned())?;
        return Ok(jiff::Timestamp::now().as_millisecond().saturating_sub(ago));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let naive: Result<jiff::civil::DateTime, _> = text.parse();
    let utc = naive.ok().and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let utc = utc.ok_or("write 2026-01-31, 2026-01-31T12:00:00Z (UTC) or how long ago, like 2h")?;
    Ok(utc.timestamp().as_millisecond())
}

/// For people.
fn shown(time: UnixMs) -> String {
    let time = jiff::Timestamp::from_millisecond(time).unwrap_or_default();
    let seconds = jiff::Unit::Second;
    time.round(seconds).unwrap_or(time).to_string()
}

/// Nobody waits longer for a listing; a replay has no limit, it makes progress.
const LIST_WITHIN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_point_or_how_long_ago() {
        let point = 1_769_860_800_000;
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00"] {
            assert_eq!(time(text), Ok(point), "{text}");
        }
        assert_eq!(time("2026-01-31"), Ok(point - 12 * 3_600_000));
        let now = jiff::Timestamp::now().as_millisecond();
        let ago = time("2h").unwrap();
        assert!((now - 7_200_000 - ago).abs() < 60_000, "{ago}");
        assert!(time("yesterday").unwrap_err().contains("2h"));
        assert_eq!(shown(point + 123), "2026-01-31T12:00:00Z");
    }
}
