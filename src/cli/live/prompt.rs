//! `data-bridge live` by itself: a prompt over one connection. What comes is shown as it comes.

use std::io::IsTerminal as _;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::publish::{self, LINE_BYTES};
use super::show::Look;
use super::watch::show;
use super::{Bridge, Trouble, has_colour, print, topics};

const HELP: &str = "\
subscribe TOPIC [N]       show what comes, after the N messages before; candles/* for all below it
unsubscribe TOPIC
replay TOPIC [N]          subscribe again, with the N messages before [10]
publish TOPIC MESSAGE     JSON, or a text
create TOPIC, delete TOPIC
topics                    what there is
ping
help, quit
";

/// What can be asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wish<'a> {
    Subscribe { topic: &'a str, last: usize },
    Unsubscribe { topic: &'a str },
    Replay { topic: &'a str, last: usize },
    Publish { topic: &'a str, message: &'a str },
    Create { topic: &'a str },
    Delete { topic: &'a str },
    Topics,
    Ping,
    Help,
    Quit,
    Nothing,
}

/// Of a replay that does not say.
const REPLAYED: usize = 10;

impl<'a> Wish<'a> {
    /// Reads a line; else what to write instead.
    fn read(line: &'a str) -> Result<Self, String> {
        let (word, rest) = first_word(line);
        let (topic, more) = first_word(rest);
        let known = match word {
            "subscribe" => number(more, 0).map(|last| Self::Subscribe { topic, last }),
            "replay" => number(more, REPLAYED).map(|last| Self::Replay { topic, last }),
            "publish" if !more.is_empty() => Some(Self::Publish { topic, message: more }),
            "unsubscribe" if more.is_empty() => Some(Self::Unsubscribe { topic }),
            "create" if more.is_empty() => Some(Self::Create { topic }),
            "delete" if more.is_empty() => Some(Self::Delete { topic }),
            _ => None,
        };
        match (word, topic, known) {
            (_, topic, Some(wish)) if !topic.is_empty() => Ok(wish),
            ("", ..) => Ok(Self::Nothing),
            ("topics", "", _) => Ok(Self::Topics),
            ("ping", "", _) => Ok(Self::Ping),
            ("help" | "?", "", _) => Ok(Self::Help),
            ("quit" | "exit", "", _) => Ok(Self::Quit),
            _ => {
                let usage = HELP.lines().find(|line| first_word(line).0 == word);
                Err(usage.map_or_else(
                    || format!("no such command: {word:.40}; help lists them"),
                    |usage| format!("write: {usage}"),
                ))
            }
        }
    }
}

/// A word, and what is behind it.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

fn number(text: &str, default: usize) -> Option<usize> {
    if text.is_empty() { Some(default) } else { text.parse().ok() }
}

pub(super) async fn run(bridge: Bridge, stop: &CancellationToken) -> Result<(), Trouble> {
    let mut link = Link::open(bridge, None).await?;
    let talked = tokio::select! {
        talked = talk(&mut link) => talked,
        () = stop.cancelled() => Ok(()),
    };
    link.part().await;
    talked
}

/// Until there is nothing more to be asked.
async fn talk(link: &mut Link) -> Result<(), Trouble> {
    let look = if has_colour() { Look::Colour } else { Look::Plain };
    let invites = std::io::stdin().is_terminal();
    let mut lines =
        FramedRead::new(tokio::io::stdin(), LinesCodec::new_with_max_length(LINE_BYTES));
    if invites {
        print(&format!("connected to {}; help lists the commands\n", link.bridge().url))?;
    }
    loop {
        let line = tokio::select! {
            text = link.next() => {
                show(look, &text?)?;
                continue;
            }
            line = lines.next() => line,
        };
        let Some(line) = line else { return Ok(()) };
        let line = line.map_err(publish::unreadable)?;
        let said = match Wish::read(&line) {
            Ok(Wish::Quit) => return Ok(()),
            Ok(wish) => fulfil(link, wish).await,
            Err(why) => Err(Trouble::Usage(why)),
        };
        match said {
            Ok(text) => print(&text)?,
            Err(Trouble::NobodyReads) => return Err(Trouble::NobodyReads),
            // A prompt outlives a mistake.
            Err(
                Trouble::Usage(why)
                | Trouble::Refused(why)
                | Trouble::Away(why)
                | Trouble::Silent(why),
            ) => print(&format!("{why}\n"))?,
        }
    }
}

/// Does it, or asks for it: what the bridge answers comes with the rest of what it says.
async fn fulfil(link: &mut Link, wish: Wish<'_>) -> Result<String, Trouble> {
    match wish {
        Wish::Subscribe { topic, last } => {
            link.subscribe(topic, &json!({ "last_n": last })).await?
        }
        Wish::Unsubscribe { topic } => link.unsubscribe(topic).await?,
        Wish::Replay { topic, last } => {
            if link.is_subscribed(topic) {
                link.unsubscribe(topic).await?;
            }
            link.subscribe(topic, &json!({ "last_n": last })).await?;
        }
        Wish::Publish { topic, message } => {
            link.say(publish::ask(topic, message)).await.map(drop)?
        }
        Wish::Ping => link.say(json!({ "type": "ping" })).await.map(drop)?,
        Wish::Create { topic } => {
            topics::make(link.bridge(), topic).await?;
            return Ok(format!("there is a topic {topic}\n"));
        }
        Wish::Delete { topic } => {
            let path = topics::path(topic, "");
            link.bridge().done(axum::http::Method::DELETE, &path, "").await?;
        }
        Wish::Topics => {
            let stats = link.bridge().done(axum::http::Method::GET, "/stats", "").await?;
            return topics::shown(&stats);
        }
        Wish::Help => return Ok(HELP.to_owned()),
        Wish::Nothing | Wish::Quit => {}
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_wish() {
        for (line, wish) in [
            ("subscribe candles/*", Wish::Subscribe { topic: "candles/*", last: 0 }),
            ("  subscribe  desk 5 ", Wish::Subscribe { topic: "desk", last: 5 }),
            ("replay desk", Wish::Replay { topic: "desk", last: REPLAYED }),
            ("unsubscribe desk", Wish::Unsubscribe { topic: "desk" }),
            ("publish desk {\"a\":  1}", Wish::Publish { topic: "desk", message: "{\"a\":  1}" }),
            ("create desk", Wish::Create { topic: "desk" }),
            ("delete desk", Wish::Delete { topic: "desk" }),
            ("topics", Wish::Topics),
            ("ping", Wish::Ping),
            ("?", Wish::Help),
            ("quit", Wish::Quit),
            ("", Wish::Nothing),
        ] {
            assert_eq!(Wish::read(line), Ok(wish), "{line}");
        }
    }

    #[test]
    fn what_is_no_wish_is_told_what_to_write() {
        for line in ["subscribe", "subscribe desk x", "publish desk", "unsubscribe", "replay a b"] {
            let why = Wish::read(line).unwrap_err();
            assert!(why.starts_with("write: "), "{line}: {why}");
        }
        assert!(Wish::read("subcribe desk").unwrap_err().contains("help"));
        assert!(Wish::read("ping desk").unwrap_err().contains("write: ping"));
    }
}
