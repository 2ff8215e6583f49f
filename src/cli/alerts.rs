//! `data-bridge alerts`: what the bridge would tell, and whether it arrives.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::time::Instant;

use super::{Failure, table};
use crate::alert::AlertId;
use crate::config::{self, Alerts, Config, Webhook};
use crate::webhook;
use crate::webhook::message::{self, Notice};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge alerts list                         what is told, after how long, what to do then
  data-bridge alerts test                         send a test notice to every [webhooks.NAME]
  data-bridge alerts test oncall                  to this one

Exit codes of test: 0 all arrived, 1 one did not, 64 wrong usage or configuration.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show every alert: how bad it is, when it fires, what to do
    List,
    /// Send a test notice to the receivers, and say what came back
    Test {
        /// Only to these [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(super) fn run(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = config::load(files)?;
    match args.what {
        What::List => super::print(&list(&config)).map(|()| ExitCode::SUCCESS),
        What::Test { names } => test(&config, &names),
    }
}

fn list(config: &Config) -> String {
    let mut table = table::table();
    table.set_header(["ALERT", "SEVERITY", "FIRES", "WHAT TO DO"]);
    for id in AlertId::ALL {
        let fires = fires(&config.alerts, id);
        table.add_row([id.name(), id.severity().name(), &fires, id.remedy()]);
    }
    format!("{}\n", table::shown(table))
}

/// When it fires, in a few words.
fn fires(alerts: &Alerts, id: AlertId) -> String {
    match id {
        _ if alerts.off.contains(&id) => "off".to_owned(),
        AlertId::InputLow if alerts.min_input.is_none() => "never: no min_input".to_owned(),
        AlertId::Silent if alerts.silent.is_empty() => "never: no [alerts.silent]".to_owned(),
        AlertId::Silent => "after [alerts.silent]".to_owned(),
        _ if alerts.pending(id).is_zero() => "at once".to_owned(),
        _ => format!("after {}", humantime::format_duration(alerts.pending(id))),
    }
}

fn test(config: &Config, names: &[String]) -> Result<ExitCode, Failure> {
    let all = &config.webhooks;
    if let Some(unknown) = names.iter().find(|name| !all.contains_key(*name)) {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::usage(format!(
            "no [webhooks.{unknown}] is configured; there are: {known}"
        )));
    }
    if all.is_empty() {
        return Err(Failure::usage(
            "no receiver is configured; add a [webhooks.NAME] with its url",
        ));
    }
    let wanted = all.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    let wanted: Vec<_> = wanted.collect();
    let results = super::block_on(async { Ok(ask(&wanted, &config.instance).await) })?;
    let mut table = table::table();
    for ((name, webhook), (result, took)) in wanted.iter().zip(&results) {
        let kind = webhook.kind.name();
        let (mark, text) = match result {
            Ok(()) => ("ok", format!("it took the notice, within {} ms", took.as_millis())),
            Err(why) => ("FAILED", why.clone()),
        };
        table.add_row([mark, name, kind, &text]);
    }
    super::print(&format!("{}\n", table::shown(table)))?;
    let all_arrived = results.iter().all(|(result, _)| result.is_ok());
    Ok(if all_arrived { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One after the other: each is given its time.
async fn ask(
    webhooks: &[(&String, &Webhook)],
    instance: &str,
) -> Vec<(Result<(), String>, std::time::Duration)> {
    let mut results = Vec::new();
    for (_, config) in webhooks {
        let begin = Instant::now();
        let now = jiff::Timestamp::now().as_millisecond();
        let body = message::body(&Notice::test(now), config, instance, now);
        let result = match webhook::post(config) {
            Ok(post) => post.send(body).await.map_err(|failure| failure.what),
            Err(error) => Err(format!("{error:#}")),
        };
        results.push((result, begin.elapsed()));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_an_expectation_never_fires_without_one() {
        let silent = [("x".to_owned(), std::time::Duration::from_secs(600))];
        let (none, mut some) = (Alerts::default(), Alerts::default());
        (some.min_input, some.silent) = (Some(10), silent.into());
        let said = |alerts| [AlertId::InputLow, AlertId::Silent].map(|id| fires(alerts, id));
        assert_eq!(said(&none), ["never: no min_input", "never: no [alerts.silent]"]);
        assert_eq!(said(&some), ["after 5m", "after [alerts.silent]"]);
        assert_eq!(fires(&none, AlertId::DeadLetters), "at once");
    }
}
