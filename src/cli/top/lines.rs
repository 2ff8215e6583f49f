//! Numbers and times as people read them, and texts as lines of a width. Pure.

use comfy_table::{Cell, ColumnConstraint};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::text::Line;

use super::theme::Theme;
use crate::cli::table::{self, shown};
use crate::thousands::thousands;

/// What is not known.
const NOTHING: &str = "-";

pub(super) fn count(value: impl Into<Option<u64>>) -> String {
    value.into().map_or_else(|| NOTHING.to_owned(), thousands)
}

pub(super) fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => NOTHING.to_owned(),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{}/s", thousands(whole(rate))),
    }
}

pub(super) fn millis(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds * 1_000.0) {
        None => NOTHING.to_owned(),
        Some(ms) if ms >= 1_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

/// In the two largest units that say something.
pub(super) fn duration(seconds: f64) -> String {
    let all = whole(seconds);
    let (days, hours, minutes) = (all / 86_400, all / 3_600, all / 60);
    match all {
        0..60 => format!("{all} s"),
        60..3_600 if all.is_multiple_of(60) => format!("{minutes} min"),
        60..3_600 => format!("{minutes} min {} s", all % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Of a count that was multiplied or divided.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and nothing that is shown is negative"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// By the clock on the wall here.
pub(super) fn time_of_day(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}

/// A code as words: `at_least_once`.
pub(super) fn words(code: &str) -> String {
    code.replace('_', " ")
}

/// In the log it is a part of a line.
pub(super) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", rest.as_str())
}

/// At blanks; what is longer than a line by itself is broken anywhere.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut letters: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is a first line");
            let used = line.chars().count();
            let blank = usize::from(used > 0);
            if used + blank + letters.len() <= width {
                line.extend(std::iter::repeat_n(' ', blank).chain(letters));
                break;
            }
            if used == 0 {
                line.extend(letters.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
}

/// The first lines; what is cut off is said.
pub(super) fn at_most(mut lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.pop();
            last.push('…');
        }
    }
    lines
}

/// How a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Well,
    Look,
    Bad,
}

impl Tone {
    /// Before what it is about, so that no colour is needed.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Well => "  ",
            Self::Look => "! ",
            Self::Bad => "!!",
        }
    }

    fn of(line: &str) -> Self {
        let all = [Self::Bad, Self::Look];
        all.into_iter().find(|tone| line.starts_with(tone.mark())).unwrap_or(Self::Well)
    }
}

/// A part of a page: a title, and a table under it, or why there is none.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    /// The columns of numbers; the others are words.
    pub(super) numbers: std::ops::Range<usize>,
    pub(super) header: &'static [&'static str],
    pub(super) rows: Vec<(Tone, Vec<String>)>,
    pub(super) none: &'static str,
}

impl Section {
    pub(super) fn lines(&self, width: u16, theme: &Theme) -> Vec<Line<'static>> {
        let mut title = vec![ratatui::text::Span::styled(self.title, theme.title)];
        if !self.note.is_empty() {
            title.push(ratatui::text::Span::styled(format!("  {}", self.note), theme.soft));
        }
        let mut lines = vec![Line::from(title)];
        if self.rows.is_empty() {
            lines.push(Line::styled(format!("  {}", self.none), theme.soft));
        } else {
            let text = self.table(width);
            let rows = text.lines().enumerate().map(|(index, line)| {
                let style = if index == 0 { theme.soft } else { theme.of(Tone::of(line)) };
                Line::styled(line.to_owned(), style)
            });
            lines.extend(rows);
        }
        lines.push(Line::default());
        lines
    }

    fn table(&self, width: u16) -> String {
        let mut table = table::table();
        table.set_width(width);
        let named = |first: &str, mark: &str| format!("{mark}{first}");
        let header = self.header.iter().enumerate().map(|(index, name)| {
            Cell::new(if index == 0 { named(name, Tone::Well.mark()) } else { (*name).to_owned() })
        });
        table.set_header(header);
        for (tone, cells) in &self.rows {
            let cells = cells.iter().enumerate().map(|(index, cell)| match index {
                0 => named(cell, tone.mark()),
                _ => cell.clone(),
            });
            table.add_row(cells);
        }
        table::numbers_to_the_right(&mut table, self.numbers.clone());
        if let Some(names) = table.column_mut(0) {
            names.set_constraint(ColumnConstraint::ContentWidth);
        }
        shown(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!([count(None), count(41_234)], ["-", "41,234"]);
        let rates = [None, Some(0.0), Some(2.345), Some(5_012.2)].map(per_second);
        assert_eq!(rates, ["-", "0/s", "2.3/s", "5,012/s"]);
        assert_eq!(
            [Some(0.0041), Some(0.0812), Some(2.5)].map(millis),
            ["4.1 ms", "81 ms", "2.5 s"]
        );
        let durations = [4.4, 60.0, 192.0, 7_380.0, 190_000.0].map(duration);
        assert_eq!(durations, ["4 s", "1 min", "3 min 12 s", "2 h 3 min", "2 d 4 h"]);
        assert_eq!(sentence("no answer"), "No answer.");
    }

    #[test]
    fn no_line_is_longer_than_there_is_room() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a abcdefghij", 4), ["a", "abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(at_most(wrapped("one two three", 5), 2), ["one", "tw…"]);
    }
}
