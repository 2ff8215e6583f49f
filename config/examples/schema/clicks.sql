-- {"time": 1767263415123, "user": "u42", "target": "buy", "x": 120, "y": 640}
CREATE TABLE IF NOT EXISTS clicks
(
    time DateTime64(3, 'UTC'),
    user String,
    target LowCardinality(String),
    x Nullable(Int32),
    y Nullable(Int32)
)
ENGINE = MergeTree
ORDER BY (target, time)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
