-- A view of a page, as the browser reports it.
CREATE TABLE IF NOT EXISTS page_views
(
    event_id UUID,
    time DateTime64(3, 'UTC'),
    site LowCardinality(String),
    user_id Nullable(String),
    visitor String,
    country LowCardinality(Nullable(String)),
    city Nullable(String),
    url String,
    path String,
    title String,
    referrer Nullable(String),
    query Map(LowCardinality(String), String),
    device Enum8('other' = 0, 'desktop' = 1, 'mobile' = 2, 'tablet' = 3),
    screen Tuple(width UInt16, height UInt16),
    tags Array(LowCardinality(String)),
    -- seconds: ttfb, lcp, …
    timings Map(LowCardinality(String), Float64),
    -- for audits: where the row came from
    _partition Nullable(Int32),
    _offset Nullable(Int64)
)
-- A browser that saw no answer sends a view again: the id makes that harmless.
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (site, time, event_id)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
