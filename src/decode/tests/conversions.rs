//! Each type: what it takes, what it refuses, and its bytes.

use super::fixtures::{rounded, values};
use crate::decode::Reason::{self, InvalidTime, InvalidValue, MissingValue, OutOfRange, WrongType};

fn one(ty: &str, payload: &str) -> Vec<u8> {
    values(ty, &[payload]).unwrap_or_else(|reject| panic!("{ty} {payload}: {reject}"))
}

fn refused(ty: &str, payload: &str) -> Reason {
    match values(ty, &[payload]) {
        Ok(bytes) => panic!("{ty} took {payload} as {bytes:?}"),
        Err(reject) => {
            assert!(reject.error.starts_with("column v: "), "{reject}");
            assert!(reject.error.chars().count() < 250, "{reject}");
            reject.reason
        }
    }
}

#[test]
fn integers_of_every_width_take_their_whole_range_and_no_more() {
    for (bits, signed) in
        [8_u32, 16, 32, 64, 128, 256].into_iter().flat_map(|b| [(b, true), (b, false)])
    {
        let ty = format!("{}Int{bits}", if signed { "" } else { "U" });
        let top = ethnum::U256::MAX >> (256 - bits + u32::from(signed));
        let bytes = usize::try_from(bits / 8).unwrap();
        assert_eq!(one(&ty, &top.to_string()), top.to_le_bytes()[..bytes], "{ty}");
        assert_eq!(one(&ty, &format!("\"{top}\"")), top.to_le_bytes()[..bytes], "{ty}");
        let above = if top == ethnum::U256::MAX {
            "115792089237316195423570985008687907853269984665640564039457584007913129639936"
                .to_owned()
        } else {
            (top + 1).to_string()
        };
        assert_eq!(refused(&ty, &above), OutOfRange, "{ty}");
        if signed {
            let bottom = (top + 1).wrapping_neg();
            assert_eq!(one(&ty, &format!("-{above}")), bottom.to_le_bytes()[..bytes], "{ty}");
            assert_eq!(refused(&ty, &format!("-{}", top + 2)), OutOfRange, "{ty}");
            assert_eq!(one(&ty, "-1"), vec![0xff; bytes]);
        } else {
            assert_eq!(refused(&ty, "-1"), OutOfRange);
        }
        assert_eq!(one(&ty, "-0"), vec![0; bytes]);
    }
}

#[test]
fn an_integer_may_be_spelled_with_a_fraction_or_an_exponent_if_it_is_one() {
    assert_eq!(one("UInt16", "5.0"), [5, 0]);
    assert_eq!(one("UInt16", "1e3"), [0xe8, 3]);
    assert_eq!(one("UInt16", "100000e-5"), [1, 0]);
    assert_eq!(one("UInt16", "0e999999999999999999999"), [0, 0]);
    assert_eq!(refused("UInt16", "5.5"), WrongType);
    assert_eq!(refused("UInt16", "1e-3"), WrongType);
    assert_eq!(refused("UInt16", "1e-999999999999999999999"), WrongType);
    assert_eq!(refused("UInt16", "1e999999999"), OutOfRange);
    assert_eq!(refused("Int256", "1e9999999999999999999999"), OutOfRange);
}

#[test]
fn nothing_else_is_coerced_to_a_number() {
    for ty in ["Int32", "UInt256", "Float64", "Decimal(18, 5)"] {
        for payload in [
            "true", "false", "[1]", "{}", r#""""#, r#"" 1""#, r#""1 ""#, r#""+1""#, r#""0x1""#,
            r#""NaN""#, r#""01""#,
        ] {
            assert_eq!(refused(ty, payload), WrongType, "{ty} {payload}");
        }
        assert_eq!(refused(ty, "null"), MissingValue);
    }
}

#[test]
fn decimals_are_exact_and_excess_digits_round_half_even_and_are_counted() {
    let price = |text: &str| i64::from_le_bytes(one("Decimal(18, 5)", text).try_into().unwrap());
    assert_eq!(price("1.08543"), 108_543);
    assert_eq!(price("1.0854299999999999"), 108_543);
    assert_eq!(price("-1.5e-1"), -15_000);
    assert_eq!(price("\"12\""), 1_200_000);
    assert_eq!(price("0.000005"), 0);
    assert_eq!(price("0.000015"), 2);
    assert_eq!(price("0.0000150000000000000000000000000000001"), 2);
    assert_eq!(price("0.0000050000000000000000000000000000001"), 1);
    assert_eq!(price("-0.000015"), -2);
    assert_eq!(price("9999999999999.99999"), 999_999_999_999_999_999);
    assert_eq!(refused("Decimal(18, 5)", "9999999999999.999995"), OutOfRange);
    assert_eq!(refused("Decimal(18, 5)", "1e13"), OutOfRange);
    assert_eq!(refused("Decimal(18, 5)", "1e999999999"), OutOfRange);
    assert_eq!(price("1e-999999999"), 0);
    assert_eq!(rounded("Decimal(18, 5)", "1.08543"), 0);
    assert_eq!(rounded("Decimal(18, 5)", "1.085430000000000000000000000"), 0);
    assert_eq!(rounded("Decimal(18, 5)", "1.0854299999999999"), 1);
    assert_eq!(rounded("Decimal(18, 5)", "1e-999999999"), 1);
    let wide = "9".repeat(76);
    assert_eq!(
        one("Decimal(76, 0)", &format!("-{wide}")),
        (-(ethnum::I256::from(10).pow(76) - 1)).to_le_bytes()
    );
    assert_eq!(refused("Decimal(76, 0)", &format!("1{}", "0".repeat(76))), OutOfRange);
    assert_eq!(one("Decimal32(2)", "1.1").len(), 4);
    assert_eq!(one("Decimal128(2)", "1.1").len(), 16);
}

#[test]
fn floats_take_the_nearest_value_and_refuse_infinity() {
    assert_eq!(one("Float64", "0.1"), 0.1_f64.to_le_bytes());
    assert_eq!(one("Float32", "\"-1e-3\""), (-1e-3_f32).to_le_bytes());
    assert_eq!(refused("Float64", "1e999999999"), OutOfRange);
    assert_eq!(refused("Float32", "1e39"), OutOfRange);
}

#[test]
fn a_bool_takes_true_false_0_and_1() {
    assert_eq!(values("Bool", &["true", "false", "1", "0"]).unwrap(), [1, 0, 1, 0]);
    for payload in ["2", "-1", r#""true""#, r#""1""#, "[]"] {
        assert_eq!(refused("Bool", payload), WrongType, "{payload}");
    }
}

#[test]
fn a_string_takes_text_and_the_literal_text_of_numbers() {
    assert_eq!(
        values("String", &[r#""ab""#, r#""\u00e9\n\ud83d\ude00""#, "1.50e+3"]).unwrap(),
        b"\x02ab\x07\xc3\xa9\n\xf0\x9f\x98\x80\x071.50e+3"
    );
    let long = format!("\"{}\"", "x".repeat(300));
    assert_eq!(one("String", &long)[..3], [0xac, 0x02, b'x']);
    for payload in ["true", "{}", "[]"] {
        assert_eq!(refused("LowCardinality(String)", payload), WrongType);
    }
    assert_eq!(one("FixedString(4)", r#""ab""#), b"ab\0\0");
    assert_eq!(refused("FixedString(4)", r#""abcde""#), OutOfRange);
}

#[test]
fn an_enum_takes_a_declared_name_or_number() {
    let ty = r"Enum8('buy' = 1, 'it\'s' = -2)";
    assert_eq!(values(ty, &[r#""buy""#, r#""it's""#, "1", "-2"]).unwrap(), [1, 254, 1, 254]);
    assert_eq!(refused(ty, r#""hold""#), InvalidValue);
    assert_eq!(refused(ty, "3"), InvalidValue);
    assert_eq!(one("Enum16('a' = 300)", "300"), [44, 1]);
}

#[test]
fn addresses_and_uuids_come_from_their_texts() {
    assert_eq!(
        one("UUID", r#""00112233-4455-6677-8899-aabbccddeeff""#),
        [
            0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99,
            0x88
        ]
    );
    assert_eq!(one("IPv4", r#""1.2.3.4""#), [4, 3, 2, 1]);
    assert_eq!(one("IPv6", r#""::1""#)[15], 1);
    assert_eq!(one("IPv6", r#""1.2.3.4""#)[10..], [255, 255, 1, 2, 3, 4]);
    assert_eq!(refused("UUID", r#""{00112233-4455-6677-8899-aabbccddeeff}""#), InvalidValue);
    assert_eq!(refused("IPv4", r#""1.2.3""#), InvalidValue);
    assert_eq!(refused("IPv4", "1"), WrongType);
}

#[test]
fn times_come_in_the_documented_forms() {
    let ms = |text: &str| i64::from_le_bytes(one("DateTime64(3, 'UTC')", text).try_into().unwrap());
    let expected = 1_704_209_799_034;
    for text in [
        "1704209799034",
        "1704209799034000",
        "1704209799034000000",
        r#""1704209799034""#,
        r#""2024-01-02 15:36:39.034000""#,
        r#""2024-01-02T15:36:39.034Z""#,
        r#""2024-01-02T17:36:39.034+02:00""#,
        r#""2024-01-02t10:06:39.034-05:30""#,
    ] {
        assert_eq!(ms(text), expected, "{text}");
    }
    assert_eq!(ms("1704209799"), 1_704_209_799_000);
    assert_eq!(ms(r#""2024-02-29""#), 1_709_164_800_000);
    assert_eq!(ms("-1000"), -1_000_000);
    assert_eq!(ms(r#""1900-01-01""#), -2_208_988_800_000);
    assert_eq!(refused("DateTime64(3)", r#""1899-12-31 23:59:59""#), OutOfRange);
    assert_eq!(refused("DateTime64(9)", r#""2299-01-01""#), OutOfRange);
    assert_eq!(refused("DateTime", r#""1969-12-31 23:59:59""#), OutOfRange);
    for text in [
        r#""2023-02-29""#,
        r#""All day""#,
        r#""""#,
        "1.5",
        "1e9",
        r#""2024-01-02 24:00:00""#,
        r#""2024-01-02 15:36""#,
        r#""2024-1-2""#,
        r#""2024-01-02T15:36:39.Z""#,
        r#""2024-01-02T15:36:60Z""#,
        r#""2025-Q1""#,
        r#""-""#,
        r#""2024-01-02Z""#,
    ] {
        assert_eq!(refused("DateTime64(3)", text), InvalidTime, "{text}");
    }
    assert_eq!(refused("DateTime64(3)", "true"), WrongType);
    assert_eq!(one("DateTime('Asia/Tokyo')", r#""1970-01-01 00:00:09""#), [9, 0, 0, 0]);
    assert_eq!(one("Date", r#""1970-01-03 23:59:59.9""#), [2, 0]);
    assert_eq!(one("Date", "86400"), [1, 0]);
    assert_eq!(one("Date32", r#""1969-12-31""#), (-1_i32).to_le_bytes());
}

#[test]
fn fractions_beyond_the_precision_round_half_even_and_are_counted() {
    let secs = |text: &str| u32::from_le_bytes(one("DateTime", text).try_into().unwrap());
    assert_eq!(secs(r#""1970-01-01 00:00:01.5""#), 2);
    assert_eq!(secs(r#""1970-01-01 00:00:02.5""#), 2);
    assert_eq!(secs(r#""1970-01-01 00:00:02.50000000000000000000001""#), 3);
    assert_eq!(rounded("DateTime", r#""1970-01-01 00:00:02.5""#), 1);
    assert_eq!(rounded("DateTime64(3)", r#""1970-01-01 00:00:02.500000000000000000000""#), 0);
    assert_eq!(rounded("DateTime64(3)", r#""1970-01-01 00:00:02.5000000000000000000001""#), 1);
    assert_eq!(rounded("Nullable(DateTime64(3))", "1704209799034001"), 1);
}

#[test]
fn composed_types_lie_part_by_part() {
    assert_eq!(
        values("Array(UInt8)", &["[1,2]", "[]", "[3]"]).unwrap(),
        [2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]
    );
    assert_eq!(values("Nullable(UInt8)", &["1", "null", "3"]).unwrap(), [0, 1, 0, 1, 0, 3]);
    assert_eq!(
        values("Map(String, UInt8)", &[r#"{"a":1,"b":2,"a":3}"#]).unwrap(),
        [2, 0, 0, 0, 0, 0, 0, 0, 1, b'b', 1, b'a', 2, 3]
    );
    assert_eq!(
        values("Map(UInt8, Bool)", &[r#"{"7":true}"#]).unwrap(),
        [1, 0, 0, 0, 0, 0, 0, 0, 7, 1]
    );
    let named = "Tuple(a UInt8, `b c` Nullable(Int8))";
    assert_eq!(
        values(named, &[r#"{"b c":2,"a":1,"x":[]}"#, "[3,null]", r#"{"a":9,"a":5}"#]).unwrap(),
        [1, 3, 5, 0, 1, 1, 2, 0, 0]
    );
    assert_eq!(refused(named, r#"{"b c":2}"#), MissingValue);
    assert_eq!(refused(named, "[1]"), WrongType);
    assert_eq!(refused(named, "[1,2,3]"), WrongType);
    assert_eq!(refused("Tuple(UInt8, UInt8)", "{}"), WrongType);
    assert_eq!(refused("Array(UInt8)", "[1,null]"), MissingValue);
    assert_eq!(refused("Array(UInt8)", "{}"), WrongType);
    assert_eq!(
        one("Array(Array(UInt8))", "[[],[1]]"),
        [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    );
    let many: Vec<String> = (0..40).map(|n| format!("\"k{}\":{n}", n % 20)).collect();
    let map = one("Map(String, UInt8)", &format!("{{{}}}", many.join(",")));
    assert_eq!(map[0], 20);
    assert_eq!(map[map.len() - 1], 39);
}
