//! Trading signals and system messages: pure functions of (seed, seq).

use uuid::Builder;

use super::market::{SYMBOL_COUNT, SYMBOLS};
use super::numbers::{Points, START_MS, iso_time, mix, pick, put, signed, wave};

/// The subjects of system messages, in turn: health of services, a change of configuration, logs.
pub(super) const SYSTEM_SUBJECTS: [&str; 6] = [
    "system.health.collector",
    "system.health.aggregator",
    "system.health.ml-engine",
    "system.config.collector",
    "system.logs.info",
    "system.logs.error",
];

pub(super) fn symbol_of(seq: u64) -> &'static str {
    pick(&SYMBOLS, seq).0
}

pub(super) fn write_signal(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let (symbol, base) = pick(&SYMBOLS, seq);
    let (n, h, scale) = (seq / SYMBOL_COUNT, mix(seed, seq), base / 60_000);
    let entry = base + scale * wave(n);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&h.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    bytes[8..].copy_from_slice(&seq.to_be_bytes());
    put(
        out,
        format_args!(
            r#"{{"signal_id":"{}","symbol":"{symbol}","timeframe":"{}","timestamp_ms":{},"signal_type":"{}","confidence_score":0.{:04},"entry_price":{},"stop_loss":{},"take_profit":{},"model_version":"v2.{}","metadata":{{"strategy":"mean_reversion","features":[{},{}],"note":"n\u00b0 {seq}"}},"_seq":{seq}}}"#,
            Builder::from_random_bytes(bytes).into_uuid(),
            pick(&["5m", "15m", "1h", "4h"], h >> 3),
            START_MS + signed(n) * 60_000,
            pick(&["buy", "sell", "hold", "strong_buy", "strong_sell"], h),
            h % 10_000,
            Points(entry),
            Points(entry - 30 * scale),
            Points(entry + 60 * scale),
            h % 9,
            Points(signed(h % 100_000)),
            Points(signed((h >> 7) % 100_000)),
        ),
    );
}

pub(super) fn write_system(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let (h, at) = (mix(seed, seq), iso_time(START_MS + signed(seq) * 1_000));
    match pick(&SYSTEM_SUBJECTS, seq) {
        subject if subject.starts_with("system.health") => put(
            out,
            format_args!(
                r#"{{"status":"healthy","uptime":{seq},"memory_mb":{}.5,"at":"{at}","_seq":{seq}}}"#,
                h % 900
            ),
        ),
        subject if subject.starts_with("system.config") => {
            put(out, format_args!(r#"{{"changed":["poll_interval"],"at":"{at}","_seq":{seq}}}"#))
        }
        _ => put(
            out,
            format_args!(
                r#"{{"message":"reconnected after {} ms","at":"{at}","_seq":{seq}}}"#,
                h % 900
            ),
        ),
    }
}
