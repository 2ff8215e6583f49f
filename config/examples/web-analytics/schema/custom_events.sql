-- What a product team sends of its own; each name has properties of its own.
CREATE TABLE IF NOT EXISTS custom_events
(
    -- an integer is epoch milliseconds
    ts DateTime64(3, 'UTC'),
    name LowCardinality(String),
    properties JSON
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (name, ts)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
