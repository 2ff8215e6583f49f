-- An error in a browser.
CREATE TABLE IF NOT EXISTS errors
(
    time DateTime64(3, 'UTC'),
    release LowCardinality(Nullable(String)),
    kind LowCardinality(String),
    message String,
    -- from the place of the error outwards; a browser may not know the column
    frames Array(Tuple(file String, line UInt32, column Nullable(UInt32))),
    -- The record as it came. Its context has no fixed shape, so ClickHouse takes it out of it, and no
    -- shape can make a row a dead letter.
    payload String,
    context String MATERIALIZED JSONExtractRaw(payload, 'context'),
    -- for audits: where the row came from
    _partition Nullable(Int32),
    _offset Nullable(Int64)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (kind, time)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
