//! The librdkafka settings that the bridge relies on, each written out: a default that changes in
//! another version must not change what is guaranteed. Owns no connection.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config;

/// Properties that `kafka.client` may not set: the guarantees stand on them, or they have a key of
/// their own in `[kafka]`.
pub const PINNED: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "metadata.broker.list",
    "queued.max.messages.kbytes",
    "statistics.interval.ms",
];

/// The largest answer that is taken: with a record of 16 MiB, which must pass, beside the fetches
/// of other partitions. A broker sends the first batch whole, however small a fetch was asked for.
const RECEIVE_BYTES: &str = "35651584";

/// A fetch asks for this share of `prefetch_bytes` (compressed). It is unpacked as a whole before
/// anything of it is counted, some five times as large, and each record costs some 300 bytes more:
/// with fetches of 17 MB a bridge that held 50,000 candles took 230 MB, with 2 MB it took 90.
const FETCH_SHARE: usize = 16;
/// Never less, which is more than librdkafka's default of `message.max.bytes`: it refuses a consumer
/// whose fetches are smaller. Never more: two fetches fit in an answer.
const FETCH_BYTES: RangeInclusive<usize> = 1024 * 1024..=16 * 1024 * 1024;

/// The settings of the consumer.
///
/// # Errors
/// When `kafka.client` sets a pinned property, or one that librdkafka does not know or refuses.
pub fn client_config(config: &config::Kafka, instance: &str) -> anyhow::Result<ClientConfig> {
    check_pinned(&config.client)?;
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    let fetch_bytes = fetch_bytes(config);
    let prefetch_kib = (config.prefetch_bytes / 1024).clamp(1, 2_097_151);
    for (key, value) in [
        ("bootstrap.servers", config.brokers.join(",")),
        ("group.id", config.group_id.clone()),
        ("client.id", format!("data-bridge-{instance}")),
        ("auto.offset.reset", config.auto_offset_reset.clone()),
        ("queued.max.messages.kbytes", prefetch_kib.to_string()),
        ("fetch.max.bytes", fetch_bytes.to_string()),
        ("fetch.message.max.bytes", (fetch_bytes / 2).to_string()),
    ] {
        client.set(key, value);
    }
    for (key, value) in FIXED {
        client.set(*key, *value);
    }
    // KIP-848 leaves the session and the assignor to the broker, and refuses the classic keys.
    if config.client.get("group.protocol").map(String::as_str) != Some("consumer") {
        for (key, value) in CLASSIC {
            client.set(*key, *value);
        }
    }
    for (key, value) in &config.client {
        client.set(key, value);
    }
    client.create_native_config().map_err(refused)?;
    Ok(client)
}

/// How much a fetch asks for. Not less than a user allows for records that are produced (dead
/// letters may go to Kafka): librdkafka compares the two, also in a client that only consumes.
fn fetch_bytes(config: &config::Kafka) -> usize {
    let share = config.prefetch_bytes / FETCH_SHARE;
    let produced = config.client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
    share.clamp(*FETCH_BYTES.start(), *FETCH_BYTES.end()).max(produced.unwrap_or_default())
}

/// Where the brokers are and how to be let in: for a client that does not consume. Of the
/// consumer's other properties none is of use to it.
#[must_use]
pub fn connection(config: &config::Kafka, client_id: &str) -> ClientConfig {
    const SHARED: [&str; 5] = ["security.", "sasl.", "ssl.", "socket.", "broker.address."];
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", config.brokers.join(","));
    client.set("client.id", client_id);
    for (key, value) in &config.client {
        if SHARED.iter().any(|prefix| key.starts_with(prefix)) {
            client.set(key, value);
        }
    }
    client
}

const FIXED: &[(&str, &str)] = &[
    // Only what the pipeline says is durable is committed, by us. With the default store,
    // dropping the consumer would commit what its close loop polls and discards.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
    // Per partition; the bytes above are the real bound, over all of them.
    ("queued.min.messages", "10000"),
    // The default of 1 s makes a full queue stop the fetcher for a second: 0.3 M records/s.
    ("fetch.queue.backoff.ms", "10"),
    ("receive.message.max.bytes", RECEIVE_BYTES),
    // New partitions, and new topics, are seen within this: those of a regular expression, and
    // those that were missing (measured: they are not asked for sooner).
    (REFRESH, "30000"),
    // A topic that does not exist is said to be missing after this, not after 30 s.
    ("topic.metadata.propagation.max.ms", "5000"),
    ("reconnect.backoff.max.ms", "5000"),
    // Lag and broker states come with the statistics.
    ("statistics.interval.ms", "1000"),
    ("log.connection.close", "false"),
];

const CLASSIC: &[(&str, &str)] = &[
    // librdkafka's default, eager. An existing group keeps working when the bridge joins it;
    // cooperative-sticky must be chosen for a whole group at once, so it is the user's to choose.
    ("partition.assignment.strategy", "range,roundrobin"),
    ("session.timeout.ms", "45000"),
];

/// How long a revocation may hold up its rebalance: well under the session timeout, so that a
/// short one given by the user is respected.
pub(super) fn revoke_within(client: &ClientConfig) -> Duration {
    let session_ms = client.get("session.timeout.ms").and_then(|ms| ms.parse().ok());
    let half = session_ms.map_or(REVOKE_WITHIN, |ms: u64| Duration::from_millis(ms / 2));
    half.min(REVOKE_WITHIN)
}

const REVOKE_WITHIN: Duration = Duration::from_secs(10);

/// How often the brokers are asked which topics and partitions there are; None if they are not.
pub(super) fn look_for_topics_every(client: &ClientConfig) -> Option<Duration> {
    let every_ms = client.get(REFRESH)?.parse().ok().filter(|ms| *ms > 0)?;
    Some(Duration::from_millis(every_ms))
}

const REFRESH: &str = "topic.metadata.refresh.interval.ms";

fn check_pinned(client: &BTreeMap<String, String>) -> anyhow::Result<()> {
    for key in client.keys() {
        if PINNED.contains(&key.as_str()) {
            bail!(
                "kafka.client: {key} cannot be set here: the bridge relies on it, or it has a key \
                 of its own in [kafka] (that goes for {})",
                PINNED.join(", ")
            );
        }
    }
    Ok(())
}

/// An error that names the property, its value and what librdkafka has against it.
#[must_use]
pub fn refused(error: KafkaError) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, why, key, value) => {
            let hidden = config::is_secret_property(&key);
            let value = if hidden { "(hidden)" } else { value.as_str() };
            anyhow::anyhow!("kafka.client: {key} = {value:?}: {why}")
        }
        other => anyhow::Error::new(other).context("librdkafka refuses the settings of [kafka]"),
    }
}

/// Refuses patterns that librdkafka would read differently from the routes: it uses the C
/// library's POSIX expressions, the routes use Rust's.
///
/// # Errors
/// When a pattern is not a regular expression, or uses what POSIX does not know.
pub fn check_topics(topics: &[String]) -> anyhow::Result<()> {
    for topic in topics.iter().filter(|topic| topic.starts_with('^')) {
        regex::Regex::new(topic).with_context(|| format!("topic pattern {topic:?}"))?;
        if let Some(part) = NOT_POSIX.iter().find(|part| topic.contains(*part)) {
            bail!(
                "topic pattern {topic:?}: {part:?} means something else to Kafka's client, which \
                 reads POSIX extended expressions; write [0-9] for \\d, (a|b) for (?:a|b)"
            );
        }
    }
    Ok(())
}

const NOT_POSIX: &[&str] =
    &["(?", "*?", "+?", "??", "}?", "\\d", "\\D", "\\p", "\\P", "\\x", "\\u", "\\A", "\\z", "[\\"];
