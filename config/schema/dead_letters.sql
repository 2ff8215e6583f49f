CREATE TABLE IF NOT EXISTS dead_letters
(
    id               UUID,
    time             DateTime64(3, 'UTC'),
    record_time      Nullable(DateTime64(3, 'UTC')),
    instance         LowCardinality(String),
    source           LowCardinality(String),
    topic_or_subject LowCardinality(String),
    partition        Nullable(Int32),
    offset           Nullable(Int64),
    key              Nullable(String),
    headers          Map(String, String),
    route            LowCardinality(String),
    reason           LowCardinality(String),
    error            String,
    payload          String,
    replayed_at      Nullable(DateTime64(3, 'UTC'))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000
