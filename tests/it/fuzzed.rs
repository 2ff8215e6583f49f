//! What the fuzzers assert, as plain functions of bytes: `fuzz/` feeds them with what libFuzzer
//! finds, and the tests here with what proptest makes, so that they are true on stable Rust too.
//!
//! Only by the crate's public face, as the pipeline uses it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use data_bridge::decode::TimeFormat;
use data_bridge::decode::{ColumnMapping, Columns, Decoder, Mapping, Reason, Reject, Source};
use data_bridge::live::{Live, TopicOptions};
use data_bridge::record::{Chunk, NewRecord, Partition};
use data_bridge::schema::{ColumnDefault, ColumnSchema, TableSchema};
use serde_json::Value as Json;

/// One column of every kind of type; the first letters are the keys, so that a fuzzer finds them.
const EVERY_TYPE: [(&str, &str); 24] = [
    ("a", "Nullable(UInt8)"),
    ("b", "Nullable(Int64)"),
    ("c", "Nullable(UInt256)"),
    ("d", "Nullable(Int256)"),
    ("e", "Nullable(Float32)"),
    ("f", "Nullable(Float64)"),
    ("g", "Nullable(Bool)"),
    ("h", "Nullable(Decimal(9, 4))"),
    ("i", "Nullable(Decimal(76, 20))"),
    ("j", "Nullable(FixedString(3))"),
    ("k", "Nullable(Date)"),
    ("l", "Nullable(Date32)"),
    ("m", "Nullable(DateTime)"),
    ("n", "Nullable(DateTime64(9))"),
    ("o", "Nullable(UUID)"),
    ("p", "Nullable(IPv4)"),
    ("q", "Nullable(IPv6)"),
    ("r", "Nullable(Enum8('x' = 1, 'y' = -2))"),
    ("s", "Array(Nullable(Int32))"),
    ("t", "Map(String, Array(String))"),
    ("u", "Tuple(x Nullable(Int8), y Nullable(String))"),
    ("v", "Array(Tuple(String, Map(String, Nullable(Float64))))"),
    ("w", "LowCardinality(Nullable(String))"),
    ("x", "Array(Array(DateTime64(3)))"),
];

/// The deepest payload that the bridge follows; serde_json goes to 128.
const MAX_DEPTH: usize = 64;

fn table(columns: &[(&str, &str)]) -> TableSchema {
    let column = |(name, type_name): &(&str, &str)| ColumnSchema {
        name: (*name).to_owned(),
        type_name: (*type_name).to_owned(),
        default: ColumnDefault::None,
    };
    TableSchema { table: "t".to_owned(), columns: columns.iter().map(column).collect() }
}

fn chunk(payload: &[u8]) -> Chunk {
    let partition = Arc::new(Partition { topic: "market.t".to_owned(), number: 3, epoch: 1 });
    let mut chunk = Chunk::with_capacity(1_700_000_000_000, 1, payload.len());
    let place = Some((chunk.partition(&partition), 42));
    let key = Some(&b"key"[..]);
    let record = NewRecord {
        place,
        key,
        timestamp: Some(1_700_000_000_123),
        payload: Some(payload),
        ..NewRecord::default()
    };
    chunk.push(record, [("trace", &b"\xffid"[..])]);
    chunk
}

/// Decodes the payload twice after one that always fits; a refusal must leave no trace, and a
/// second time must give the same bytes whatever the decoder remembers.
fn decoded(decoder: &mut Decoder, payload: &[u8]) -> (Result<(), Reject>, Columns) {
    let chunk = chunk(payload);
    let mut columns = decoder.columns();
    let result = decoder.decode(&chunk.record(0), None, &mut columns).map(drop);
    let (rows, before) = (columns.rows(), columns.encode());
    assert_eq!(rows, usize::from(result.is_ok()), "a whole row or none");
    assert_eq!(result.is_err(), columns.bytes() == 0 || rows == 0);
    let again = decoder.decode(&chunk.record(0), None, &mut columns);
    assert_eq!(result.as_ref().err(), again.as_ref().err(), "the same record, the same answer");
    if result.is_err() {
        assert_eq!(before, columns.encode(), "a refused record leaves no trace");
    }
    columns.clear();
    if result.is_ok() {
        decoder.decode(&chunk.record(0), None, &mut columns).expect("it was taken twice");
        assert_eq!(before, columns.encode(), "the same record, the same row");
    }
    // A value is at most 32 bytes for one digit, and a vector has at most doubled.
    let bound = 4_096 + 2 * 64 * (payload.len() + EVERY_TYPE.len());
    assert!(columns.capacity() <= bound, "{} for {}", columns.capacity(), payload.len());
    (result, columns)
}

/// A payload into every type, and against serde_json.
pub(crate) fn decode(payload: &[u8]) {
    thread_local! {
        static REUSED: std::cell::RefCell<Decoder> =
            Decoder::new(&table(&EVERY_TYPE), &Mapping::empty()).unwrap().into();
    }
    let reused = REUSED.with_borrow_mut(|decoder| decoded(decoder, payload));
    let mut fresh = Decoder::new(&table(&EVERY_TYPE), &Mapping::empty()).unwrap();
    let fresh = decoded(&mut fresh, payload);
    assert_eq!(reused.0, fresh.0, "what it remembers of earlier payloads changes nothing");
    assert_eq!(reused.1.encode(), fresh.1.encode());
    agrees_with_serde_json(payload);
}

/// The texts of two paths, as the decoder and as serde_json see them.
fn agrees_with_serde_json(payload: &[u8]) {
    let paths = [("a", &["a"][..]), ("b", &["b", "a"][..])];
    let mapped = |(name, path): (&str, &[&str])| {
        let path = path.iter().map(|&key| key.to_owned()).collect();
        (name.to_owned(), ColumnMapping { from: vec![Source::Path(path)], ..Default::default() })
    };
    let mapping = Mapping::new(BTreeMap::from(paths.map(mapped)));
    let texts = [("a", "Nullable(String)"), ("b", "Nullable(String)")];
    let mut decoder = Decoder::new(&table(&texts), &mapping).unwrap();
    let (result, columns) = decoded(&mut decoder, payload);
    let reason = result.as_ref().err().map(|reject| reject.reason);
    let judged = serde_json::from_slice::<Json>(payload);
    match judged {
        _ if reason == Some(Reason::TooDeep) => {
            let brackets = payload.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
            assert!(brackets > MAX_DEPTH, "too deep with {brackets} brackets");
        }
        Err(error) => {
            let reason = reason.unwrap_or_else(|| panic!("serde_json refuses it: {error}"));
            let grammar = [Reason::InvalidJson, Reason::InvalidUtf8, Reason::EmptyPayload];
            assert!(grammar.contains(&reason), "{reason}, but serde_json says {error}");
        }
        Ok(Json::Object(members)) => {
            let inner = members.get("b").and_then(Json::as_object).and_then(|b| b.get("a"));
            let values = [members.get("a"), inner];
            match values.map(text_of) {
                [Ok(a), Ok(b)] => {
                    assert_eq!(reason, None, "serde_json takes it");
                    let found = texts_in(&columns.encode());
                    for ((found, expected), value) in found.into_iter().zip([a, b]).zip(values) {
                        assert_is(found, expected, value, payload);
                    }
                }
                _ => assert_eq!(reason, Some(Reason::WrongType)),
            }
        }
        Ok(_) => assert_eq!(reason, Some(Reason::NotAnObject)),
    }
}

/// A number is the text that stands in the payload; serde_json writes a sign into its exponent.
fn assert_is(
    found: Option<String>,
    expected: Option<String>,
    value: Option<&Json>,
    payload: &[u8],
) {
    if !value.is_some_and(Json::is_number) {
        return assert_eq!(found, expected);
    }
    let unsigned = |text: Option<String>| text.unwrap().to_lowercase().replace("e+", "e");
    let literal = found.clone().unwrap();
    assert!(payload.windows(literal.len()).any(|part| part == literal.as_bytes()), "{literal}");
    assert_eq!(unsigned(found), unsigned(expected));
}

/// What a String column takes: Err for what it refuses.
fn text_of(value: Option<&Json>) -> Result<Option<String>, ()> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(Json::Number(number)) => Ok(Some(number.to_string())),
        Some(Json::Bool(_) | Json::Array(_) | Json::Object(_)) => Err(()),
    }
}

/// Reads a block of one row of two `Nullable(String)` back.
fn texts_in(block: &[u8]) -> [Option<String>; 2] {
    let mut rest = block;
    assert_eq!((varint(&mut rest), varint(&mut rest)), (2, 1), "columns and rows");
    ["a", "b"].map(|name| {
        assert_eq!(text(&mut rest), name);
        assert_eq!(text(&mut rest), "Nullable(String)");
        let is_null = rest[0] == 1;
        rest = &rest[1..];
        let value = text(&mut rest);
        (!is_null).then_some(value)
    })
}

fn varint(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn text(rest: &mut &[u8]) -> String {
    let length = varint(rest);
    let (text, after) = rest.split_at(length);
    *rest = after;
    String::from_utf8(text.to_vec()).unwrap()
}

/// The language of mappings: a column's type, its sources, its time format, its default, and a
/// payload to try them on; a line each.
pub(crate) fn mapping(input: &[u8]) {
    let mut lines = input.splitn(5, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let [ty, from, format, default] = [(); 4].map(|()| String::from_utf8_lossy(line()));
    let payload = line();
    if has_large_number(&ty) {
        return; // FixedString(999999999) is what the table's owner wants, and costs that much
    }
    let mut column = ColumnMapping::default();
    for source in from.split('|').filter(|source| !source.is_empty()) {
        match source.parse::<Source>() {
            Ok(parsed) => {
                assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()), "{source:?}");
                column.from.push(parsed);
            }
            Err(error) => assert!(error.contains("@received_at"), "{error}"),
        }
    }
    if !format.is_empty() {
        match format.parse::<TimeFormat>() {
            Ok(parsed) => {
                assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()));
                column.format = Some(parsed);
            }
            Err(error) => assert!(error.contains("rfc3339"), "{error}"),
        }
    }
    column.default = serde_json::from_str(&default).ok();
    let mapping = Mapping::new(BTreeMap::from([("c".to_owned(), column)]));
    match Decoder::new(&table(&[("c", ty.as_ref())]), &mapping) {
        Ok(mut decoder) => drop(decoded(&mut decoder, payload)),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| problem.contains("table t")), "{problems:?}");
        }
    }
}

fn has_large_number(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 3)
}

/// A live feed with the route `candles` and two topics of users.
fn live() -> Arc<Live> {
    static LIVE: OnceLock<Arc<Live>> = OnceLock::new();
    let made = LIVE.get_or_init(|| {
        let file =
            std::env::temp_dir().join(format!("data-bridge-fuzz-{}.toml", std::process::id()));
        let text = "[kafka]\n[[routes]]\nname = 'candles'\nkafka_topics = ['x']\ntable = 't'\n";
        std::fs::write(&file, text).unwrap();
        let config = data_bridge::config::load(std::slice::from_ref(&file)).unwrap();
        std::fs::remove_file(&file).unwrap();
        let live = Arc::new(Live::new(config.live, &config.routes));
        for topic in ["t", "u/x"] {
            live.create(topic, TopicOptions::default()).unwrap();
        }
        live
    });
    Arc::clone(made)
}

/// Says each line on a connection of the live feed, and takes what waits after each: an answer at
/// the least, or a record for a route. Whoever says it leaves nothing behind.
pub(crate) fn socket(input: &[u8]) {
    let live = live();
    let mut session = live.connect(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let (mailbox, mut texts) = (session.mailbox(), Vec::new());
    for line in input.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok()) {
        // Nothing here waits: there is room at every subscriber.
        let heard = pin!(session.hear(line)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(offer) = heard else { panic!("it waits: {line}") };
        let is_offer = offer.is_some();
        if let Some(offer) = offer {
            let payload = serde_json::from_slice::<Json>(&offer.payload);
            assert!(payload.is_ok() && offer.topic == "candles", "{offer:?}");
            offer.accept(false);
        }
        let taken = mailbox.take(&mut texts, usize::MAX, &|| "now".to_owned());
        assert!(!texts.is_empty(), "no answer to {line} ({is_offer})");
        for text in texts.drain(..) {
            let told: Json = serde_json::from_slice(text.bytes()).expect("it is JSON");
            assert!(told["type"].is_string() && told["ts"].is_string(), "{told}");
        }
        if taken.is_some_and(|taken| taken.is_err()) {
            break;
        }
    }
    drop(session);
    assert_eq!((live.connections(), live.subscribers().len()), (0, 0));
    assert!(live.topics().iter().all(|topic| topic.subscribers == 0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As many as run in seconds; `FUZZ_CASES=1000000` for a night without nightly.
    fn cases() -> u32 {
        std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let place = format!("{}/tests/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(place).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Edits of a seed: a byte replaced, put in or taken out, a part repeated or cut.
    fn edited(target: &str) -> impl Strategy<Value = Vec<u8>> {
        let telling = prop::sample::select(&b"\"\\{}[],:.eE+-0u19dtnx'()|\n %\x00\x7f\xc3\xff"[..]);
        let byte = prop_oneof![telling, any::<u8>()];
        let edit = (any::<prop::sample::Index>(), byte, 0..5_u8);
        let edits = prop::collection::vec(edit, 0..8);
        (prop::sample::select(seeds(target)), edits).prop_map(|(mut text, edits)| {
            for (at, byte, kind) in edits {
                let at = at.index(text.len() + 1);
                match kind {
                    0 if at < text.len() => text[at] = byte,
                    1 => text.insert(at, byte),
                    2 if at < text.len() => drop(text.remove(at)),
                    3 => text.extend_from_within(..at.min(64)),
                    _ => text.truncate(at),
                }
            }
            text
        })
    }

    #[test]
    fn an_exponent_stays_as_it_was_written() {
        for number in ["2e5", "2E5", "2e+5", "2e-5", "-0.10E05"] {
            decode(format!(r#"{{"a":{number},"b":{{"a":{number}}}}}"#).as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(cases())
        })]

        #[test]
        fn payloads_become_a_row_or_nothing_as_serde_json_reads_them(input in edited("decode")) {
            decode(&input);
        }

        #[test]
        fn whatever_is_said_on_a_socket_is_answered(input in edited("socket")) {
            socket(&input);
        }

        #[test]
        fn mappings_are_refused_in_a_sentence_or_work(input in edited("mapping")) {
            mapping(&input);
        }
    }
}
