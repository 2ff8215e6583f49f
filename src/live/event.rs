//! A record as an event: written once, whoever gets it. Pure.
//!
//! A payload that is JSON stands in it as it is, to the letter; another one as a text, or as
//! `{"base64": …}` where it is no text either.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use super::name;
use super::protocol::{self, Text};
use crate::decode::{Metadata, Source};
use crate::record::{ID_HEADER, Record};

/// Writes records as events, and gives ids to those that have none.
#[derive(Debug)]
pub(super) struct Writer {
    /// Different in each process: what has no place has no id but this one and its number.
    seed: u64,
    written: u64,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { seed: rand::random(), written: 0 }
    }

    /// The event of a record. None for one without a payload: there is nothing to show.
    pub(super) fn event(&mut self, topic: &str, record: &Record<'_>, ts: &str) -> Option<Text> {
        let payload = record.payload()?;
        let mut text = String::with_capacity(payload.len() + topic.len() + 200);
        protocol::begin_event(&mut text, topic, self.id(record));
        write_payload(&mut text, payload);
        write_origin(&mut text, record);
        protocol::end_event(&mut text, ts);
        Some(text.into())
    }

    /// The producer's, or one that is the same whenever the same record comes again; of core NATS
    /// nothing comes again.
    fn id(&mut self, record: &Record<'_>) -> Uuid {
        let given = record.headers().find(|(name, _)| *name == ID_HEADER);
        if let Some(id) = given.and_then(|(_, value)| Uuid::try_parse_ascii(value).ok()) {
            return id;
        }
        let hash = match record.place() {
            Some((partition, offset)) => {
                let offset = record.offset().unwrap_or(offset);
                xxh3_128(format!("{}/{}/{offset}", partition.topic, partition.number).as_bytes())
            }
            None => {
                self.written += 1;
                xxh3_128_with_seed(&self.written.to_le_bytes(), self.seed)
            }
        };
        Builder::from_random_bytes(hash.to_be_bytes()).into_uuid()
    }
}

/// The event of a payload that is nobody's record.
pub(super) fn of_payload(topic: &str, id: Uuid, payload: &[u8], ts: &str) -> Text {
    let mut text = String::with_capacity(payload.len() + topic.len() + 128);
    protocol::begin_event(&mut text, topic, id);
    write_payload(&mut text, payload);
    protocol::end_event(&mut text, ts);
    text.into()
}

fn write_payload(text: &mut String, payload: &[u8]) {
    if let Ok(json) = serde_json::from_slice::<&RawValue>(payload) {
        text.push_str(json.get());
    } else if let Ok(plain) = str::from_utf8(payload) {
        protocol::quote(text, plain);
    } else {
        text.push_str(r#"{"base64":""#);
        BASE64_STANDARD.encode_string(payload, text);
        text.push_str("\"}");
    }
}

/// Where it came from: a place in Kafka or in a stream, or a subject.
fn write_origin(text: &mut String, record: &Record<'_>) {
    text.push_str(if record.topic().is_some() { r#","topic":"# } else { r#","subject":"# });
    protocol::quote(text, record.topic_or_subject());
    let Some((partition, offset)) = record.place() else { return };
    let (number, offset) = (partition.number, record.offset().unwrap_or(offset));
    write!(text, r#","partition":{number},"offset":{offset}"#).expect("a String takes it");
}

/// The sub-topic of a record, by what names it; None for a record that does not say.
pub(super) fn key(source: &Source, record: &Record<'_>) -> Option<String> {
    let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(str::to_owned);
    let found = match source {
        Source::Path(path) => value_at(path, record.payload()?)?,
        Source::Meta(meta) => match meta {
            Metadata::Key => text(record.key()?)?,
            Metadata::Subject => record.subject()?.to_owned(),
            Metadata::SubjectToken(index) => record.subject()?.split('.').nth(*index)?.to_owned(),
            Metadata::Topic => record.topic()?.to_owned(),
            Metadata::Partition => record.place()?.0.number.to_string(),
            Metadata::Header(name) => text(record.headers().find(|(n, _)| n == name)?.1)?,
            Metadata::Offset
            | Metadata::Timestamp
            | Metadata::ReceivedAt
            | Metadata::Raw
            | Metadata::Letter(_) => return None,
        },
    };
    Some(name::segment(&found))
}

/// The text or number at a path; all else is skipped, and nothing of it kept.
fn value_at(path: &[String], payload: &[u8]) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let raw = At(path).deserialize(&mut json).ok().flatten()?;
    match raw.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        other => Some(other.to_owned()),
    }
}

struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(deserializer).map(Some),
            _ => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (first, rest) = self.0.split_first().expect("it ends before");
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == first.as_str() {
                found = map.next_value_seed(At(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::record::{Chunk, NewRecord, Partition};

    fn chunk(payloads: &[&[u8]]) -> Chunk {
        let partition = Arc::new(Partition { topic: "ticks".to_owned(), number: 3, epoch: 1 });
        let mut chunk = Chunk::with_capacity(0, 1, 100);
        for (offset, payload) in (40..).zip(payloads) {
            let place = Some((chunk.partition(&partition), offset));
            let key = Some(&b"EUR/USD"[..]);
            chunk
                .push(NewRecord { place, key, payload: Some(payload), ..NewRecord::default() }, []);
        }
        chunk
    }

    fn shown(payload: &[u8]) -> Value {
        let chunk = chunk(&[payload]);
        let text = Writer::new().event("candles", &chunk.record(0), "now").unwrap();
        serde_json::from_slice(text.bytes()).unwrap()
    }

    #[test]
    fn a_payload_stands_in_it_as_it_is_whatever_it_is() {
        let event = shown(br#" {"p": 1.50000000000000000001, "s":"x"} "#);
        let expected = r#"{"p":1.50000000000000000001,"s":"x"}"#;
        assert_eq!(event["message"]["payload"].to_string(), expected);
        assert_eq!(event["message"]["topic"], "ticks");
        assert_eq!(event["message"]["offset"], 40);
        assert_eq!(shown(b"{not json\n")["message"]["payload"], "{not json\n");
        assert_eq!(shown(b"\xff\x00")["message"]["payload"]["base64"], "/wA=");
        assert_eq!(shown(b"")["message"]["payload"], "");
    }

    #[test]
    fn the_same_record_has_the_same_id_and_another_one_another() {
        let id = |event: &Value| event["message"]["id"].as_str().unwrap().parse::<Uuid>().unwrap();
        assert_eq!(id(&shown(b"1")), id(&shown(b"2")), "by its place, not by what it says");
        let two = chunk(&[b"1", b"1"]);
        let mut writer = Writer::new();
        assert_ne!(writer.id(&two.record(0)), writer.id(&two.record(1)));
    }

    #[test]
    fn a_producer_may_give_the_id() {
        let mut chunk = Chunk::with_capacity(0, 1, 100);
        let (id, payload) = ("6f2c1f0e-8f6c-4b9e-9a53-0d6a3c1b2a77", Some(&b"1"[..]));
        let record = NewRecord { subject: "s", payload, ..NewRecord::default() };
        chunk.push(record, [(ID_HEADER, id.as_bytes())]);
        assert_eq!(Writer::new().id(&chunk.record(0)).to_string(), id);
    }

    #[test]
    fn a_key_is_found_in_the_payload_or_beside_it() {
        let chunk = chunk(&[br#"{"x":{"symbol":1},"data":{"a":[1],"symbol":"GBP USD"},"n":5}"#]);
        let key = |source: &str| key(&source.parse().unwrap(), &chunk.record(0));
        assert_eq!(key("data.symbol").unwrap(), "GBP_USD");
        assert_eq!(key("n").unwrap(), "5");
        assert_eq!(key("@key").unwrap(), "EUR_USD");
        assert_eq!(key("@partition").unwrap(), "3");
        for none in ["nothing", "n.symbol", "@subject[1]", "@headers.x"] {
            assert_eq!(key(none), None, "{none}");
        }
    }
}
