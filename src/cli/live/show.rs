//! Messages of the feed as lines: for machines as they came, for people with the time, the topic
//! and the payload. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::table::one_line;
use crate::cli::terminal::harmless;

/// Far beyond what a terminal shows at once; whoever needs all of it takes `--json`.
const PAYLOAD_CHARS: usize = 4_000;

/// A message of the bridge, as far as we look into it.
#[derive(Debug, Deserialize)]
pub(super) struct Told<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
    /// What it answers: our requests have numbers.
    pub(super) request_id: Option<u64>,
    #[serde(borrow, default)]
    pub(super) topic: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    /// What an `info` is about.
    #[serde(borrow)]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) dropped: u64,
    pub(super) replayed: Option<u64>,
    pub(super) durable: Option<bool>,
    #[serde(borrow)]
    pub(super) error: Option<Problem<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) payload: &'a RawValue,
}

#[derive(Debug, Deserialize)]
pub(super) struct Problem<'a> {
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) message: Cow<'a, str>,
}

impl<'a> Told<'a> {
    /// None for what no bridge says.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn is_event(&self) -> bool {
        self.message.is_some()
    }

    /// It is not about something that was dropped, deleted or refused.
    pub(super) fn is_routine(&self) -> bool {
        matches!(&*self.kind, "ack" | "pong")
    }

    /// What was refused, as a sentence.
    pub(super) fn refusal(&self) -> Option<String> {
        let Problem { code, message } = self.error.as_ref()?;
        Some(format!("{code}: {}", one_line(message, PAYLOAD_CHARS)))
    }

    /// The line for people, without colour.
    pub(super) fn line(&self) -> String {
        let clock = self.ts.get(11..23).unwrap_or(&self.ts);
        format!("{}  {}", one_line(clock, 24), self.words())
    }

    fn words(&self) -> String {
        let topic = one_line(&self.topic, 200);
        if let Some(message) = &self.message {
            return format!("{topic}  {}", payload(message.payload));
        }
        if let Some(refusal) = self.refusal() {
            return refusal;
        }
        match (&*self.kind, self.event.as_deref()) {
            ("info", Some("dropped")) => {
                format!("{topic}  {} messages were lost here: read too slowly", self.dropped)
            }
            ("info", Some("topic_deleted")) => format!("{topic}  the topic was deleted"),
            ("info", Some("shutdown")) => "the bridge stops".to_owned(),
            ("ack", _) => match (self.replayed, self.durable) {
                (Some(replayed), _) => {
                    format!("subscribed to {topic}; {replayed} from before follow")
                }
                (_, Some(true)) => format!("stored from {topic}"),
                (_, Some(false)) => format!("published to {topic}"),
                _ => format!("unsubscribed from {topic}"),
            },
            (kind, _) => one_line(kind, 40),
        }
    }
}

/// A text by itself, anything else as JSON.
fn payload(raw: &RawValue) -> String {
    match serde_json::from_str::<Cow<'_, str>>(raw.get()) {
        Ok(text) => one_line(&text, PAYLOAD_CHARS),
        Err(_) => one_line(raw.get(), PAYLOAD_CHARS),
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// As the bridge said it.
    Json,
    Plain,
    Colour,
}

const DIM: &str = "\u{1b}[2m";
const CYAN: &str = "\u{1b}[36m";
const YELLOW: &str = "\u{1b}[33m";
const RESET: &str = "\u{1b}[0m";

impl Look {
    /// The line of a message, with its end.
    pub(super) fn line(self, text: &str) -> String {
        let told = match (self, Told::read(text)) {
            (Self::Json, _) => return format!("{}\n", harmless(text)),
            (_, None) => return format!("{}\n", one_line(text, PAYLOAD_CHARS)),
            (_, Some(told)) => told,
        };
        let line = told.line();
        if self == Self::Plain {
            return format!("{line}\n");
        }
        let (clock, words) = line.split_once("  ").unwrap_or(("", &line));
        let words = match (told.is_event(), words.split_once("  ")) {
            (true, Some((topic, payload))) => format!("{CYAN}{topic}{RESET}  {payload}"),
            _ if told.is_routine() => format!("{DIM}{words}{RESET}"),
            _ => format!("{YELLOW}{words}{RESET}"),
        };
        format!("{DIM}{clock}{RESET}  {words}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"event","topic":"desk","message":{"id":"1","payload":{"a":1.50}},"ts":"2026-01-01T10:30:15.123Z"}"#;

    #[test]
    fn an_event_is_its_time_its_topic_and_its_payload_to_the_letter() {
        assert_eq!(Look::Plain.line(EVENT), "10:30:15.123  desk  {\"a\":1.50}\n");
        assert_eq!(Look::Json.line(EVENT), format!("{EVENT}\n"));
        let coloured = Look::Colour.line(EVENT);
        assert!(coloured.contains("\u{1b}[36mdesk\u{1b}[0m  {\"a\":1.50}\n"), "{coloured}");
    }

    #[test]
    fn what_comes_cannot_write_on_the_terminal() {
        let evil = EVENT.replace("{\"a\":1.50}", "\"\\u001b[2J\\u009b1m\\n\"");
        let line = Look::Plain.line(&evil);
        assert_eq!(line, "10:30:15.123  desk  \u{fffd}[2J\u{fffd}1m\u{fffd}\n");
        assert_eq!(Look::Plain.line("\u{1b}[2J"), "\u{fffd}[2J\n");
    }

    #[test]
    fn what_is_told_beside_events_is_a_sentence() {
        let said = |text: &str| Told::read(text).unwrap().words();
        let dropped = r#"{"type":"info","event":"dropped","topic":"desk","dropped":37,"ts":"x"}"#;
        assert_eq!(said(dropped), "desk  37 messages were lost here: read too slowly");
        let ack = r#"{"type":"ack","topic":"desk","replayed":3,"queue_size":9,"ts":"x"}"#;
        assert_eq!(said(ack), "subscribed to desk; 3 from before follow");
        let error = r#"{"type":"error","request_id":1,"error":{"code":"TOPIC_NOT_FOUND","message":"none"},"ts":"x"}"#;
        assert_eq!(said(error), "TOPIC_NOT_FOUND: none");
        assert_eq!(said(r#"{"type":"pong","ts":"x"}"#), "pong");
    }
}
