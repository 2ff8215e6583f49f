//! What the generator makes: the same for a seed, good where it should be, bad where it must.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

fn parse(payload: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(payload)
}

#[test]
fn a_record_is_the_same_each_time_and_differs_by_seed() {
    for kind in Kind::ALL {
        for seq in [0, 1, 17, 18, 4_711, 1_000_000] {
            assert_eq!(record(42, kind, seq), record(42, kind, seq));
        }
        assert!((0..50).any(|seq| record(1, kind, seq) != record(2, kind, seq)), "{kind:?}");
    }
}

#[test]
fn every_good_record_is_json_and_carries_its_sequence() {
    for kind in Kind::ALL {
        for seq in (0..3_000).chain(5_000_000..5_000_200) {
            let payload = record(7, kind, seq);
            let value = parse(&payload)
                .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&payload)));
            assert_eq!(value["_seq"], seq, "{kind:?}");
        }
    }
}

#[test]
fn a_record_is_bad_when_its_turn_comes_and_only_then() {
    let recipe = Recipe { bad_every: Some(10), ..Recipe::new(3) };
    for kind in [Kind::Ticks, Kind::Candles, Kind::External, Kind::Signals] {
        for seq in 0..400 {
            let mut payload = Vec::new();
            recipe.write(kind, seq, &mut payload);
            let good = record(3, kind, seq);
            assert_eq!(payload != good, seq % 10 == 9, "{kind:?} {seq}");
            assert_eq!(recipe.is_bad(kind, seq), seq % 10 == 9);
        }
    }
    assert!(!recipe.is_bad(Kind::System, 9));
}

#[test]
fn each_spoiled_shape_is_what_it_says() {
    let recipe = Recipe { bad_every: Some(1), ..Recipe::new(3) };
    for kind in [Kind::Ticks, Kind::Candles, Kind::Signals] {
        let shapes: Vec<Vec<u8>> = (0..8)
            .map(|seq| {
                let mut payload = Vec::new();
                recipe.write(kind, seq, &mut payload);
                payload
            })
            .collect();
        let text = |i: usize| String::from_utf8_lossy(&shapes[i]).into_owned();
        for broken in [0, 1, 4, 5, 6] {
            assert!(parse(&shapes[broken]).is_err(), "{kind:?} {broken}: {}", text(broken));
        }
        for json in [2, 3, 7] {
            assert!(parse(&shapes[json]).is_ok(), "{kind:?} {json}: {}", text(json));
        }
        assert!(text(0).contains(":NaN,"), "{}", text(0));
        assert!(text(2).contains(r#":"cheap","#), "{}", text(2));
        assert!(text(3).contains("e300,"), "{}", text(3));
        assert!(text(7).contains(":null,"), "{}", text(7));
        assert!(str::from_utf8(&shapes[5]).is_err());
        assert!(shapes[6].is_empty());
    }
}

#[test]
fn bad_external_records_are_not_json() {
    let recipe = Recipe { bad_every: Some(1), ..Recipe::new(3) };
    for seq in 0..48 {
        let mut payload = Vec::new();
        recipe.write(Kind::External, seq, &mut payload);
        assert!(parse(&payload).is_err(), "{seq}: {}", String::from_utf8_lossy(&payload));
    }
}

fn first(value: &Value, names: &[&str]) -> String {
    let found = names.iter().find_map(|name| value.get(*name));
    found.unwrap_or_else(|| panic!("none of {names:?} in {value}")).to_string()
}

#[test]
fn every_tick_has_a_key_of_its_own() {
    let mut keys = BTreeSet::new();
    for seq in 0..50_000 {
        let tick = parse(&record(42, Kind::Ticks, seq)).unwrap();
        let symbol = first(&tick, &["symbol", "pair"]);
        assert!(keys.insert((symbol, first(&tick, &["timestamp", "t"]))), "{seq}: {tick}");
    }
}

#[test]
fn every_bar_has_a_key_of_its_own_and_its_revisions_share_it() {
    for revisions in [1, 3] {
        let recipe = Recipe { revisions, ..Recipe::new(42) };
        let mut bars: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for seq in 0..54_000 {
            let mut payload = Vec::new();
            recipe.write(Kind::Candles, seq, &mut payload);
            let candle = parse(&payload).unwrap();
            let symbol = first(&candle, &["symbol", "pair"]);
            let time = first(&candle, &["timestamp_ms", "s"]);
            let key = (symbol, candle["timeframe"].to_string(), time);
            bars.entry(key).or_default().push(candle);
        }
        assert_eq!(bars.len() as u64, 54_000 / revisions);
        if revisions > 1 {
            for versions in bars.values() {
                let ticks = |v: &Value| v["tick_count"].as_u64().unwrap();
                assert!(versions.windows(2).all(|w| ticks(&w[0]) < ticks(&w[1])), "{versions:?}");
                let complete: Vec<_> = versions.iter().map(|v| v["is_complete"] == 1).collect();
                assert_eq!(complete, [false, false, true]);
            }
        }
    }
}

#[test]
fn a_candle_holds_together() {
    for seq in 0..20_000 {
        let candle = parse(&record(42, Kind::Candles, seq)).unwrap();
        let number = |names: &[&str]| first(&candle, names).parse::<f64>().unwrap();
        let (open, close) = (number(&["open", "o"]), number(&["close", "c"]));
        assert!(number(&["low", "l"]) < open.min(close), "{candle}");
        assert!(number(&["high", "h"]) > open.max(close), "{candle}");
        assert!(number(&["low", "l"]) > 0.0, "{candle}");
    }
}

#[test]
fn all_forms_types_and_timeframes_occur() {
    let all = |kind| (0..20_000).map(move |seq| parse(&record(1, kind, seq)).unwrap());
    assert!(all(Kind::Ticks).any(|t| t["timestamp"].is_string()), "historical");
    assert!(all(Kind::Ticks).any(|t| t.get("pair").is_some()), "short names");
    assert!(
        all(Kind::Ticks).any(|t| t.to_string().contains("99999999999")),
        "floats as Python prints them"
    );
    let timeframes: BTreeSet<_> = all(Kind::Candles).map(|c| c["timeframe"].to_string()).collect();
    assert_eq!(timeframes.len(), 9, "{timeframes:?}");
    assert!(all(Kind::Candles).any(|c| c["indicators"].is_object()));
    assert!(all(Kind::Candles).any(|c| c["_source"] == "historical"));
    let types: BTreeSet<_> =
        all(Kind::External).map(|e| e["metadata"]["type"].to_string()).collect();
    assert_eq!(types.len(), 6);
}
