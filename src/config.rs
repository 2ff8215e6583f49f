//! The configuration: typed and validated. What is invalid cannot be built. Loading it (files,
//! layers, environment, messages) is in `config/`; this file is what the rest of the crate sees.
//!
//! ```text
//! files --layers--+                                   +--> Config (validate, connection, route)
//!                 +--> tree --check--> raw structs ---+
//! variables --env-+      ^               |            +--> effective TOML (print)
//!                        +--- schema <---+
//! ```

mod alerts;
mod change;
mod check;
mod columns;
mod connection;
mod env;
mod fleet;
mod jetstream;
mod kafka_client;
mod layers;
mod letters;
mod limits;
mod live;
mod load;
mod overload;
mod log;
mod otlp;
mod print;
mod problem;
mod publish;
mod rate;
mod raw;
mod raw_alerts;
mod raw_jetstream;
mod raw_letters;
mod raw_live;
mod raw_otlp;
mod raw_overload;
mod raw_publish;
mod raw_route;
mod raw_webhook;
mod reference;
mod route;
mod schema;
mod secret;
mod suggest;
mod takes;
mod units;
mod validate;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use self::alerts::Alerts;
pub use self::change::Change;
pub use self::fleet::Fleet;
pub use self::kafka_client::is_secret as is_secret_property;
pub use self::layers::{DEFAULT_FILE, Layer, files};
pub use self::limits::{AutoThresholds, Backpressure, Memory, Shares};
pub use self::live::{Live, LiveAccess, LiveQueue};
pub use self::load::{Loaded, effective, load, load_after, load_over};
pub use self::log::LogLevel;
pub use self::otlp::Otlp;
pub use self::overload::{Overload, RouteOverload, Strategy, Tier};
pub use self::problem::ConfigError;
pub use self::publish::Publish;
pub use self::rate::RateLimit;
pub use self::reference::reference;
pub use self::schema::json_schema;
pub use self::secret::read_secret;
pub use self::takes::Takes;
pub use self::webhook::{Webhook, WebhookKind};
use crate::decode::{self, Mapping};
use crate::subject::SubjectPattern;

/// The low end of what ClickHouse likes in one insert.
const BATCH_ROWS: usize = 10_000;

/// The whole configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names this process in dead letters, logs and client ids.
    pub instance: String,
    pub heartbeat: Heartbeat,
    pub backpressure: Backpressure,
    pub overload: Overload,
    pub alerts: Alerts,
    /// Who is told of alerts, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    pub kafka: Option<Kafka>,
    pub nats: Option<Nats>,
    pub fleet: Option<Fleet>,
    pub clickhouse: ClickHouse,
    pub retry: Retry,
    pub breaker: Breaker,
    /// By name; every writer that a route names is here.
    pub writers: BTreeMap<String, Writer>,
    pub dead_letters: DeadLetters,
    pub routes: Vec<Route>,
    pub shutdown: Shutdown,
    pub http: Http,
    pub live: Live,
    pub log: LogLevel,
    /// None: traces and metrics are pushed nowhere.
    pub otlp: Option<Otlp>,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub interval: Duration,
}

#[derive(Clone)]
pub struct Kafka {
    pub brokers: Vec<String>,
    pub group_id: String,
    /// `earliest`, `latest` or `error`.
    pub auto_offset_reset: String,
    pub commit_interval: Duration,
    /// Bytes that librdkafka may prefetch, over all partitions.
    pub prefetch_bytes: usize,
    pub rate_limit: Option<RateLimit>,
    /// Further librdkafka properties, checked not to override those that the bridge relies on.
    /// Some of them are secrets: never print them.
    pub client: BTreeMap<String, String>,
}

impl fmt::Debug for Kafka {
    /// Of the client's properties only the names: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("auto_offset_reset", &self.auto_offset_reset)
            .field("commit_interval", &self.commit_interval)
            .field("prefetch_bytes", &self.prefetch_bytes)
            .field("rate_limit", &self.rate_limit)
            .field("client", &self.client.keys())
            .finish()
    }
}

#[derive(Debug, Clone)]
pub struct Nats {
    pub servers: Vec<String>,
    pub queue_group: String,
    pub auth: NatsAuth,
    pub tls: Option<Tls>,
    /// Of core NATS.
    pub rate_limit: Option<RateLimit>,
    pub jetstream: Option<JetStream>,
}

/// NATS without loss.
#[derive(Debug, Clone)]
pub struct JetStream {
    pub ack_wait: Duration,
    /// records, of one consumer over all instances
    pub max_ack_pending: usize,
    /// Records asked for at a time, of one consumer.
    pub batch: usize,
    /// Bytes on their way, of one consumer.
    pub prefetch_bytes: usize,
    pub rate_limit: Option<RateLimit>,
    /// Deliveries after which a record becomes a dead letter.
    pub max_deliver: u64,
    pub ack: Ack,
    pub double_ack: bool,
    pub deliver: Deliver,
    pub state: JetStreamState,
    pub api: JetStreamApi,
}

/// Where routes that promise exactly once keep who reads and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStreamState {
    pub bucket: String,
    /// When it is made; None: as many as the stream has that is read.
    pub replicas: Option<usize>,
    /// Without a word of the owner for so long, another instance takes over.
    pub lease: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Each,
    All,
}

/// Where a new consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    All,
    New,
}

/// Where JetStream's API is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JetStreamApi {
    Default,
    Domain(String),
    Prefix(String),
}

#[derive(Debug, Clone)]
pub enum NatsAuth {
    None,
    UserPassword {
        user: String,
        password: SecretString,
    },
    Token(SecretString),
    CredentialsFile(PathBuf),
    /// A file that holds the seed.
    NkeyFile(PathBuf),
}

/// TLS to a server: which authority to trust, and who we are.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct ClickHouse {
    /// At least one.
    pub urls: Vec<String>,
    pub endpoints: Endpoints,
    pub database: String,
    pub user: String,
    pub password: Option<SecretString>,
    pub tls: Option<Tls>,
    pub compression: Compression,
    pub insert_timeout: Duration,
    pub max_in_flight: usize,
    /// The number of inserts at a time, and how large they are, follow what ClickHouse can take.
    pub adaptive: bool,
}

impl ClickHouse {
    /// All of them, for people.
    #[must_use]
    pub fn addresses(&self) -> String {
        self.urls.join(", ")
    }
}

/// What several ClickHouse servers are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// Each knows only its own inserts.
    Independent,
    /// They share rows, and what they know of tokens.
    Replicas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy)]
pub struct Retry {
    pub base_delay: Duration,
    pub max_delay: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub max_failures: u32,
    pub reset_timeout: Duration,
}

/// When a batch of a writer is cut; applies per table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub batch_rows: usize,
    pub batch_bytes: usize,
    pub linger: Duration,
    /// Between these the rows move, where inserts are adaptive.
    pub batch_rows_min: usize,
    pub batch_rows_max: usize,
}

/// What keeps the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetters {
    ClickHouse { table: String, create: bool },
    Kafka { topic: String },
    Nats { subject: String },
    File { path: PathBuf, max_file_bytes: u64 },
}

impl DeadLetters {
    /// What it is called in logs, statuses and reports. No table of a route can be called so,
    /// unless it is that table.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::ClickHouse { table, .. } => table.clone(),
            Self::Kafka { topic } => format!("topic {topic}"),
            Self::Nats { subject } => format!("subject {subject}"),
            Self::File { path, .. } => format!("file {}", path.display()),
        }
    }

    /// How they are written there.
    #[must_use]
    pub fn format(&self) -> RouteFormat {
        match self {
            Self::ClickHouse { .. } => RouteFormat::Columns(decode::dead_letter_mapping()),
            Self::Kafka { .. } | Self::Nats { .. } | Self::File { .. } => RouteFormat::Letters,
        }
    }

    /// The table, if it is one.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::ClickHouse { table, .. } => Some(table),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    /// Exact names, or regular expressions if they start with `^`.
    pub kafka_topics: Vec<String>,
    /// Subjects, with `*` and `>`.
    pub nats_subjects: Vec<String>,
    pub jetstream: Option<JetStreamRoute>,
    /// It takes what is published at the topic of its name.
    pub publish: bool,
    pub class: String,
    pub overload: RouteOverload,
    pub rate_limit: Option<RateLimit>,
    /// What names the sub-topics of its topic in the live feed.
    pub live_key: Option<decode::Source>,
    pub action: Action,
}

/// What a route takes by JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStreamRoute {
    /// Disjoint.
    pub subjects: Vec<SubjectPattern>,
    /// Found by the subjects if it is not given.
    pub stream: Option<String>,
    pub consumer: String,
    /// Its route promises to insert no record twice: one instance at a time reads the stream like a
    /// log, and the consumer's name is that of what is kept in the bucket.
    pub exactly_once: bool,
}

impl Route {
    /// It fills this table out of a stream.
    #[must_use]
    pub fn streams_into(&self, table: &str) -> bool {
        let Action::Insert(insert) = &self.action else { return false };
        self.jetstream.is_some() && insert.table == table
    }

    /// It promises to insert no record twice.
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        let Action::Insert(insert) = &self.action else { return false };
        matches!(insert.delivery, Delivery::ExactlyOnce { .. })
    }
}

#[derive(Debug, Clone)]
pub enum Action {
    Insert(InsertAction),
    /// Known, counted, not stored.
    Count,
}

#[derive(Debug, Clone)]
pub struct InsertAction {
    pub writer: String,
    /// `table` or `database.table`.
    pub table: String,
    pub format: RouteFormat,
    pub delivery: Delivery,
}

/// What is promised of a record that can come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    AtLeastOnce,
    ExactlyOnce { on_uncertain: OnUncertain },
}

/// What to do with a batch of which nobody can tell whether it landed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUncertain {
    #[default]
    Halt,
    AcceptDuplicates,
    AcceptLoss,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteFormat {
    /// Decoded into typed columns.
    Columns(Mapping),
    /// Passed through unparsed, as JSONEachRow.
    Json,
    /// Dead letters outside ClickHouse: each a JSON object on a line of its own.
    Letters,
}

#[derive(Debug, Clone)]
pub struct Shutdown {
    pub grace: Duration,
}

#[derive(Debug, Clone)]
pub struct Http {
    pub listen: std::net::SocketAddr,
    pub token: Option<SecretString>,
    /// Where the token came from: the file may change while the service runs.
    pub token_file: Option<PathBuf>,
    pub tls: Option<HttpTls>,
}

/// Who we are to those who ask us; read again when they change.
#[derive(Debug, Clone)]
pub struct HttpTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}
