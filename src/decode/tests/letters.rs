//! Dead letters, through the same decoder.

use super::fixtures::{chunk, table};
use crate::decode::letter::headers_json;
use crate::decode::{Decoder, Extra, dead_letter_mapping};
use crate::record::{Chunk, NewRecord};

#[test]
fn a_dead_letter_keeps_the_bytes_it_could_not_read() {
    let columns = [
        ("id", "UUID"),
        ("time", "DateTime64(3, 'UTC')"),
        ("record_time", "DateTime64(3, 'UTC')"),
        ("instance", "LowCardinality(String)"),
        ("source", "LowCardinality(String)"),
        ("topic_or_subject", "LowCardinality(String)"),
        ("partition", "Nullable(Int32)"),
        ("offset", "Nullable(Int64)"),
        ("key", "String"),
        ("headers", "Map(String, String)"),
        ("route", "LowCardinality(String)"),
        ("reason", "LowCardinality(String)"),
        ("error", "String"),
        ("payload", "String"),
        ("replayed_at", "Nullable(DateTime64(3, 'UTC'))"),
        ("mine", "UInt8"),
    ];
    let mut decoder = Decoder::new(&table(&columns), &dead_letter_mapping()).unwrap();
    assert_eq!(decoder.column_names().len(), 14);
    let extra = Extra {
        id: uuid::Uuid::from_u128(7),
        time: 1,
        instance: "b1",
        source: "kafka",
        route: "candles",
        reason: "invalid_json",
        error: "why",
    };
    let mut columns = decoder.columns();
    for payload in [Some(&b"{\"p\": NaN \xff"[..]), None] {
        decoder.decode(&chunk(payload).record(0), Some(&extra), &mut columns).unwrap();
    }
    assert_eq!(columns.rows(), 2);
    let block = columns.encode();
    let has = |text: &[u8]| memchr::memmem::find(&block, text).is_some();
    assert!(has(b"\x0b{\"p\": NaN \xff\x00"));
    assert!(has(b"\x04EUR\xff"));
    assert!(has(b"\x05trace\x01n"));

    let text = table(&columns_with_text_headers());
    let mut decoder = Decoder::new(&text, &dead_letter_mapping()).unwrap();
    let mut columns = decoder.columns();
    decoder.decode(&chunk(None).record(0), Some(&extra), &mut columns).unwrap();
    assert!(memchr::memmem::find(&columns.encode(), br#"{"trace":"abc","n":"7"}"#).is_some());
}

#[test]
fn a_header_that_is_no_text_keeps_its_bytes() {
    let mut chunk = Chunk::with_capacity(0, 1, 64);
    chunk.push(NewRecord::default(), [("id", &b"\x00\xff"[..]), ("\"", &b"1"[..])]);
    let json = headers_json(chunk.record(0));
    assert_eq!(json, br#"{"id":{"base64":"AP8="},"\"":"1"}"#);
}

fn columns_with_text_headers() -> Vec<(&'static str, &'static str)> {
    let names = [
        "id",
        "time",
        "record_time",
        "instance",
        "source",
        "topic_or_subject",
        "partition",
        "offset",
        "key",
        "headers",
        "route",
        "reason",
        "error",
        "payload",
    ];
    names.iter().map(|name| (*name, if *name == "id" { "UUID" } else { "String" })).collect()
}
