//! Where a trial takes place: servers (of its own where they are killed), the proxy, tables with a
//! materialized view behind each, the configuration, and the bridges, which come and go.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use async_nats::jetstream::{self, stream};

use crate::bridge::Bridge;
use crate::lab::Lab;
use crate::stack::{Addresses, Stack};

use super::oracle::{self, Which};
use super::proxy::Proxy;
use super::schedule::Server;

/// What a route promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

impl Delivery {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
        }
    }
}

impl FromStr for Delivery {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "at_least_once" => Ok(Self::AtLeastOnce),
            "exactly_once" => Ok(Self::ExactlyOnce),
            _ => Err(format!("`{name}` is neither at_least_once nor exactly_once")),
        }
    }
}

/// Where records come from. Each has a route, a table and a view of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Kafka,
    JetStream,
    /// Core NATS: at most once.
    Nats,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|source| source.name() == name);
        found.ok_or_else(|| format!("`{name}` is no source"))
    }
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Kafka, Self::JetStream, Self::Nats];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::JetStream => "jetstream",
            Self::Nats => "nats",
        }
    }

    /// What its route promises where so much is wanted.
    pub(crate) fn can_at_best(self, wanted: Delivery) -> Delivery {
        if self == Self::Nats { Delivery::AtLeastOnce } else { wanted }
    }

    /// Whether what is not stored comes again.
    pub(crate) fn is_lossless(self) -> bool {
        self != Self::Nats
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a place is made for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) sources: Vec<Source>,
    pub(crate) delivery: Delivery,
    /// Servers that may be killed; else those that all tests share.
    pub(crate) own_servers: bool,
    pub(crate) proxied: bool,
}

pub(crate) struct Place {
    pub(crate) lab: Lab,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) wanted: Wanted,
    /// By the order of [`Server::ALL`]; none where the servers are shared. The last field, so that
    /// they go down last.
    stacks: Vec<Arc<Stack>>,
}

/// What a bridge that was killed held comes again after five seconds, or where exactly once is
/// promised is read by another one after two; and nobody's fault is it that it comes often.
const JETSTREAM: &str = "[nats.jetstream]\nack_wait = \"5s\"\nlease = \"2s\"\nmax_deliver = 1000\n";

/// A member that was killed is missed after two seconds.
const KAFKA_CLIENT: &str = "kafka.client.\"session.timeout.ms\" = 2000\n\
     kafka.client.\"heartbeat.interval.ms\" = 300\n\
     kafka.client.\"reconnect.backoff.max.ms\" = 1000\n";

const COLUMNS: &str = "(p UInt32, n UInt64, v UInt32, _topic LowCardinality(Nullable(String)), \
     _partition Nullable(Int32), _offset Nullable(Int64)) ENGINE = MergeTree ORDER BY (p, n) \
     SETTINGS non_replicated_deduplication_window = 10000";

impl Place {
    pub(crate) async fn make(wanted: Wanted) -> Self {
        let stacks = if wanted.own_servers { own_servers().await } else { Vec::new() };
        let mut at = match stacks.as_slice() {
            [] => Addresses::shared(),
            [clickhouse, kafka, nats] => Addresses {
                clickhouse: clickhouse.address("CLICKHOUSE"),
                kafka: kafka.address("KAFKA"),
                nats: nats.address("NATS"),
            },
            _ => unreachable!("a stack for each server"),
        };
        let mut lab = Lab::at(at.clone(), None).await;
        let proxy = if wanted.proxied {
            let proxy = Proxy::before(&at.clickhouse).await;
            at.clickhouse = proxy.url();
            lab.at = at;
            Some(proxy)
        } else {
            None
        };
        let place = Self { lab, proxy, wanted, stacks };
        place.make_tables().await;
        if place.wanted.sources.contains(&Source::Kafka) {
            let partitions = i32::try_from(oracle::PARTITIONS).unwrap();
            place.lab.create_topics(&[place.address(Source::Kafka)], partitions).await;
        }
        if place.wanted.sources.contains(&Source::JetStream) {
            place.make_stream().await;
        }
        place
    }

    async fn make_tables(&self) {
        for source in &self.wanted.sources {
            let clickhouse = &self.lab.clickhouse;
            clickhouse.query(&format!("CREATE TABLE rows_{source} {COLUMNS}")).await;
            clickhouse.query(&format!("CREATE TABLE copy_{source} {COLUMNS}")).await;
            let view = format!(
                "CREATE MATERIALIZED VIEW view_{source} TO copy_{source} AS \
                 SELECT * FROM rows_{source}"
            );
            clickhouse.query(&view).await;
        }
        // As it is shipped, but for the engine: a letter that is written twice shall be seen.
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema/dead_letters.sql");
        let sql = std::fs::read_to_string(shipped).unwrap();
        let kept = sql.replace("ReplacingMergeTree(replayed)", "MergeTree");
        assert_ne!(kept, sql, "the engine is spelt otherwise");
        self.lab.clickhouse.query(&kept).await;
    }

    async fn make_stream(&self) {
        let config = stream::Config {
            name: self.stream(),
            subjects: vec![format!("{}.>", self.address(Source::JetStream))],
            ..stream::Config::default()
        };
        jetstream::new(self.lab.nats().await).create_stream(config).await.unwrap();
    }

    pub(crate) fn stream(&self) -> String {
        self.lab.name.to_uppercase()
    }

    /// The topic of a source, or how its subjects begin.
    pub(crate) fn address(&self, source: Source) -> String {
        format!("{}.{source}", self.lab.name)
    }

    /// The tables that hold a source's rows, and which of its numbers have to be there.
    pub(crate) fn tables(source: Source) -> [String; 2] {
        [format!("rows_{source}"), format!("copy_{source}")]
    }

    /// What a table, or the dead letters where there is none, hold of a source.
    pub(crate) async fn found(&self, source: Source, which: Which, table: &str) -> oracle::Found {
        match which {
            Which::Good => oracle::rows(&self.lab.clickhouse, table).await,
            Which::Bad => oracle::letters(&self.lab.clickhouse, &self.address(source)).await,
        }
    }

    fn config(&self) -> String {
        let kafka = self.reads_kafka().then_some("kafka");
        let nats = self.wanted.sources.iter().any(|source| *source != Source::Kafka);
        let sources: Vec<_> = kafka.into_iter().chain(nats.then_some("nats")).collect();
        let mut text = self.lab.sections(&sources.join(" "));
        if self.wanted.sources.contains(&Source::JetStream) {
            text.push_str(JETSTREAM);
        }
        for &source in &self.wanted.sources {
            let address = self.address(source);
            let from = match source {
                Source::Kafka => format!("kafka_topics = [\"{address}\"]"),
                Source::JetStream => format!("jetstream_subjects = [\"{address}.>\"]"),
                Source::Nats => format!("nats_subjects = [\"{address}.>\"]"),
            };
            let delivery = source.can_at_best(self.wanted.delivery);
            writeln!(
                text,
                "[[routes]]\nname = \"{source}\"\n{from}\nwriter = \"aggregate\"\n\
                 table = \"rows_{source}\"\ndelivery = \"{}\"\n[routes.columns]\n\
                 _topic = \"@topic\"\n_partition = \"@partition\"\n_offset = \"@offset\"",
                delivery.name()
            )
            .unwrap();
        }
        text
    }

    /// Starts a bridge; whether and when it works is what the trial is about.
    pub(crate) fn start_bridge(&self, which: usize) -> Bridge {
        let kafka = if self.reads_kafka() { KAFKA_CLIENT } else { "" };
        let over =
            format!("instance = \"bridge-{which}\"\n{kafka}clickhouse.insert_timeout = \"4s\"\n");
        self.lab.spawn(&self.config(), &over)
    }

    fn reads_kafka(&self) -> bool {
        self.wanted.sources.contains(&Source::Kafka)
    }

    pub(crate) fn stack(&self, server: Server) -> Arc<Stack> {
        Arc::clone(&self.stacks[server as usize])
    }
}

/// A stack for each server, so that none waits for another's start.
async fn own_servers() -> Vec<Arc<Stack>> {
    let starting = Server::ALL
        .map(|server| tokio::task::spawn_blocking(move || Arc::new(Stack::up(&[server.name()]))));
    let mut stacks = Vec::new();
    for stack in starting {
        stacks.push(stack.await.unwrap());
    }
    stacks
}
