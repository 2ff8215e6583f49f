-- What was refused, why, and every byte of it.
CREATE TABLE IF NOT EXISTS dead_letters
(
    -- deterministic: a letter that is written twice is one row
    id UUID,
    -- when it was refused
    time DateTime64(3, 'UTC'),
    -- when the record was made, as far as its producer or broker says
    record_time DateTime64(3, 'UTC'),
    instance LowCardinality(String),
    source LowCardinality(String),
    topic_or_subject LowCardinality(String),
    partition Nullable(Int32),
    offset Nullable(Int64),
    key Nullable(String),
    -- a JSON object; a value that is not UTF-8 is {"base64": "..."} in it
    headers String,
    route LowCardinality(String),
    -- a stable code; 'replay_plan' is no refused record, but what a replay is about to send: leave it
    -- out where you count
    reason LowCardinality(String),
    -- a sentence for people
    error String,
    -- the bytes as they came
    payload String,
    replayed_at Nullable(DateTime64(3, 'UTC')),
    -- that it was replayed is never undone by the same letter coming again
    replayed UInt8 MATERIALIZED isNotNull(replayed_at)
)
ENGINE = ReplacingMergeTree(replayed)
-- no partitions: the same letter may come again in another month, and must meet itself
ORDER BY id
-- a retried insert is recognised by its token
SETTINGS non_replicated_deduplication_window = 10000;
