//! How things look, for whoever's terminal it is.

use jiff::tz::TimeZone;
use ratatui::style::{Color, Style};

use super::lines::Tone;

/// How things look. No meaning is in a colour alone.
#[derive(Debug)]
pub(super) struct Theme {
    pub(super) title: Style,
    pub(super) soft: Style,
    pub(super) accent: Style,
    pub(super) good: Style,
    pub(super) warn: Style,
    pub(super) bad: Style,
    pub(super) chosen: Style,
    /// Of the clock on the wall here.
    pub(super) zone: TimeZone,
}

impl Theme {
    /// The colours of whoever's terminal it is.
    pub(super) fn colored(zone: TimeZone) -> Self {
        let color = |color| Style::new().fg(color);
        Self {
            title: Style::new().bold(),
            soft: color(Color::DarkGray),
            accent: color(Color::Cyan),
            good: color(Color::Green),
            warn: color(Color::Yellow),
            bad: color(Color::Red),
            chosen: Style::new().reversed(),
            zone,
        }
    }

    pub(super) fn plain(zone: TimeZone) -> Self {
        let (title, chosen) = (Style::new().bold(), Style::new().reversed());
        let none = Style::new();
        let (soft, accent, good, warn, bad) = (none, none, none, none, none);
        Self { title, soft, accent, good, warn, bad, chosen, zone }
    }

    /// As <https://no-color.org> says.
    pub(super) fn of_environment() -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let zone = TimeZone::system();
        if is_plain { Self::plain(zone) } else { Self::colored(zone) }
    }

    pub(super) fn of(&self, tone: Tone) -> Style {
        match tone {
            Tone::Well => Style::new(),
            Tone::Look => self.warn,
            Tone::Bad => self.bad,
        }
    }
}
