//! The rules: what a snapshot, and what is remembered of those before, has to be told of. They say
//! what is so now; when it fires is for the board. Pure.
//!
//! Each is the rule of the same id in deploy/prometheus/alerts.yml, with the thresholds of `[alerts]`.

use std::time::Duration;

use tokio::time::Instant;

use super::AlertId;
use super::history::{History, LATELY, Of, lags};
use super::trend::Trend;
use crate::config::Alerts;
use crate::status::{BreakerState, RunStage, Snapshot, float};
use crate::thousands::{counted, thousands};

/// So much of the time before has to be known before anything is called normal.
const ENOUGH_FOR_NORMAL: Duration = Duration::from_secs(30 * 60);

/// Something is so now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) id: AlertId,
    pub(super) of: Option<String>,
    pub(super) summary: String,
    /// For how long, if it is known; else it counts from the first look that found it.
    pub(super) held_for: Option<Duration>,
}

/// What is found at a look.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    /// What is not among them is not so. A bridge that goes away looks at little.
    pub(super) is_all: bool,
}

pub(super) fn look(
    settings: &Alerts,
    snapshot: &Snapshot,
    history: &History,
    now: Instant,
) -> Found {
    let mut look = Look { settings, snapshot, history, now, found: Vec::new() };
    match snapshot.stage {
        // Nothing runs but the wait for ClickHouse.
        RunStage::Starting => look.needs_person(),
        RunStage::Running => look.everything(),
        RunStage::Draining | RunStage::Stopped => {
            look.wedged();
            look.source_ended();
        }
    }
    look.found.retain(|finding| !settings.off.contains(&finding.id));
    let is_all = matches!(snapshot.stage, RunStage::Starting | RunStage::Running);
    Found { findings: look.found, is_all }
}

struct Look<'a> {
    settings: &'a Alerts,
    snapshot: &'a Snapshot,
    history: &'a History,
    now: Instant,
    found: Vec<Finding>,
}

impl Look<'_> {
    fn everything(&mut self) {
        self.wedged();
        self.needs_person();
        self.paused();
        self.pausing_often();
        self.buffer_high();
        self.full_soon();
        self.breaker_open();
        self.server_away();
        self.routes();
        self.dropped_by_clients();
        self.subscriber_drops();
        self.source_disconnected();
        self.lag_growing();
        self.uncommitted_growing();
        self.input();
        self.silent();
        self.clock_skew();
        self.accounting_gap();
    }

    fn find(&mut self, id: AlertId, summary: String) {
        self.found.push(Finding { id, of: None, summary, held_for: None });
    }

    /// One of several.
    fn find_of(&mut self, id: AlertId, of: String, text: &str) {
        let summary = format!("{of}: {text}");
        self.found.push(Finding { id, of: Some(of), summary, held_for: None });
    }

    fn wedged(&mut self) {
        if let Some(why) = self.snapshot.wedged(self.now) {
            self.find(AlertId::Wedged, format!("the pipeline turns no more: {why}"));
        }
    }

    fn needs_person(&mut self) {
        if let Some((first, others)) = self.snapshot.needs_person.split_first() {
            let more = if others.is_empty() { String::new() } else { more(others.len()) };
            self.find(AlertId::NeedsPerson, format!("{first}{more}"));
        }
    }

    /// The sentences are what people grep and page on: they do not change.
    fn paused(&mut self) {
        let level = &self.snapshot.backpressure;
        if !level.active {
            return;
        }
        // The snapshot is as old as its turn: the pause went on since.
        let since_turn = self.snapshot.turned_at.map_or(Duration::ZERO, |at| self.now - at);
        let paused_for = Duration::from_secs_f64(level.paused_seconds) + since_turn;
        // Cut, not rounded: "active for 5.0 minutes" is true of everything from 5:00 to 5:05, and
        // the look comes up to one heartbeat after the threshold.
        let tenths = paused_for.as_secs() / 6;
        let warning = format!("Backpressure active for {}.{} minutes", tenths / 10, tenths % 10);
        let critical = format!("{warning}! ClickHouse write bottleneck detected");
        for (id, summary) in [(AlertId::Paused, warning), (AlertId::PausedLong, critical)] {
            let held_for = Some(paused_for);
            self.found.push(Finding { id, of: None, summary, held_for });
        }
    }

    fn pausing_often(&mut self) {
        let pauses = self.history.growth(Of::Pauses, "");
        if pauses > signed(self.settings.pauses) {
            self.find(AlertId::PausingOften, format!("{pauses} pauses in 15 minutes"));
        }
    }

    fn buffer_high(&mut self) {
        let level = &self.snapshot.backpressure;
        let records = share(level.current_buffer, level.max_buffer_size);
        let bytes = share(level.current_bytes, level.max_buffer_bytes);
        if records.max(bytes) > f64::from(self.settings.buffer_percent) {
            let of = if records >= bytes { "its records" } else { "its bytes" };
            let percent = records.max(bytes);
            self.find(AlertId::BufferHigh, format!("the buffer is {percent:.0} % full, by {of}"));
        }
    }

    fn full_soon(&mut self) {
        let within = self.settings.full_within.as_secs_f64();
        if let Some(seconds) = self.snapshot.forecast.full_in_seconds.filter(|s| *s < within) {
            self.find(AlertId::FullSoon, format!("the buffer is full in {seconds:.0} s"));
        }
    }

    fn breaker_open(&mut self) {
        let breaker = &self.snapshot.breaker;
        if breaker.state != BreakerState::Closed {
            let why = breaker.reason.as_deref().unwrap_or("its inserts fail");
            let text = format!("ClickHouse fails as a whole and is left alone: {why}");
            self.find(AlertId::BreakerOpen, text);
        }
    }

    fn server_away(&mut self) {
        for endpoint in self.snapshot.endpoints.iter().filter(|endpoint| !endpoint.healthy) {
            let why = endpoint.reason.as_deref().unwrap_or("it does not answer");
            let text = format!("this ClickHouse server is away: {why}");
            self.find_of(AlertId::ServerAway, format!("server {}", endpoint.url), &text);
        }
    }

    fn routes(&mut self) {
        for (name, route) in &self.snapshot.routes {
            let of = || format!("route {name}");
            if route.held_back {
                let why = route.state.reason().unwrap_or("its inserts fail");
                let text = format!("its table is broken, and its records wait: {why}");
                self.find_of(AlertId::RouteHeldBack, of(), &text);
            }
            let letters = self.history.growth(Of::DeadLetters, name);
            if letters > signed(self.settings.dead_letters) {
                let letters = counted(letters.unsigned_abs(), "dead letter");
                let text = format!("{letters} in 5 minutes");
                self.find_of(AlertId::DeadLetters, of(), &text);
            }
            self.dropped(Of::Dropped, name, of());
            let covers = route.window.and_then(|window| window.covers_seconds);
            if let Some(seconds) = covers.filter(|s| *s < self.settings.window.as_secs_f64()) {
                let text = format!("exactly once covers an outage of {seconds:.0} s only");
                self.find_of(AlertId::WindowRunningOut, of(), &text);
            }
        }
    }

    /// What the client of a source dropped is in no route.
    fn dropped_by_clients(&mut self) {
        for name in self.snapshot.sources.keys() {
            self.dropped(Of::DroppedByClient, name, format!("source {name}"));
        }
    }

    fn dropped(&mut self, records: Of, name: &str, of: String) {
        let dropped = self.history.growth(records, name);
        if dropped > signed(self.settings.drops) {
            let dropped = counted(dropped.unsigned_abs(), "record");
            self.find_of(AlertId::RecordsDropped, of, &format!("{dropped} lost in 5 minutes"));
        }
    }

    fn subscriber_drops(&mut self) {
        let drops = self.history.growth(Of::SubscriberDrops, "");
        if drops > signed(self.settings.subscriber_drops) {
            let text = "messages of the live feed lost by slow subscribers in a minute";
            self.find(AlertId::SubscriberDrops, format!("{} {text}", thousands(drops)));
        }
    }

    fn source_disconnected(&mut self) {
        for (name, source) in self.snapshot.sources.iter().filter(|(_, s)| !s.connected) {
            let why = source.error.as_deref().unwrap_or("no connection yet");
            let text = format!("not connected: {why}");
            self.find_of(AlertId::SourceDisconnected, format!("source {name}"), &text);
        }
    }

    fn source_ended(&mut self) {
        if let Some(name) = self.snapshot.source_ended {
            let text = "it ended by itself, and the bridge with it";
            self.find_of(AlertId::SourceEnded, format!("source {name}"), text);
        }
    }

    /// A backlog that is being caught up shrinks.
    fn lag_growing(&mut self) {
        for (topic, lag) in lags(self.snapshot) {
            if lag > self.settings.lag && self.history.growth(Of::Lag, topic) > 0 {
                let text = format!("{} records wait, and they become more", thousands(lag));
                self.find_of(AlertId::LagGrowing, format!("topic {topic}"), &text);
            }
        }
    }

    fn uncommitted_growing(&mut self) {
        let cap = self.snapshot.backpressure.max_buffer_size;
        for (name, source) in &self.snapshot.sources {
            let count = source.uncommitted;
            let grows = self.history.growth(Of::Uncommitted, name) > 0;
            if grows && usize::try_from(count).is_ok_and(|count| count > cap) {
                let text = format!("{} records would come again after a crash", thousands(count));
                self.find_of(AlertId::UncommittedGrowing, format!("source {name}"), &text);
            }
        }
    }

    /// How much comes: of what is normal, of what goes out, and of what is expected.
    fn input(&mut self) {
        let settings = self.settings;
        let Some(input) = self.lately(Of::Input) else { return };
        if let Some(normal) = self.normal()
            && normal > 0.0
            && input > normal * f64::from(settings.surge_percent) / 100.0
        {
            let text = format!("{} come, and {} are normal", per_second(input), rate(normal));
            self.find(AlertId::InputSurge, text);
        }
        if let Some(output) = self.lately(Of::Output)
            && input > output * f64::from(settings.input_over_output_percent) / 100.0
        {
            let text = format!("{} come, and {} go out", per_second(input), rate(output));
            self.find(AlertId::InputOverOutput, text);
        }
        if let Some(least) = settings.min_input.filter(|least| input < float(*least)) {
            let text = format!("{} come, at least {least} are expected", per_second(input));
            self.find(AlertId::InputLow, text);
        }
    }

    /// A second, over the last minutes; None before so many have passed.
    fn lately(&self, of: Of) -> Option<f64> {
        let trend = self.history.trend(of, "").filter(|trend| trend.covers() >= LATELY)?;
        Some(float(trend.growth().unsigned_abs()) / trend.covers().as_secs_f64())
    }

    /// Records a second in the hour before.
    fn normal(&self) -> Option<f64> {
        let lately = self.history.trend(Of::Input, "")?;
        let whole = self.history.trend(Of::InputBefore, "")?;
        let known = whole.covers().saturating_sub(lately.covers());
        let records = whole.growth() - lately.growth();
        (known >= ENOUGH_FOR_NORMAL).then(|| float(records.unsigned_abs()) / known.as_secs_f64())
    }

    /// While nothing is taken the silence does not grow, and one that was told of goes on.
    fn silent(&mut self) {
        for (name, longest) in &self.settings.silent {
            let still = self.history.trend(Of::Received, name).map(Trend::still_for);
            if let Some(still) = still.filter(|still| still > longest) {
                let text = format!("nothing came for {} minutes", still.as_secs() / 60);
                self.find_of(AlertId::Silent, format!("route {name}"), &text);
            }
        }
    }

    fn clock_skew(&mut self) {
        let ahead = self.snapshot.record_ahead_seconds;
        if ahead > self.settings.clock_ahead.as_secs_f64() {
            let text = format!("a record came from {ahead:.0} s in the future, by this clock");
            self.find(AlertId::ClockSkew, text);
        }
    }

    fn accounting_gap(&mut self) {
        for gap in self.snapshot.gaps() {
            let text = format!("the books do not close, by {} records: a bug", gap.records);
            self.find_of(AlertId::AccountingGap, gap.of, &text);
        }
    }
}

fn per_second(records: f64) -> String {
    format!("{} records a second", rate(records))
}

/// Little is not nothing.
fn rate(records: f64) -> String {
    let digits = if records > 0.0 && records < 10.0 { 2 } else { 0 };
    format!("{records:.digits$}")
}

fn more(others: usize) -> String {
    format!(" (and {others} more, see needs_person in /health)")
}

/// In percent; of nothing, nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { float(part as u64) * 100.0 / float(whole as u64) }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
