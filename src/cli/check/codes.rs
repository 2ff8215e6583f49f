//! The codes of the findings. Machines compare them: one may be added, none renamed. `docs/check.md`
//! explains each.

pub(super) const ALL: [&str; 48] = [
    // servers
    "unreachable",
    "refused",
    "source_without_routes",
    "clock_skew",
    // topics and their records
    "topic_missing",
    "topic_refused",
    "topic_pattern",
    "topic_unread",
    "records_lost",
    "retention_short",
    "topic_compacted",
    "records_from_the_future",
    "core_nats_unsampled",
    // streams
    "stream_unread",
    "stream_overwrites",
    "stream_in_memory",
    "consumer_acknowledges_nothing",
    "consumer_gives_up",
    "bucket_replicas",
    // dead letters outside ClickHouse
    "dead_letters_refused",
    "dead_letters_forgotten",
    // columns
    "mapping_mismatch",
    "no_record_lands",
    "dead_letters_expected",
    "values_rounded",
    "keys_unused",
    "columns_unfilled",
    "too_many_partitions",
    // tables
    "table_missing",
    "table_missing_made_at_start",
    "table_missing_not_creatable",
    "table_refused",
    "insert_not_permitted",
    "facts_unreadable",
    "async_insert",
    "rows_not_kept",
    "rows_expire",
    "distributed_background",
    "retry_may_double",
    "replay_doubles",
    // exactly once
    "no_window",
    "view_target_no_window",
    "view_hidden",
    "engine_ignores_tokens",
    "exactly_once_refused",
    "window_short",
    "small_inserts",
    "cannot_verify",
];
