//! `data-bridge generate`: sends realistic market records, and says exactly what it sent.
//!
//! Owns the arguments, the progress bar and the summary; what is sent is decided in `generate`.

mod summary;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::terminal::note;
use crate::config::{self, Kafka, Nats, NatsAuth};
use crate::generate::{
    Burst, Kind, Pace, Plan, Recipe, Run, Servers, Tally, Target, demo_profile, sql_check,
};
use crate::source::{ProbeError, kafka};

const EXAMPLES: &str = "\
Examples:
  data-bridge generate --profile demo
      200,000 records of every kind over Kafka and NATS, 1 in 10,000 bad
  data-bridge generate --kafka --kinds candles --count 1000000
      a backfill, as fast as Kafka takes it
  data-bridge generate --nats --kinds ticks=60000,system=60 --rate 5000
  data-bridge generate --nats --jetstream --kinds ticks=100000
      into streams, each record acknowledged
  data-bridge generate --kinds candles --revisions 5 --burst 10s:5000 --rate 200 --bad 1/1000
  data-bridge generate --profile demo --sql-check | curl 'localhost:8123/?database=market' --data-binary @-
      proves every value in ClickHouse against what was sent";

/// Send realistic market records to Kafka and NATS, each with a sequence number `_seq`, so that
/// loss can be audited
///
/// Everything is a function of the seed and the sequence number: the same options send the same
/// records. Counts and rates hold for each target. Kafka carries ticks, candles and external
/// records; NATS carries signals and system messages too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Send to Kafka: the configured brokers, or these. Neither --kafka nor --nats: to all that is
    /// configured
    #[arg(long, value_name = "BROKERS", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    kafka: Option<Vec<String>>,

    /// Send to NATS: the configured servers, or these
    #[arg(long, value_name = "SERVERS", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    nats: Option<Vec<String>>,

    /// To NATS through JetStream: a record counts as sent when its stream has acknowledged it. The
    /// streams have to be there
    #[arg(long)]
    jetstream: bool,

    /// A ready mix instead of --kinds
    #[arg(long, value_enum, conflicts_with_all = ["kinds", "count", "revisions", "bad"])]
    profile: Option<Profile>,

    /// What to send: ticks, candles, external, signals, system; each may have its own count. To
    /// measure with, of one form each: bars (185 B), indicators (1.2 KB), quotes (230 B), books
    /// (1.6 KB, nested)
    #[arg(long, value_name = "KIND[=COUNT],...", value_delimiter = ',', value_parser = parse_kind,
          default_value = "ticks,candles")]
    kinds: Vec<(Kind, Option<u64>)>,

    /// Records of each kind that has no count of its own
    #[arg(long, value_name = "N", value_parser = parse_count, default_value = "10000")]
    count: u64,

    /// Records per second for each target, for example 5000 or 5000/s [default: unlimited]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<u64>,

    /// So many records at once, at the start and again after each period; between them --rate, or
    /// silence
    #[arg(long, value_name = "PERIOD:N")]
    burst: Option<Burst>,

    /// Publish each candle so many times while it grows; the last time it is complete
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=100))]
    revisions: u64,

    /// Spoil one in so many, in turn: NaN, truncated, wrong type, huge, deeply nested, invalid
    /// UTF-8, empty, null
    #[arg(long, value_name = "1/N", value_parser = parse_bad)]
    bad: Option<u64>,

    /// Another seed gives other values for the same sequence numbers
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u64).range(..=4_294_967_295))]
    seed: u64,

    /// The first sequence number: a second run that continues must not use the first one's again
    #[arg(long, value_name = "N", value_parser = parse_count, default_value = "0")]
    seq_start: u64,

    /// Into these Kafka topics in turn, instead of the profile's
    #[arg(long, value_name = "TOPIC,...", value_delimiter = ',')]
    topics: Vec<String>,

    /// Partitions of the Kafka topics that have to be created
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,

    /// No progress bar, only the summary
    #[arg(long, short)]
    quiet: bool,

    /// The summary as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Send nothing; print the query that proves in ClickHouse what these options sent
    #[arg(long)]
    sql_check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Over 200,000 records: every kind, over both, candles three times each, 1 in 10,000 bad
    Demo,
}

/// Sends, or prints the query. A failure when not everything was sent.
pub(super) fn run(args: &Args, files: &[PathBuf]) -> Result<(), Failure> {
    let servers = args.servers(files)?;
    let plan = args.plan(&servers)?;
    if args.sql_check {
        return super::print(&format!("{}\n", sql_check(&plan)));
    }
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::other)?;
    runtime.block_on(args.send(&plan, &servers))
}

impl Args {
    async fn send(&self, plan: &Plan, servers: &Servers) -> Result<(), Failure> {
        if let Some(kafka) = &servers.kafka {
            reach(kafka).await?;
        }
        let tally = Arc::new(Tally::new(plan));
        let run = Run::connect(plan, servers, &tally)
            .await
            .map_err(|error| Failure::unavailable(format!("{error:#}")))?;
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let outcome = {
            let sending = run.send(&stop);
            tokio::pin!(sending);
            let mut show = Show::new(plan, self.quiet);
            let mut redraw = interval(show.every);
            loop {
                tokio::select! {
                    outcome = &mut sending => break outcome,
                    _ = redraw.tick() => show.update(plan, &tally),
                    _ = tokio::signal::ctrl_c() => {
                        if stop.is_cancelled() {
                            return Err(Failure::other("interrupted twice: nothing is known"));
                        }
                        stop.cancel();
                    }
                }
            }
        };
        let (elapsed, interrupted) = (started.elapsed(), stop.is_cancelled());
        let summary = if self.json {
            summary::json(plan, &tally, elapsed, interrupted)
        } else {
            summary::text(plan, &tally, elapsed)
        };
        super::print(&format!("{summary}\n"))?;
        outcome.map_err(|error| Failure::other(format!("{error:#}")))?;
        if interrupted {
            return Err(Failure::other("interrupted: the sums are those of what was sent"));
        }
        Ok(())
    }

    /// Addresses given by hand need no configuration; where there is one, they replace only its
    /// addresses, so that its credentials serve them too.
    fn servers(&self, files: &[PathBuf]) -> Result<Servers, Failure> {
        let by_hand =
            |given: &Option<Vec<String>>| given.as_ref().is_none_or(|list| !list.is_empty());
        let asked = self.kafka.is_some() || self.nats.is_some();
        let without_config = asked
            && by_hand(&self.kafka)
            && by_hand(&self.nats)
            && files.is_empty()
            && !Path::new(config::DEFAULT_FILE).exists();
        let (kafka, nats) = if without_config {
            (None, None)
        } else {
            let config = config::load(files)?;
            (config.kafka, config.nats)
        };
        let kafka = match &self.kafka {
            None => kafka.filter(|_| !asked),
            Some(given) if given.is_empty() => Some(kafka.ok_or_else(|| {
                Failure::usage("--kafka: no [kafka] is configured; write --kafka=HOST:PORT")
            })?),
            Some(given) => Some(Kafka { brokers: given.clone(), ..kafka.unwrap_or_else(no_kafka) }),
        };
        let nats = match &self.nats {
            None => nats.filter(|_| !asked),
            Some(given) if given.is_empty() => Some(nats.ok_or_else(|| {
                Failure::usage("--nats: no [nats] is configured; write --nats=nats://HOST:PORT")
            })?),
            Some(given) => Some(Nats { servers: given.clone(), ..nats.unwrap_or_else(no_nats) }),
        };
        if kafka.is_none() && nats.is_none() {
            return Err(Failure::usage(
                "nowhere to send to: configure [kafka] or [nats], or write --kafka=HOST:PORT or \
                 --nats=nats://HOST:PORT",
            ));
        }
        if self.jetstream && nats.is_none() {
            return Err(Failure::usage(
                "--jetstream: no NATS to send to; write --nats=nats://HOST:PORT",
            ));
        }
        let (topics, partitions) = (self.topics.clone(), self.partitions);
        Ok(Servers { kafka, topics, partitions, nats, jetstream: self.jetstream })
    }

    fn plan(&self, servers: &Servers) -> Result<Plan, Failure> {
        let has = |target| match target {
            Target::Kafka => servers.kafka.is_some(),
            Target::Nats => servers.nats.is_some(),
        };
        let mut plan = if self.profile == Some(Profile::Demo) {
            demo_profile(self.seed, self.seq_start)
        } else {
            let recipe = Recipe { seed: self.seed, revisions: self.revisions, bad_every: self.bad };
            let wanted: Vec<_> = [Target::Kafka, Target::Nats]
                .into_iter()
                .flat_map(|target| self.kinds.iter().map(move |(kind, own)| (target, *kind, *own)))
                .filter(|(target, kind, _)| has(*target) && target.carries(*kind))
                .map(|(target, kind, own)| (target, kind, own.unwrap_or(self.count)))
                .collect();
            Plan::new(recipe, self.seq_start, &wanted)
        };
        plan.keep_targets(has);
        if plan.streams.is_empty() {
            return Err(Failure::usage(
                "nothing to send: Kafka carries ticks, candles and external; signals and system need NATS",
            ));
        }
        if self.rate.is_some() || self.burst.is_some() {
            let pace = Pace { rate: self.rate, burst: self.burst };
            plan.paces = [(Target::Kafka, pace), (Target::Nats, pace)].into();
        }
        Ok(plan)
    }
}

/// A producer that cannot reach its broker, or is not let in, says no more than that it timed out.
async fn reach(config: &Kafka) -> Result<(), Failure> {
    let why = match kafka::probe::probe(config, "generate", &[]).await {
        Ok(_) => return Ok(()),
        Err(ProbeError::Unreachable(why) | ProbeError::Refused(why)) => why,
    };
    Err(Failure::unavailable(format!("Kafka at {}: {why}", config.brokers.join(","))))
}

/// For brokers given by hand where no config is: what a producer does not use stays empty.
fn no_kafka() -> Kafka {
    Kafka {
        brokers: Vec::new(),
        group_id: "data-bridge-generate".to_owned(),
        auto_offset_reset: "earliest".to_owned(),
        commit_interval: Duration::ZERO,
        prefetch_bytes: 0,
        rate_limit: None,
        client: Default::default(),
    }
}

fn no_nats() -> Nats {
    Nats {
        servers: Vec::new(),
        queue_group: String::new(),
        auth: NatsAuth::None,
        tls: None,
        rate_limit: None,
        jetstream: None,
    }
}

/// The progress: a bar on a terminal, a line every few seconds elsewhere, or nothing.
struct Show {
    bar: Option<ProgressBar>,
    lines: bool,
    every: Duration,
}

impl Show {
    fn new(plan: &Plan, quiet: bool) -> Self {
        if quiet {
            return Self { bar: None, lines: false, every: Duration::from_secs(3_600) };
        }
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, lines: true, every: Duration::from_secs(2) };
        }
        let style = ProgressStyle::with_template(
            "  generating {bar:32.cyan/dim} {human_pos}/{human_len}  {per_sec}  {elapsed} (eta {eta})  {msg}",
        )
        .expect("the template is right")
        .progress_chars("━╸─");
        let bar = ProgressBar::with_draw_target(Some(plan.total()), ProgressDrawTarget::stderr());
        bar.set_style(style);
        Self { bar: Some(bar), lines: false, every: Duration::from_millis(100) }
    }

    fn update(&mut self, plan: &Plan, tally: &Tally) {
        let total = summary::total(plan, tally);
        if let Some(bar) = &self.bar {
            bar.set_position(total.sent + total.failed);
            if total.bad > 0 {
                bar.set_message(format!("{} bad", total.bad));
            }
        } else if self.lines && total.sent > 0 {
            note(&format!("sent {} of {}", HumanCount(total.sent), HumanCount(plan.total())));
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "").parse().map_err(|_| format!("`{text}` is no number of records"))
}

fn parse_kind(text: &str) -> Result<(Kind, Option<u64>), String> {
    match text.split_once('=') {
        None => Ok((text.parse()?, None)),
        Some((kind, count)) => Ok((kind.parse()?, Some(parse_count(count)?))),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_count(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(0) | Err(_) => Err(format!("`{text}` is no rate; write records per second, like 5000")),
        Ok(rate) => Ok(rate),
    }
}

fn parse_bad(text: &str) -> Result<u64, String> {
    let every = text.strip_prefix("1/").and_then(|n| parse_count(n).ok());
    every.filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is no share; write 1/10000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_with_and_without_their_dressing() {
        assert_eq!(parse_kind("ticks=1_000"), Ok((Kind::Ticks, Some(1_000))));
        assert_eq!(parse_kind("system"), Ok((Kind::System, None)));
        assert!(parse_kind("lines").unwrap_err().contains("candles"));
        assert_eq!(parse_rate("5000/s"), Ok(5_000));
        assert!(parse_rate("0").is_err());
        assert_eq!(parse_bad("1/10000"), Ok(10_000));
        assert!(parse_bad("10000").is_err());
    }
}
