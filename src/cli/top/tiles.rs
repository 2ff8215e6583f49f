//! The few numbers that are looked at first. Pure.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::known::Known;
use super::lines::{Tone, count, duration, millis, per_second};
use super::theme::Theme;
use super::told::{Health, Now, Source, Writer};
use crate::status::float;

/// `!!dead letters   1,234` and air.
const WIDTH: usize = 26;
const NAME: usize = 13;
/// More in a row are not found.
const MOST_ACROSS: usize = 6;
/// Soon enough to hurry.
const SOON_SECONDS: f64 = 300.0;

/// As many in a row as there is room for.
pub(super) fn lines(known: &Known, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let Some(now) = &known.now else { return Vec::new() };
    let across = (usize::from(width) / WIDTH).clamp(1, MOST_ACROSS);
    let lines = tiles(known, now);
    let lines = lines.chunks(across).map(|row| {
        let spans = row.iter().flat_map(|(name, value, tone)| {
            let name = format!("{}{name:<NAME$}", tone.mark());
            let room = WIDTH - tone.mark().len() - NAME;
            let style = theme.of(*tone).add_modifier(Modifier::BOLD);
            [Span::styled(name, theme.soft), Span::styled(format!("{value:<room$}"), style)]
        });
        Line::from(spans.collect::<Vec<_>>())
    });
    lines.collect()
}

type Tile = (&'static str, String, Tone);

fn tiles(known: &Known, now: &Now) -> Vec<Tile> {
    let metrics = &now.health.metrics;
    let level = &metrics.backpressure;
    let sources = |value: fn(&Source) -> u64| {
        move |health: &Health| Some(float(health.metrics.sources.values().map(value).sum()))
    };
    let writers = |value: fn(&Writer) -> f64| {
        move |health: &Health| Some(health.metrics.writers.values().map(value).sum())
    };
    let takes = known.insert_takes(writers(|w| float(w.inserts)), writers(|w| w.insert_seconds));
    let well = |name, value| (name, value, Tone::Well);
    let look = |name, value, if_so| (name, value, if if_so { Tone::Look } else { Tone::Well });
    let percent = format!("{} ({:.0} %)", count(level.current_buffer), level.utilization * 100.0);
    let closed = metrics.breaker.state == "closed";
    let breaker = if closed { "closed" } else { "open" };
    let uncommitted: u64 = metrics.sources.values().map(|source| source.uncommitted).sum();
    vec![
        look("held", percent, level.active),
        well("in", per_second(known.rate(sources(|source| source.received)))),
        well("out", per_second(known.rate(writers(|writer| float(writer.inserted))))),
        outlook(&now.health),
        well("lag", count(now.sample.lag.and_then(|lag| u64::try_from(lag).ok()))),
        well("an insert", millis(takes)),
        look("dead letters", count(metrics.dead_letters), metrics.dead_letters > 0),
        look("dropped", count(metrics.dropped), metrics.dropped > 0),
        ("breaker", breaker.to_owned(), if closed { Tone::Well } else { Tone::Bad }),
        well("pauses", count(level.pause_count)),
        well("in pauses", duration(level.paused_seconds_total)),
        well("uncommitted", count(uncommitted)),
    ]
}

fn outlook(health: &Health) -> Tile {
    let forecast = &health.metrics.forecast;
    match (forecast.full_in_seconds, forecast.drained_in_seconds) {
        (Some(full), _) => {
            let tone = if full < SOON_SECONDS { Tone::Look } else { Tone::Well };
            ("full in", duration(full), tone)
        }
        (None, Some(drained)) => ("drained in", duration(drained), Tone::Well),
        (None, None) => ("full in", "never".to_owned(), Tone::Well),
    }
}
