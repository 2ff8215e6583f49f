//! `data-bridge audit`: proves that what Kafka and JetStream delivered is in ClickHouse, offset by
//! offset.
//!
//! For each partition, every offset below the group's committed one must be a row, a dead letter, or
//! something that is rightly neither. Reads only: joins no group, commits nothing, changes nothing.
//! `plan` says what can be proved by which columns (pure), `ask`, `feed`, `reread` and `sequences` ask,
//! `judge` judges (pure, on `ranges`), `render` shows (pure).

mod ask;
mod feed;
mod judge;
mod letters;
mod plan;
mod ranges;
mod render;
mod report;
mod reread;
mod sequences;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::config;
use crate::record::UnixMs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge audit                            every topic of the configuration
  data-bridge audit --since 2026-01-31T08:00Z  records from then on; `--since 2h`: of the last hours
  data-bridge audit --topic ticks --partition 3 --offsets 5000..6000
  data-bridge audit --json | jq '.routes[].partitions[] | select(.verdict != \"complete\")'

An offset below the group's committed one must be a row or a dead letter. Where it is neither, the
topic itself is read again at that place: no record there (a transaction's marker, or compacted
away), a tombstone, or a row that the table replaced by a newer one of its key are all well. What is
not committed yet was not delivered yet, and is not missing. A bridge may run meanwhile. For
JetStream read sequence for offset, and what its consumer has acknowledged for what is committed.

Exit codes: 0 complete; 1 records are missing, or repeated where exactly once is promised; 2 nothing
is known to be missing, but not all can be proved; 64 wrong usage or configuration; 69 a server
cannot be reached, or refuses us.")]
pub(super) struct Args {
    /// Only this topic, or consumer of JetStream; may be given several times
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<i32>,

    /// Only these offsets, the second one not included
    #[arg(long, value_name = "FROM..TO", value_parser = offsets, conflicts_with = "since")]
    offsets: Option<Range<i64>>,

    /// Only records from this time on (RFC 3339), or of the last so long (`30m`, `2h`)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixMs>,

    /// Whether to read the topic again where an offset holds no row: `auto` does unless that is more
    /// than a million offsets
    #[arg(
        long, value_name = "WHEN", value_enum, default_value_t = ReadTopic::Auto,
        num_args = 0..=1, default_missing_value = "always", require_equals = true
    )]
    read_topic: ReadTopic,

    /// The report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReadTopic {
    Auto,
    Always,
    Never,
}

/// What of the configuration is to be looked at, and how.
#[derive(Debug)]
struct Options {
    topics: Vec<String>,
    partition: Option<i32>,
    offsets: Option<Range<i64>>,
    since: Option<UnixMs>,
    read_topic: ReadTopic,
}

pub(super) fn run(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let Args { topic, partition, offsets, since, read_topic, json } = args;
    let config = config::load(files)?;
    let options = Options { topics: topic, partition, offsets, since, read_topic };
    let audit = async { Ok(Box::pin(ask::audit(&config, &options)).await) };
    let report = super::block_on(audit)??;
    if json {
        let text = serde_json::to_string_pretty(&report).expect("plain data");
        super::print(&(text + "\n"))?;
    } else {
        super::print(&render::render(&report))?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn offsets(text: &str) -> Result<Range<i64>, String> {
    let wrong =
        || "give two offsets, for example 5000..6000; the second is not included".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().replace(',', "").parse::<i64>().map_err(|_| wrong());
    let (from, to) = (number(from)?, number(to)?);
    if from < 0 || from >= to { Err(wrong()) } else { Ok(from..to) }
}

fn since(text: &str) -> Result<UnixMs, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        "give a time (2026-01-31T08:00:00Z) or how long ago (30m, 2h, 7d)".to_owned()
    })?;
    let ago = i64::try_from(ago.as_millis()).map_err(|_| "too long ago".to_owned())?;
    Ok(jiff::Timestamp::now().as_millisecond() - ago)
}
