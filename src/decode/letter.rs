//! Dead letters as rows: they go through the same decoder as every other record.
//!
//! Owns the columns of the `dead_letters` table and what fills them. Never parses the payload: it
//! is there because it could not be used.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::mapping::{ColumnMapping, Letter, Mapping, Metadata, Source};
use crate::record::{Record, UnixMs};

/// What a dead letter says besides the record itself.
#[derive(Debug, Clone, Copy)]
pub struct Extra<'a> {
    /// Deterministic, so that a letter written twice is one row.
    pub id: Uuid,
    /// When the record was refused.
    pub time: UnixMs,
    pub instance: &'a str,
    /// The kind of source, for example `kafka`.
    pub source: &'a str,
    /// Empty when no route took it.
    pub route: &'a str,
    /// A stable code, for example [`super::Reason::as_str`].
    pub reason: &'a str,
    pub error: &'a str,
}

/// The columns of `dead_letters` that the bridge fills. Every other column of the table
/// (`replayed_at`) is left to ClickHouse.
#[must_use]
pub fn dead_letter_mapping() -> Mapping {
    use Metadata::{Key, Offset, Partition, Raw, ReceivedAt, Timestamp};
    let letter = Metadata::Letter;
    let columns = [
        ("id", vec![letter(Letter::Id)]),
        ("time", vec![letter(Letter::Time)]),
        ("record_time", vec![Timestamp, ReceivedAt]),
        ("instance", vec![letter(Letter::Instance)]),
        ("source", vec![letter(Letter::Source)]),
        ("topic_or_subject", vec![letter(Letter::TopicOrSubject)]),
        ("partition", vec![Partition]),
        ("offset", vec![Offset]),
        ("key", vec![Key]),
        ("headers", vec![letter(Letter::Headers)]),
        ("route", vec![letter(Letter::Route)]),
        ("reason", vec![letter(Letter::Reason)]),
        ("error", vec![letter(Letter::Error)]),
        ("payload", vec![Raw]),
    ];
    let columns = columns.into_iter().map(|(name, from)| {
        let from = from.into_iter().map(Source::Meta).collect();
        (name.to_owned(), ColumnMapping { from, default: None, format: None })
    });
    Mapping::exclusive(columns.collect::<BTreeMap<_, _>>())
}

/// A header's value in JSON: a text where it is UTF-8, else `{"base64": "..."}`; so every byte comes
/// back.
#[derive(Debug)]
pub struct HeaderValue<'a>(pub &'a [u8]);

impl Serialize for HeaderValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut object = serializer.serialize_map(Some(1))?;
        object.serialize_entry("base64", &BASE64.encode(self.0))?;
        object.end()
    }
}

/// All headers as the text of a JSON object.
pub(super) fn headers_json(record: Record<'_>) -> Vec<u8> {
    let mut text = vec![b'{'];
    for (index, (name, value)) in record.headers().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, name).expect("a str into memory");
        text.push(b':');
        serde_json::to_writer(&mut text, &HeaderValue(value)).expect("texts into memory");
    }
    text.push(b'}');
    text
}
