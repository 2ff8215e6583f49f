//! Every type that is filled from JSON, over Kafka and back out of ClickHouse, exactly; columns
//! that ClickHouse computes; and what is passed through for the types that cannot be built.

use serde_json::{Value as Json, json};

use crate::lab::{Lab, assert_accounts, number, settled};

const MAX_I256: &str =
    "57896044618658097711785492504343953926634992332820282019728792003956564819967";
const MIN_I256: &str =
    "-57896044618658097711785492504343953926634992332820282019728792003956564819968";
const MAX_U256: &str =
    "115792089237316195423570985008687907853269984665640564039457584007913129639935";

/// A type, and for each of three rows the JSON that is sent and what `toString` says of the cell;
/// an empty expectation is NULL.
type Case = (&'static str, [(&'static str, &'static str); 3]);

const NUMBERS: &[Case] = &[
    ("UInt8", [("0", "0"), ("255", "255"), ("\"7\"", "7")]),
    ("UInt16", [("0", "0"), ("65535", "65535"), ("1e3", "1000")]),
    ("UInt32", [("0", "0"), ("4294967295", "4294967295"), ("\"12\"", "12")]),
    (
        "UInt64",
        [
            ("0", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("9007199254740993", "9007199254740993"),
        ],
    ),
    (
        "UInt128",
        [
            ("0", "0"),
            ("340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
            ("\"1\"", "1"),
        ],
    ),
    ("UInt256", [("0", "0"), (MAX_U256, MAX_U256), ("1", "1")]),
    ("Int8", [("-128", "-128"), ("127", "127"), ("\"-1\"", "-1")]),
    ("Int16", [("-32768", "-32768"), ("32767", "32767"), ("0", "0")]),
    ("Int32", [("-2147483648", "-2147483648"), ("2147483647", "2147483647"), ("0", "0")]),
    (
        "Int64",
        [
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9007199254740993", "-9007199254740993"),
        ],
    ),
    (
        "Int128",
        [
            (
                "-170141183460469231731687303715884105728",
                "-170141183460469231731687303715884105728",
            ),
            ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
            ("0", "0"),
        ],
    ),
    ("Int256", [(MIN_I256, MIN_I256), (MAX_I256, MAX_I256), ("0", "0")]),
    ("Float32", [("0.1", "0.1"), ("-3.4028235e38", "-3.4028235e38"), ("16777216", "16777216")]),
    (
        "Float64",
        [
            ("0.1", "0.1"),
            ("1.7976931348623157e308", "1.7976931348623157e308"),
            ("5e-324", "5e-324"),
        ],
    ),
    ("Bool", [("true", "true"), ("false", "false"), ("1", "true")]),
    ("Decimal(9, 2)", [("0.01", "0.01"), ("-9999999.99", "-9999999.99"), ("1e2", "100")]),
    (
        "Decimal(18, 5)",
        [
            ("1.08542999999999990", "1.08543"),
            ("9999999999999.99999", "9999999999999.99999"),
            ("\"-0.00001\"", "-0.00001"),
        ],
    ),
    (
        "Decimal(38, 12)",
        [
            ("0.000000000001", "0.000000000001"),
            ("99999999999999999999999999.999999999999", "99999999999999999999999999.999999999999"),
            ("-1", "-1"),
        ],
    ),
    (
        "Decimal(76, 20)",
        [
            (
                "12345678901234567890123456789012345678901234567890123456.12345678901234567891",
                "12345678901234567890123456789012345678901234567890123456.12345678901234567891",
            ),
            ("0.00000000000000000001", "0.00000000000000000001"),
            ("-1", "-1"),
        ],
    ),
];

const TEXTS_AND_TIMES: &[Case] = &[
    ("String", [(r#""a\"\\\u00e9\ud83d\ude00""#, "a\"\\é😀"), ("1.50", "1.50"), (r#""""#, "")]),
    ("FixedString(5)", [(r#""abcde""#, "abcde"), (r#""12345""#, "12345"), (r#""äöx""#, "äöx")]),
    ("LowCardinality(String)", [(r#""one""#, "one"), (r#""two""#, "two"), (r#""one""#, "one")]),
    ("LowCardinality(Nullable(String))", [("null", ""), (r#""two""#, "two"), (r#""one""#, "one")]),
    ("LowCardinality(FixedString(2))", [(r#""ab""#, "ab"), (r#""cd""#, "cd"), (r#""ab""#, "ab")]),
    (
        "Date",
        [
            (r#""1970-01-01""#, "1970-01-01"),
            (r#""2149-06-06""#, "2149-06-06"),
            (r#""2026-02-28""#, "2026-02-28"),
        ],
    ),
    (
        "Date32",
        [
            (r#""1900-01-01""#, "1900-01-01"),
            (r#""2299-12-31""#, "2299-12-31"),
            (r#""2000-02-29""#, "2000-02-29"),
        ],
    ),
    (
        "DateTime",
        [
            ("0", "1970-01-01 00:00:00"),
            (r#""2026-01-02T03:04:05Z""#, "2026-01-02 03:04:05"),
            (r#""2026-01-02 03:04:05""#, "2026-01-02 03:04:05"),
        ],
    ),
    (
        "DateTime('Asia/Tokyo')",
        [
            ("1700000000", "2023-11-15 07:13:20"),
            (r#""2026-01-02T03:04:05+09:00""#, "2026-01-02 03:04:05"),
            (r#""1700000000""#, "2023-11-15 07:13:20"),
        ],
    ),
    (
        "DateTime64(3, 'UTC')",
        [
            ("1700000000123", "2023-11-14 22:13:20.123"),
            (r#""2024-01-02 15:36:39.034000""#, "2024-01-02 15:36:39.034"),
            (r#""1969-12-31T23:59:59.999Z""#, "1969-12-31 23:59:59.999"),
        ],
    ),
    (
        "DateTime64(9, 'America/New_York')",
        [
            (r#""2026-07-01T12:00:00.123456789Z""#, "2026-07-01 08:00:00.123456789"),
            ("1700000000123456789", "2023-11-14 17:13:20.123456789"),
            (r#""2026-01-01T00:00:00Z""#, "2025-12-31 19:00:00.000000000"),
        ],
    ),
    (
        "UUID",
        [
            (r#""00000000-0000-0000-0000-000000000000""#, "00000000-0000-0000-0000-000000000000"),
            (r#""0123abcd-4567-89ef-0123-456789abcdef""#, "0123abcd-4567-89ef-0123-456789abcdef"),
            (r#""FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF""#, "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ],
    ),
    (
        "IPv4",
        [
            (r#""0.0.0.0""#, "0.0.0.0"),
            (r#""255.255.255.255""#, "255.255.255.255"),
            (r#""10.1.2.3""#, "10.1.2.3"),
        ],
    ),
    (
        "IPv6",
        [
            (r#""::1""#, "::1"),
            (r#""2001:db8::ff00:42:8329""#, "2001:db8::ff00:42:8329"),
            (r#""10.1.2.3""#, "::ffff:10.1.2.3"),
        ],
    ),
    ("Enum8('a' = -1, 'b' = 2)", [(r#""a""#, "a"), (r#""b""#, "b"), ("2", "b")]),
    ("Enum16('x' = 1000, 'y' = -1000)", [(r#""x""#, "x"), (r#""y""#, "y"), (r#""x""#, "x")]),
];

const COMPOUND: &[Case] = &[
    ("Nullable(Int32)", [("null", ""), ("-5", "-5"), ("0", "0")]),
    ("Nullable(Decimal(18, 5))", [("null", ""), ("1.5", "1.5"), ("0", "0")]),
    (
        "Nullable(DateTime64(6, 'UTC'))",
        [
            ("null", ""),
            (r#""2026-01-01T00:00:00.000001Z""#, "2026-01-01 00:00:00.000001"),
            ("0", "1970-01-01 00:00:00.000000"),
        ],
    ),
    (
        "Nullable(UUID)",
        [
            ("null", ""),
            (r#""0123abcd-4567-89ef-0123-456789abcdef""#, "0123abcd-4567-89ef-0123-456789abcdef"),
            ("null", ""),
        ],
    ),
    (
        "Array(UInt64)",
        [("[]", "[]"), ("[1,18446744073709551615]", "[1,18446744073709551615]"), ("[3]", "[3]")],
    ),
    (
        "Array(Array(Nullable(Int32)))",
        [("[]", "[]"), ("[[1,null],[],[-3]]", "[[1,NULL],[],[-3]]"), ("[[]]", "[[]]")],
    ),
    (
        "Array(LowCardinality(String))",
        [("[]", "[]"), (r#"["a","b","a"]"#, "['a','b','a']"), ("[]", "[]")],
    ),
    ("Array(Decimal(9, 2))", [("[0.01]", "[0.01]"), ("[]", "[]"), ("[1,-2.5]", "[1,-2.5]")]),
    (
        "Map(String, Float64)",
        [("{}", "{}"), (r#"{"rsi_14":55.5,"x'y":1}"#, r"{'rsi_14':55.5,'x\'y':1}"), ("{}", "{}")],
    ),
    (
        "Map(LowCardinality(String), Array(UInt8))",
        [(r#"{"a":[1,2],"b":[]}"#, "{'a':[1,2],'b':[]}"), ("{}", "{}"), ("{}", "{}")],
    ),
    ("Map(UInt32, String)", [(r#"{"7":"seven"}"#, "{7:'seven'}"), ("{}", "{}"), ("{}", "{}")]),
    (
        "Tuple(a UInt8, b String)",
        [
            (r#"{"a":1,"b":"x"}"#, "(1,'x')"),
            (r#"{"b":"y","a":2}"#, "(2,'y')"),
            (r#"[3,"z"]"#, "(3,'z')"),
        ],
    ),
    (
        "Tuple(Int8, String)",
        [(r#"[1,"x"]"#, "(1,'x')"), (r#"[-1,""]"#, "(-1,'')"), (r#"[0,"0"]"#, "(0,'0')")],
    ),
    (
        "Array(Tuple(price Decimal(18, 5), at DateTime64(3, 'UTC')))",
        [
            (r#"[{"price":1.5,"at":1700000000123}]"#, "[(1.5,'2023-11-14 22:13:20.123')]"),
            ("[]", "[]"),
            ("[]", "[]"),
        ],
    ),
];

fn cases() -> Vec<Case> {
    [NUMBERS, TEXTS_AND_TIMES, COMPOUND].concat()
}

/// A route of its own from one topic into one table.
fn route(lab: &Lab, table: &str, rest: &str) -> String {
    format!(
        "[[routes]]\nname = \"{table}\"\nkafka_topics = [\"{}\"]\nwriter = \"aggregate\"\n\
         table = \"{table}\"\n{rest}",
        lab.topic(table)
    )
}

async fn send(lab: &Lab, table: &str, payloads: &[String]) {
    let (sender, topic) = (lab.kafka(), lab.topic(table));
    for payload in payloads {
        sender.send(&topic, Some(0), None, Some(payload.as_bytes()));
    }
    sender.flush().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_stored_exactly() {
    let lab = Lab::new().await;
    let cases = cases();
    let columns: Vec<String> =
        cases.iter().enumerate().map(|(i, (of, _))| format!("c{i} {of}")).collect();
    let columns = columns.join(", ");
    let create = "CREATE TABLE types (row UInt8, ";
    lab.clickhouse.query(&format!("{create}{columns}) ENGINE = MergeTree ORDER BY row")).await;
    lab.create_topics(&[lab.topic("types")], 1).await;
    let payloads: Vec<String> = (0..3)
        .map(|row| {
            let cells: Vec<String> = cases
                .iter()
                .enumerate()
                .map(|(i, (_, rows))| format!("\"c{i}\":{}", rows[row].0))
                .collect();
            format!("{{\"row\":{row},{}}}", cells.join(","))
        })
        .collect();
    send(&lab, "types", &payloads).await;
    let bridge = lab.start(&(lab.sections("kafka") + &route(&lab, "types", "")), "").await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", 3)).await;
    let letters = "SELECT groupArray(error) AS errors FROM dead_letters";
    let letters = lab.clickhouse.row(letters).await;
    assert_eq!(health["metrics"]["dead_letters"], 0, "{letters:#}");
    for row in 0..3 {
        let cells: Vec<String> =
            (0..cases.len()).map(|i| format!("ifNull(toString(c{i}), '') AS c{i}")).collect();
        let sql = format!("SELECT {} FROM types WHERE row = {row}", cells.join(", "));
        let stored = lab.clickhouse.row(&sql).await;
        for (i, (of, rows)) in cases.iter().enumerate() {
            assert_eq!(stored[format!("c{i}")], rows[row].1, "{of} from {}", rows[row].0);
        }
    }
    // empty texts above may be NULL or not: they are where they were sent
    for (i, (of, rows)) in cases.iter().enumerate().filter(|(_, (of, _))| of.contains("Nullable")) {
        for (row, (sent, _)) in rows.iter().enumerate().filter(|(_, (sent, _))| *sent == "null") {
            let sql = format!("SELECT c{i} IS NULL FROM types WHERE row = {row}");
            assert_eq!(lab.clickhouse.number(&sql).await, 1, "{of} from {sent}");
        }
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_arrives_however_it_is_compressed() {
    let lab = Lab::new().await;
    lab.clickhouse.query("CREATE TABLE sent (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    lab.create_topics(&[lab.topic("sent")], 1).await;
    for (turn, compression) in ["none", "lz4", "zstd"].into_iter().enumerate() {
        let rows = turn * 1_000..(turn + 1) * 1_000;
        let payloads: Vec<String> = rows.map(|n| format!("{{\"n\":{n}}}")).collect();
        send(&lab, "sent", &payloads).await;
        let sections = lab.sections("kafka");
        let with = format!("clickhouse = {{ compression = \"{compression}\", ");
        let sections = sections.replace("clickhouse = { ", &with);
        let bridge = lab.start(&(sections + &route(&lab, "sent", "")), "").await;
        bridge.wait_until("all is settled", |h| settled(h, "kafka", 1_000)).await;
        bridge.stop().await;
    }
    let sums = lab.clickhouse.row("SELECT count() AS rows, sum(n) AS sum FROM sent").await;
    assert_eq!([&sums["rows"], &sums["sum"]].map(number), [3_000, 2_999 * 1_500], "{sums}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_clickhouse_computes_are_left_to_it() {
    let lab = Lab::new().await;
    lab.clickhouse
        .query(
            "CREATE TABLE computed (a UInt64, d UInt64 DEFAULT a * 2, e String DEFAULT 'none', \
             m UInt64 MATERIALIZED a + 1, l UInt64 ALIAS a + 3, n Nullable(UInt8), \
             x UInt8 EPHEMERAL 4) ENGINE = MergeTree ORDER BY a",
        )
        .await;
    lab.create_topics(&[lab.topic("computed")], 1).await;
    let payloads = [
        r#"{"a":1}"#,
        r#"{"a":2,"d":7,"e":"given","m":99,"l":99,"n":3}"#,
        r#"{"a":3,"d":null,"e":null,"n":null}"#,
        r#"{"d":1}"#,
    ];
    send(&lab, "computed", &payloads.map(str::to_owned)).await;
    let bridge = lab.start(&(lab.sections("kafka") + &route(&lab, "computed", "")), "").await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", 4)).await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["dead_letters"], 1, "a is missing in the last: {health:#}");
    let row = async |a: u8| {
        lab.clickhouse
            .row(&format!(
                "SELECT toUInt8(d) AS d, e, toUInt8(m) AS m, toUInt8(l) AS l, n \
                 FROM computed WHERE a = {a}"
            ))
            .await
    };
    let expected = json!({ "d": 2, "e": "none", "m": 2, "l": 4, "n": null });
    assert_eq!(row(1).await, expected);
    let expected = json!({ "d": 7, "e": "given", "m": 3, "l": 5, "n": 3 });
    assert_eq!(row(2).await, expected);
    let third = row(3).await;
    assert_eq!((&third["d"], &third["e"]), (&json!(6), &json!("none")), "{third}");
    bridge.stop().await;
}

/// What has no run-time type here goes through unparsed; what ClickHouse refuses of it is found
/// and becomes a dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_passed_through_for_the_other_types() {
    let lab = Lab::new().await;
    lab.clickhouse
        .query(
            "CREATE TABLE passed (id UInt64, j JSON, v Variant(UInt64, String, Array(UInt64)), \
             d Dynamic, n Nested(x UInt8, y String)) ENGINE = MergeTree ORDER BY id",
        )
        .await;
    lab.create_topics(&[lab.topic("passed")], 1).await;
    let mut payloads: Vec<String> = (0..50)
        .map(|id| {
            json!({ "id": id, "j": { "a": { "b": id }, "c": [1, "x"] }, "v": "text", "d": [1, 2],
                    "n.x": [1, 2], "n.y": ["a", "b"], "unknown": 1 })
            .to_string()
        })
        .collect();
    payloads[10] = r#"{"id":10,"v":7,"d":"text","j":{}}"#.to_owned();
    payloads[20] = r#"{"id":"twenty","j":{}}"#.to_owned();
    payloads[30] = "{\"id\":30,".to_owned();
    payloads[40] = "} INSERT INTO passed {".to_owned();
    send(&lab, "passed", &payloads).await;
    let route = route(&lab, "passed", "format = \"json\"\n");
    let bridge = lab.start(&(lab.sections("kafka") + &route), "").await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", 50)).await;
    assert_accounts(&health);
    assert_eq!(number(&health["metrics"]["dead_letters"]), 3, "{health:#}");
    assert_eq!(lab.clickhouse.number("SELECT count() FROM passed").await, 47);
    let row = lab
        .clickhouse
        .row(
            "SELECT toString(j.a.b) AS b, variantType(v) AS v, toString(d) AS d, n.x AS x, n.y AS y \
             FROM passed WHERE id = 5",
        )
        .await;
    let expected = json!({ "b": "5", "v": "String", "d": "[1,2]", "x": [1, 2], "y": ["a", "b"] });
    assert_eq!(row, expected);
    let ten = "SELECT variantType(v) AS v, toString(d) AS d FROM passed WHERE id = 10";
    assert_eq!(lab.clickhouse.row(ten).await, json!({ "v": "UInt64", "d": "text" }));
    let letters: Json = lab
        .clickhouse
        .row("SELECT arraySort(groupArray(payload)) AS payloads FROM dead_letters FINAL")
        .await;
    let mut bad = [payloads[20].as_str(), payloads[30].as_str(), payloads[40].as_str()];
    bad.sort_unstable();
    assert_eq!(letters["payloads"], json!(bad));
    bridge.stop().await;
}
