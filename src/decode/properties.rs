//! Properties against independent judges: serde_json for the grammar, 256-bit integers for
//! decimals, jiff for times.

use ethnum::U256;
use proptest::prelude::*;
use serde_json::Value;

use super::column::Data;
use super::convert::Convert;
use super::json::{Kind, Reader, Span, unescape};
use super::keys::Keys;
use super::notes::Document;
use super::number::scaled;
use super::quick::Quick;
use super::reject::Reason;
use super::tests::fixtures::{decode, table};
use super::time::{TimeFormat, from_text};
use super::types::Type;
use super::{Decoder, Mapping};

/// The value that the reader sees.
fn seen(document: Document<'_>, span: Span) -> Value {
    let text = span.of(document.json);
    let string = |span: Span| {
        let mut plain = Vec::new();
        unescape(span.of(document.json), &mut plain);
        String::from_utf8(plain).unwrap()
    };
    match span.kind {
        Kind::Absent => panic!("a read value is there"),
        Kind::Text => Value::String(String::from_utf8(text.to_vec()).unwrap()),
        Kind::EscapedText => Value::String(string(span)),
        Kind::Array(parts) => {
            document.parts(parts).map(|element| seen(document, element)).collect()
        }
        Kind::Object(parts) => {
            let member = |(key, value)| (string(key), seen(document, value));
            Value::Object(document.members(parts).map(member).collect())
        }
        _ => serde_json::from_slice(text).unwrap(),
    }
}

/// Checks one text; the keys stay the same, so that remembered orders are wrong most of the time.
fn agrees(keys: &mut Keys, text: &[u8]) -> Result<(), TestCaseError> {
    let a = keys.slot(&["a".to_owned()]);
    let b = keys.slot(&["b".to_owned(), "a".to_owned()]);
    let whole = keys.slot(&["b".to_owned()]);
    match (keys.read(text), serde_json::from_slice::<Value>(text)) {
        (Ok(()), Ok(Value::Object(members))) => {
            for (slot, expected) in [
                (a, members.get("a")),
                (b, members.get("b").and_then(|b| b.get("a"))),
                (whole, members.get("b")),
            ] {
                let span = keys.found(slot);
                let found = (span.kind != Kind::Absent).then(|| seen(keys.document(text), span));
                prop_assert_eq!(found.as_ref(), expected);
            }
        }
        (Err(reject), Ok(value)) => {
            prop_assert!(!value.is_object(), "{}: {}", reject, value);
            prop_assert_eq!(reject.reason, Reason::NotAnObject);
        }
        (Err(reject), Err(_)) => prop_assert_ne!(reject.reason, Reason::NotAnObject),
        (Ok(()), expected) => prop_assert!(false, "took {:?}: {:?}", text, expected),
    }
    Ok(())
}

fn number() -> impl Strategy<Value = Value> {
    "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"
        .prop_map(|text| serde_json::from_str(&text).unwrap())
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(("[abc]{1,2}|\\PC{0,12}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn the_reader_sees_what_serde_json_sees(trees in prop::collection::vec((tree(), any::<bool>()), 1..4)) {
        let mut keys = Keys::new();
        for (tree, pretty) in trees {
            let text = if pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) };
            agrees(&mut keys, &text.unwrap())?;
        }
    }

    #[test]
    fn the_reader_refuses_what_serde_json_refuses(
        tree in prop::collection::vec(("[ab]", tree()), 0..4),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), prop::sample::select(&b"\"\\{}[],:.eE+-0u19dtn \x00\x1f\x7f\xc3\xff"[..])
        ], 0..3_u8), 1..5),
    ) {
        let object = Value::Object(tree.into_iter().collect());
        let mut text = serde_json::to_vec(&object).unwrap();
        let mut keys = Keys::new();
        agrees(&mut keys, &text)?;
        for (at, byte, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ if text.len() > 1 => { text.remove(at); }
                _ => {}
            }
            agrees(&mut keys, &text)?;
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(text in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:ab1-.eudtn 8"[..])], 0..60)) {
        agrees(&mut Keys::new(), &text)?;
    }

    #[test]
    fn scaling_is_exact(
        digits in 0..10_u128.pow(30), cut in 0..35_usize, exponent in -20..20_i32, scale in -10..20_i32,
        negative: bool,
    ) {
        let mut text = format!("{digits:0>31}");
        let cut = cut.min(30);
        let point = text.len() - cut;
        if cut > 0 {
            text.insert(point, '.');
        }
        let text = text.trim_start_matches('0');
        let zero = if text.is_empty() || text.starts_with('.') { "0" } else { "" };
        let text = format!("{}{zero}{text}{}", if negative { "-" } else { "" },
            if exponent == 0 { String::new() } else { format!("e{exponent}") });
        let shift = exponent + scale - i32::try_from(cut).unwrap();
        let power = U256::from(10_u8).pow(shift.unsigned_abs());
        let digits = U256::from(digits);
        let (expected, exact) = if shift >= 0 {
            (digits * power, true)
        } else {
            let (quotient, rest) = (digits / power, digits % power);
            let up = rest * 2 > power || (rest * 2 == power && quotient % 2 == 1);
            (quotient + U256::from(up), rest == 0)
        };
        let found = scaled(text.as_bytes(), scale).unwrap();
        prop_assert_eq!(found.magnitude.wide(), expected, "{}", text);
        prop_assert_eq!((found.exact, found.negative), (exact, negative), "{}", text);
    }

    #[test]
    fn times_are_what_jiff_reads(
        ns in -2_208_988_800_000_000_000..9_214_646_400_000_000_000_i64, minutes in -1_439..1_440_i32, digits in 0..10_usize,
    ) {
        let unit = 10_i64.pow(u32::try_from(9 - digits).unwrap());
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(ns.div_euclid(unit) * unit)).unwrap();
        let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
        let naive = jiff::tz::Offset::UTC.to_datetime(stamp);
        let ticks = |text: String| from_text(text.as_bytes(), None).unwrap().ticks(9);
        let expected = Some((i64::try_from(stamp.as_nanosecond()).unwrap(), true));
        prop_assert_eq!(ticks(stamp.to_string()), expected);
        prop_assert_eq!(ticks(stamp.display_with_offset(offset).to_string()), expected);
        prop_assert_eq!(ticks(naive.to_string()), expected);
        prop_assert_eq!(ticks(naive.to_string().replace('T', " ")), expected);
    }

    #[test]
    fn what_is_put_quickly_is_put_as_everything_is(
        ty in prop::sample::select(&[
            "UInt8", "Int16", "UInt32", "Int64", "UInt64", "Float64", "String", "Decimal(9, 2)",
            "Decimal(18, 5)", "Decimal(19, 0)", "Decimal(38, 10)", "DateTime64(0)", "DateTime64(3)",
            "DateTime64(9)", "Nullable(Int32)", "Nullable(Decimal(18, 8))", "Nullable(DateTime64(6))",
        ][..]),
        format in prop::sample::select(&[None, Some("unix_s"), Some("unix_ms"), Some("unix_us"), Some("unix_ns")][..]),
        text in "-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,9})?(e[0-9])?|\"[a-z0-9]{0,9}\"|true|null",
    ) {
        let ty = Type::parse(ty).unwrap();
        let format: Option<TimeFormat> = format.map(|format| format.parse().unwrap());
        let span = Reader::new(text.as_bytes(), 0).value(0, &mut ()).unwrap();
        let (mut quickly, mut as_all) = (Data::new(&ty), Data::new(&ty));
        if Quick::new(&ty, format.as_ref()).put(text.as_bytes(), span, &mut quickly) {
            let mut convert = Convert::default();
            let value = super::convert::Value::of(Document::new(text.as_bytes(), &[]), span);
            convert.put(&ty, &mut as_all, value, format.as_ref()).unwrap();
            prop_assert_eq!(convert.rounded, 0);
        }
        prop_assert_eq!(format!("{quickly:?}"), format!("{as_all:?}"));
    }

    #[test]
    fn an_array_is_what_its_elements_are(
        ty in prop::sample::select(&[
            "UInt8", "Int16", "UInt32", "Int64", "Float64", "String", "Decimal(9, 2)", "Decimal(18, 5)",
            "Decimal(38, 10)", "DateTime64(3)", "Nullable(Int32)", "Nullable(Float64)",
        ][..]),
        texts in prop::collection::vec("-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?|[1-9][0-9]{0,19}|\"[a-z0-9]{0,9}\"|null|1e2", 0..6),
    ) {
        let element = Type::parse(ty).unwrap();
        let array = Type::parse(&format!("Array({ty})")).unwrap();
        let text = format!("[{}]", texts.join(" , "));
        let mut notes = Vec::new();
        let span = Reader::new(text.as_bytes(), 0).value(0, &mut notes).unwrap();
        let (mut whole, mut each) = (Data::new(&array), Data::new(&array));
        let mut convert = Convert::default();
        let value = super::convert::Value::of(Document::new(text.as_bytes(), &notes), span);
        let put = convert.put(&array, &mut whole, value, None);
        let rounded = std::mem::take(&mut convert.rounded);
        let puts = texts.iter().try_for_each(|text| {
            let json = text.as_bytes();
            let span = Reader::new(json, 0).value(0, &mut ()).unwrap();
            let value = super::convert::Value::of(Document::new(json, &[]), span);
            convert.put(&element, &mut each.parts()[0], value, None)
        });
        each.end_row(texts.len());
        prop_assert_eq!(put.is_ok(), puts.is_ok());
        if put.is_ok() {
            prop_assert_eq!(format!("{whole:?}"), format!("{each:?}"));
            prop_assert_eq!(rounded, convert.rounded);
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts_whatever_objects_came_before(
        rows in prop::collection::vec(prop::collection::vec((0..7_u8, 0..100_u8), 0..9), 1..12),
    ) {
        let names = ["a", "b", "ab", "a_key_of_twenty_bytes", "\\u0061", "", "b_key_longer_than_a_word"];
        let mut decoder = Decoder::new(&table(&[("v", "Map(String, UInt8)")]), &Mapping::empty()).unwrap();
        for row in rows {
            let members: Vec<_> = row.iter().map(|&(key, value)| format!("\"{}\":{value}", names[usize::from(key)])).collect();
            let mut columns = decoder.columns();
            decode(&mut decoder, format!("{{\"v\":{{{}}}}}", members.join(",")).as_bytes(), &mut columns).unwrap();
            let name = |key: u8| if key == 4 { "a" } else { names[usize::from(key)] };
            let kept = row.iter().enumerate().filter(|(at, (key, _))| {
                row[at + 1..].iter().all(|(later, _)| name(*later) != name(*key))
            });
            let kept: Vec<_> = kept.map(|(_, member)| *member).collect();
            let mut expected = u64::try_from(kept.len()).unwrap().to_le_bytes().to_vec();
            for &(key, _) in &kept {
                expected.push(u8::try_from(name(key).len()).unwrap());
                expected.extend_from_slice(name(key).as_bytes());
            }
            expected.extend(kept.iter().map(|&(_, value)| value));
            let block = columns.encode();
            prop_assert_eq!(&block[block.len() - columns.bytes()..], expected);
        }
    }
}
