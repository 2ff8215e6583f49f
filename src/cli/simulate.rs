//! `data-bridge simulate`: overload tried out before it happens, without a server.
//!
//! Owns the arguments and the pace at which a run is shown; what happens in it is decided in
//! `simulate`, by the code that the bridge itself runs.

mod own;
mod render;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Failure;
use crate::simulate::{self, Advice, Needs, Scenario, Simulation, Summary};
use own::Own;
use show::Show;

const EXAMPLES: &str = "\
Examples:
  data-bridge simulate                                   every built-in scenario, live
  data-bridge simulate compare                           all strategies on one scenario
  data-bridge simulate bridge --speed 5                  the bridge before a ClickHouse that stalls
  data-bridge simulate --rate 500 --consume 120 --buffer 2000 --strategy block,drop_oldest
      your own numbers, strategies side by side
  data-bridge simulate --file scenarios.toml --headless --json
  data-bridge simulate fair-share --headless --plot fair-share.svg
  data-bridge simulate --advise --rate 5000 --size 500B --delay 10s --burst 20000
      thresholds for your load, as configuration to paste";

/// Try out what happens when more comes than goes: the bridge's own buffers, rates and rule, under
/// a clock of their own, without a server
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which scenarios, by name [default: all, see --list]
    #[arg(value_name = "SCENARIO", conflicts_with = "advise")]
    scenarios: Vec<String>,

    /// Scenarios from this TOML file instead of the built-in ones; docs/overload.md has an example
    #[arg(long, value_name = "PATH", conflicts_with = "advise")]
    file: Option<PathBuf>,

    /// Name the scenarios, and run none
    #[arg(long)]
    list: bool,

    /// Decides what chance decides: the same seed gives the same run
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Seconds of the scenario that pass in a second
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = own::positive)]
    speed: f64,

    /// No live view, and no waiting: only what came of it
    #[arg(long)]
    headless: bool,

    /// What came of it, and its course second by second, as JSON
    #[arg(long)]
    json: bool,

    /// Write the course of the one scenario that is run as an SVG picture
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    own: Own,

    /// Print thresholds for --rate, --size, --delay, --burst and --safety, and run nothing
    #[arg(long)]
    advise: bool,

    /// What the advice begins with; the other options replace its numbers
    #[arg(long, value_name = "PRESET", requires = "advise")]
    preset: Option<Preset>,

    /// Bytes of a record, for example 500B or 2KB [default: of the preset, 500 B]
    #[arg(long, value_name = "SIZE", requires = "advise", value_parser = own::size)]
    size: Option<u64>,

    /// How long ClickHouse may take nothing before the sources are paused
    #[arg(long, value_name = "TIME", requires = "advise", value_parser = own::time)]
    delay: Option<Duration>,

    /// For what was not foreseen [default: 2]
    #[arg(long, value_name = "FACTOR", requires = "advise", value_parser = own::positive)]
    safety: Option<f64>,

    /// Records that may come at once
    #[arg(long, value_name = "N", requires = "advise")]
    burst: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// 100/s
    Low,
    /// 5,000/s
    Medium,
    /// 100,000/s
    High,
}

impl From<Preset> for simulate::Preset {
    fn from(preset: Preset) -> Self {
        match preset {
            Preset::Low => Self::Low,
            Preset::Medium => Self::Medium,
            Preset::High => Self::High,
        }
    }
}

/// What came of one scenario.
struct Run {
    scenario: Scenario,
    simulation: Simulation,
    summary: Summary,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.advise {
        return args.advise();
    }
    let scenarios = args.scenarios()?;
    if args.list {
        return super::print(&render::list(&scenarios));
    }
    let planned: Vec<_> = scenarios.iter().flat_map(Scenario::runs).collect();
    if args.plot.is_some() && planned.len() != 1 {
        let names: Vec<_> = planned.iter().map(|scenario| scenario.name.as_str()).collect();
        let text = format!("--plot draws one run; choose one of {}", names.join(", "));
        return Err(Failure::usage(text));
    }
    let show = Show::new(args.headless || args.json);
    let runs = if show.is_live() {
        super::block_on(async { Ok(live(planned, &show, args.seed, args.speed).await) })?
    } else {
        planned.into_iter().map(|scenario| at_once(scenario, &show, args.seed)).collect()
    };
    if let (Some(path), [run]) = (&args.plot, runs.as_slice()) {
        let picture = simulate::plot(&run.scenario, run.simulation.points());
        std::fs::write(path, picture)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    }
    let text = if args.json { render::json(args.seed, &runs) } else { render::text(&runs) };
    super::print(&text)
}

/// As fast as it goes.
fn at_once(scenario: Scenario, show: &Show, seed: u64) -> Run {
    let mut simulation = Simulation::new(&scenario, seed);
    let mut view = show.begin(&scenario);
    for part in 1..=show::LINES {
        simulation.advance(scenario.duration * part / show::LINES);
        view.update(&mut simulation);
    }
    finished(scenario, simulation)
}

/// One after the other, at the pace at which they are looked at.
async fn live(scenarios: Vec<Scenario>, show: &Show, seed: u64, speed: f64) -> Vec<Run> {
    let mut runs = Vec::new();
    for scenario in scenarios {
        let mut simulation = Simulation::new(&scenario, seed);
        let mut view = show.begin(&scenario);
        let began = Instant::now();
        // Twenty pictures a second look smooth.
        let mut turns = interval(Duration::from_millis(50));
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !simulation.is_over() {
            turns.tick().await;
            let at = Duration::try_from_secs_f64(began.elapsed().as_secs_f64() * speed);
            simulation.advance(at.unwrap_or(Duration::MAX));
            view.update(&mut simulation);
        }
        drop(view);
        runs.push(finished(scenario, simulation));
    }
    runs
}

fn finished(scenario: Scenario, mut simulation: Simulation) -> Run {
    let summary = simulation.summary();
    Run { scenario, simulation, summary }
}

impl Args {
    /// What to run: the user's own numbers, or those of a file or the built-in ones that were
    /// named.
    fn scenarios(&self) -> Result<Vec<Scenario>, Failure> {
        if let Some(own) = self.own.scenario().map_err(Failure::usage)? {
            if self.file.is_some() || !self.scenarios.is_empty() {
                let text = "--rate describes a scenario of its own: leave out SCENARIO and --file";
                return Err(Failure::usage(text));
            }
            return Ok(vec![own]);
        }
        let all = match &self.file {
            None => simulate::built_in(),
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
                simulate::parse(&text)
                    .map_err(|problems| Failure::usage(format!("{shown}:\n{problems}")))?
            }
        };
        let known = || all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        for name in &self.scenarios {
            if !all.iter().any(|scenario| scenario.name == *name) {
                let text = format!("`{name}` is no scenario; known: {}", known());
                return Err(Failure::usage(text));
            }
        }
        let wanted = |scenario: &Scenario| {
            self.scenarios.is_empty() || self.scenarios.contains(&scenario.name)
        };
        Ok(all.iter().filter(|scenario| wanted(scenario)).cloned().collect())
    }

    fn advise(&self) -> Result<(), Failure> {
        let needs = simulate::Preset::from(self.preset.unwrap_or(Preset::Medium)).needs();
        let needs = Needs {
            rate: self.own.rate().unwrap_or(needs.rate),
            record_bytes: self.size.unwrap_or(needs.record_bytes),
            delay: self.delay.unwrap_or(needs.delay),
            safety: self.safety.unwrap_or(needs.safety),
            burst: self.burst.unwrap_or_else(|| {
                // Another rate than the preset's: its burst would say nothing.
                if self.own.rate().is_some() { 0 } else { needs.burst }
            }),
        };
        let advice = Advice::of(&needs);
        let text = if self.json { render::advice_json(&advice) } else { render::advice(&advice) };
        super::print(&text)
    }
}

/// As people write sizes.
fn shown_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
