//! How the bridge is looked at: which page, how far down, held or live; and what a key changes of
//! that. Pure.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::known::Known;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Page {
    #[default]
    Overview,
    Flow,
    Losses,
    Alerts,
    Configuration,
}

impl Page {
    pub(super) const ALL: [Self; 5] =
        [Self::Overview, Self::Flow, Self::Losses, Self::Alerts, Self::Configuration];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Flow => "Flow",
            Self::Losses => "Losses",
            Self::Alerts => "Alerts",
            Self::Configuration => "Configuration",
        }
    }

    fn by(self, step: usize) -> Self {
        Self::ALL[(self as usize + step) % Self::ALL.len()]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Quit,
}

#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) page: Page,
    /// Lines that are above the first that is seen.
    pub(super) scrolled: usize,
    pub(super) helps: bool,
    /// What was known when the picture was held.
    pub(super) held: Option<Box<Known>>,
    /// How far down there is something to see.
    pub(super) reach: usize,
}

/// Lines of a page that a key goes over.
const LEAP: usize = 10;

impl Screen {
    /// What was drawn goes on for so many lines more than there is room.
    pub(super) fn reaches(&mut self, reach: usize) {
        self.reach = reach;
        self.scrolled = self.scrolled.min(reach);
    }

    pub(super) fn press(&mut self, event: &Event, known: &Known) -> Then {
        let Event::Key(key) = event else { return Then::GoOn };
        // some terminals tell when a key is let go, too
        if key.kind == KeyEventKind::Release {
            return Then::GoOn;
        }
        if is_quit(key) {
            return Then::Quit;
        }
        if self.helps {
            self.helps = false;
            return Then::GoOn;
        }
        match key.code {
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.open(self.page.by(1)),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => {
                self.open(self.page.by(Page::ALL.len() - 1));
            }
            KeyCode::Char(digit @ '1'..='5') => {
                self.open(Page::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Down | KeyCode::Char('j') => self.go(self.scrolled + 1),
            KeyCode::Up | KeyCode::Char('k') => self.go(self.scrolled.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(self.scrolled + LEAP),
            KeyCode::PageUp => self.go(self.scrolled.saturating_sub(LEAP)),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(self.reach),
            KeyCode::Char('p') => {
                self.held = match self.held {
                    Some(_) => None,
                    None => Some(Box::new(known.clone())),
                };
            }
            KeyCode::Char('?') => self.helps = true,
            _ => {}
        }
        Then::GoOn
    }

    fn open(&mut self, page: Page) {
        self.page = page;
        self.scrolled = 0;
    }

    fn go(&mut self, to: usize) {
        self.scrolled = to.min(self.reach);
    }
}

fn is_quit(key: &KeyEvent) -> bool {
    // a terminal in raw mode makes no signal of it
    let interrupts = key.modifiers == KeyModifiers::CONTROL && key.code == KeyCode::Char('c');
    interrupts || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
