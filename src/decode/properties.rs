//! Properties against independent judges: serde_json for the grammar, 256-bit integers for
//! decimals, jiff for times.

use ethnum::U256;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::json::{Kind, Reader, Span, unescape};
use super::keys::Keys;
use super::number::scaled;
use super::reject::Reason;
use super::time::from_text;

/// The value that the reader sees.
fn seen(json: &[u8], span: Span) -> Value {
    let text = &json[span.start..span.end];
    let string = |span: Span| {
        let mut plain = Vec::new();
        unescape(&json[span.start..span.end], &mut plain);
        String::from_utf8(plain).unwrap()
    };
    match span.kind {
        Kind::Absent => panic!("a read value is there"),
        Kind::Text => Value::String(String::from_utf8(text.to_vec()).unwrap()),
        Kind::EscapedText => Value::String(string(span)),
        Kind::Array => {
            let mut reader = Reader::new(json, span.start);
            reader.open_array(0).unwrap();
            let mut elements = Vec::new();
            while reader.next_element(elements.is_empty()).unwrap() {
                elements.push(seen(json, reader.value(0).unwrap()));
            }
            Value::Array(elements)
        }
        Kind::Object => {
            let mut reader = Reader::new(json, span.start);
            reader.open_object(0).unwrap();
            let mut members = Map::new();
            let mut first = true;
            while let Some(key) = reader.next_key(first).unwrap() {
                first = false;
                members.insert(string(key), seen(json, reader.value(0).unwrap()));
            }
            Value::Object(members)
        }
        _ => serde_json::from_slice(text).unwrap(),
    }
}

/// Checks one text; the keys stay the same, so that remembered orders are wrong most of the time.
fn agrees(keys: &mut Keys, text: &[u8]) -> Result<(), TestCaseError> {
    let a = keys.slot(&["a".to_owned()]);
    let b = keys.slot(&["b".to_owned(), "a".to_owned()]);
    match (keys.read(text), serde_json::from_slice::<Value>(text)) {
        (Ok(()), Ok(Value::Object(members))) => {
            for (slot, expected) in
                [(a, members.get("a")), (b, members.get("b").and_then(|b| b.get("a")))]
            {
                let span = keys.found(slot);
                let found = (span.kind != Kind::Absent).then(|| seen(text, span));
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
}
