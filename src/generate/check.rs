//! The SQL that proves what landed: computes every value again from `_seq`, by the formulas of
//! `market.rs`, and compares. One row a stream and table:
//!
//! `expected` rows that a table keeping the last revision must hold, `missing` of them (over NATS
//! this equals the counted drops), `unexpected` ones beside them, `repeated` sequence numbers
//! (stored twice), and `wrong`, rows with a value that is not bit for bit what was sent, with a
//! few of their numbers.
//!
//! Pure: makes text, asks nobody.

use super::market::{SYMBOL_COUNT, SYMBOLS, TIMEFRAMES, WEEK};
use super::numbers::START_MS;
use super::{Kind, Plan, Stream, external};

/// One query over all streams of the plan that end in tables, without a trailing semicolon.
#[must_use]
pub fn sql_check(plan: &Plan) -> String {
    let parts: Vec<String> = plan.streams.iter().flat_map(|s| queries(plan, s)).collect();
    parts.join("\nUNION ALL\n")
}

fn queries(plan: &Plan, stream: &Stream) -> Vec<String> {
    let every = |table: &str| query(plan, stream, table, "1", None);
    match stream.kind {
        Kind::Ticks => vec![query(plan, stream, "ticks", "1", Some(tick_values(plan)))],
        Kind::Candles => vec![query(plan, stream, "aggregates", "1", Some(candle_values(plan)))],
        Kind::External => external::TYPES
            .iter()
            .zip(0..)
            .map(|(table, turn)| query(plan, stream, table, &format!("number % 6 = {turn}"), None))
            .collect(),
        Kind::Signals => vec![every("signals")],
        // Of the shapes to measure with, `scripts/bench` knows the tables, and compares all of it.
        Kind::System | Kind::Bars | Kind::Indicators | Kind::Quotes | Kind::Books => Vec::new(),
    }
}

/// `only` chooses the numbers that go into the table; `values` is the subquery of its wrong rows.
fn query(
    plan: &Plan,
    stream: &Stream,
    table: &str,
    only: &str,
    values: Option<(String, &str)>,
) -> String {
    let (first, last, count) = (stream.first, stream.end() - 1, stream.count);
    let good = match plan.recipe.bad_every {
        Some(every) => format!("number % {every} != {}", every - 1),
        None => "1".to_owned(),
    };
    let expected = match (stream.kind, plan.recipe.revisions) {
        (Kind::Candles, 2..) => format!(
            "SELECT max(number) AS seq FROM numbers({first}, {count}) WHERE {good} \
             GROUP BY intDiv(number, {}), number % {SYMBOL_COUNT}",
            SYMBOL_COUNT * plan.recipe.revisions
        ),
        _ => format!("SELECT number AS seq FROM numbers({first}, {count}) WHERE {good} AND {only}"),
    };
    let stored = |modifier: &str| {
        format!(
            "SELECT assumeNotNull(_seq) AS seq FROM {table}{modifier} \
             WHERE _seq BETWEEN {first} AND {last}"
        )
    };
    let wrong = values.map_or_else(
        || "SELECT 0 AS wrong, [] :: Array(UInt64) AS wrong_seqs".to_owned(),
        |(with, matches)| {
            format!(
                "SELECT countIf(NOT same) AS wrong, groupArrayIf(5)(n, NOT same) AS wrong_seqs \
                 FROM (WITH {with} SELECT n, ifNull({matches}, 0) AS same FROM {table} \
                 WHERE _seq BETWEEN {first} AND {last})"
            )
        },
    );
    format!(
        "SELECT '{}' AS stream, '{table}' AS into, \
         (SELECT count() FROM ({expected})) AS expected, \
         (SELECT count() FROM ({expected}) WHERE seq NOT IN ({})) AS missing, \
         (SELECT count() FROM ({}) WHERE seq NOT IN ({expected})) AS unexpected, \
         (SELECT count() - uniqExact(seq) FROM ({})) AS repeated, \
         wrong, wrong_seqs FROM ({wrong})",
        stream.target.name(),
        stored(" FINAL"),
        stored(" FINAL"),
        stored(""),
    )
}

/// What ticks and candles have in common.
fn common(plan: &Plan) -> String {
    let symbols: Vec<String> = SYMBOLS.iter().map(|(name, _)| format!("'{name}'")).collect();
    let bases: Vec<String> = SYMBOLS.iter().map(|(_, base)| base.to_string()).collect();
    format!(
        "assumeNotNull(_seq) AS n, toInt64(n % {SYMBOL_COUNT}) AS s, intDiv(n, {SYMBOL_COUNT}) AS q, \
         [{}][s + 1] AS x_symbol, toInt64([{}][s + 1]) AS base, intDiv(base, 60000) AS scale, \
         (m -> bitShiftRight((toUInt64(m) + {} * 1000003) * 11400714819323198485, 32)) AS mix, \
         (w -> abs(toInt64(w % 4001) - 2000) + abs(toInt64(w % 307) - 153)) AS wave",
        symbols.join(","),
        bases.join(","),
        plan.recipe.seed,
    )
}

fn tick_values(plan: &Plan) -> (String, &'static str) {
    let with = format!(
        "{}, mix(n) AS h, {START_MS} + q * 100 + n * 37 % 100 AS x_ms, \
         base + scale * (wave(q + 131 * s) + h % 16) AS x_bid, \
         2 * scale * (1 + bitShiftRight(h, 8) % 7) AS x_spread",
        common(plan),
    );
    let same = "symbol = x_symbol AND toUnixTimestamp64Milli(time) = x_ms \
         AND bid * 100000 = x_bid AND ask * 100000 = x_bid + x_spread \
         AND if(q % 8 = 7, mid IS NULL, mid * 100000 = x_bid + intDiv(x_spread, 2)) \
         AND spread = x_spread / 10";
    (with, same)
}

fn candle_values(plan: &Plan) -> (String, &'static str) {
    let revisions = plan.recipe.revisions;
    let slots = |what: fn(&super::market::Timeframe) -> String, week: String| {
        let by_slot: Vec<String> = TIMEFRAMES
            .iter()
            .map(|t| format!("slot < {}, {}", t.first_slot + t.slots, what(t)))
            .collect();
        format!("multiIf(is_week, {week}, {}, {})", by_slot.join(", "), what(&TIMEFRAMES[0]))
    };
    let with = format!(
        "{}, q % {revisions} AS r, {revisions} - 1 AS last_r, intDiv(q, {revisions}) AS b, \
         mix(b * {SYMBOL_COUNT} + s) AS h, intDiv(b, 64) AS cycle, b % 64 AS slot, \
         (slot = 63 AND cycle % 8 = 7) AS is_week, {} AS x_timeframe, {} AS tf_ms, {} AS i, \
         (whole -> intDiv(whole * toInt64(r + 1), {revisions})) AS part, \
         {START_MS} + i * tf_ms AS x_ms, \
         base + scale * wave(i + 131 * s) AS x_open, \
         base + scale * wave(i + 1 + 131 * s) AS x_last, \
         x_open + part(x_last - x_open) AS x_close, \
         greatest(x_open, x_close) + part(scale * (1 + toInt64(h % 40))) AS x_high, \
         least(x_open, x_close) - part(scale * (1 + toInt64(bitShiftRight(h, 8) % 40))) AS x_low, \
         part(toInt64(100 + bitShiftRight(h, 16) % 900)) AS x_ticks",
        common(plan),
        slots(|t| format!("'{}'", t.name), format!("'{}'", WEEK.name)),
        slots(|t| t.ms.to_string(), WEEK.ms.to_string()),
        slots(
            |t| format!("cycle * {} + slot - {}", t.slots, t.first_slot),
            "intDiv(cycle, 8)".to_owned()
        ),
    );
    let same = "symbol = x_symbol AND timeframe = x_timeframe \
         AND toUnixTimestamp64Milli(time) = x_ms AND open * 100000 = x_open \
         AND high * 100000 = x_high AND low * 100000 = x_low AND close * 100000 = x_close \
         AND tick_count = x_ticks AND is_complete = (r = last_r) \
         AND if(slot < 32, price_range IS NULL, price_range * 100000 = x_high - x_low) \
         AND if(slot < 32, avg_spread IS NULL, avg_spread * 100000 = scale * (2 + h % 5)) \
         AND if(slot < 32, vwap * 100000 = intDiv(x_high + x_low + x_close, 3), vwap IS NULL)";
    (with, same)
}

#[cfg(test)]
mod tests {
    use super::super::{Recipe, Target, demo_profile};
    use super::*;

    #[test]
    fn there_is_a_line_for_each_stream_and_table() {
        let sql = sql_check(&demo_profile(42, 0));
        // ticks and aggregates twice, six external tables twice, signals once
        assert_eq!(sql.matches("AS stream").count(), 2 + 2 + 12 + 1);
    }

    #[test]
    fn the_last_good_revision_is_expected() {
        let recipe = Recipe { revisions: 3, bad_every: Some(1_000), ..Recipe::new(9) };
        let sql = sql_check(&Plan::new(recipe, 0, &[(Target::Nats, Kind::Candles, 540)]));
        assert!(
            sql.contains("numbers(0, 540) WHERE number % 1000 != 999 GROUP BY intDiv(number, 54)")
        );
    }
}
