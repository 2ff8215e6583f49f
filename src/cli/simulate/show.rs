//! A run while it goes on: bars on a terminal, lines elsewhere, or nothing.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::simulate::{Kind, Point, Scenario, Simulation};
use crate::thousands::thousands;

/// Lines of a run where there is no terminal: enough to see its course.
pub(super) const LINES: u32 = 10;

/// A bar has this many parts of the whole, so that fractions of a record a second show too.
const PARTS: f64 = 1_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Bars,
    Lines,
    Nothing,
}

impl Show {
    pub(super) fn new(headless: bool) -> Self {
        match headless {
            true => Self::Nothing,
            false if std::io::stdout().is_terminal() => Self::Bars,
            false => Self::Lines,
        }
    }

    /// Whether somebody looks on, so that it has to take its time.
    pub(super) fn is_live(self) -> bool {
        self == Self::Bars
    }

    pub(super) fn begin(self, scenario: &Scenario) -> View {
        match self {
            Self::Bars => View::Bars(Box::new(Bars::new(scenario))),
            Self::Lines => {
                line(&format!("{}: {}", scenario.name, scenario.about));
                View::Lines(Scale::of(scenario))
            }
            Self::Nothing => View::Nothing,
        }
    }
}

/// What is shown of one run.
pub(super) enum View {
    Bars(Box<Bars>),
    Lines(Scale),
    Nothing,
}

impl View {
    pub(super) fn update(&mut self, simulation: &mut Simulation) {
        match self {
            Self::Nothing => {}
            Self::Bars(bars) => bars.update(&simulation.point()),
            Self::Lines(scale) => line(&in_words(&simulation.point(), scale)),
        }
    }
}

/// What is full, and what is fast.
pub(super) struct Scale {
    duration: Duration,
    capacity: usize,
    rate: f64,
}

impl Scale {
    fn of(scenario: &Scenario) -> Self {
        let (capacity, rate) = match &scenario.kind {
            Kind::Stream(plan) => {
                (plan.capacity, plan.producer.highest().max(plan.consumer.highest()))
            }
            Kind::Share(plan) => (plan.capacity, plan.consumer.highest() * 2.0),
            Kind::Bridge(plan) => (plan.limits.max_buffer_size, plan.clickhouse.highest()),
        };
        Self { duration: scenario.duration, capacity, rate: rate.max(1.0) }
    }
}

pub(super) struct Bars {
    all: MultiProgress,
    scale: Scale,
    /// Held, or it would go from the screen.
    title: ProgressBar,
    time: ProgressBar,
    depth: ProgressBar,
    limit: ProgressBar,
    throughput: ProgressBar,
    dropped: ProgressBar,
    waiting: ProgressBar,
}

impl Bars {
    fn new(scenario: &Scenario) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let title = all.add(ProgressBar::new(1));
        title.set_style(template("{prefix:.bold}  {msg}"));
        title.set_prefix(scenario.name.clone());
        title.set_message(scenario.about.clone());
        let bar = |name: &'static str, color: &str| {
            let bar = all.add(ProgressBar::new(1_000));
            let style =
                template(&format!("  {{prefix:<12}} {{bar:34.{color}/black.bright}} {{msg}}"));
            bar.set_style(style.progress_chars("━╸─"));
            bar.set_prefix(name);
            bar
        };
        Self {
            time: bar("time", "white"),
            depth: bar("queue depth", "cyan"),
            limit: bar("rate limit", "magenta"),
            throughput: bar("throughput", "green"),
            dropped: bar("dropped", "red"),
            waiting: bar("at source", "yellow"),
            scale: Scale::of(scenario),
            title,
            all,
        }
    }

    fn update(&self, point: &Point) {
        let Scale { duration, capacity, rate } = &self.scale;
        let set = |bar: &ProgressBar, value: f64, of: f64, text: String| {
            bar.set_position(parts(value / of.max(1e-9)));
            bar.set_message(text);
        };
        let seconds = duration.as_secs_f64();
        let paused = if point.paused { ", paused" } else { "" };
        self.title.tick();
        let text = format!("{:.0} of {seconds:.0} s{paused}", point.seconds);
        set(&self.time, point.seconds, seconds, text);
        let text = format!("{} of {}", thousands(point.depth), thousands(*capacity));
        set(&self.depth, float(point.depth), float(*capacity as u64), text);
        let limit: f64 = point.rate_limits.iter().sum();
        set(&self.limit, limit, *rate, limits(point));
        set(&self.throughput, point.throughput, *rate, format!("{:.0}/s", point.throughput));
        let came = float(point.came);
        let text = format!("{} of {} that came", thousands(point.dropped), thousands(point.came));
        set(&self.dropped, float(point.dropped), came, text);
        let text = format!("{} wait", thousands(point.waiting));
        set(&self.waiting, float(point.waiting), came, text);
    }
}

impl Drop for Bars {
    /// The next run begins where this one began; what came of both is printed at the end.
    fn drop(&mut self) {
        // nobody is left to tell that the terminal is gone
        drop(self.all.clear());
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("the template is right")
}

fn limits(point: &Point) -> String {
    let limits = point.rate_limits.iter().map(|limit| format!("{limit:.0}/s"));
    let text = limits.collect::<Vec<_>>().join(" + ");
    if text.is_empty() { "none".to_owned() } else { text }
}

fn in_words(point: &Point, scale: &Scale) -> String {
    format!(
        "{:>6.0} s  depth {}/{}  limit {}  throughput {:.0}/s  dropped {}  at source {}{}",
        point.seconds,
        thousands(point.depth),
        thousands(scale.capacity),
        limits(point),
        point.throughput,
        thousands(point.dropped),
        thousands(point.waiting),
        if point.paused { "  paused" } else { "" }
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a bar that is over full is full"
)]
fn parts(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * PARTS) as u64
}

fn float(count: u64) -> f64 {
    crate::status::float(count)
}

fn line(text: &str) {
    // the sums at the end are an error where nothing can be said
    drop(crate::cli::print(&format!("{text}\n")));
}
