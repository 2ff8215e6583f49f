-- Quotes. The same tick over Kafka and NATS is one row.
CREATE TABLE IF NOT EXISTS ticks
(
    symbol LowCardinality(String),
    time DateTime64(3, 'UTC'),
    bid Decimal(18, 5),
    ask Decimal(18, 5),
    -- half way between two prices of five digits takes six
    mid Nullable(Decimal(18, 6)),
    -- pips
    spread Nullable(Float64),
    volume Nullable(Float64),
    exchange Nullable(Int32),
    source LowCardinality(String),
    event_type LowCardinality(Nullable(String)),
    -- for audits: where the row came from (Kafka), and the generator's sequence
    _topic LowCardinality(Nullable(String)),
    _partition Nullable(Int32),
    _offset Nullable(Int64),
    _seq Nullable(UInt64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (symbol, time, bid, ask)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
