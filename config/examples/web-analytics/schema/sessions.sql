-- A visit. It is published many times while it grows; the last revision wins.
CREATE TABLE IF NOT EXISTS sessions
(
    session_id UUID,
    visitor String,
    started_at DateTime64(3, 'UTC'),
    ended_at Nullable(DateTime64(3, 'UTC')),
    entry_path String,
    pages UInt32,
    revenue Nullable(Decimal(12, 2)),
    currency LowCardinality(Nullable(String)),
    steps Array(Tuple(path String, at DateTime64(3, 'UTC'))),
    revision UInt32,
    -- for audits: where the row came from
    _partition Nullable(Int32),
    _offset Nullable(Int64)
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(started_at)
ORDER BY session_id
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
