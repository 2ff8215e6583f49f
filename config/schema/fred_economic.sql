-- Economic series of the Federal Reserve; values are revised.
CREATE TABLE IF NOT EXISTS fred_economic
(
    series_id LowCardinality(String),
    -- the period as it is published: "2025-04-01" or "2025-Q1"
    date String,
    -- null where the source has no value
    value Nullable(Float64),
    updated_at Nullable(DateTime64(6, 'UTC')),
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
-- No partitions: a partition must follow from the key, or revisions of one value would never meet;
-- periods are not always dates, and a series of 80 years has more months than one insert may touch.
ORDER BY (series_id, date)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
