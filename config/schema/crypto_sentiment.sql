-- Prices and moods of coins.
CREATE TABLE IF NOT EXISTS crypto_sentiment
(
    coin_id LowCardinality(String),
    name LowCardinality(String),
    symbol LowCardinality(String),
    -- the cheapest coins have their digits far behind the point
    price_usd Nullable(Decimal(38, 12)),
    price_change_24h Nullable(Float64),
    market_cap_rank Nullable(UInt32),
    sentiment_votes_up_percentage Nullable(Float64),
    community_score Nullable(Float64),
    twitter_followers Nullable(UInt64),
    reddit_subscribers Nullable(UInt64),
    updated_at DateTime64(6, 'UTC'),
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
PARTITION BY toYYYYMM(updated_at)
ORDER BY (coin_id, updated_at)
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
