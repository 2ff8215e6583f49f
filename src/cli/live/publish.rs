//! `data-bridge live publish`: messages to a topic, from the command line or one on each line of
//! stdin. Over HTTP: each answer says what became of how many.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::sleep;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

use super::{ANSWER_WITHIN, Bridge, Trouble, note, refusal, topics};
use crate::config::Retry;
use crate::retry;
use crate::thousands::{counted, thousands};

/// Of a line of stdin; the bridge takes less (`live.max_message`, `live.publish.max_request_bytes`).
pub(super) const LINE_BYTES: usize = 4 * 1024 * 1024;

/// To a request: below the bridge's own limits, of which `live.max_message` is the least.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 48 * 1024;

const NDJSON: &str = "application/x-ndjson";

/// Where there is no room now, and nobody says for how long.
const AGAIN: Retry =
    Retry { base_delay: Duration::from_millis(500), max_delay: Duration::from_secs(5) };

/// However long the bridge wants to be left alone: there may be room before.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A message of a topic that users made is JSON, or a text. What is published into a route's topic (it needs
publish = true) is a record like any other: what does not fit its table becomes a dead letter.

Without room the bridge refuses and says for how long (Retry-After): this command waits, at most a minute at
a time, and goes on; what was taken is not sent twice. Ctrl-C ends the wait too.")]
pub(super) struct Args {
    /// The topic's name
    topic: String,

    /// The messages [default: the lines of stdin]
    #[arg(value_name = "MESSAGE")]
    messages: Vec<String>,

    /// Wait until they are in ClickHouse, or among the dead letters; for what a route carries
    #[arg(long)]
    durable: bool,
}

/// What became of what was published.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    inserted: u64,
    dead_lettered: u64,
}

pub(super) async fn run(
    bridge: &Bridge,
    args: Args,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let Args { topic, messages, durable } = args;
    let messages = if messages.is_empty() {
        FramedRead::new(tokio::io::stdin(), LinesCodec::new_with_max_length(LINE_BYTES))
            .map(|line| line.map_err(unreadable))
            .boxed()
    } else {
        stream::iter(messages).map(|message| one_line(&message)).boxed()
    };
    let mut tally = Tally::default();
    let done = tokio::select! {
        done = all(bridge, &topic, messages, durable, &mut tally) => done,
        () = stop.cancelled() => Err(Trouble::Refused("left before the end".to_owned())),
    };
    let Tally { accepted, inserted, dead_lettered } = &tally;
    let mut said = format!("{} published to {topic}", thousands(*accepted));
    if durable {
        let (stored, letters) = (thousands(*inserted), counted(*dead_lettered, "dead letter"));
        said.push_str(&format!(": {stored} stored, {letters}"));
    }
    note(&said);
    done
}

/// A line of stdin that is none.
pub(super) fn unreadable(error: LinesCodecError) -> Trouble {
    Trouble::Usage(match error {
        LinesCodecError::MaxLineLengthExceeded => {
            format!("a line of stdin has more than {LINE_BYTES} bytes")
        }
        LinesCodecError::Io(error) => format!("cannot read stdin: {error}"),
    })
}

/// A message has one line on its way; between the values of JSON a line break is a blank.
fn one_line(message: &str) -> Result<String, Trouble> {
    let has_lines = message.contains(['\n', '\r']);
    if has_lines && serde_json::from_str::<&RawValue>(message).is_err() {
        return Err(Trouble::Usage("a message of several lines has to be JSON".to_owned()));
    }
    Ok(message.replace(['\n', '\r'], " "))
}

/// What the bridge says of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    accepted: u64,
    inserted: u64,
    dead_lettered: u64,
    dropped: u64,
    pending: u64,
    next_line: Option<usize>,
}

async fn all(
    bridge: &Bridge,
    topic: &str,
    messages: impl Stream<Item = Result<String, Trouble>> + Unpin,
    durable: bool,
    tally: &mut Tally,
) -> Result<(), Trouble> {
    let (query, within) = match durable {
        true => ("/messages?durable=true", bridge.durable_within),
        false => ("/messages", ANSWER_WITHIN),
    };
    let path = topics::path(topic, query);
    let mut batches = messages.ready_chunks(BATCH_LINES);
    while let Some(batch) = batches.next().await {
        let batch: Vec<String> = batch.into_iter().collect::<Result<_, _>>()?;
        let mut lines: Vec<&str> = batch.iter().map(|line| line.trim()).collect();
        lines.retain(|line| !line.is_empty());
        let mut left = lines.as_slice();
        let mut refusals = 0;
        while !left.is_empty() {
            let (now, _) = left.split_at(fitting(left));
            match send(bridge, &path, now, within, tally).await? {
                Taken::All => left = &left[now.len()..],
                Taken::Only { lines, retry_after } => {
                    left = &left[lines..];
                    if refusals == 0 {
                        note("the bridge has no room now; waiting");
                    }
                    refusals += 1;
                    sleep(wait(retry_after, refusals)).await;
                }
            }
        }
    }
    Ok(())
}

/// How many of these go into one request; at least one.
fn fitting(lines: &[&str]) -> usize {
    let mut bytes = 0;
    let fits = lines.iter().take_while(|line| {
        bytes += line.len() + 1;
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

/// What the bridge took of a request, from its beginning.
enum Taken {
    All,
    /// There was no room for more.
    Only {
        lines: usize,
        /// When to come again, where that is said.
        retry_after: Option<Duration>,
    },
}

/// How long after so many refusals: as long as the bridge asks for, and a little more, lest all whom
/// it refused come back at once.
fn wait(retry_after: Option<Duration>, refusals: u32) -> Duration {
    match retry_after {
        Some(asked) => asked.min(LONGEST_WAIT) + retry::delay(&AGAIN, 1),
        None => retry::delay(&AGAIN, refusals),
    }
}

/// Sends these once.
async fn send(
    bridge: &Bridge,
    path: &str,
    lines: &[&str],
    within: Duration,
    tally: &mut Tally,
) -> Result<Taken, Trouble> {
    let asking = bridge.ask(Method::POST, path, NDJSON, lines.join("\n"), within).await;
    let heard = asking.map_err(|trouble| unclear(trouble, lines.len()))?;
    let answer: Answer = serde_json::from_slice(&heard.body).unwrap_or_default();
    tally.accepted += answer.accepted;
    tally.inserted += answer.inserted;
    tally.dead_lettered += answer.dead_lettered;
    if heard.status.is_success() {
        return Ok(Taken::All);
    }
    let may_wait =
        matches!(heard.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if !may_wait || answer.dropped > 0 || answer.pending > 0 {
        return Err(match refusal(heard.status, &heard.body) {
            Trouble::Away(why) => Trouble::Refused(why),
            trouble => trouble,
        });
    }
    let taken = answer.next_line.map_or(0, |next| next.saturating_sub(1).min(lines.len()));
    Ok(Taken::Only { lines: taken, retry_after: heard.retry_after })
}

fn unclear(trouble: Trouble, messages: usize) -> Trouble {
    match trouble {
        Trouble::Silent(why) => {
            Trouble::Silent(format!("{why}; whether it took the {messages} sent last is not known"))
        }
        trouble => trouble,
    }
}

/// The same as a message of the socket: JSON as it is, anything else as a text.
pub(super) fn ask(topic: &str, message: &str) -> serde_json::Value {
    let payload = serde_json::from_str(message).unwrap_or_else(|_| json!(message));
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    json!({ "type": "publish", "topic": topic, "message": { "id": id.to_string(), "payload": payload } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json_as_it_is_or_a_text() {
        assert_eq!(ask("t", "{\"a\":1.50}")["message"]["payload"].to_string(), "{\"a\":1.50}");
        assert_eq!(ask("t", "hello")["message"]["payload"], "hello");
        assert_eq!(one_line("{\"a\":\n1}").unwrap(), "{\"a\": 1}");
        assert!(one_line("a\nb").is_err());
    }

    #[test]
    fn who_is_told_when_to_come_again_comes_then_and_else_later_each_time() {
        let seconds = Duration::from_secs;
        for (asked, waits) in [(0, 0), (7, 7), (60, 60), (86_400, 60)] {
            let wait = wait(Some(seconds(asked)), 9);
            assert!(wait >= seconds(waits), "{asked} s: {wait:?}");
            assert!(wait <= seconds(waits) + AGAIN.base_delay, "{asked} s: {wait:?}");
        }
        assert!((0..1_000).all(|_| wait(None, 1) <= AGAIN.base_delay));
        assert!((0..1_000).any(|_| wait(None, 9) > AGAIN.base_delay));
    }

    #[test]
    fn a_request_holds_what_fits_and_never_nothing() {
        let (short, long) = ("x".repeat(BATCH_BYTES / 2 - 1), "x".repeat(BATCH_BYTES + 1));
        assert_eq!(fitting(&[&short, &short, &short]), 2);
        assert_eq!(fitting(&[&long, &short]), 1);
    }
}
