-- The fear and greed index.
CREATE TABLE IF NOT EXISTS fear_greed_index
(
    time DateTime64(3, 'UTC'),
    -- 0 to 100
    value UInt8,
    classification LowCardinality(Nullable(String)),
    -- -1 to 1
    sentiment_score Nullable(Float64),
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
PARTITION BY toYYYYMM(time)
ORDER BY time
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
