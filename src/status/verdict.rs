//! The bridge in a word and a sentence: what is wrong, why, what to do. For whoever opens the page
//! at night; the most urgent thing comes first, and only that. Pure.

use serde::Serialize;
use tokio::time::Instant;

use super::{BreakerState, Condition, RunStage, Snapshot};
use crate::thousands::thousands;

/// What to say first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub condition: Condition,
    pub word: &'static str,
    pub why: String,
    /// What to do; None when nothing is to be done.
    pub remedy: Option<String>,
    /// The entry of the runbook.
    pub runbook: Option<&'static str>,
}

impl Snapshot {
    /// The most urgent thing that there is to say.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let spoken = match self.stage {
            RunStage::Starting => self.starts(),
            RunStage::Draining | RunStage::Stopped => self.drains(),
            RunStage::Running => None
                .or_else(|| self.is_stuck(now))
                .or_else(|| self.calls_for_a_person())
                .or_else(|| self.has_no_clickhouse())
                .or_else(|| self.is_paused())
                .or_else(|| self.misses_a_server())
                .or_else(|| self.misses_a_source())
                .or_else(|| self.tries_again())
                .unwrap_or_else(|| self.works()),
        };
        Verdict { condition: self.condition(now), ..spoken }
    }

    fn starts(&self) -> Verdict {
        match self.needs_person.first() {
            None => calm("Starting", "It connects and reads the tables.".to_owned()),
            Some(what) => trouble(
                "Starting",
                sentence(what),
                "It tries again by itself, and takes nothing from the sources before. Is the server \
                 up, and clickhouse.url right?",
                "server_away",
            ),
        }
    }

    fn drains(&self) -> Verdict {
        let held = thousands(self.backpressure.current_buffer);
        if let Some(name) = self.source_ended {
            let why = format!(
                "The source {name} ended by itself, and without it the bridge would do nothing: \
                 {held} records are still on their way into ClickHouse, then it ends with code 1."
            );
            let remedy = "Keep its log and report it: it is a bug. Whatever runs the bridge starts \
                          it again; see that it does.";
            return trouble("Draining", why, remedy, "source_ended");
        }
        Verdict {
            remedy: Some(
                "Nothing: it ends by itself. A second signal would stop it at once.".to_owned(),
            ),
            ..calm(
                "Draining",
                format!(
                    "It was told to stop: {held} records are still on their way into ClickHouse, and nothing new is taken."
                ),
            )
        }
    }

    fn is_stuck(&self, now: Instant) -> Option<Verdict> {
        let remedy = "Keep the log and restart it; then report it: this is a bug of data-bridge.";
        Some(trouble("Stuck", sentence(&self.wedged(now)?), remedy, "wedged"))
    }

    fn calls_for_a_person(&self) -> Option<Verdict> {
        let first = self.needs_person.first()?;
        let why = match self.needs_person.len() - 1 {
            0 => sentence(first),
            more => format!("{} And {more} more, below.", sentence(first)),
        };
        let remedy = "Do what the sentence says; unless it says so, no restart is needed: it tries again by \
                      itself.";
        Some(trouble("Needs a person", why, remedy, "needs_person"))
    }

    fn has_no_clickhouse(&self) -> Option<Verdict> {
        if self.breaker.state == BreakerState::Closed {
            return None;
        }
        let (failures, held) = (self.breaker.failures, thousands(self.backpressure.current_buffer));
        let reason = self.breaker.reason.as_deref().unwrap_or("no answer");
        let others = match self.sources.get("nats").map(|nats| nats.paused) {
            None => String::new(),
            Some(true) => " Core NATS loses what comes, counted.".to_owned(),
            Some(false) => {
                let pause = thousands(self.backpressure.pause_threshold);
                format!(" Core NATS is taken up to {pause}.")
            }
        };
        let why = format!(
            "{} {held} records are held; Kafka and JetStream wait.{others}",
            ended(&format!("{failures} inserts in a row failed: {reason}"))
        );
        let remedy = "Bring ClickHouse back. One insert is tried now and then; when it lands, \
                      everything goes on by itself.";
        Some(trouble("ClickHouse unavailable", why, remedy, "breaker_open"))
    }

    fn is_paused(&self) -> Option<Verdict> {
        let level = &self.backpressure;
        if !level.active {
            return None;
        }
        let resume = thousands(level.resume_threshold);
        let held = thousands(level.current_buffer);
        let cap = thousands(level.max_buffer_size);
        let why = if level.causes == ["starved"] {
            format!("Nothing was stored for a whole heartbeat; {held} records are held.")
        } else {
            format!("More came than ClickHouse took: {held} of at most {cap} records are held.")
        };
        let loses = self.sources.get("nats").is_some_and(|nats| nats.paused);
        let lost = if loses { " Until then core NATS loses what comes, counted." } else { "" };
        let remedy = format!(
            "See what slows ClickHouse: parts, merges, memory, other queries. It resumes by itself \
             below {resume}.{lost}"
        );
        let runbook = if level.critical { "paused_long" } else { "paused" };
        Some(trouble("Paused", why, remedy, runbook))
    }

    fn misses_a_server(&self) -> Option<Verdict> {
        let away = self.endpoints.iter().find(|endpoint| !endpoint.healthy)?;
        let reason = away.reason.as_deref().unwrap_or("no answer");
        let why = ended(&format!("{}: {reason}", away.url));
        let remedy = "Bring it back; meanwhile the others are used, and it is asked now and then.";
        let remedy = if self.endpoints.len() > 1 {
            remedy
        } else {
            "Bring it back; it is asked now and then, and goes on by itself."
        };
        Some(trouble("ClickHouse server away", why, remedy, "server_away"))
    }

    fn misses_a_source(&self) -> Option<Verdict> {
        let (name, source) = self.sources.iter().find(|(_, source)| !source.connected)?;
        let error = source.error.as_deref().unwrap_or("it has not answered yet");
        let why = ended(&format!("{name}: {error}"));
        let remedy = "Bring the server back, or mend what it refuses. It connects again by itself.";
        Some(trouble("Source away", why, remedy, "source_disconnected"))
    }

    fn tries_again(&self) -> Option<Verdict> {
        let (name, route) = self.routes.iter().find(|(_, route)| !route.state.is_well())?;
        let why = match route.state.reason() {
            Some(reason) => sentence(&format!("route {name}: {reason}")),
            None => format!("Route {name} waits for its table."),
        };
        let remedy = "Nothing yet: it tries again by itself, and what it holds is kept.";
        let runbook = route.held_back.then_some("route_held_back");
        let remedy = Some(remedy.to_owned());
        Some(Verdict { remedy, runbook, ..calm("Retrying", why) })
    }

    fn works(&self) -> Verdict {
        if self.received() > 0 {
            let held = thousands(self.backpressure.current_buffer);
            let why = format!("What comes goes into ClickHouse; {held} records are on their way.");
            return calm("Healthy", why);
        }
        let names: Vec<&str> = self.sources.keys().map(String::as_str).collect();
        let why = match names.as_slice() {
            [] => "No source is configured.".to_owned(),
            names => format!("Connected to {}; no record has come yet.", names.join(" and ")),
        };
        let remedy =
            "If some should have: `data-bridge check` compares topics, subjects and tables.";
        Verdict { remedy: Some(remedy.to_owned()), ..calm("Waiting", why) }
    }
}

fn calm(word: &'static str, why: String) -> Verdict {
    Verdict { word, why, ..Verdict::default() }
}

fn trouble(
    word: &'static str,
    why: String,
    remedy: impl Into<String>,
    runbook: &'static str,
) -> Verdict {
    Verdict { remedy: Some(remedy.into()), runbook: Some(runbook), ..calm(word, why) }
}

/// With a capital and a full stop: these texts are parts of log lines elsewhere.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    ended(&format!("{first}{}", rest.as_str()))
}

/// With a full stop, and not with two.
fn ended(text: &str) -> String {
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{text}{end}")
}

#[cfg(test)]
mod tests;
