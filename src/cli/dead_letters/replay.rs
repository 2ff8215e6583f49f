//! `data-bridge dead-letters replay`: sends letters through the current routes and mappings again,
//! and says what became of them and how sure that is.

use std::process::ExitCode;

use serde_json::json;

use super::{Kept, Which};
use crate::cli::table::{shown, table};
use crate::cli::{Failure, block_on, print};
use crate::config::Config;
use crate::dead_letter::replay::{OnUncertain, Options, Outcome, Replay};
use crate::dead_letter::store::{Filter, LetterStore};
use crate::sink::clickhouse::ClickHouse;
use crate::thousands::thousands;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge dead-letters replay --dry-run              what would go in, and what would not
  data-bridge dead-letters replay --route ticks
  data-bridge dead-letters replay --reason missing_value --since 2026-01-31

Letters that go in are marked as replayed, those that are still refused stay with their new reason.
After a crash or a failure run it again: what was begun is finished first. Run one at a time.

Exit codes: 0 all went in, 1 some are still refused (or something failed), 64 wrong usage.")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Decode and say what would happen; write nothing
    #[arg(long)]
    dry_run: bool,

    /// What to do about letters of an interrupted replay of which nobody can tell whether they
    /// landed
    #[arg(long, value_enum, default_value_t = Uncertain::Halt)]
    on_uncertain: Uncertain,

    /// For machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Uncertain {
    /// Stop and say so
    Halt,
    /// Replay them anew
    AcceptDuplicates,
    /// Count them as replayed
    AcceptLoss,
}

pub(super) fn run(args: &Args, config: &Config) -> Result<ExitCode, Failure> {
    let on_uncertain = match args.on_uncertain {
        Uncertain::Halt => OnUncertain::Halt,
        Uncertain::AcceptDuplicates => OnUncertain::AcceptDuplicates,
        Uncertain::AcceptLoss => OnUncertain::AcceptLoss,
    };
    let options = Options { dry_run: args.dry_run, on_uncertain };
    let filter = args.which.filter(Some(false));
    let outcome = block_on(async {
        let server = ClickHouse::new(&config.clickhouse, None)?;
        match Kept::open(config).await? {
            Kept::Table(mut letters) => {
                Box::pin(replay(config, &server, &mut *letters, options, &filter)).await
            }
            Kept::Log(mut letters) => {
                Box::pin(replay(config, &server, &mut *letters, options, &filter)).await
            }
        }
    })?;
    let text = if args.json { machine(&outcome) } else { human(&outcome, args.dry_run) };
    print(&text)?;
    let done = outcome.stays() == 0 || args.dry_run;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn replay<L: LetterStore>(
    config: &Config,
    server: &ClickHouse,
    letters: &mut L,
    options: Options,
    filter: &Filter,
) -> anyhow::Result<Outcome> {
    Replay::new(config, server, letters, options)?.run(filter).await
}

fn machine(outcome: &Outcome) -> String {
    let refused = outcome.refused.iter().map(
        |((route, reason), count)| json!({ "route": route, "reason": reason, "count": count }),
    );
    let json = json!({
        "replayed": outcome.replayed,
        "resumed": outcome.resumed,
        "refused": refused.collect::<Vec<_>>(),
        "skipped": outcome.skipped,
        "at_least_once": outcome.at_least_once,
    });
    format!("{json}\n")
}

fn human(outcome: &Outcome, dry_run: bool) -> String {
    let mut text = String::new();
    let would = if dry_run { "would be " } else { "" };
    let total: u64 = outcome.replayed.values().sum();
    text.push_str(&format!("{} {would}replayed", thousands(total)));
    for (table, count) in &outcome.replayed {
        text.push_str(&format!(", {} into {table}", thousands(*count)));
    }
    if outcome.resumed > 0 {
        let resumed = thousands(outcome.resumed);
        text.push_str(&format!(" ({resumed} for a replay that was interrupted)"));
    }
    text.push('\n');
    if !outcome.refused.is_empty() {
        let mut refused = table();
        refused.set_header(["COUNT", "ROUTE", "REASON"]);
        for ((route, reason), count) in &outcome.refused {
            refused.add_row([thousands(*count).as_str(), route, reason]);
        }
        let still = if dry_run { "would still be refused" } else { "still refused; they stay" };
        text.push_str(&format!("\n{still}:\n{}\n", shown(refused)));
    }
    for (why, count) in &outcome.skipped {
        text.push_str(&format!("\n{} left alone: {why}\n", thousands(*count)));
    }
    for (table, why) in &outcome.at_least_once {
        text.push_str(&format!(
            "\n{table}: at least once only. If this replay is interrupted, nobody can tell whether \
             its last rows landed: {why}\n"
        ));
    }
    text
}
