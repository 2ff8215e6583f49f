-- Releases of economic figures; an event is published again when its figures come.
CREATE TABLE IF NOT EXISTS economic_calendar
(
    event_date Date,
    -- as it is published: "14:30" or "All day"
    event_time String,
    currency LowCardinality(String),
    event String,
    impact LowCardinality(Nullable(String)),
    -- texts such as "0.3%" or "215K"
    forecast Nullable(String),
    previous Nullable(String),
    actual Nullable(String),
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
PARTITION BY toYYYYMM(event_date)
-- the time is part of the key: two speeches of one day are two events
ORDER BY (event_date, currency, event, event_time)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
