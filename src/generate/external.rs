//! The six types of external data: pure functions of (seed, seq). The types take turns; within a
//! type the n-th record has a time, or a name and a date, of its own, so that no table collapses
//! two of them.

use super::numbers::{Points, START_MS, iso_time, mix, pick, put, signed, time};

pub(super) const TYPES: [&str; 6] = [
    "economic_calendar",
    "fred_economic",
    "crypto_sentiment",
    "fear_greed_index",
    "commodity_prices",
    "market_sessions",
];

const MINUTE: i64 = 60_000;
const DAY: i64 = 1_440 * MINUTE;

const CURRENCIES: [&str; 8] = ["USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD"];
const EVENTS: [&str; 12] = [
    "CPI m/m",
    "Core CPI m/m",
    "Non-Farm Employment Change",
    "Unemployment Rate",
    "Retail Sales m/m",
    "GDP q/q",
    "Trade Balance",
    "Manufacturing PMI",
    "Services PMI",
    "Bank Holiday",
    "Rate Statement",
    "Consumer \u{201c}Sentiment\u{201d} \u{2014} Umfrage \u{fc}ber alles",
];
const SERIES: [&str; 8] =
    ["CPIAUCSL", "UNRATE", "FEDFUNDS", "DGS10", "PAYEMS", "M2SL", "DEXUSEU", "GDP"];
const COINS: [(&str, &str, &str, i64); 8] = [
    ("bitcoin", "Bitcoin", "btc", 4_300_000_000),
    ("ethereum", "Ethereum", "eth", 230_000_000),
    ("tether", "Tether", "usdt", 100_000),
    ("solana", "Solana", "sol", 9_800_000),
    ("ripple", "XRP", "xrp", 61_000),
    ("cardano", "Cardano", "ada", 59_000),
    ("dogecoin", "Dogecoin", "doge", 9_000),
    ("shiba-inu", "Shiba Inu", "shib", 1),
];
const COMMODITIES: [(&str, &str, i64); 8] = [
    ("GC=F", "Gold", 205_000_000),
    ("SI=F", "Silver", 2_300_000),
    ("CL=F", "Crude Oil", 7_200_000),
    ("BZ=F", "Brent Crude Oil", 7_700_000),
    ("NG=F", "Natural Gas", 260_000),
    ("HG=F", "Copper", 385_000),
    ("ZW=F", "Wheat", 61_500_000),
    ("ZC=F", "Corn", 46_500_000),
];
const MOODS: [&str; 5] = ["Extreme Fear", "Fear", "Neutral", "Greed", "Extreme Greed"];
const SESSIONS: [&str; 4] = ["Sydney", "Tokyo", "London", "New York"];

/// Which type this one is.
pub(super) fn type_of(seq: u64) -> &'static str {
    pick(&TYPES, seq)
}

pub(super) fn write(seed: u64, seq: u64, out: &mut Vec<u8>) {
    let (n, h) = (seq / 6, mix(seed, seq));
    out.extend_from_slice(br#"{"data":{"#);
    match seq % 6 {
        0 => economic_calendar(n, h, out),
        1 => fred_economic(n, h, out),
        2 => crypto_sentiment(n, h, out),
        3 => fear_greed_index(n, h, out),
        4 => commodity_prices(n, h, out),
        _ => market_sessions(n, out),
    }
    put(
        out,
        format_args!(
            r#"}},"metadata":{{"type":"{}","timestamp":"{}","version":"1.0","source":"external-collector"}},"_seq":{seq}}}"#,
            type_of(seq),
            iso_time(START_MS + signed(n) * MINUTE + 5_000),
        ),
    );
}

fn economic_calendar(n: u64, h: u64, out: &mut Vec<u8>) {
    let at = START_MS + signed(n / 48) * DAY + signed(n % 48) * 30 * MINUTE;
    let hour = if n % 16 == 15 { "All day".to_owned() } else { time(at, "%H:%M") };
    let percent = |salt: u64| format!(r#""{}.{}%""#, (h >> salt) % 9, (h >> salt) % 10);
    let or_null = |text: String, null: bool| if null { "null".to_owned() } else { text };
    put(
        out,
        format_args!(
            r#""date":"{}","time":"{hour}","currency":"{}","event":"{}","forecast":{},"previous":{},"actual":{},"impact":{}"#,
            time(at, "%Y-%m-%d"),
            pick(&CURRENCIES, n),
            pick(&EVENTS, n),
            or_null(percent(3), h.is_multiple_of(4)),
            or_null(percent(7), h.is_multiple_of(9)),
            or_null(percent(11), h.is_multiple_of(2)),
            pick(&[r#""low""#, r#""medium""#, r#""high""#, "null"], h),
        ),
    );
}

/// GDP comes by the quarter, and its date says so: "2025-Q1".
fn fred_economic(n: u64, h: u64, out: &mut Vec<u8>) {
    let (series, k) = (pick(&SERIES, n), n / 8);
    let date = if series == "GDP" {
        format!("{}-Q{}", 1947 + k / 4 % 8_000, k % 4 + 1)
    } else {
        time(START_MS + signed(k) * DAY, "%Y-%m-%d")
    };
    let value = match h % 12 {
        0 => "null".to_owned(),
        _ => Points(signed(h % 30_000_000)).to_string(),
    };
    put(
        out,
        format_args!(
            r#""series_id":"{series}","value":{value},"date":"{date}","updated_at":"{}""#,
            iso_time(START_MS + signed(n) * MINUTE),
        ),
    );
}

fn crypto_sentiment(n: u64, h: u64, out: &mut Vec<u8>) {
    let (id, name, symbol, price) = pick(&COINS, n);
    // The cheapest coin has digits far behind the point: that is what Decimal(38,12) is for.
    let price = match symbol {
        "shib" => format!("0.0000{:08}", 940_000 + h % 100_000),
        _ => Points(price + price / 1_000 * signed(h % 50)).to_string(),
    };
    put(
        out,
        format_args!(
            r#""coin_id":"{id}","name":"{name}","symbol":"{symbol}","price_usd":{price},"price_change_24h":{},"market_cap_rank":{},"sentiment_votes_up_percentage":{}.{:02},"community_score":{}.5,"twitter_followers":{},"reddit_subscribers":{},"updated_at":"{}""#,
            Points(signed(h % 2_000_000) - 1_000_000),
            n % 8 + 1,
            h % 100,
            (h >> 8) % 100,
            (h >> 4) % 90,
            1_000_000 + h % 5_000_000,
            100_000 + h % 900_000,
            iso_time(START_MS + signed(n) * MINUTE),
        ),
    );
}

fn fear_greed_index(n: u64, h: u64, out: &mut Vec<u8>) {
    let value = h % 101;
    put(
        out,
        format_args!(
            r#""value":{value},"classification":"{}","sentiment_score":{},"timestamp":"{}""#,
            pick(&MOODS, value.min(99) / 20),
            Points(signed(value) * 2_000 - 100_000),
            (START_MS + signed(n) * 60 * MINUTE) / 1_000,
        ),
    );
}

fn commodity_prices(n: u64, h: u64, out: &mut Vec<u8>) {
    let (symbol, name, base) = pick(&COMMODITIES, n);
    let change = base / 2_000 * (signed(h % 40) - 20);
    let price = match h % 12 {
        0 => "null".to_owned(),
        _ => Points(base + change).to_string(),
    };
    let volume = match h % 7 {
        0 => "null".to_owned(),
        _ => (h % 250_000).to_string(),
    };
    put(
        out,
        format_args!(
            r#""symbol":"{symbol}","name":"{name}","currency":"USD","price":{price},"previous_close":{},"change":{},"change_percent":{},"volume":{volume},"updated_at":"{}""#,
            Points(base),
            Points(change),
            Points(change * 10_000_000 / base),
            iso_time(START_MS + signed(n) * MINUTE),
        ),
    );
}

fn market_sessions(n: u64, out: &mut Vec<u8>) {
    let at = START_MS + signed(n) * MINUTE;
    let hour = n / 60 % 24;
    let open = |session: usize| match session {
        0 => !(7..22).contains(&hour),
        1 => hour < 9,
        2 => (8..17).contains(&hour),
        _ => (13..22).contains(&hour),
    };
    let active: Vec<String> =
        (0..4).filter(|&s| open(s)).map(|s| format!(r#""{}""#, SESSIONS[s])).collect();
    let all: Vec<String> = (0..4)
        .map(|s| format!(r#"{{"name":"{}","is_active":{}}}"#, SESSIONS[s], open(s)))
        .collect();
    let overlap = if active.len() > 1 { active.join(",") } else { String::new() };
    put(
        out,
        format_args!(
            r#""current_utc_time":"{}","active_sessions_count":{},"active_sessions":[{}],"overlapping_sessions":[{overlap}],"liquidity_level":"{}","sessions":[{}],"collected_at":"{}""#,
            time(at, "%H:%M:%S"),
            active.len(),
            active.join(","),
            pick(&["very_low", "low", "high", "very_high"], active.len() as u64),
            all.join(","),
            iso_time(at),
        ),
    );
}
