//! Ticks and candles: pure functions of (seed, seq), in every form that producers send.
//!
//! Formulas, all in integers; prices in points of 0.00001 (`check.rs` has them as SQL):
//!
//! ```text
//! s     = seq % 18                      the symbol         scale = intDiv(base[s], 60000)
//! q     = intDiv(seq, 18)               mix, wave: see numbers.rs
//!
//! tick:   h = mix(seed, seq)
//!         time   = START + q * 100 + seq * 37 % 100        (ms)
//!         bid    = base[s] + scale * (wave(q + 131 * s) + h % 16)
//!         spread = 2 * scale * (1 + (h >> 8) % 7)    ask = bid + spread    mid = bid + spread / 2
//!
//! candle: R revisions a bar: r = q % R, b = intDiv(q, R), h = mix(seed, b * 18 + s)
//!         cycle = intDiv(b, 64), slot = b % 64      -> timeframe and index, by TIMEFRAMES
//!         time  = START + index * timeframe
//!         open  = base[s] + scale * wave(index + 131 * s)
//!         last  = base[s] + scale * wave(index + 1 + 131 * s)    a bar opens where one closed
//!         close = open + intDiv((last - open) * (r + 1), R)
//!         high  = max(open, close) + intDiv(scale * (1 + h % 40) * (r + 1), R)
//!         low   = min(open, close) - intDiv(scale * (1 + (h >> 8) % 40) * (r + 1), R)
//!         tick_count = intDiv((100 + (h >> 16) % 900) * (r + 1), R)    is_complete = (r = R - 1)
//! ```
//!
//! Every tick has its own (symbol, time) and every bar its own (symbol, timeframe, time), so a
//! ReplacingMergeTree table keeps them all. The revisions of a bar are 18 apart: they come one
//! after the other in one partition, between those of the other symbols, as in life.

use super::numbers::{
    Noisy, Points, START_MS, iso_time, mix, pick, put, python_time, signed, wave,
};
use crate::record::UnixMs;

/// Name, and a price in points to wander about.
pub(super) const SYMBOLS: [(&str, i64); 18] = [
    ("EUR/USD", 108_000),
    ("GBP/USD", 126_000),
    ("USD/JPY", 14_800_000),
    ("USD/CHF", 88_000),
    ("AUD/USD", 65_500),
    ("USD/CAD", 135_000),
    ("NZD/USD", 61_000),
    ("EUR/GBP", 85_500),
    ("EUR/JPY", 16_000_000),
    ("GBP/JPY", 18_800_000),
    ("EUR/CHF", 94_500),
    ("AUD/JPY", 9_700_000),
    ("CHF/JPY", 16_900_000),
    ("EUR/AUD", 164_500),
    ("EUR/CAD", 146_000),
    ("GBP/CHF", 110_500),
    ("XAU/USD", 205_000_000),
    ("BTC/USD", 4_300_000_000),
];

/// 18 divides by 1, 2, 3, 6 and 9: the symbols load that many partitions evenly.
pub(super) const SYMBOL_COUNT: u64 = 18;

/// A timeframe's share of a cycle of 64 bars, so that minutes come more often than days and a
/// million bars stay within two years (each batch touches few of a table's monthly partitions).
#[derive(Debug)]
pub(super) struct Timeframe {
    pub(super) name: &'static str,
    pub(super) ms: i64,
    /// Its first slot in the cycle, and how many it has.
    pub(super) first_slot: u64,
    pub(super) slots: u64,
}

const MINUTE: i64 = 60_000;
const DAY: i64 = 1_440 * MINUTE;

/// In the order of their slots. The last slot is a day's, in each eighth cycle a week's.
pub(super) const TIMEFRAMES: [Timeframe; 8] = [
    Timeframe { name: "1s", ms: 1_000, first_slot: 0, slots: 8 },
    Timeframe { name: "1m", ms: MINUTE, first_slot: 8, slots: 24 },
    Timeframe { name: "5m", ms: 5 * MINUTE, first_slot: 32, slots: 16 },
    Timeframe { name: "15m", ms: 15 * MINUTE, first_slot: 48, slots: 8 },
    Timeframe { name: "30m", ms: 30 * MINUTE, first_slot: 56, slots: 4 },
    Timeframe { name: "1h", ms: 60 * MINUTE, first_slot: 60, slots: 2 },
    Timeframe { name: "4h", ms: 240 * MINUTE, first_slot: 62, slots: 1 },
    Timeframe { name: "1d", ms: DAY, first_slot: 63, slots: 1 },
];
pub(super) const WEEK: Timeframe = Timeframe { name: "1w", ms: 7 * DAY, first_slot: 63, slots: 1 };

const INDICATORS: [&str; 36] = [
    "sma_5",
    "sma_10",
    "sma_20",
    "sma_50",
    "sma_100",
    "sma_200",
    "ema_5",
    "ema_10",
    "ema_20",
    "ema_50",
    "ema_100",
    "ema_200",
    "rsi_7",
    "rsi_14",
    "rsi_21",
    "macd",
    "macd_signal",
    "macd_hist",
    "bb_upper",
    "bb_middle",
    "bb_lower",
    "bb_width",
    "atr_7",
    "atr_14",
    "adx_14",
    "cci_20",
    "stoch_k",
    "stoch_d",
    "williams_r",
    "roc_10",
    "mom_10",
    "obv",
    "mfi_14",
    "psar",
    "keltner_upper",
    "keltner_lower",
];

/// How a producer writes a tick or a candle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Live,
    Historical,
    Short,
}

#[derive(Debug)]
pub(super) struct Tick {
    pub(super) symbol: &'static str,
    pub(super) form: Form,
    time: UnixMs,
    bid: Points,
    ask: Points,
    mid: Points,
    /// In pips, times ten.
    spread_tenths: i64,
}

impl Tick {
    pub(super) fn new(seed: u64, seq: u64) -> Self {
        let (symbol, base, scale) = instrument(seq);
        let q = seq / SYMBOL_COUNT;
        let h = mix(seed, seq);
        let swing = wave(q + 131 * (seq % SYMBOL_COUNT));
        let bid = base + scale * (swing + signed(h % 16));
        let spread = 2 * scale * (1 + signed((h >> 8) % 7));
        Self {
            symbol,
            form: tick_form(q),
            time: START_MS + signed(q * 100 + seq * 37 % 100),
            bid: Points(bid),
            ask: Points(bid + spread),
            mid: Points(bid + spread / 2),
            spread_tenths: spread,
        }
    }

    pub(super) fn write(&self, seq: u64, out: &mut Vec<u8>) {
        let Self { symbol, time, bid, ask, .. } = self;
        let mid = Noisy(self.mid, seq / SYMBOL_COUNT);
        let spread = format_args!("{}.{}", self.spread_tenths / 10, self.spread_tenths % 10);
        match self.form {
            Form::Live => put(
                out,
                format_args!(
                    r#"{{"symbol":"{symbol}","bid":{bid},"ask":{ask},"mid":{mid},"spread":{spread},"timestamp":{time},"timestamp_ms":{time},"exchange":48,"source":"polygon_websocket","event_type":"quote","_seq":{seq}}}"#
                ),
            ),
            Form::Historical => put(
                out,
                format_args!(
                    r#"{{"symbol":"{symbol}","bid":{bid},"ask":{ask},"mid":{mid},"spread":{spread},"timestamp":"{}","volume":{}.5,"exchange":0,"source":"dukascopy_historical","event_type":"quote","_seq":{seq}}}"#,
                    python_time(*time),
                    seq % 50
                ),
            ),
            Form::Short => put(
                out,
                format_args!(
                    r#"{{"ev":"C","pair":"{symbol}","x":48,"a":{ask},"b":{bid},"s":{spread},"t":{time},"_seq":{seq}}}"#
                ),
            ),
        }
    }
}

fn tick_form(q: u64) -> Form {
    match q % 8 {
        0..=4 => Form::Live,
        5 | 6 => Form::Historical,
        _ => Form::Short,
    }
}

#[derive(Debug)]
pub(super) struct Candle {
    pub(super) symbol: &'static str,
    pub(super) timeframe: &'static str,
    pub(super) form: Form,
    time: UnixMs,
    end: UnixMs,
    open: Points,
    high: Points,
    low: Points,
    close: Points,
    tick_count: i64,
    complete: bool,
    spread: Points,
    scale: i64,
    indicators: bool,
}

impl Candle {
    pub(super) fn new(seed: u64, revisions: u64, seq: u64) -> Self {
        let (symbol, base, scale) = instrument(seq);
        let s = seq % SYMBOL_COUNT;
        let (revision, b) = ((seq / SYMBOL_COUNT) % revisions, seq / SYMBOL_COUNT / revisions);
        let (timeframe, index) = bar(b);
        let h = mix(seed, b * SYMBOL_COUNT + s);
        let part = |whole: i64| whole * signed(revision + 1) / signed(revisions);

        let open = base + scale * wave(index + 131 * s);
        let last = base + scale * wave(index + 1 + 131 * s);
        let close = open + part(last - open);
        let time = START_MS + signed(index) * timeframe.ms;
        Self {
            symbol,
            timeframe: timeframe.name,
            form: candle_form(timeframe, b, revisions),
            time,
            end: time + timeframe.ms,
            open: Points(open),
            high: Points(open.max(close) + part(scale * (1 + signed(h % 40)))),
            low: Points(open.min(close) - part(scale * (1 + signed((h >> 8) % 40)))),
            close: Points(close),
            tick_count: part(100 + signed((h >> 16) % 900)),
            complete: revision + 1 == revisions,
            spread: Points(scale * (2 + signed(h % 5))),
            scale,
            indicators: b % 8 == 3,
        }
    }

    pub(super) fn write(&self, seq: u64, out: &mut Vec<u8>) {
        let Self { symbol, timeframe, time, open, high, low, close, tick_count, .. } = self;
        let complete = u8::from(self.complete);
        let volume = tick_count * 1_000;
        let vwap = Noisy(Points((high.0 + low.0 + close.0) / 3), seq / SYMBOL_COUNT);
        let range = Points(high.0 - low.0);
        match self.form {
            Form::Live => {
                put(
                    out,
                    format_args!(
                        r#"{{"symbol":"{symbol}","timeframe":"{timeframe}","timestamp_ms":{time},"open":{open},"high":{high},"low":{low},"close":{close},"tick_count":{tick_count},"avg_spread":{},"max_spread":{},"min_spread":{},"price_range":{range},"pct_change":{},"is_complete":{complete},"source":"live_aggregated","#,
                        self.spread,
                        Points(self.spread.0 + 3 * self.scale),
                        Points(self.scale),
                        Points((close.0 - open.0) * 10_000_000 / open.0),
                    ),
                );
                if self.indicators {
                    self.write_indicators(out);
                }
                put(out, format_args!(r#""_seq":{seq}}}"#));
            }
            Form::Historical => put(
                out,
                format_args!(
                    r#"{{"symbol":"{symbol}","timeframe":"{timeframe}","timestamp_ms":{time},"open":{open},"high":{high},"low":{low},"close":{close},"tick_count":{tick_count},"is_complete":{complete},"volume":{volume},"vwap":{vwap},"range_pips":{}.{},"start_time":"{}","end_time":"{}","event_type":"ohlcv","source":"polygon_historical","_source":"historical","_seq":{seq}}}"#,
                    range.0 / 10,
                    range.0 % 10,
                    iso_time(*time),
                    iso_time(self.end),
                ),
            ),
            Form::Short => put(
                out,
                format_args!(
                    r#"{{"ev":"CAS","pair":"{symbol}","timeframe":"{timeframe}","s":{time},"o":{open},"h":{high},"l":{low},"c":{close},"v":{volume},"vw":{vwap},"n":{tick_count},"_seq":{seq}}}"#
                ),
            ),
        }
    }

    fn write_indicators(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""indicators":{"#);
        for (name, offset) in INDICATORS.into_iter().zip(0..) {
            let comma = if offset == 0 { "" } else { "," };
            let value = Points(self.close.0 + offset * self.scale);
            put(out, format_args!(r#"{comma}"{name}":{value}"#));
        }
        out.extend_from_slice(b"},");
    }
}

/// The timeframe of a bar and its index among that timeframe's bars.
fn bar(b: u64) -> (&'static Timeframe, u64) {
    let (cycle, slot) = (b / 64, b % 64);
    if slot == 63 && cycle % 8 == 7 {
        return (&WEEK, cycle / 8);
    }
    let timeframe = TIMEFRAMES.iter().rfind(|t| t.first_slot <= slot).expect("slot 0 has one");
    (timeframe, cycle * timeframe.slots + slot - timeframe.first_slot)
}

/// Seconds and minutes come from history only. The short form cannot say that a bar is still
/// open, so it is only used when none is.
fn candle_form(timeframe: &Timeframe, b: u64, revisions: u64) -> Form {
    match (timeframe.first_slot, b % 4) {
        (32.., _) => Form::Live,
        (_, 3) if revisions == 1 => Form::Short,
        _ => Form::Historical,
    }
}

/// Name, price and step of a symbol: dearer ones move in larger steps.
fn instrument(seq: u64) -> (&'static str, i64, i64) {
    let (symbol, base) = pick(&SYMBOLS, seq);
    (symbol, base, base / 60_000)
}
