-- Which markets are open.
CREATE TABLE IF NOT EXISTS market_sessions
(
    collected_at DateTime64(6, 'UTC'),
    -- as it is published: "14:30:00"
    current_utc_time String,
    active_sessions_count Nullable(UInt16),
    active_sessions Array(String),
    liquidity_level LowCardinality(Nullable(String)),
    -- The message as it came: its lists of objects have no fixed shape, so ClickHouse takes them
    -- out of it and no shape of theirs can make a row a dead letter.
    payload String,
    overlapping_sessions String MATERIALIZED JSONExtractRaw(payload, 'data', 'overlapping_sessions'),
    sessions String MATERIALIZED JSONExtractRaw(payload, 'data', 'sessions'),
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
PARTITION BY toYYYYMM(collected_at)
ORDER BY collected_at
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
