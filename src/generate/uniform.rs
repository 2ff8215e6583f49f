//! Records of one form each, to measure with: what another program is told about a shape holds for
//! every record of it, so that programs without fallbacks and conversions can be measured beside
//! the bridge. Pure functions of (seed, seq), by the formulas of `market.rs`.
//!
//! ```text
//! bars         185 B   a candle, flat: ten keys, ten columns
//! indicators  1.2 KB   the same candle with a map of 55 indicators
//! quotes       230 B   a tick, flat
//! books       1.6 KB   an order book, four keys deep, 27 prices on each side
//! ```
//!
//! Owns the sizes: a test holds each within 5 % of what is said here. Prices have five digits,
//! so that a Decimal and a Float64 both give them back.

use std::fmt::Display;

use super::market::{SYMBOL_COUNT, SYMBOLS};
use super::numbers::{Points, START_MS, iso_time, mix, pick, put, signed, wave};
use crate::record::UnixMs;

/// The names of an indicators map: of each family one for each window.
const FAMILIES: [&str; 5] = ["sma", "ema", "rsi", "atr", "vwma"];
const WINDOWS: [u16; 11] = [5, 7, 10, 14, 20, 30, 50, 75, 100, 150, 200];

const BOOK_LEVELS: i64 = 27;
const MINUTE: i64 = 60_000;

/// What the shapes have in common: a symbol, and a price that wanders.
struct Base {
    symbol: &'static str,
    /// The symbol's turn.
    turn: u64,
    h: u64,
    scale: i64,
    price: i64,
}

impl Base {
    fn new(seed: u64, seq: u64) -> Self {
        let (symbol, base) = pick(&SYMBOLS, seq);
        let (turn, scale) = (seq / SYMBOL_COUNT, base / 60_000);
        let price = base + scale * wave(turn + 131 * (seq % SYMBOL_COUNT));
        Self { symbol, turn, h: mix(seed, seq), scale, price }
    }

    /// So many steps above or below the price.
    fn at(&self, steps: i64) -> Points {
        Points(self.price + steps * self.scale)
    }

    /// A few bits of what looks random, below `below`.
    fn some(&self, shift: u32, below: u64) -> i64 {
        signed((self.h >> shift) % below)
    }
}

pub(super) fn write_bar(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let base = Base::new(seed, seq);
    begin_bar(&base, out);
    put(out, format_args!(r#""_seq":{seq}}}"#));
}

pub(super) fn write_indicators(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let base = Base::new(seed, seq);
    begin_bar(&base, out);
    out.extend_from_slice(br#""indicators":{"#);
    let names = FAMILIES.iter().flat_map(|f| WINDOWS.iter().map(move |w| (f, w)));
    for ((family, window), steps) in names.zip(0..) {
        let comma = if steps == 0 { "" } else { "," };
        put(out, format_args!(r#"{comma}"{family}_{window}":{}"#, base.at(steps)));
    }
    put(out, format_args!(r#"}},"_seq":{seq}}}"#));
}

/// A candle of one minute, up to and with a comma.
fn begin_bar(base: &Base, out: &mut Vec<u8>) {
    let time: UnixMs = START_MS + signed(base.turn) * MINUTE;
    let (high, low) = (60 + base.some(0, 40), base.some(8, 40));
    put(
        out,
        format_args!(
            r#"{{"symbol":"{}","timeframe":"1m","timestamp_ms":{time},"open":{},"high":{},"low":{},"close":{},"volume":{},"source":"live_aggregated","#,
            base.symbol,
            base.at(45),
            base.at(high),
            base.at(low),
            base.at(40 + base.some(16, 20)),
            1_000 * (100 + base.some(20, 900)),
        ),
    );
}

pub(super) fn write_quote(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let base = Base::new(seed, seq);
    let time = START_MS + signed(base.turn) * 100 + base.some(0, 100);
    let spread = 1 + base.some(8, 7);
    put(
        out,
        format_args!(
            r#"{{"symbol":"{}","bid":{},"ask":{},"mid":{},"spread":{},"timestamp_ms":{time},"exchange":{},"source":"polygon_websocket","event_type":"quote","condition":"regular_session","feed":"fx_1","_seq":{seq}}}"#,
            base.symbol,
            base.at(0),
            base.at(2 * spread),
            base.at(spread),
            Points(2 * spread * base.scale),
            40 + base.some(16, 20),
        ),
    );
}

pub(super) fn write_book(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let base = Base::new(seed, seq);
    let time = START_MS + signed(base.turn) * 100;
    let (from, to) = base.symbol.split_once('/').expect("a symbol is a pair");
    let h = base.h;
    put(
        out,
        format_args!(
            r#"{{"type":"order_book","version":3,"metadata":{{"source":"matching_engine_primary","timestamp_ms":{time},"published":"{}","trace":{{"id":"{h:016x}{seq:016x}","span":"{h:08x}","sampled":{}}}}},"data":{{"instrument":{{"symbol":"{}","venue":"ebs_london","pair":{{"base":"{from}","quote":"{to}"}}}},"book":{{"depth":{BOOK_LEVELS},"#,
            iso_time(time),
            h.is_multiple_of(2),
            base.symbol,
        ),
    );
    write_side(&base, "bids", -1, out);
    out.push(b',');
    write_side(&base, "asks", 1, out);
    put(
        out,
        format_args!(
            r#"}},"stats":{{"best_bid":{},"best_ask":{},"mid":{},"trades":{},"last":{{"price":{},"size":{},"side":"{}"}}}}}},"_seq":{seq}}}"#,
            base.at(-1),
            base.at(1),
            base.at(0),
            base.some(4, 500),
            base.at(base.some(8, 3) - 1),
            1_000 * (1 + base.some(12, 500)),
            pick(&["buy", "sell"], h >> 3),
        ),
    );
}

/// One side of a book: its prices from the best one on, what is offered at each, and how many offer.
fn write_side(base: &Base, side: &str, direction: i64, out: &mut Vec<u8>) {
    write_levels(out, side, "price", |level| base.at(direction * level));
    out.push(b',');
    let size = base.some(0, 900);
    write_levels(out, side, "size", |level| 1_000 * (1 + (size + 37 * level) % 900));
    out.push(b',');
    let orders = base.some(16, 40);
    write_levels(out, side, "orders", |level| 1 + (orders + level) % 40);
}

fn write_levels<T: Display>(out: &mut Vec<u8>, side: &str, what: &str, value: impl Fn(i64) -> T) {
    put(out, format_args!(r#""{side}_{what}":[{}"#, value(1)));
    for level in 2..=BOOK_LEVELS {
        put(out, format_args!(",{}", value(level)));
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Kind, record};

    #[test]
    fn each_shape_has_the_size_that_it_is_named_for() {
        for (kind, bytes) in [
            (Kind::Bars, 185),
            (Kind::Indicators, 1_200),
            (Kind::Quotes, 230),
            (Kind::Books, 1_600),
        ] {
            let total: usize = (500_000..501_800).map(|seq| record(42, kind, seq).len()).sum();
            let mean = total / 1_800;
            assert!(mean.abs_diff(bytes) * 20 <= bytes, "{kind:?}: {mean} bytes, not {bytes}");
        }
    }

    #[test]
    fn every_record_of_a_shape_has_the_same_keys() {
        fn keys(value: &Value, path: &str, into: &mut Vec<String>) {
            if let Value::Object(object) = value {
                for (key, value) in object {
                    into.push(format!("{path}.{key}"));
                    keys(value, &format!("{path}.{key}"), into);
                }
            }
        }
        for kind in [Kind::Bars, Kind::Indicators, Kind::Quotes, Kind::Books] {
            let of = |seq| {
                let mut found = Vec::new();
                keys(&serde_json::from_slice(&record(7, kind, seq)).unwrap(), "", &mut found);
                found
            };
            let first = of(0);
            assert!((1..400).all(|seq| of(seq) == first), "{kind:?}");
        }
    }

    #[test]
    fn a_bar_holds_together() {
        for seq in 0..5_000 {
            let bar: Value = serde_json::from_slice(&record(42, Kind::Bars, seq)).unwrap();
            let price = |key: &str| bar[key].as_f64().unwrap();
            assert!(price("low") < price("open").min(price("close")), "{bar}");
            assert!(price("high") > price("open").max(price("close")), "{bar}");
        }
    }
}
