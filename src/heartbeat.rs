//! The heartbeat line: what the bridge is doing, once an interval, in one line for a person on
//! call. Pure; the pipeline logs it.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::{BreakerState, Condition, Rates, Snapshot};
use crate::thousands::thousands;

/// One line, and whether it is worth reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub condition: Condition,
    pub rates: Rates,
    pub current_buffer: usize,
    /// Something moved, is held, or is not as it should be. An idle, healthy bridge says nothing
    /// above DEBUG: a log full of "nothing happened" hides what happened.
    pub moved: bool,
    pub text: String,
}

impl Line {
    /// Logs it: at INFO when something moved, else at DEBUG.
    pub fn log(&self) {
        let status = self.condition.as_str();
        let input = self.rates.input_records_per_second.round();
        let output = self.rates.output_records_per_second.round();
        let current_buffer = self.current_buffer;
        // The text says it all to a person; the fields are for those who filter JSON logs.
        if self.moved {
            tracing::info!(
                event = "heartbeat",
                status,
                current_buffer,
                input,
                output,
                "{}",
                self.text
            );
        } else {
            tracing::debug!(status, current_buffer, input, output, "{}", self.text);
        }
    }
}

/// The line for the interval from `previous` (None: the first) to `current`.
#[must_use]
pub fn line(current: &Snapshot, previous: Option<&Snapshot>, interval: Duration) -> Line {
    let zero = Snapshot::default();
    let previous = previous.unwrap_or(&zero);
    let rates = Rates::between(previous, current, interval);
    // The snapshot was made by the loop that asks: it is as fresh as can be.
    let condition = current.condition(current.turned_at.unwrap_or_else(Instant::now));
    let held = current.backpressure.current_buffer;
    let moved = condition != Condition::Healthy
        || held > 0
        || current.received() != previous.received()
        || current.inserted() != previous.inserted()
        || current.dropped() != previous.dropped()
        || current.dead_letters.written != previous.dead_letters.written;
    let text = text(current, previous, condition, rates);
    Line { condition, rates, current_buffer: held, moved, text }
}

fn text(current: &Snapshot, previous: &Snapshot, condition: Condition, rates: Rates) -> String {
    let backpressure = &current.backpressure;
    let mut text = format!(
        "{}: in {}/s, out {}/s, held {}/{}",
        condition.as_str(),
        whole(rates.input_records_per_second),
        whole(rates.output_records_per_second),
        thousands(backpressure.current_buffer),
        thousands(backpressure.max_buffer_size),
    );
    let held: Vec<String> = current
        .writers
        .iter()
        .filter(|(_, writer)| writer.buffered + writer.in_flight > 0)
        .map(|(name, w)| format!("{name} {}+{}", thousands(w.buffered), thousands(w.in_flight)))
        .collect();
    if !held.is_empty() {
        push(&mut text, format_args!(" ({})", held.join(", ")));
    }
    if backpressure.active {
        let causes = backpressure.causes.join("+");
        let seconds = whole(backpressure.paused_seconds);
        push(&mut text, format_args!(", paused {seconds} s by {causes}"));
    }
    overload(&mut text, current, previous);
    if current.breaker.state != BreakerState::Closed {
        push(&mut text, format_args!(", breaker {}", current.breaker.state.name()));
    }
    for (name, source) in &current.sources {
        if !source.connected {
            push(&mut text, format_args!(", {name} not connected"));
        }
        if let Some(lag) = source.lag.filter(|lag| *lag > 0) {
            push(&mut text, format_args!(", {name} lag {}", thousands(lag)));
        }
    }
    let grown = [
        ("dropped", current.dropped(), previous.dropped()),
        ("dead letters", current.dead_letters.written, previous.dead_letters.written),
        ("failed inserts", failed_inserts(current), failed_inserts(previous)),
    ];
    for (what, now, before) in grown {
        if now > before {
            push(&mut text, format_args!(", {what} +{}", thousands(now - before)));
        }
    }
    for (name, route) in &current.routes {
        if !route.state.is_well() {
            push(&mut text, format_args!(", route {name} {}", route.state.name()));
        }
    }
    text
}

/// The tier in force, and who was lost in which since the last line.
fn overload(text: &mut String, current: &Snapshot, previous: &Snapshot) {
    if let Some(tier) = current.overload.highest() {
        push(text, format_args!(", overload above {} %", tier.at_percent));
    }
    for (index, tier) in current.overload.tiers.iter().enumerate() {
        let before = previous.overload.tiers.get(index);
        for (class, lost) in &tier.lost {
            let before = before.and_then(|tier| tier.lost.get(class)).copied().unwrap_or_default();
            let more = lost.all().saturating_sub(before.all());
            if more > 0 {
                let (at, more) = (tier.at_percent, thousands(more));
                push(text, format_args!(", {class} lost above {at} % +{more}"));
            }
        }
    }
}

fn failed_inserts(snapshot: &Snapshot) -> u64 {
    snapshot.writers.values().map(|w| w.failed_inserts).sum()
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a String cannot fail");
}

fn whole(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a rate or a duration is far below 2^63")]
    let whole = number.round() as i64;
    thousands(whole)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::overload::Losses;
    use crate::status::{RunStage, SourceStatus, TierStatus, WriterStatus};

    fn running() -> Snapshot {
        let source = SourceStatus { connected: true, ..SourceStatus::default() };
        let mut snapshot = Snapshot {
            stage: RunStage::Running,
            turned_at: Some(Instant::now()),
            sources: BTreeMap::from([("kafka".to_owned(), source)]),
            writers: BTreeMap::from([("aggregate".to_owned(), WriterStatus::default())]),
            ..Snapshot::default()
        };
        snapshot.backpressure.max_buffer_size = 50_000;
        snapshot
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_bridge_has_nothing_to_say() {
        let snapshot = running();
        let line = line(&snapshot, Some(&snapshot), Duration::from_secs(5));
        assert!(!line.moved);
        assert_eq!(line.text, "healthy: in 0/s, out 0/s, held 0/50,000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_interval_is_one_compact_line() {
        let before = running();
        let mut now = before.clone();
        let kafka = now.sources.get_mut("kafka").unwrap();
        kafka.received = 25_060;
        kafka.lag = Some(1_234);
        kafka.dropped.entry("market".to_owned()).or_default().insert("paused", 7);
        let writer = now.writers.get_mut("aggregate").unwrap();
        *writer = WriterStatus { buffered: 700, in_flight: 10_112, inserted: 24_000, ..*writer };
        now.backpressure.current_buffer = 10_812;
        now.backpressure.active = true;
        now.backpressure.causes = vec!["level"];
        now.backpressure.paused_seconds = 12.4;
        now.dead_letters.written = 3;
        let line = line(&now, Some(&before), Duration::from_secs(5));
        assert!(line.moved);
        assert_eq!(
            line.text,
            "degraded: in 5,012/s, out 4,800/s, held 10,812/50,000 (aggregate 700+10,112), \
             paused 12 s by level, kafka lag 1,234, dropped +7, dead letters +3"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_tier_in_force_and_whom_each_has_cost_since_are_said() {
        let tier = |at_percent, sampled| TierStatus {
            at_percent,
            in_force: true,
            lost: BTreeMap::from([("market".to_owned(), Losses { sampled, ..Losses::default() })]),
            ..TierStatus::default()
        };
        let mut before = running();
        before.overload.tiers = vec![tier(50, 1_000), tier(70, 0)];
        let mut now = running();
        now.overload.tiers = vec![tier(50, 1_000), tier(70, 2_345)];
        let line = line(&now, Some(&before), Duration::from_secs(5));
        let said = ", overload above 70 %, market lost above 70 % +2,345";
        assert!(line.text.ends_with(said), "{}", line.text);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_as_it_should_be_is_said_even_when_nothing_moves() {
        let mut snapshot = running();
        snapshot.sources.get_mut("kafka").unwrap().connected = false;
        let line = line(&snapshot, Some(&snapshot), Duration::from_secs(5));
        assert!(line.moved);
        assert!(line.text.ends_with("kafka not connected"), "{}", line.text);
    }
}
