-- Candles. A bar is published many times while it is still open; the last revision wins.
CREATE TABLE IF NOT EXISTS aggregates
(
    symbol LowCardinality(String),
    timeframe LowCardinality(String),
    -- the bar's start: the same for all its revisions
    time DateTime64(3, 'UTC'),
    open Decimal(18, 5),
    high Decimal(18, 5),
    low Decimal(18, 5),
    close Decimal(18, 5),
    -- historical bars only; Dukascopy's volumes have fractions
    volume Nullable(Float64),
    vwap Nullable(Decimal(18, 5)),
    tick_count UInt64,
    -- price units; averages have more digits than prices
    avg_spread Nullable(Decimal(18, 8)),
    max_spread Nullable(Decimal(18, 8)),
    min_spread Nullable(Decimal(18, 8)),
    price_range Nullable(Decimal(18, 5)),
    range_pips Nullable(Float64),
    pct_change Nullable(Float64),
    is_complete UInt8,
    start_time Nullable(DateTime64(3, 'UTC')),
    end_time Nullable(DateTime64(3, 'UTC')),
    indicators Map(String, Float64),
    source LowCardinality(String),
    event_type LowCardinality(Nullable(String)),
    -- A bar's tick count only grows and completeness comes last: deterministic, the same over
    -- Kafka and NATS, so that a replay is harmless.
    version UInt64 MATERIALIZED tick_count * 2 + is_complete,
    -- for audits: where the row came from (Kafka), and the generator's sequence
    _topic LowCardinality(Nullable(String)),
    _partition Nullable(Int32),
    _offset Nullable(Int64),
    _seq Nullable(UInt64)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (symbol, timeframe, time)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
