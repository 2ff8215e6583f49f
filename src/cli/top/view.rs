//! What is known of the bridge, drawn. Pure: the same scene gives the same picture.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget as _};
use tokio::time::Instant;

use super::chart::Chart;
use super::known::Known;
use super::lines::{Section, Tone, at_most, duration, sentence, time_of_day, wrapped};
use super::screen::{Page, Screen};
use super::theme::Theme;
use super::told::{Alert, Health, Now};
use super::{sections, tiles};
use crate::status::float;

/// Of text without a terminal.
const PLAIN_WIDTH: u16 = 100;
const PLAIN_CHART: u16 = 12;
/// Above and below the page.
const FRAME_ROWS: u16 = 3;
/// Rows of the chart where there is room for more, and where there is little.
const CHART_ROWS: std::ops::RangeInclusive<u16> = 6..=16;
/// Alerts of the overview; all of them have a page.
const ALERTS: usize = 3;
/// Lines of the reason, and of the advice, above the numbers.
const WHY_LINES: usize = 2;
const REMEDY_LINES: usize = 3;

/// All that a picture depends on.
pub(super) struct Scene<'a> {
    pub(super) known: &'a Known,
    pub(super) screen: &'a Screen,
    pub(super) theme: &'a Theme,
    pub(super) at: Instant,
}

/// Draws; gives for how many lines more the page goes on than there is room.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) -> usize {
    let known = scene.screen.held.as_deref().unwrap_or(scene.known);
    let rows =
        [Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)];
    let [top, tabs, page, keys] = Layout::vertical(rows).areas(frame.area());
    let view = View { known, theme: scene.theme, silent: scene.known.silent_for(scene.at) };
    frame.render_widget(view.top(scene, top.width), top);
    frame.render_widget(view.tabs(scene.screen), tabs);
    let soft = scene.theme.soft;
    frame.render_widget(
        Line::styled(" q quit  Tab page  ↑↓ scroll  p hold the picture  ? help", soft),
        keys,
    );
    if scene.screen.helps {
        frame.render_widget(Paragraph::new(help(page.width, scene.theme)), page);
        return 0;
    }
    match scene.screen.page {
        Page::Overview => {
            view.overview(page, frame.buffer_mut());
            0
        }
        other => {
            let lines = view.page(other, page.width);
            let reach = lines.len().saturating_sub(usize::from(page.height));
            let from = scene.screen.scrolled.min(reach);
            let seen: Vec<Line<'_>> = lines.into_iter().skip(from).collect();
            frame.render_widget(Paragraph::new(seen), page);
            reach
        }
    }
}

/// Everything, one under the other, for a script or a file.
pub(super) fn plain(known: &Known) -> String {
    let theme = Theme::plain(TimeZone::system());
    let view = View { known, theme: &theme, silent: None };
    let chart = Rect::new(0, 0, PLAIN_WIDTH, PLAIN_CHART);
    let mut drawn = Buffer::empty(chart);
    view.chart(chart, &mut drawn);
    let drawn = (0..PLAIN_CHART)
        .map(|y| (0..PLAIN_WIDTH).map(|x| drawn[(x, y)].symbol()).collect::<String>());
    let of_page = |page| view.page(page, PLAIN_WIDTH).into_iter().map(|line| line.to_string());
    let head = view.headline(PLAIN_WIDTH).into_iter().chain([Line::default()]);
    let head = head.chain(tiles::lines(known, &theme, PLAIN_WIDTH)).chain([Line::default()]);
    let lines = head
        .map(|line| line.to_string())
        .chain(drawn)
        .chain([String::new()])
        .chain(of_page(Page::Alerts))
        .chain(of_page(Page::Flow))
        .chain(of_page(Page::Losses));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

struct View<'a> {
    known: &'a Known,
    theme: &'a Theme,
    /// For how long the bridge has said nothing.
    silent: Option<Duration>,
}

impl View<'_> {
    fn health(&self) -> Option<&Health> {
        self.known.now.as_ref().map(|now| &now.health)
    }

    fn clock(&self, text: &str) -> String {
        text.parse().map_or_else(|_| "?".to_owned(), |at| time_of_day(at, &self.theme.zone))
    }

    /// Which bridge, and whether it speaks.
    fn top(&self, scene: &Scene<'_>, width: u16) -> Line<'static> {
        let theme = self.theme;
        let who = match self.health() {
            Some(health) => format!(
                "  {} · {} · up {}",
                health.instance,
                health.version,
                duration(float(health.uptime_seconds))
            ),
            None => String::new(),
        };
        let heard = self.known.now.as_ref().map(|now| &now.sample);
        let heard = heard.and_then(|sample| Timestamp::from_millisecond(sample.at).ok());
        let heard = heard.map(|at| time_of_day(at, &theme.zone)).unwrap_or_default();
        let (link, style) = match (&scene.screen.held, self.silent) {
            (Some(_), _) => (format!("held at {heard}: p goes on "), theme.chosen),
            (None, Some(_)) => ("! connecting ".to_owned(), theme.bad),
            (None, None) if self.known.now.is_none() => ("connecting ".to_owned(), theme.soft),
            (None, None) => (format!("live {heard} "), theme.good),
        };
        let name = " data-bridge";
        let used = name.len() + who.chars().count() + link.chars().count();
        let between = usize::from(width).saturating_sub(used).max(1);
        Line::from(vec![
            Span::styled(name, theme.title),
            Span::styled(who, theme.soft),
            Span::raw(" ".repeat(between)),
            Span::styled(link, style),
        ])
    }

    fn tabs(&self, screen: &Screen) -> Line<'static> {
        let alerts =
            self.health().map_or(0, |health| health.alerts.len() + health.needs_person.len());
        let tabs = Page::ALL.iter().enumerate().flat_map(|(index, page)| {
            let many = if *page == Page::Alerts && alerts > 0 {
                format!(" ({alerts})")
            } else {
                String::new()
            };
            let text = format!(" {} {}{many} ", index + 1, page.name());
            let style = if *page == screen.page { self.theme.chosen } else { self.theme.soft };
            [Span::styled(text, style), Span::raw(" ")]
        });
        Line::from(tabs.collect::<Vec<_>>())
    }

    /// What is wrong, how full it is, what else is.
    fn overview(&self, area: Rect, buffer: &mut Buffer) {
        let mut above = self.headline(area.width);
        if area.height > 24 - FRAME_ROWS {
            above.push(Line::default());
        }
        above.extend(tiles::lines(self.known, self.theme, area.width));
        let alerts = self.newest_alerts(area.width);
        let height = |lines: &[Line<'_>]| u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let (above_rows, alert_rows) = (height(&above), height(&alerts));
        let left = area.height.saturating_sub(above_rows + alert_rows);
        let chart_rows = left.clamp(*CHART_ROWS.start(), *CHART_ROWS.end());
        let rows = [
            Constraint::Length(above_rows),
            Constraint::Length(chart_rows),
            Constraint::Length(alert_rows),
            Constraint::Fill(1),
        ];
        let [top, chart, below, rest] = Layout::vertical(rows).areas(area);
        Paragraph::new(above).render(top, buffer);
        self.chart(chart, buffer);
        Paragraph::new(alerts).render(below, buffer);
        let mut flow = vec![Line::default()];
        flow.extend(self.page(Page::Flow, area.width));
        Paragraph::new(flow).render(rest, buffer);
    }

    fn page(&self, page: Page, width: u16) -> Vec<Line<'static>> {
        let of = |sections: Vec<Section>| {
            sections.iter().flat_map(|section| section.lines(width, self.theme)).collect()
        };
        match page {
            Page::Overview | Page::Flow => of(sections::flow(self.known, &self.theme.zone)),
            Page::Losses => of(sections::losses(self.known, &self.theme.zone)),
            Page::Alerts => {
                let receivers = sections::receivers(self.known, &self.theme.zone);
                self.alerts(width).into_iter().chain(receivers.lines(width, self.theme)).collect()
            }
            Page::Configuration => {
                let lines = self.known.config.lines().map(|line| Line::raw(line.to_owned()));
                let title = Line::styled("In force, without its secrets", self.theme.title);
                [title, Line::default()].into_iter().chain(lines).collect()
            }
        }
    }

    /// The state in a word, why, since when, what to do.
    fn headline(&self, width: u16) -> Vec<Line<'static>> {
        let spoken = match (&self.known.now, self.silent) {
            (Some(now), None) => self.verdict(now),
            (Some(_), Some(silent)) => self.no_answer(silent, "below is what it said last"),
            (None, Some(silent)) => self.no_answer(silent, "it was never heard"),
            (None, None) => return vec![Line::styled(" Asking the bridge …", self.theme.soft)],
        };
        let Spoken { style, word, since, why, remedy } = spoken;
        let mut lines = vec![Line::from(vec![
            Span::styled(
                format!(" {word} "),
                style.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            ),
            Span::styled(format!("  {since}"), self.theme.soft),
        ])];
        let room = usize::from(width).saturating_sub(2);
        let said = |text: &str, most| at_most(wrapped(text, room), most);
        lines.extend(said(&why, WHY_LINES).into_iter().map(|text| Line::raw(format!(" {text}"))));
        if let Some(remedy) = remedy {
            let text = said(&format!("What to do: {remedy}"), REMEDY_LINES);
            lines.extend(text.into_iter().map(|text| {
                Line::styled(format!(" {text}"), Style::new().add_modifier(Modifier::BOLD))
            }));
        }
        lines
    }

    fn verdict(&self, now: &Now) -> Spoken {
        let verdict = &now.verdict;
        let style = match verdict.condition.as_str() {
            "healthy" => self.theme.good,
            "degraded" => self.theme.warn,
            "critical" => self.theme.bad,
            _ => self.theme.accent,
        };
        let began = now.since.parse::<Timestamp>().map_or(now.sample.at, Timestamp::as_millisecond);
        let lasts = float(u64::try_from(now.sample.at - began).unwrap_or(0)) / 1_000.0;
        let since = format!(
            "for {}, since {}; now {}",
            duration(lasts),
            self.clock(&now.since),
            verdict.condition
        );
        let entry = |entry: &String| format!(" (runbook: {entry})");
        let entry = verdict.runbook.as_ref().map(entry).unwrap_or_default();
        Spoken {
            style,
            word: verdict.word.to_uppercase(),
            since,
            why: verdict.why.clone(),
            remedy: verdict.remedy.as_ref().map(|remedy| format!("{remedy}{entry}")),
        }
    }

    fn no_answer(&self, silent: Duration, what: &str) -> Spoken {
        let trouble = self.known.trouble.as_deref().unwrap_or("it says nothing");
        Spoken {
            style: self.theme.bad,
            word: "NO ANSWER".to_owned(),
            since: format!("for {}; {what}", duration(silent.as_secs_f64())),
            why: sentence(trouble),
            remedy: Some(
                "Does its process run, and what does the end of its log say? It is asked again \
                 every second. (runbook: down)"
                    .to_owned(),
            ),
        }
    }

    fn chart(&self, area: Rect, buffer: &mut Buffer) {
        let Some(now) = &self.known.now else { return };
        // While the bridge is silent its clock goes on, so that the silence is seen.
        let silence = self.silent.map_or(0, |silent| silent.as_millis());
        let chart = Chart {
            samples: &self.known.samples,
            level: &now.health.metrics.backpressure,
            to: now.sample.at + i64::try_from(silence).unwrap_or_default() + 1,
            theme: self.theme,
        };
        chart.render(area, buffer);
    }

    /// A line each, as far as there is room.
    fn newest_alerts(&self, width: u16) -> Vec<Line<'static>> {
        let Some(health) = self.health() else { return Vec::new() };
        let room = usize::from(width).saturating_sub(4);
        let line = |tone: Tone, text: &str| {
            let text = at_most(wrapped(text, room), 1).concat();
            Line::styled(format!(" {}{text}", tone.mark()), self.theme.of(tone))
        };
        let all = health.alerts.iter().map(|alert| {
            let text = format!("{} Do: {}", sentence(&alert.summary), sentence(&alert.remedy));
            line(tone_of(alert), &text)
        });
        let deaf = health.webhooks.iter().filter(|webhook| webhook.state == "refused");
        let deaf: Vec<&str> = deaf.map(|webhook| webhook.name.as_str()).collect();
        let deaf = (!deaf.is_empty())
            .then(|| line(Tone::Bad, &format!("Not told: {} (page 4)", deaf.join(", "))));
        let more = health.alerts.len().saturating_sub(ALERTS);
        let said = format!("   and {more} more: page 4");
        let more = (more > 0).then(|| Line::styled(said, self.theme.soft));
        deaf.into_iter().chain(all.take(ALERTS)).chain(more).collect()
    }

    fn alerts(&self, width: u16) -> Vec<Line<'static>> {
        let Some(health) = self.health() else { return Vec::new() };
        let room = usize::from(width).saturating_sub(5);
        let mut lines = vec![Line::styled("Alerts", self.theme.title)];
        if health.alerts.len() + health.needs_person.len() == 0 {
            lines.push(Line::styled("  None fires.", self.theme.soft));
        }
        let mut say = |tone: Tone, title: &str, more: &[String]| {
            for (index, text) in wrapped(title, room).into_iter().enumerate() {
                let mark = if index == 0 { tone.mark() } else { "  " };
                lines.push(Line::styled(format!("{mark} {text}"), self.theme.of(tone)));
            }
            for text in more.iter().flat_map(|text| wrapped(text, room)) {
                lines.push(Line::raw(format!("   {text}")));
            }
        };
        for text in &health.needs_person {
            say(Tone::Bad, &format!("Needs a person: {}", sentence(text)), &[]);
        }
        for alert in &health.alerts {
            let title = format!("{} {}", alert.id, sentence(&alert.summary));
            let since = format!("since {} · {}", self.clock(&alert.since), alert.runbook);
            say(
                tone_of(alert),
                &title,
                &[format!("What to do: {}", sentence(&alert.remedy)), since],
            );
        }
        lines.push(Line::default());
        lines
    }
}

/// What the headline says.
struct Spoken {
    style: Style,
    word: String,
    since: String,
    why: String,
    remedy: Option<String>,
}

fn tone_of(alert: &Alert) -> Tone {
    if alert.severity == "critical" { Tone::Bad } else { Tone::Look }
}

const HELP: &[&str] = &[
    "q, Esc, Ctrl-C     quit",
    "Tab, ← →, 1 to 5   another page",
    "↑ ↓, PgUp PgDn     scroll; Home and End",
    "p                  hold the picture, and go on",
    "?                  this, and back by any key",
    "",
    "At the top stands the state of the bridge in a word, with why, since when, and what to do.",
    "held: records that were taken and are not in ClickHouse yet. Above pause none are taken until \
     fewer than resume are held. In the chart ▓ and ░ are times of a pause, ╱ times in which the \
     bridge was not heard.",
    "! is to be looked at, !! at once. Rates are over ten seconds; full in and drained in: if all \
     goes on so. lag: records not fetched yet. uncommitted: would come again after a crash. \
     dropped: lost for good.",
];

fn help(width: u16, theme: &Theme) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(2);
    let title = Line::styled(" Keys, and what is what", theme.title);
    let texts = HELP.iter().flat_map(|text| match text.contains("   ") {
        true => vec![(*text).to_owned()],
        false => wrapped(text, room),
    });
    let texts = texts.map(|text| Line::raw(format!(" {text}")));
    [title, Line::default()].into_iter().chain(texts).collect()
}
