//! A dead letter as a JSON object: the columns of the `dead_letters` table, in its order.
//!
//! Pure. It is what Kafka, NATS and files keep, and what a replay reads from any of them. Payload
//! and key are text where they are UTF-8 and base64 where they are not, and say which; so every
//! byte comes back. Headers are an object; a value that is not UTF-8 is `{"base64": "..."}` in it.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::decode::{Extra, HeaderValue};
use crate::record::{Record, UnixMs};

/// What was refused, why, and every byte of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The same for the same record whenever it is refused.
    pub id: Uuid,
    /// When it was refused.
    pub time: UnixMs,
    /// When the record was made, as far as its producer or broker says; else when it came.
    pub record_time: UnixMs,
    pub instance: String,
    pub source: String,
    pub topic_or_subject: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub route: String,
    pub reason: String,
    pub error: String,
    pub payload: Vec<u8>,
    pub replayed_at: Option<UnixMs>,
}

impl DeadLetter {
    #[must_use]
    pub fn new(record: &Record<'_>, extra: &Extra<'_>) -> Self {
        let place = record.place();
        Self {
            id: extra.id,
            time: extra.time,
            record_time: record.timestamp().unwrap_or_else(|| record.received_at()),
            instance: extra.instance.to_owned(),
            source: extra.source.to_owned(),
            topic_or_subject: record.topic_or_subject().to_owned(),
            partition: place.map(|(partition, _)| partition.number),
            offset: place.and(record.offset()),
            key: record.key().map(<[u8]>::to_vec),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect(),
            route: extra.route.to_owned(),
            reason: extra.reason.to_owned(),
            error: extra.error.to_owned(),
            payload: record.payload().unwrap_or_default().to_vec(),
            replayed_at: None,
        }
    }

    /// Appends it as one line.
    pub fn write(&self, body: &mut Vec<u8>) {
        serde_json::to_writer(&mut *body, self).expect("texts and numbers, into memory");
        body.push(b'\n');
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is no dead letter; the text says what is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let written: Written<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        Self::try_from(written)
    }
}

/// Whether a text stands for itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    id: Cow<'a, str>,
    time: Time,
    record_time: Time,
    instance: Cow<'a, str>,
    source: Cow<'a, str>,
    topic_or_subject: Cow<'a, str>,
    partition: Option<i32>,
    offset: Option<i64>,
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    key_encoding: Encoding,
    headers: Headers,
    route: Cow<'a, str>,
    reason: Cow<'a, str>,
    error: Cow<'a, str>,
    payload: Cow<'a, str>,
    payload_encoding: Encoding,
    #[serde(default)]
    replayed_at: Option<Time>,
}

impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (payload, payload_encoding) = encoded(&self.payload);
        let (key, key_encoding) = match &self.key {
            Some(key) => {
                let (key, encoding) = encoded(key);
                (Some(key), encoding)
            }
            None => (None, Encoding::Utf8),
        };
        Written {
            id: self.id.hyphenated().to_string().into(),
            time: Time(self.time),
            record_time: Time(self.record_time),
            instance: self.instance.as_str().into(),
            source: self.source.as_str().into(),
            topic_or_subject: self.topic_or_subject.as_str().into(),
            partition: self.partition,
            offset: self.offset,
            key,
            key_encoding,
            headers: Headers(self.headers.clone()),
            route: self.route.as_str().into(),
            reason: self.reason.as_str().into(),
            error: self.error.as_str().into(),
            payload,
            payload_encoding,
            replayed_at: self.replayed_at.map(Time),
        }
        .serialize(serializer)
    }
}

impl TryFrom<Written<'_>> for DeadLetter {
    type Error = String;

    fn try_from(written: Written<'_>) -> Result<Self, String> {
        let key = written.key.map(|key| decoded(&key, written.key_encoding)).transpose();
        Ok(Self {
            id: written.id.parse().map_err(|error| format!("id: {error}"))?,
            time: written.time.0,
            record_time: written.record_time.0,
            instance: written.instance.into_owned(),
            source: written.source.into_owned(),
            topic_or_subject: written.topic_or_subject.into_owned(),
            partition: written.partition,
            offset: written.offset,
            key: key.map_err(|error| format!("key: {error}"))?,
            headers: written.headers.0,
            route: written.route.into_owned(),
            reason: written.reason.into_owned(),
            error: written.error.into_owned(),
            payload: decoded(&written.payload, written.payload_encoding)
                .map_err(|error| format!("payload: {error}"))?,
            replayed_at: written.replayed_at.map(|time| time.0),
        })
    }
}

fn encoded(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.into(), Encoding::Utf8),
        Err(_) => (BASE64.encode(bytes).into(), Encoding::Base64),
    }
}

fn decoded(text: &str, encoding: Encoding) -> Result<Vec<u8>, base64::DecodeError> {
    match encoding {
        Encoding::Utf8 => Ok(text.as_bytes().to_vec()),
        Encoding::Base64 => BASE64.decode(text),
    }
}

/// Milliseconds, written as RFC 3339 in UTC.
#[derive(Clone, Copy)]
struct Time(UnixMs);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            // Beyond the year 9999: a broken clock must not cost a letter.
            Err(_) => serializer.serialize_i64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => {
                let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
                Ok(Self(time.as_millisecond()))
            }
            other => other.as_i64().map(Self).ok_or_else(|| de::Error::custom("not a time")),
        }
    }
}

/// In their order, and as often as they came.
struct Headers(Vec<(String, Vec<u8>)>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &HeaderValue(value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeadersVisitor)
    }
}

/// What [`HeaderValue`] wrote.
#[derive(Deserialize)]
#[serde(untagged)]
enum ReadValue {
    Text(String),
    Bytes { base64: String },
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of headers, or its text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, ReadValue>()? {
            let bytes = match value {
                ReadValue::Text(text) => text.into_bytes(),
                ReadValue::Bytes { base64 } => BASE64.decode(base64).map_err(de::Error::custom)?,
            };
            headers.push((name, bytes));
        }
        Ok(Headers(headers))
    }

    /// The table's column is a text.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Headers, E> {
        serde_json::from_str(if text.is_empty() { "{}" } else { text }).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &[u8], key: Option<&[u8]>) -> DeadLetter {
        DeadLetter {
            id: Uuid::from_u128(7),
            time: 1_700_000_000_123,
            record_time: 1_700_000_000_000,
            instance: "bridge-1".into(),
            source: "kafka".into(),
            topic_or_subject: "ticks".into(),
            partition: Some(3),
            offset: Some(i64::MAX),
            key: key.map(<[u8]>::to_vec),
            headers: vec![
                ("a".into(), b"\"1\"".to_vec()),
                ("a".into(), b"2\n".to_vec()),
                ("trace".into(), vec![0, 0xff, 0x80]),
            ],
            route: "ticks".into(),
            reason: "invalid_json".into(),
            error: "expected `,`".into(),
            payload: payload.to_vec(),
            replayed_at: None,
        }
    }

    #[test]
    fn every_byte_of_a_letter_comes_back() {
        let binary: Vec<u8> = (0..=255).collect();
        let text = "{\"x\": \"\u{1f4a5}\\\"\r\n\u{0}\u{2028}\"".as_bytes();
        for (payload, key) in [(text, Some(&b"a key"[..])), (&binary, Some(&binary)), (b"", None)] {
            let letter = letter(payload, key);
            let mut line = Vec::new();
            letter.write(&mut line);
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
            assert_eq!(DeadLetter::read(&line), Ok(letter));
        }
    }

    #[test]
    fn a_reader_without_base64_sees_text_as_text_and_times_as_times() {
        let mut line = Vec::new();
        letter(b"{\"n\":", None).write(&mut line);
        let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(json["payload"], "{\"n\":");
        assert_eq!(json["payload_encoding"], "utf8");
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(json["replayed_at"], serde_json::Value::Null);
    }

    #[test]
    fn headers_may_be_the_text_of_an_object_as_in_the_table() {
        let mut line = Vec::new();
        letter(b"x", None).write(&mut line);
        let mut json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        json["headers"] = "{\"a\":\"b\"}".into();
        let read = DeadLetter::read(json.to_string().as_bytes()).unwrap();
        assert_eq!(read.headers, [("a".to_owned(), b"b".to_vec())]);
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        for line in ["", "{}", "[]", "{\"id\":\"x\""] {
            assert!(DeadLetter::read(line.as_bytes()).is_err(), "{line}");
        }
    }
}
