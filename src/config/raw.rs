//! The configuration as it is written: every key, its type, its default and its meaning, once.
//!
//! The editor's schema, the check for unknown keys, the types of environment variables and the
//! reference all come from these structs. They promise nothing: [`super::validate`] does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LogLevel;
use super::fleet::RawFleet;
use super::rate::RawRateLimit;
use super::raw_alerts::Alerts;
use super::raw_jetstream::JetStream;
use super::raw_letters::DeadLetters;
use super::raw_live::Live;
use super::raw_otlp::Otlp;
use super::raw_overload::Overload;
use super::raw_route::{OneOrMany, Route};
use super::raw_webhook::Webhook;
use super::units::{Secret, Size, Span};

/// Configuration of data-bridge.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    /// Names this process in dead letters, logs and client ids. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<String>,
    pub(super) heartbeat: Heartbeat,
    pub(super) backpressure: Backpressure,
    pub(super) overload: Overload,
    pub(super) alerts: Alerts,
    /// Who is told of alerts, by name; `data-bridge alerts test` says whether it arrives.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) webhooks: BTreeMap<String, Webhook>,
    /// Where records come from: topics of Kafka, read as one of a group. Leave the table out: no Kafka.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kafka: Option<Kafka>,
    /// Where records come from: subjects of core NATS, and streams of JetStream. Leave the table out: no
    /// NATS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nats: Option<Nats>,
    /// Instances that share a ClickHouse tell each other how they are, through a key-value bucket of NATS;
    /// needs `[nats]` with JetStream. Leave the table out: no fleet. Losing NATS harms nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fleet: Option<RawFleet>,
    pub(super) clickhouse: ClickHouse,
    pub(super) retry: Retry,
    pub(super) breaker: Breaker,
    /// Buffers with their own batching, by name; `default` always exists.
    pub(super) writers: BTreeMap<String, Writer>,
    pub(super) dead_letters: DeadLetters,
    pub(super) shutdown: Shutdown,
    pub(super) http: Http,
    pub(super) live: Live,
    pub(super) log: Log,
    /// Traces and metrics, sent to an OpenTelemetry collector. Leave the table out: nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) otlp: Option<Otlp>,
    /// Which record goes where: in order, the first match wins.
    pub(super) routes: Vec<Route>,
}

/// The bridge's look at itself, and its line in the log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Heartbeat {
    /// How often the bridge looks at itself; below a third of Kafka's max.poll.interval.ms.
    pub(super) interval: Span,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Span::seconds(5) }
    }
}

/// How much may be held, and when the sources are paused and resumed: records held above
/// `pause_threshold` pause every source, held below `resume_threshold` resume them. Keep 80 % and
/// 40 % of the cap.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backpressure {
    /// The hard cap on records held; class `system` may hold 1,000 beyond it.
    #[schemars(range(min = 10, max = 100_000_000))]
    pub(super) max_buffer_size: usize,
    /// Above this many records held, every source is paused.
    #[schemars(range(min = 1))]
    pub(super) pause_threshold: usize,
    /// Below this many records held, they are resumed.
    #[schemars(range(min = 1))]
    pub(super) resume_threshold: usize,
    /// Kafka and JetStream fill the buffer only so far. Default: `pause_threshold`, or midway
    /// between the thresholds when a route has `nats_subjects` beside them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(super) pull_limit: Option<usize>,
    /// The same limit in bytes: pauses above 80 % of it, resumes below 40 %. Default: 256MiB, or what
    /// `memory_budget` leaves for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_buffer_bytes: Option<Size>,
    /// `auto` chooses all of the above from the memory that there is and what records weigh, at
    /// 80 % and 40 % of the cap, and moves slowly; `fixed` takes them as they are.
    pub(super) thresholds: Thresholds,
    /// What the process may take in memory, in all: `max_buffer_bytes` and each `prefetch_bytes`
    /// follow from it, unless they are given. Default: none; with `auto` 80 % of the lowest limit of
    /// the process's cgroups, or of the machine's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_budget: Option<Size>,
    /// A pause this long is a WARNING in the log.
    pub(super) warn_after: Span,
    /// A pause this long is CRITICAL: in the log, and as the status.
    pub(super) critical_after: Span,
    /// How often these alerts are repeated.
    pub(super) repeat_every: Span,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            max_buffer_size: 50_000,
            pause_threshold: 40_000,
            resume_threshold: 20_000,
            pull_limit: None,
            max_buffer_bytes: None,
            thresholds: Thresholds::Fixed,
            memory_budget: None,
            warn_after: Span::seconds(5 * 60),
            critical_after: Span::seconds(10 * 60),
            repeat_every: Span::seconds(60),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Thresholds {
    Fixed,
    Auto,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Kafka {
    /// `host:port` of some brokers; the others are found through them.
    pub(super) brokers: Vec<String>,
    /// The consumer group; instances of one group share the partitions.
    pub(super) group_id: String,
    /// Where a partition starts that the group has no offset for.
    pub(super) auto_offset_reset: OffsetReset,
    /// How often durable offsets are committed.
    pub(super) commit_interval: Span,
    /// Memory for records fetched but not taken yet, over all partitions. Default: 32MiB, or a share
    /// of `backpressure.memory_budget` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefetch_bytes: Option<Size>,
    /// Takes no more than that; what is over it waits in Kafka. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// Any other librdkafka property, dotted or quoted. A secret one may be given as NAME_file.
    #[serde(serialize_with = "super::kafka_client::hidden")]
    #[schemars(schema_with = "super::kafka_client::schema")]
    pub(super) client: BTreeMap<String, serde_json::Value>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            group_id: "data-bridge".to_owned(),
            auto_offset_reset: OffsetReset::Earliest,
            commit_interval: Span::seconds(1),
            prefetch_bytes: None,
            rate_limit: None,
            client: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OffsetReset {
    Earliest,
    Latest,
    Error,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Nats {
    /// `nats://host:port` or `tls://host:port`.
    pub(super) servers: Vec<String>,
    /// Several instances of one queue group share the subjects.
    pub(super) queue_group: String,
    /// With `password`. At most one way to authenticate may be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// With `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Secret>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<PathBuf>,
    /// In place of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// A `.creds` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credentials_file: Option<PathBuf>,
    /// A file that holds the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nkey_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    /// Of core NATS: what is over it is dropped and counted, but for class `system`. Default: no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// How streams are read, for the routes that name one. Leave the table out: no JetStream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jetstream: Option<JetStream>,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            servers: vec!["nats://localhost:4222".to_owned()],
            queue_group: "data-bridge".to_owned(),
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            credentials_file: None,
            nkey_file: None,
            tls: None,
            rate_limit: None,
            jetstream: None,
        }
    }
}

/// TLS to a server: which authority to trust, and who we are.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    /// Authorities to trust (PEM), and no others. Default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
    /// Our certificate (PEM); with `key_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_file: Option<PathBuf>,
}

/// Where the rows go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClickHouse {
    /// The HTTP interface; of several servers a list.
    pub(super) url: OneOrMany,
    /// What several servers are to each other. An insert without an answer is sent again to the
    /// same server, until it answers; only `replicas`, which share what they know of tokens
    /// (Replicated tables, ClickHouse Cloud), can be asked in place of each other.
    pub(super) endpoints: Endpoints,
    /// Where tables named without a database are.
    pub(super) database: String,
    /// Needs INSERT on the tables; docs/check.md says what else is of use.
    pub(super) user: String,
    /// Of `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Secret>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<PathBuf>,
    /// Only with an https url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    /// Of what is sent.
    pub(super) compression: Compression,
    /// After this long without an answer an insert is tried again, with the same token.
    pub(super) insert_timeout: Span,
    /// Inserts under way at a time.
    #[schemars(range(min = 1, max = 64))]
    pub(super) max_in_flight: usize,
    /// Fewer inserts at a time, down from `max_in_flight`, while ClickHouse has too much to do;
    /// smaller ones when it is short of memory or time, larger and later ones when a table has too
    /// many parts.
    pub(super) adaptive: bool,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: OneOrMany::One("http://localhost:8123".to_owned()),
            endpoints: Endpoints::Independent,
            database: "default".to_owned(),
            user: "default".to_owned(),
            password: None,
            password_file: None,
            tls: None,
            compression: Compression::Lz4,
            insert_timeout: Span::seconds(30),
            max_in_flight: 2,
            adaptive: false,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Endpoints {
    Independent,
    Replicas,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compression {
    /// Where the network is free: it saves CPU, of the bridge and of ClickHouse.
    None,
    /// Fewer bytes, for little CPU.
    Lz4,
    /// Smaller, for more CPU: where the network is what is slow.
    Zstd,
}

/// The pause between attempts; attempts are unlimited: giving up would lose data.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Retry {
    /// The upper bound of the first pause; it doubles with every attempt.
    pub(super) base_delay: Span,
    /// It doubles up to this.
    pub(super) max_delay: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { base_delay: Span::millis(100), max_delay: Span::seconds(30) }
    }
}

/// When ClickHouse as a whole fails so often that it is left alone for a while.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Breaker {
    /// So many failed inserts in a row, of whatever table, open it; a success begins anew. A
    /// refusal that is about one table or its rows is not counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_failures: u32,
    /// Open for this long; then one batch goes as a probe, and closes it or opens it again.
    pub(super) reset_timeout: Span,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { max_failures: 10, reset_timeout: Span::seconds(60) }
    }
}

/// When a batch is cut: whatever comes first. Applies per table.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Writer {
    /// Rows; at most half of max_buffer_size. Default: 10,000, or that half if it is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(super) batch_rows: Option<usize>,
    /// Bytes; at most half of max_buffer_bytes. Default: 16MiB, or that half if it is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch_bytes: Option<Size>,
    /// With `clickhouse.adaptive`: batches become no smaller. Default: a tenth of `batch_rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(super) batch_rows_min: Option<usize>,
    /// With `clickhouse.adaptive`: batches become no larger. Default: four times `batch_rows`, at
    /// most half of max_buffer_size.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(super) batch_rows_max: Option<usize>,
    /// Age of its oldest row. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) linger: Option<Span>,
}

/// How the bridge stops.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Shutdown {
    /// How long a stop may take to bring home what is held.
    pub(super) grace: Span,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Span::seconds(30) }
    }
}

/// What is logged; `--log-format` says how.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// The least important lines that are logged. `RUST_LOG`, if it is set, counts instead.
    pub(super) level: LogLevel,
}

/// The health paths, metrics and dashboard.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    /// `address:port`.
    pub(super) listen: String,
    /// If given, everything but the health paths asks for it as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Secret>,
    /// Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<HttpTls>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".to_owned(), token: None, token_file: None, tls: None }
    }
}

/// HTTPS instead of HTTP. The files are read again when they change; no restart is needed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpTls {
    /// The certificate (PEM), with the chain behind it.
    pub(super) cert_file: PathBuf,
    /// Its private key (PEM), not encrypted.
    pub(super) key_file: PathBuf,
}
