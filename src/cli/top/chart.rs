//! How full the bridge was: a column for each stretch of time, the thresholds across, pauses shaded.
//! Signs tell all of it; colours only repeat it. Pure.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

use super::lines::{count, duration};
use super::theme::Theme;
use super::told::Backpressure;
use crate::history::Sample;
use crate::record::UnixMs;
use crate::status::float;

/// Looks come once a second; what is farther apart is a gap.
const GAP_MS: UnixMs = 3_500;
/// The longest stretch, and the shortest: a chart of a few seconds would say nothing.
const WINDOW_MS: UnixMs = 600_000;
const LEAST_MS: UnixMs = 60_000;

/// An eighth of a row more with each.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// `resume 20,000 `
const MARGIN: u16 = 15;

pub(super) struct Chart<'a> {
    pub(super) samples: &'a BTreeMap<UnixMs, Sample>,
    pub(super) level: &'a Backpressure,
    /// The right edge, by the bridge's clock.
    pub(super) to: UnixMs,
    pub(super) theme: &'a Theme,
}

/// What is known of a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    /// Before anything was known.
    Before,
    /// It was not heard.
    Unheard,
    Level {
        held: usize,
        paused: bool,
    },
}

impl Widget for Chart<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        if area.height < 4 || area.width < MARGIN + 10 {
            return;
        }
        let plot = Rect {
            x: area.x + MARGIN,
            y: area.y + 1,
            width: area.width - MARGIN,
            height: area.height - 2,
        };
        let from = self.from();
        let columns = self.columns(from, plot.width);
        self.legend(area, buffer, &columns);
        let marks = self.marks(plot);
        for (row, name, at) in &marks {
            let label = format!("{name:<6}{:>8}", count(*at));
            buffer.set_string(area.x, *row, label, self.theme.soft);
        }
        let across: Vec<u16> =
            marks.iter().filter(|(.., at)| *at > 0).map(|(row, ..)| *row).collect();
        for (x, column) in (plot.x..).zip(columns) {
            for y in plot.top()..plot.bottom() {
                let (sign, style) = self.sign(column, plot.bottom() - 1 - y, plot.height);
                let is_free = matches!(sign, ' ' | '░') && across.contains(&y);
                let (sign, style) = if is_free { ('┄', self.theme.soft) } else { (sign, style) };
                buffer.set_string(x, y, sign.to_string(), style);
            }
        }
        let ago =
            format!("{} ago", duration(float(u64::try_from(self.to - from).unwrap_or(0)) / 1e3));
        buffer.set_string(plot.x, plot.bottom(), ago, self.theme.soft);
        buffer.set_string(plot.right() - 3, plot.bottom(), "now", self.theme.soft);
    }
}

impl Chart<'_> {
    /// What is not known yet takes no room.
    fn from(&self) -> UnixMs {
        let first = self.samples.first_key_value().map_or(self.to, |(at, _)| *at);
        (self.to - WINDOW_MS).max(first.min(self.to - LEAST_MS))
    }

    fn columns(&self, from: UnixMs, width: u16) -> Vec<Column> {
        let edge =
            |column: u16| from + (self.to - from) * UnixMs::from(column) / UnixMs::from(width);
        (0..width).map(|column| self.column(edge(column), edge(column + 1))).collect()
    }

    fn column(&self, from: UnixMs, to: UnixMs) -> Column {
        let within = || self.samples.range(from..to).map(|(_, sample)| sample);
        if let Some(held) = within().map(|sample| sample.held).max() {
            return Column::Level { held, paused: within().any(|sample| sample.paused) };
        }
        let before = self.samples.range(..from).next_back().map(|(_, sample)| sample);
        let after = self.samples.range(to..).next().map_or(to, |(at, _)| *at);
        match before {
            None => Column::Before,
            // a stretch may be shorter than the time between two looks
            Some(sample) if after - sample.at <= GAP_MS => {
                Column::Level { held: sample.held, paused: sample.paused }
            }
            Some(_) => Column::Unheard,
        }
    }

    /// A little air above the cap.
    fn top(&self) -> f64 {
        let most = self.samples.values().map(|sample| sample.held as u64).max().unwrap_or(0);
        float(most.max(self.level.max_buffer_size).max(1)) * 1.06
    }

    fn sign(&self, column: Column, row: u16, rows: u16) -> (char, Style) {
        let (held, paused) = match column {
            Column::Before => return (' ', Style::default()),
            Column::Unheard => return ('╱', self.theme.soft),
            Column::Level { held, paused } => (held, paused),
        };
        let eighths = float(held as u64) / self.top() * f64::from(rows) * 8.0;
        // a record that is held is seen
        let eighths = if held > 0 { eighths.max(1.0) } else { eighths };
        let full = EIGHTHS.len() - 1;
        let here = (eighths - f64::from(row) * 8.0).clamp(0.0, 8.0);
        let here = EIGHTHS.iter().enumerate().rposition(|(n, _)| float(n as u64) <= here);
        match here.unwrap_or(0) {
            0 if paused => ('░', self.theme.warn),
            0 => (' ', Style::default()),
            eighth if paused && eighth == full => ('▓', self.theme.warn),
            eighth => (EIGHTHS[eighth], if paused { self.theme.warn } else { self.theme.accent }),
        }
    }

    /// Where a threshold has its row, what it is called and how much it is; the first of two that
    /// meet counts.
    fn marks(&self, plot: Rect) -> Vec<(u16, &'static str, u64)> {
        let level = self.level;
        let all = [
            ("pause", level.pause_threshold),
            ("resume", level.resume_threshold),
            ("cap", level.max_buffer_size),
            ("", 0),
        ];
        let mut marks: Vec<(u16, &'static str, u64)> = Vec::new();
        for (name, at) in all {
            let share = float(at) / self.top();
            let above = (0..plot.height - 1)
                .rev()
                .find(|row| f64::from(*row) <= share * f64::from(plot.height))
                .unwrap_or(0);
            let row = plot.bottom() - 1 - above;
            if marks.iter().all(|(taken, ..)| *taken != row) {
                marks.push((row, name, at));
            }
        }
        marks
    }

    /// The title, and those signs that there are.
    fn legend(&self, area: Rect, buffer: &mut Buffer, columns: &[Column]) {
        buffer.set_string(area.x, area.y, "Records held", self.theme.title);
        let has = |wanted: fn(&Column) -> bool| columns.iter().any(wanted);
        let paused = has(|column| matches!(column, Column::Level { paused: true, .. }));
        let signs = [
            (true, "█ held"),
            (paused, "▓░ while paused"),
            (columns.contains(&Column::Unheard), "╱ not heard"),
        ];
        let signs: Vec<&str> =
            signs.into_iter().filter(|(is, _)| *is).map(|(_, sign)| sign).collect();
        buffer.set_string(area.x + MARGIN, area.y, signs.join("   "), self.theme.soft);
    }
}
