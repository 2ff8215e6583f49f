//! What broken producers send, over both transports: never a crash, never a blocked neighbour,
//! always accounted for.

use data_bridge::generate::{Kind, record};
use serde_json::Value as Json;

use crate::lab::{Lab, assert_accounts, number, settled};

const TEN_MB: usize = 10_000_000;

/// A tick without its closing brace, to be gone on with.
fn open_tick(n: usize) -> String {
    format!(
        "{{\"symbol\":\"EUR/USD\",\"timestamp_ms\":{},\"source\":\"t\",\"_seq\":{n}",
        1_700_000_000_000_u64 + n as u64
    )
}

fn tick(n: usize, rest: &str) -> Vec<u8> {
    format!("{},{rest}}}", open_tick(n)).into_bytes()
}

/// Payloads for the ticks' table that are no ticks, and the reason that each is refused for.
fn bad_ticks() -> Vec<(Vec<u8>, &'static str)> {
    let deep = |n| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let nul = "\0".repeat(3);
    vec![
        (tick(0, r#""bid":NaN,"ask":1.2"#), "invalid_json"),
        (tick(0, r#""bid":-Infinity,"ask":1.2"#), "invalid_json"),
        (tick(0, r#""bid":1.1,"ask":1.2"#)[..40].to_vec(), "invalid_json"),
        (b"{\"symbol\":".to_vec(), "invalid_json"),
        (b"not json at all".to_vec(), "invalid_json"),
        (nul.into_bytes(), "invalid_json"),
        (tick(0, r#""bid":01.1,"ask":1.2"#), "invalid_json"),
        (tick(0, r#""bid":1.1,"ask":1.2} {"again":1"#), "invalid_json"),
        (tick(0, r#""bid":{"price":1.1},"ask":1.2"#), "wrong_type"),
        (tick(0, r#""bid":[1.1],"ask":1.2"#), "wrong_type"),
        (tick(0, r#""bid":true,"ask":1.2"#), "wrong_type"),
        (tick(0, r#""bid":"cheap","ask":1.2"#), "wrong_type"),
        (tick(0, r#""bid":null,"ask":1.2"#), "missing_value"),
        (tick(0, r#""ask":1.2"#), "missing_value"),
        (tick(0, r#""bid":1e300,"ask":1.2"#), "out_of_range"),
        (tick(0, r#""bid":123456789012345678901234567890,"ask":1.2"#), "out_of_range"),
        (tick(0, r#""bid":1.1,"ask":1.2,"exchange":4294967296"#), "out_of_range"),
        (tick(0, &format!(r#""bid":1.1,"ask":1.2,"x":{}"#, deep(100_000))), "too_deep"),
        (deep(100_000).into_bytes(), "too_deep"),
        (b"[1,2]".to_vec(), "not_an_object"),
        (b"null".to_vec(), "not_an_object"),
        (b"12".to_vec(), "not_an_object"),
        (b"{\"symbol\":\"\xC3\x28\",\"bid\":1.1,\"ask\":1.2}".to_vec(), "invalid_utf8"),
        (vec![0xFF, 0xFE, 0x00, 0x01], "invalid_utf8"),
        (Vec::new(), "empty_payload"),
        (br#"{"symbol":"A","bid":1,"ask":2,"timestamp_ms":"soon"}"#.to_vec(), "invalid_time"),
        (tick(0, &format!(r#""ask":1.2,"pad":"{}""#, "x".repeat(TEN_MB))), "missing_value"),
    ]
}

/// Good ticks that a hasty reader refuses.
fn unusual_good_ticks() -> Vec<Vec<u8>> {
    let deep = format!("{}1{}", "[".repeat(50), "]".repeat(50));
    vec![
        tick(1, &format!(r#""bid":1.1,"ask":1.2,"pad":"{}""#, "y".repeat(TEN_MB))),
        tick(2, &format!(r#""bid":1.1,"ask":1.2,"extra":{deep}"#)),
        tick(3, r#""bid":"1.1","ask":1.2e0"#),
        tick(4, r#""bid":1.08542999999999990,"ask":1.2"#),
        tick(5, "\"bid\":1.1,\n\t\"ask\":1.2,\"ünïcode\":\"\\ud83d\\ude00\""),
        tick(6, r#""bid":1.1,"ask":1.2,"unknown":{"a":[{}]}"#),
    ]
}

/// Bad and good in turn: `send` is called with the payload of each.
fn interleaved(good: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bad = bad_ticks().into_iter().map(|(payload, _)| payload);
    let mut all = Vec::new();
    for payload in bad {
        all.push(payload);
        all.extend(good.pop());
        all.extend(good.pop());
    }
    all.append(good);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_become_dead_letters_and_their_neighbours_land() {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    let mut good: Vec<Vec<u8>> = (100..200).map(|seq| record(7, Kind::Ticks, seq)).collect();
    good.extend(unusual_good_ticks());
    let mut other: Vec<Vec<u8>> = (200..300).map(|seq| record(7, Kind::Ticks, seq)).collect();
    let goods = good.len() + other.len();
    let kafka_sent = send_to_kafka(&lab, &interleaved(&mut good)).await;
    let nats_sent = send_to_nats(&lab, &interleaved(&mut other)).await;
    let health = bridge
        .wait_until("all of it is settled", |health| {
            settled(health, "kafka", kafka_sent) && settled(health, "nats", nats_sent)
        })
        .await;
    assert_accounts(&health);
    let sources = &health["metrics"]["sources"];
    assert_eq!(sources["kafka"]["filtered"], 2, "tombstones: {health:#}");
    assert_eq!(sources["nats"]["filtered"], 1, "the unknown subject: {health:#}");
    let bad = bad_ticks();
    assert_eq!(number(&health["metrics"]["dead_letters"]), 2 * bad.len() as u64, "{health:#}");
    assert_eq!(lab.clickhouse.number("SELECT count() FROM ticks FINAL").await, goods as u64);
    // 1.0854299999999999 has five digits in the table, and that it was rounded is known
    let rounded = "SELECT toString(bid) AS bid FROM ticks WHERE _seq = 4";
    assert_eq!(lab.clickhouse.row(rounded).await["bid"], "1.08543");
    assert!(number(&health["metrics"]["routes"]["ticks"]["rounded"]) >= 1);
    assert_letters(&lab, "kafka", &lab.topic("tick_archive")).await;
    assert_letters(&lab, "nats", &lab.subject("market.EURUSD.tick")).await;
    assert_eq!(bridge.health().await["status"], "healthy");
    let lag = |h: &Json| h["metrics"]["sources"]["kafka"]["lag"] == 0;
    bridge.wait_until("the lag is gone", lag).await;
    bridge.stop().await;
    // the tombstones, the last of them at the end, too
    let committed = lab.committed(&lab.topic("tick_archive")).await;
    assert_eq!(committed[0], Some(i64::try_from(kafka_sent).unwrap()));
}

/// Gives how many were sent.
async fn send_to_kafka(lab: &Lab, payloads: &[Vec<u8>]) -> u64 {
    let (sender, topic) = (lab.kafka(), lab.topic("tick_archive"));
    sender.send(&topic, Some(0), Some(b"tombstone"), None);
    for payload in payloads {
        sender.send(&topic, Some(0), Some(b"a key"), Some(payload));
    }
    sender.send(&topic, Some(0), None, None);
    sender.flush().await;
    payloads.len() as u64 + 2
}

async fn send_to_nats(lab: &Lab, payloads: &[Vec<u8>]) -> u64 {
    let client = lab.nats().await;
    client.publish(lab.subject("market.external.never_heard_of"), "{}".into()).await.unwrap();
    for payload in payloads {
        let subject = lab.subject("market.EURUSD.tick");
        client.publish(subject, payload.clone().into()).await.unwrap();
    }
    client.flush().await.unwrap();
    payloads.len() as u64 + 1
}

/// Each bad payload has one letter, with its reason, every byte of it, and its place.
async fn assert_letters(lab: &Lab, source: &str, place: &str) {
    let sql = format!(
        "SELECT reason, toString(xxh3(payload)) AS digest, length(payload) AS length, partition, offset, \
         key, route, error, topic_or_subject AS place, instance \
         FROM dead_letters FINAL WHERE source = '{source}' FORMAT JSONEachRow"
    );
    let text = lab.clickhouse.query(&sql).await;
    let letters: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut offsets = std::collections::BTreeSet::new();
    for (payload, reason) in bad_ticks() {
        let digest = xxhash_rust::xxh3::xxh3_64(&payload).to_string();
        let letter = letters.iter().find(|letter| letter["digest"] == digest.as_str());
        let start = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        let letter = letter.unwrap_or_else(|| panic!("no letter from {source} for {start}"));
        assert_eq!(letter["reason"], reason, "{start}: {letter}");
        assert_eq!(number(&letter["length"]), payload.len() as u64, "{start}");
        assert_eq!(letter["place"], place);
        assert_eq!(letter["route"], "ticks");
        assert!(!letter["error"].as_str().unwrap().is_empty());
        if source == "kafka" {
            assert_eq!(letter["key"], "a key");
            assert_eq!(number(&letter["partition"]), 0);
            assert!(offsets.insert(number(&letter["offset"])), "{letter}");
        } else {
            assert!(letter["partition"].is_null() && letter["offset"].is_null(), "{letter}");
        }
    }
    assert_eq!(letters.len(), bad_ticks().len());
}

/// The generator's own bad records: its check knows them, so the good ones must all be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_record_in_fifty_leaves_the_others_exact() {
    use data_bridge::generate::{Plan, Recipe, Target};
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    let recipe = Recipe { bad_every: Some(50), revisions: 3, ..Recipe::new(5) };
    let wanted = [
        (Target::Kafka, Kind::Candles, 9_000),
        (Target::Kafka, Kind::Ticks, 9_000),
        (Target::Kafka, Kind::External, 1_200),
        (Target::Nats, Kind::Candles, 2_700),
        (Target::Nats, Kind::Ticks, 3_000),
        (Target::Nats, Kind::External, 1_200),
        (Target::Nats, Kind::Signals, 600),
    ];
    let plan = Plan::new(recipe, 0, &wanted);
    let bad = |stream: &data_bridge::generate::Stream| {
        (stream.first..stream.end()).filter(|seq| recipe.is_bad(stream.kind, *seq)).count() as u64
    };
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    tokio::join!(lab.send_to_kafka(&plan), lab.send_to_nats(&plan, 4_000));
    let health = bridge
        .wait_until("all of it is settled", |health| {
            settled(health, "kafka", 19_200) && settled(health, "nats", 7_500)
        })
        .await;
    assert_accounts(&health);
    let expected: u64 = plan.streams.iter().map(bad).sum();
    assert_eq!(number(&health["metrics"]["dead_letters"]), expected, "{health:#}");
    let letters = lab.clickhouse.number("SELECT count() FROM dead_letters FINAL").await;
    assert_eq!(letters, expected);
    lab.assert_exact(&plan).await;
    bridge.stop().await;
}
