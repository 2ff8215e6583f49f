//! `data-bridge top`: the dashboard in a terminal, before a bridge on this machine or another.
//!
//! One loop owns what is known of the bridge (`known`) and how it is looked at (`screen`). It waits
//! for the bridge (`listen`), for keys and for the clock, and draws all of it anew (`view`, pure). What
//! it shows is what the page shows: both read `/health/stream`.

mod chart;
mod known;
mod listen;
mod lines;
mod screen;
mod sections;
mod sse;
mod theme;
mod tiles;
mod told;
mod view;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossterm::event::EventStream;
use futures_util::{Stream, StreamExt as _};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Failure, bridge};
use known::Known;
use listen::{Heard, Place};
use screen::{Screen, Then};
use theme::Theme;
use view::Scene;

/// Times go on while the bridge says nothing.
const REDRAW: Duration = Duration::from_secs(1);

/// As long as a bridge may take that is busy, for the two looks that rates need.
const ONCE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge top                                the bridge that this configuration starts
  data-bridge top --url http://10.0.0.7:8080     another one
  data-bridge top --url https://bridge.internal:8443 --ca-file ca.pem --token-file token
  data-bridge top --once | less                  everything, once, as plain text

Keys: q quit, Tab and arrows another page, up and down scroll, p hold the picture, ? what is what.
It waits for a bridge that is away, and says so. With NO_COLOR it draws without colours.

Exit codes: 0 ok, 64 wrong usage or configuration; of --once also 69: the bridge cannot be reached.")]
pub(super) struct Args {
    #[command(flatten)]
    bridge: bridge::Which,

    /// The bridge's token, in a file [default: http.token of the configuration; with --url none]
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// Print everything once, as plain text, and end; so it is where the output is no terminal
    #[arg(long)]
    once: bool,
}

pub(super) fn command(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let Args { bridge, token_file, once } = args;
    let (url, trust, token) = bridge.place_with_token(token_file.as_deref(), files)?;
    let place = Place::new(&url, trust, token).map_err(Failure::usage)?;
    if once || !std::io::stdout().is_terminal() {
        let told = super::block_on(async { Ok(heard_twice(place).await) })?;
        let known = told.map_err(|error| Failure::unavailable(format!("{error:#}")))?;
        super::print(&view::plain(&known))?;
    } else {
        super::block_on(on_the_screen(place))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rates need two looks; the second comes after a second.
async fn heard_twice(place: Place) -> anyhow::Result<Known> {
    let mut known = Known::new(Instant::now());
    let heard = listen::heard(place);
    tokio::pin!(heard);
    let listening = async {
        while known.looks() < 2 {
            match heard.next().await {
                Some(Heard::Told(event)) => known.hear(&event, Instant::now())?,
                Some(Heard::Lost(why)) => bail!(why),
                None => break,
            }
        }
        Ok(())
    };
    timeout(ONCE_WITHIN, listening).await.context("the bridge says nothing")??;
    Ok(known)
}

/// Until `q`, or a signal. Whatever happens, the terminal is given back as it was.
async fn on_the_screen(place: Place) -> anyhow::Result<()> {
    let terminal = ratatui::try_init().context("cannot use this terminal")?;
    let watched = watch(terminal, listen::heard(place)).await;
    ratatui::restore();
    watched
}

async fn watch(
    mut terminal: DefaultTerminal,
    heard: impl Stream<Item = Heard>,
) -> anyhow::Result<()> {
    let mut known = Known::new(Instant::now());
    let mut screen = Screen::default();
    let theme = Theme::of_environment();
    let mut keys = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut clock = interval(REDRAW);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(heard);
    loop {
        let mut reach = 0;
        let scene = Scene { known: &known, screen: &screen, theme: &theme, at: Instant::now() };
        terminal.draw(|frame| reach = view::draw(frame, &scene))?;
        screen.reaches(reach);
        tokio::select! {
            Some(heard) = heard.next() => match heard {
                Heard::Told(event) => known.hear(&event, Instant::now())?,
                Heard::Lost(why) => known.lose(why),
            },
            key = keys.next() => match key {
                // a change of size is drawn like anything else
                Some(event) => if screen.press(&event?, &known) == Then::Quit { return Ok(()) },
                None => return Ok(()),
            },
            _ = clock.tick() => {}
            _ = terminate.recv() => return Ok(()),
        }
    }
}
