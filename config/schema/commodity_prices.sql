-- Prices of commodities.
CREATE TABLE IF NOT EXISTS commodity_prices
(
    symbol LowCardinality(String),
    name LowCardinality(String),
    currency LowCardinality(String),
    -- null while there is no quote: never 0
    price Nullable(Decimal(18, 5)),
    previous_close Nullable(Decimal(18, 5)),
    change Nullable(Decimal(18, 5)),
    change_percent Nullable(Float64),
    volume Nullable(UInt64),
    updated_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    -- The message's own time is the version: the latest message wins, in whatever order they come.
    -- Python writes microseconds.
    published_at DateTime64(6, 'UTC'),
    -- for audits: where the row came from (Kafka), and the generator's sequence
    _topic LowCardinality(Nullable(String)),
    _partition Nullable(Int32),
    _offset Nullable(Int64),
    _seq Nullable(UInt64)
)
ENGINE = ReplacingMergeTree(published_at)
PARTITION BY toYYYYMM(updated_at)
ORDER BY (symbol, updated_at)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
