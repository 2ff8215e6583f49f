//! Sources, fallbacks, defaults, what is refused before any record, and atomicity.

use super::fixtures::{chunk, decode, from, map, table};
use crate::decode::{ColumnMapping, Decoder, Mapping, Reason};
use crate::record::{Chunk, NewRecord};

fn problems(columns: &[(&str, &str)], mapping: &Mapping) -> Vec<String> {
    Decoder::new(&table(columns), mapping).expect_err("it has problems")
}

#[test]
fn every_problem_is_reported_at_once_with_its_remedy() {
    let columns = [
        ("a", "UInt8"),
        ("m", "UInt8 MATERIALIZED"),
        ("j", "JSON(max_dynamic_paths = 8)"),
        ("d", "UInt8"),
        ("r", "UInt64"),
        ("f", "Float32"),
    ];
    let bad_default = ColumnMapping { default: Some(300.into()), ..from(&["d"]) };
    let format = ColumnMapping { format: Some("unix_s".parse().unwrap()), ..from(&["f"]) };
    let mapping = map(&[
        ("aa", from(&["x"])),
        ("m", from(&["x"])),
        ("d", bad_default),
        ("r", from(&["@raw"])),
        ("f", format),
    ]);
    let problems = problems(&columns, &mapping).join("\n");
    for part in [
        "no column aa (did you mean a?)",
        "column m of table t is MATERIALIZED",
        "format = \"json\"",
        "JSON(max_dynamic_paths = 8)",
        "its default does not fit: expected UInt8, found 300",
        "@raw needs a String",
        "holds no time",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
}

#[test]
fn a_value_comes_from_the_first_source_that_has_one() {
    let mapping = map(&[
        ("time", from(&["timestamp_ms", "t.ms", "s"])),
        ("source", ColumnMapping { default: Some("none".into()), ..from(&["source"]) }),
    ]);
    let table = table(&[("time", "UInt8"), ("source", "LowCardinality(String)")]);
    let mut decoder = Decoder::new(&table, &mapping).unwrap();
    let mut columns = decoder.columns();
    for payload in [
        r#"{"s":3,"t":{"ms":2},"timestamp_ms":1,"source":"x"}"#,
        r#"{"timestamp_ms":null,"t":{"ms":2},"s":3}"#,
        r#"{"s":3,"t":5,"source":null}"#,
        r#"{"s":3,"t":{"ms":2},"t":{}}"#,
        r#"{"s":3,"t":{"ms":2},"t":7}"#,
        r#"{"s":3,"s":4}"#,
        r#"{"\u0073":5}"#,
    ] {
        decode(&mut decoder, payload.as_bytes(), &mut columns).unwrap();
    }
    let block = columns.encode();
    let has = |text: &[u8]| memchr::memmem::find(&block, text).is_some();
    assert!(has(b"\x05UInt8\x01\x02\x03\x03\x03\x04\x05"), "{block:?}");
    assert!(has(b"\x01x\x04none\x07\0\0\0\0\0\0\0\0\x01\x01\x01\x01\x01\x01"), "{block:?}");
}

#[test]
fn without_a_value_null_then_default_of_clickhouse_then_a_refusal() {
    let decoded = |ty| {
        let mut decoder = Decoder::new(&table(&[("v", ty)]), &Mapping::empty()).unwrap();
        let mut columns = decoder.columns();
        decode(&mut decoder, b"{}", &mut columns).map(|_| columns.encode())
    };
    assert_eq!(
        decoded("Nullable(UInt8)").unwrap()[..],
        *b"\x01\x01\x01v\x0fNullable(UInt8)\x01\x00"
    );
    assert_eq!(decoded("UInt8 DEFAULT").unwrap()[..], *b"\x01\x01\x01v\x0fNullable(UInt8)\x01\x00");
    let reject = decoded("UInt8").unwrap_err();
    assert_eq!(reject.reason, Reason::MissingValue);
    let reject = decoded("Array(UInt8) DEFAULT").unwrap_err();
    assert!(reject.error.contains("`default`"), "{reject}");
}

#[test]
fn metadata_fills_columns() {
    let names = [
        "@topic",
        "@partition",
        "@offset",
        "@key",
        "@timestamp",
        "@received_at",
        "@headers.n",
        "@raw",
        "@subject",
        "@subject[1]",
    ];
    let columns: Vec<_> = names.iter().map(|name| (*name, "Nullable(String)")).collect();
    let mapping = map(&names.map(|name| (name, from(&[name]))));
    let mut decoder = Decoder::new(&table(&columns), &mapping).unwrap();
    let mut columns = decoder.columns();
    // Only metadata: the payload need not be JSON.
    decode(&mut decoder, b"{\xff", &mut columns).unwrap();
    let block = columns.encode();
    let has = |text: &[u8]| memchr::memmem::find(&block, text).is_some();
    for text in [
        &b"\x00\x07candles"[..],
        b"\x00\x013",
        b"\x00\x0242",
        b"\x00\x04EUR\xff",
        b"\x00\x0d1600000000456",
        b"\x00\x0d1700000000123",
        b"\x00\x017",
        b"\x00\x02{\xff",
    ] {
        assert!(has(text), "{text:?} in {block:?}");
    }
    assert!(block.ends_with(b"Nullable(String)\x01\x00"));

    let mut chunk = Chunk::with_capacity(5, 1, 64);
    chunk.push(
        NewRecord { subject: "market.EURUSD.tick", payload: Some(b"{}"), ..NewRecord::default() },
        [],
    );
    columns.clear();
    decoder.decode(&chunk.record(0), None, &mut columns).unwrap();
    let block = columns.encode();
    assert!(memchr::memmem::find(&block, b"\x00\x06EURUSD").is_some());
    assert!(memchr::memmem::find(&block, b"\x00\x12market.EURUSD.tick").is_some());
}

#[test]
fn a_time_of_the_record_is_not_guessed_by_its_magnitude() {
    let mapping = map(&[("v", from(&["@timestamp"]))]);
    let mut decoder = Decoder::new(&table(&[("v", "DateTime64(3)")]), &mapping).unwrap();
    let mut chunk = Chunk::with_capacity(5, 1, 64);
    chunk.push(NewRecord { timestamp: Some(1_500), ..NewRecord::default() }, []);
    let mut columns = decoder.columns();
    decoder.decode(&chunk.record(0), None, &mut columns).unwrap();
    assert!(columns.encode().ends_with(&1_500_i64.to_le_bytes()));
}

#[test]
fn formats_narrow_what_a_time_may_be() {
    let decode = |format: &str, payload: &str| {
        let column = ColumnMapping { format: Some(format.parse().unwrap()), ..from(&["v"]) };
        let mut decoder =
            Decoder::new(&table(&[("v", "DateTime64(3)")]), &map(&[("v", column)])).unwrap();
        let mut columns = decoder.columns();
        decode(&mut decoder, format!("{{\"v\":{payload}}}").as_bytes(), &mut columns).map(|_| {
            let block = columns.encode();
            i64::from_le_bytes(*block.last_chunk().unwrap())
        })
    };
    assert_eq!(decode("unix_s", "1500.25"), Ok(1_500_250));
    assert_eq!(decode("unix_s", "\"1500.25\""), Ok(1_500_250));
    assert_eq!(decode("unix_ms", "-1500"), Ok(-1_500));
    assert_eq!(decode("unix_us", "-1500000.0"), Ok(-1_500));
    assert_eq!(decode("unix_ns", "1500000000"), Ok(1_500));
    assert_eq!(decode("rfc3339", "\"1970-01-01T00:00:01.5Z\""), Ok(1_500));
    assert_eq!(decode("%d.%m.%Y %H:%M:%S", "\"02.01.1970 00:00:01\""), Ok(86_401_000));
    assert_eq!(decode("%d.%m.%Y", "\"02.01.1970\""), Ok(86_400_000));
    assert_eq!(decode("%Y%m%d", "19700102"), Ok(86_400_000));
    assert_eq!(decode("%Y-%m-%dT%H:%M:%S%z", "\"1970-01-02T02:00:00+0200\""), Ok(86_400_000));
    for (format, payload) in [
        ("rfc3339", "\"1970-01-01T00:00:01\""),
        ("rfc3339", "5"),
        ("unix_s", "\"1970-01-01\""),
        ("%d.%m.%Y", "\"1.1\""),
        ("%d.%m.%Y", "\"31.02.2024\""),
    ] {
        assert_eq!(
            decode(format, payload).unwrap_err().reason,
            Reason::InvalidTime,
            "{format} {payload}"
        );
    }
    assert_eq!(decode("unix_s", "1e999").unwrap_err().reason, Reason::OutOfRange);
    for format in ["nope", "%H:%M", "%Q", "%", "%Y-%m"] {
        format.parse::<crate::decode::TimeFormat>().expect_err(format);
    }
}

#[test]
fn a_refused_record_leaves_no_trace() {
    let columns = [
        ("a", "String"),
        ("b", "Array(Tuple(x Nullable(UInt8), y String))"),
        ("c", "Map(String, Array(UInt8))"),
        ("d", "UInt8 DEFAULT"),
        ("e", "UInt8"),
    ];
    let good = br#"{"a":"x","b":[{"x":1,"y":"q"}],"c":{"k":[1,2]},"d":5,"e":6}"#;
    let mut decoder = Decoder::new(&table(&columns), &Mapping::empty()).unwrap();
    let mut columns = decoder.columns();
    decode(&mut decoder, good, &mut columns).unwrap();
    let before = columns.encode();
    for bad in [
        &br#"{"a":"x","b":[{"x":1,"y":"q"}],"c":{"k":[1,2]},"d":5,"e":600}"#[..],
        br#"{"a":"x","b":[{"x":1,"y":"q"}],"c":{"k":[1,2,-1]},"d":5,"e":6}"#,
        br#"{"a":"x","b":[{"x":1,"y":"q"},{"x":2,"y":[]}],"c":{},"d":5,"e":6}"#,
        br#"{"a":"x","b":[{"x":null,"y":null}],"c":{},"d":5,"e":6}"#,
        br#"{"a":"x","b":[],"c":{"k":[1],"l":[null]},"d":5,"e":6}"#,
        br#"{"a":"x","b":[],"c":{},"d":500,"e":6}"#,
        br#"{"a":true}"#,
        b"{",
        b"",
        b"[]",
        b"null",
        b"\"\xff\"",
        b"{}x",
    ] {
        decode(&mut decoder, bad, &mut columns).expect_err("bad");
        assert_eq!(columns.encode(), before, "{}", String::from_utf8_lossy(bad));
        assert_eq!(columns.rows(), 1);
    }
    let mut again = decoder.columns();
    decode(&mut decoder, good, &mut columns).unwrap();
    for _ in 0..2 {
        decode(&mut decoder, good, &mut again).unwrap();
    }
    assert_eq!(columns.encode(), again.encode());
}

#[test]
fn what_is_no_json_object_has_its_own_code() {
    let mut decoder = Decoder::new(&table(&[("v", "Nullable(UInt8)")]), &Mapping::empty()).unwrap();
    let mut columns = decoder.columns();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
    for (payload, reason) in [
        (&b""[..], Reason::EmptyPayload),
        (b"{\"v\":\"\xff\"}", Reason::InvalidUtf8),
        (b"{\"v\":NaN}", Reason::InvalidJson),
        (b"[1]", Reason::NotAnObject),
        (b"null", Reason::NotAnObject),
        (b"[1", Reason::InvalidJson),
        (deep.as_bytes(), Reason::TooDeep),
    ] {
        assert_eq!(decode(&mut decoder, payload, &mut columns).unwrap_err().reason, reason);
    }
    let empty = chunk(None);
    let reject = decoder.decode(&empty.record(0), None, &mut columns).unwrap_err();
    assert_eq!(reject.reason, Reason::EmptyPayload);
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(63), "]".repeat(63));
    decode(&mut decoder, deep.as_bytes(), &mut columns).unwrap();
}

#[test]
fn keys_are_found_in_whatever_order_they_come() {
    let names: Vec<String> = (0..6).map(|n| format!("k{n}")).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), "Nullable(UInt8)")).collect();
    let mut decoder = Decoder::new(&table(&columns), &Mapping::empty()).unwrap();
    for round in 0_usize..200 {
        let mut wanted = [0_u8; 6];
        let mut members = Vec::new();
        for step in 0..6 {
            let index = (step * 5 + round) % 6;
            if (round * 7 + step * 3) % 5 > 0 {
                let value = u8::try_from(round % 100 + index).unwrap();
                wanted[index] = value;
                members.push(format!("\"k{index}\": {value}"));
            }
            if (round + step) % 4 == 0 {
                members.push(format!("\"other{}\": [{{}}]", round % 3));
            }
        }
        let mut columns = decoder.columns();
        decode(&mut decoder, format!("{{{}}}", members.join(" , ")).as_bytes(), &mut columns)
            .unwrap();
        let block = columns.encode();
        let ends = memchr::memmem::find_iter(&block, "Nullable(UInt8)").map(|at| at + 16);
        let found: Vec<u8> = ends.map(|at| block[at]).collect();
        assert_eq!(found, wanted, "round {round}");
    }
}
