//! `data-bridge live watch`: what comes on topics, line by line.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::show::{Look, Told};
use super::{Bridge, Trouble, has_colour, note};
use crate::cli::terminal;

/// On the way to a slow reader: what it does not read waits at the bridge instead, where it shows.
pub(super) const NARROW_BYTES: u32 = 4 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
In `candles/*` the segment `*` stands for any one. When the connection is lost it is made again, and what
came meanwhile is repeated as far as the bridge remembers it (live.replay), nothing of it twice.")]
pub(super) struct Args {
    /// Names of topics, or patterns
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    /// So many messages from before, of each topic
    #[arg(long, value_name = "N", default_value_t = 0)]
    last: usize,

    /// Each message as the bridge sends it, one on a line
    #[arg(long)]
    json: bool,

    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// What this client is called in logs and statistics of the bridge
    #[arg(long, value_name = "NAME")]
    client_id: Option<String>,

    /// So many messages may wait for this client at the bridge [default: live.queue_size]
    #[arg(long, value_name = "N")]
    queue_size: Option<usize>,

    /// What gives when they are more: drop_oldest, drop_newest or disconnect [default: live.policy]
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,

    /// Read no more than so many messages a second: a slow consumer on purpose
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    slow: Option<u32>,
}

impl Args {
    /// What goes into the subscription beside its topic.
    fn wish(&self) -> Json {
        let mut wish = Map::new();
        let mut say = |key: &str, value: Option<Json>| {
            wish.extend(value.map(|value| (key.to_owned(), value)));
        };
        say("last_n", Some(json!(self.last)));
        say("client_id", self.client_id.as_ref().map(|id| json!(id)));
        say("queue_size", self.queue_size.map(|size| json!(size)));
        say("policy", self.policy.as_ref().map(|policy| json!(policy)));
        Json::Object(wish)
    }
}

pub(super) async fn run(
    bridge: Bridge,
    args: Args,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let mut link = Link::open(bridge, args.slow.map(|_| NARROW_BYTES)).await?;
    for topic in &args.topics {
        link.subscribe(topic, &args.wish()).await?;
    }
    let watched = tokio::select! {
        watched = watch(&mut link, &args) => watched,
        () = stop.cancelled() => Ok(()),
    };
    link.part().await;
    watched
}

async fn watch(link: &mut Link, args: &Args) -> Result<(), Trouble> {
    let look = if args.json {
        Look::Json
    } else if has_colour() {
        Look::Colour
    } else {
        Look::Plain
    };
    let pause = args.slow.map(|rate| Duration::from_secs(1) / rate);
    let mut left = args.count;
    while link.has_subscriptions() {
        let text = link.next().await?;
        let told = Told::read(&text);
        if let Some(refusal) = told.as_ref().and_then(Told::refusal) {
            let cut = refusal.starts_with("SLOW_CONSUMER");
            if !cut {
                return Err(Trouble::Refused(refusal));
            }
        }
        // Of people's lines only what was asked for goes to stdout.
        match &told {
            Some(told) if look != Look::Json && told.is_routine() => note(&told.line()),
            _ => show(look, &text)?,
        }
        if told.is_some_and(|told| told.is_event()) {
            left = left.map(|left| left - 1);
            if left == Some(0) {
                return Ok(());
            }
            if let Some(pause) = pause {
                sleep(pause).await;
            }
        }
    }
    Err(Trouble::Refused("there is nothing left to watch".to_owned()))
}

/// What came, as a line; `look` sees to it that it is harmless.
pub(super) fn show(look: Look, text: &str) -> Result<(), Trouble> {
    terminal::write(&look.line(text)).map_err(|_| Trouble::NobodyReads)
}
