-- Trading signals; each has an id, so that a replay is harmless.
CREATE TABLE IF NOT EXISTS signals
(
    signal_id UUID,
    symbol LowCardinality(String),
    timeframe LowCardinality(String),
    time DateTime64(3, 'UTC'),
    signal_type LowCardinality(String),
    -- 0 to 1
    confidence_score Nullable(Float64),
    entry_price Nullable(Decimal(18, 5)),
    stop_loss Nullable(Decimal(18, 5)),
    take_profit Nullable(Decimal(18, 5)),
    model_version LowCardinality(Nullable(String)),
    -- The message as it came: metadata is an object of any shape.
    payload String,
    metadata String MATERIALIZED JSONExtractRaw(payload, 'metadata'),
    -- for audits: where the row came from (Kafka), and the generator's sequence
    _topic LowCardinality(Nullable(String)),
    _partition Nullable(Int32),
    _offset Nullable(Int64),
    _seq Nullable(UInt64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (symbol, time, signal_id)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
