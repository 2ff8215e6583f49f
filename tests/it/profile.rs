//! The shipped profile fits together: every shape of message that its producers send becomes a
//! row of the table that its route names, by the shipped mapping and the shipped SQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_bridge::config::{self, Action, Config, InsertAction, RouteFormat};
use data_bridge::decode::{Decoder, dead_letter_mapping};
use data_bridge::record::{Chunk, NewRecord, Partition};
use data_bridge::schema::{ColumnDefault, ColumnSchema, TableSchema};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn shipped() -> Config {
    config::load(&[folder().join("data-bridge.toml")]).unwrap()
}

/// The columns as the shipped SQL writes them: one a line.
fn table(name: &str) -> TableSchema {
    let sql = std::fs::read_to_string(folder().join(format!("schema/{name}.sql"))).unwrap();
    let (_, body) = sql.split_once("\n(\n").unwrap();
    let (body, _) = body.split_once("\n)\n").unwrap();
    let columns = body.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let columns = columns.map(|line| {
        let (name, rest) = line.trim_end_matches(',').split_once(' ').unwrap();
        let (type_name, default) = match rest.split_once(" MATERIALIZED ") {
            Some((type_name, _)) => (type_name, ColumnDefault::Materialized),
            None => (rest, ColumnDefault::None),
        };
        ColumnSchema { name: name.to_owned(), type_name: type_name.to_owned(), default }
    });
    TableSchema { table: name.to_owned(), columns: columns.collect() }
}

fn insert<'a>(config: &'a Config, route: &str) -> &'a InsertAction {
    let route = config.routes.iter().find(|r| r.name == route).unwrap();
    match &route.action {
        Action::Insert(insert) => insert,
        Action::Count => panic!("{} stores nothing", route.name),
    }
}

fn decoder(insert: &InsertAction) -> Decoder {
    let RouteFormat::Columns(mapping) = &insert.format else { panic!("a mapping") };
    Decoder::new(&table(&insert.table), mapping).unwrap()
}

/// A message on a subject, and the same from a topic.
fn records(subject: &str, payload: &str) -> Chunk {
    let mut chunk = Chunk::with_capacity(1_760_000_000_000, 2, 4_096);
    let payload = Some(payload.as_bytes());
    chunk.push(NewRecord { subject, payload, ..NewRecord::default() }, []);
    let partition = Arc::new(Partition { topic: "t".to_owned(), number: 3, epoch: 1 });
    let place = Some((chunk.partition(&partition), 42));
    chunk.push(NewRecord { place, payload, ..NewRecord::default() }, []);
    chunk
}

const LIVE_TICK: &str = r#"{"symbol":"EUR/USD","bid":1.08542,"ask":1.08543,"mid":1.085425,
    "spread":0.1,"timestamp":1760000000123,"timestamp_ms":1760000000123,"exchange":48,
    "source":"polygon_websocket","event_type":"quote","_seq":7}"#;
const OLD_TICK: &str = r#"{"symbol":"EUR/USD","bid":1.08542,"ask":1.08543,"spread":0.1,
    "timestamp":"2024-01-02 15:36:39.034000","volume":1.5,"source":"dukascopy_historical"}"#;
const OLD_TICK_ON_THE_SECOND: &str =
    r#"{"symbol":"EUR/USD","bid":1.1,"ask":1.2,"timestamp":"2024-01-02 15:36:39","volume":2}"#;
const SHORT_TICK: &str =
    r#"{"ev":"C","pair":"EUR/USD","t":1760000000123,"b":1.08542,"a":1.08543,"s":0.1,"x":48}"#;
const LIVE_CANDLE: &str = r#"{"symbol":"EUR/USD","timeframe":"5m","timestamp_ms":1760000000000,
    "open":1.1,"high":1.2,"low":1.0,"close":1.15,"tick_count":17,"avg_spread":0.000012,
    "max_spread":0.00002,"min_spread":0.00001,"price_range":0.2,"pct_change":4.5454,
    "is_complete":0,"indicators":{"rsi":51.25,"sma":1.1},"source":"live_aggregated"}"#;
const OLD_CANDLE: &str = r#"{"symbol":"EUR/USD","timeframe":"1h","timestamp_ms":1760000000000,
    "open":1.1,"high":1.2,"low":1.0,"close":1.15,"tick_count":17,"volume":100.5,"vwap":1.12,
    "range_pips":2000.0,"start_time":"2025-10-09T08:53:20Z","end_time":"2025-10-09T09:53:20",
    "event_type":"ohlcv","_source":"historical"}"#;
const SHORT_CANDLE: &str = r#"{"pair":"EUR/USD","timeframe":"5m","s":1760000000000,"o":1.1,
    "h":1.2,"l":1.0,"c":1.15,"v":100,"vw":1.12,"n":17}"#;
const CALENDAR: &str = r#"{"data":{"date":"2025-10-06","time":"All day","currency":"USD",
    "event":"CPI m/m","forecast":"0.3%","previous":null,"actual":null,"impact":null},META}"#;
const FRED: &str = r#"{"data":{"series_id":"GDP","value":null,"date":"2025-Q1",
    "updated_at":"2025-10-09T08:53:20.123456"},META}"#;
const CRYPTO: &str = r#"{"data":{"coin_id":"shiba-inu","name":"Shiba Inu","symbol":"shib",
    "price_usd":0.000009412345,"price_change_24h":-1.5,"market_cap_rank":20,
    "sentiment_votes_up_percentage":71.5,"community_score":9.5,"twitter_followers":1000000,
    "reddit_subscribers":5000,"updated_at":"2025-10-09T08:53:20Z"},META}"#;
const FEAR: &str = r#"{"data":{"value":45,"classification":"Fear","sentiment_score":-0.1,
    "timestamp":"1760000000"},META}"#;
const COMMODITY: &str = r#"{"data":{"symbol":"GC=F","name":"Gold","currency":"USD","price":null,
    "previous_close":2050.1,"change":-1.25,"change_percent":-0.06,"volume":null,
    "updated_at":"2025-10-09T08:53:20.123456Z"},META}"#;
const SESSIONS: &str = r#"{"data":{"current_utc_time":"14:30:00","active_sessions_count":2,
    "active_sessions":["London","New York"],"overlapping_sessions":["London","New York"],
    "liquidity_level":"very_high","sessions":[{"name":"London","is_active":true}],
    "collected_at":"2025-10-09T14:30:00Z"},META}"#;
const SIGNAL: &str = r#"{"signal_id":"6f2c1a34-5b0e-4c7e-9a39-0d6a5f9a7c11","symbol":"EUR/USD",
    "timeframe":"15m","timestamp_ms":1760000000000,"signal_type":"buy","confidence_score":0.87,
    "entry_price":1.08542,"stop_loss":1.08,"take_profit":1.09,"model_version":"v2.1",
    "metadata":{"strategy":"x","features":[1.5,2]},"_seq":1}"#;
const META: &str = r#""metadata":{"type":"x","timestamp":"2025-10-09T08:53:20.123456Z",
    "version":"1.0","source":"collector"},"_seq":3"#;

const SHAPES: [(&str, &str, &str); 14] = [
    ("ticks", "market.EURUSD.tick", LIVE_TICK),
    ("ticks", "market.EURUSD.tick", OLD_TICK),
    ("ticks", "market.EURUSD.tick", OLD_TICK_ON_THE_SECOND),
    ("ticks", "market.EURUSD.tick", SHORT_TICK),
    ("candles", "bars.EURUSD.5m", LIVE_CANDLE),
    ("candles", "bars.EURUSD.1h", OLD_CANDLE),
    ("candles", "bars.EURUSD.5m", SHORT_CANDLE),
    ("economic_calendar", "market.external.economic_calendar", CALENDAR),
    ("fred_economic", "market.external.fred_economic", FRED),
    ("crypto_sentiment", "market.external.crypto_sentiment", CRYPTO),
    ("fear_greed_index", "market.external.fear_greed_index", FEAR),
    ("commodity_prices", "market.external.commodity_prices", COMMODITY),
    ("market_sessions", "market.external.market_sessions", SESSIONS),
    ("signals", "signals.EURUSD", SIGNAL),
];

#[test]
fn every_shape_of_the_profile_becomes_a_row_without_rounding() {
    let config = shipped();
    for (route, subject, payload) in SHAPES {
        let insert = insert(&config, route);
        let mut decoder = decoder(insert);
        let mut columns = decoder.columns();
        let chunk = records(subject, &payload.replace("META", META));
        for record in chunk.records() {
            let decoded = decoder.decode(&record, None, &mut columns);
            let decoded = decoded.unwrap_or_else(|reject| panic!("{route}: {reject:?}\n{payload}"));
            assert_eq!(decoded.rounded, 0, "{route}: {payload}");
        }
        assert_eq!(columns.rows(), 2);
    }
}

#[test]
fn the_short_candle_takes_its_timeframe_from_the_subject() {
    let config = shipped();
    let mut decoder = decoder(insert(&config, "candles"));
    let mut columns = decoder.columns();
    let chunk = records("bars.EURUSD.4h", &SHORT_CANDLE.replace(r#""timeframe":"5m","#, ""));
    decoder.decode(&chunk.record(0), None, &mut columns).unwrap();
    let block = columns.encode();
    assert!(block.windows(3).any(|bytes| bytes == b"\x024h"), "a text of two letters: 4h");
    // a topic does not say it: refused, not guessed
    assert!(decoder.decode(&chunk.record(1), None, &mut columns).is_err());
}

#[test]
fn a_null_price_and_nan_never_become_zero() {
    let config = shipped();
    let mut decoder = decoder(insert(&config, "ticks"));
    let mut columns = decoder.columns();
    for bad in [LIVE_TICK.replace("1.08542,", "null,"), LIVE_TICK.replace("1.08542,", "NaN,")] {
        let chunk = records("market.EURUSD.tick", &bad);
        assert!(decoder.decode(&chunk.record(0), None, &mut columns).is_err(), "{bad}");
    }
    assert!(columns.is_empty());
}

#[test]
fn every_column_of_a_mapping_is_in_its_table_and_every_table_has_the_audit_columns() {
    for route in shipped().routes {
        let Action::Insert(insert) = route.action else { continue };
        let RouteFormat::Columns(mapping) = &insert.format else { panic!("a mapping") };
        let table = table(&insert.table);
        let known = |name: &str| table.columns.iter().find(|column| column.name == name);
        for name in mapping.columns().keys() {
            assert!(known(name).is_some(), "{}.{name}", insert.table);
        }
        for name in ["_topic", "_partition", "_offset", "_seq"] {
            let column = known(name).unwrap_or_else(|| panic!("{}.{name}", insert.table));
            assert!(column.type_name.contains("Nullable"), "{}.{name}", insert.table);
        }
    }
}

#[test]
fn the_shipped_dead_letters_table_takes_what_the_bridge_writes() {
    let table = table("dead_letters");
    let decoder = Decoder::new(&table, &dead_letter_mapping()).unwrap();
    let stays = ["replayed_at", "replayed"]; // written by a replay, and computed
    let written = table.columns.iter().map(|column| column.name.as_str());
    let written: Vec<_> = written.filter(|name| !stays.contains(name)).collect();
    let mut names: Vec<_> = decoder.column_names().iter().map(String::as_str).collect();
    names.sort_by_key(|name| written.iter().position(|w| w == name));
    assert_eq!(names, written);
}
