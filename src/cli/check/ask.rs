//! Asks every server at once, each under a time-out, and notes down what it said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;

use super::report::Sample;
use super::sampled;
use crate::config::{self, Action, Config, Route};
use crate::dead_letter::Destination;
use crate::record::Chunk;
use crate::route::Router;
use crate::schema::TableSchema;
use crate::schema::facts::TableFacts;
use crate::sink::clickhouse::{ClickHouse, Session};
use crate::sink::{InsertError, Sink as _};
use crate::source::kafka::probe::Cluster;
use crate::source::kafka::probe::sample::{self, TopicSample};
use crate::source::nats::probe::streams::{self, StreamSample};
use crate::source::{ProbeError, kafka, nats};

/// For all that is asked of one server; what a dead server costs at most.
const WITHIN: Duration = Duration::from_secs(12);

/// Tables that are asked about at a time: so many connections a busy ClickHouse has to spare.
const AT_A_TIME: usize = 4;

/// What the servers said.
pub(super) struct Found {
    pub(super) clickhouse: Result<Warehouse, ProbeError>,
    /// None: not configured.
    pub(super) kafka: Option<Result<Cluster, ProbeError>>,
    /// The newest records of the routes' topics; None: there was nobody to ask.
    pub(super) topics: Option<Result<BTreeMap<String, TopicSample>, String>>,
    pub(super) nats: Option<Result<nats::probe::Server, ProbeError>>,
    /// The newest records of the routes' streams, by route.
    pub(super) streams: BTreeMap<usize, Result<StreamSample, String>>,
    /// Where dead letters go outside ClickHouse: what would make it forget them. None: they do
    /// not go there.
    pub(super) letters: Option<Result<Vec<String>, ProbeError>>,
    /// What would become of the sampled records, by route.
    pub(super) samples: BTreeMap<usize, Sample>,
}

pub(super) struct Warehouse {
    pub(super) session: Session,
    pub(super) clock: Clock,
    /// Those of the routes and of the dead letters, by name.
    pub(super) tables: BTreeMap<String, Table>,
}

/// How far the server's clock is ahead of ours, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) ahead_ms: i64,
    /// How long the question took: as much may be wrong with the answer.
    pub(super) within_ms: i64,
}

pub(super) struct Table {
    pub(super) schema: Result<TableSchema, InsertError>,
    /// None: the table cannot be described.
    pub(super) facts: Option<Result<TableFacts, InsertError>>,
    /// None: ClickHouse does not say.
    pub(super) may_insert: Option<bool>,
    pub(super) may_select: Option<bool>,
    pub(super) may_create: Option<bool>,
}

pub(super) async fn everything(config: &Config) -> Found {
    let topics: BTreeSet<_> = config.routes.iter().flat_map(|route| &route.kafka_topics).collect();
    let topics: Vec<String> = topics.into_iter().cloned().collect();
    let instance = &config.instance;
    let kafka = async {
        let Some(kafka) = config.kafka.as_ref() else { return (None, None) };
        let cluster = in_time(kafka::probe::probe(kafka, instance, &topics)).await;
        let Ok(cluster) = cluster else { return (Some(cluster), None) };
        let wanted = wanted(&cluster, &topics);
        let asking = sample::sample(kafka, instance, &wanted);
        let late = |_| Err(format!("no answer within {WITHIN:?}"));
        let sampled = tokio::time::timeout(WITHIN, asking).await.unwrap_or_else(late);
        (Some(Ok(cluster)), Some(sampled))
    };
    let nats = async {
        let Some(nats) = config.nats.as_ref() else { return (None, BTreeMap::new()) };
        let server = in_time(nats::probe::probe(nats, instance)).await;
        let streams = match server {
            Ok(_) => streams(config, nats).await,
            Err(_) => BTreeMap::new(),
        };
        (Some(server), streams)
    };
    let (clickhouse, (kafka, topics), (nats, streams), letters) =
        tokio::join!(in_time(warehouse(config)), kafka, nats, letters(config));
    let mut found =
        Found { clickhouse, kafka, topics, nats, streams, letters, samples: BTreeMap::new() };
    found.samples = Box::pin(samples(config, &found)).await;
    found
}

/// What the streams hold; each that cannot be read says why.
async fn streams(
    config: &Config,
    nats: &config::Nats,
) -> BTreeMap<usize, Result<StreamSample, String>> {
    let routes = config.routes.iter().enumerate();
    let wanted: Vec<(usize, (&str, &config::JetStreamRoute))> = routes
        .filter_map(|(index, route)| Some((index, (&*route.name, route.jetstream.as_ref()?))))
        .collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let routes: Vec<(&str, &config::JetStreamRoute)> =
        wanted.iter().map(|(_, route)| *route).collect();
    let asking = streams::sample(nats, &config.instance, &routes);
    let late = |_| Err(format!("no answer within {WITHIN:?}"));
    let samples = match tokio::time::timeout(WITHIN, asking).await.unwrap_or_else(late) {
        Ok(samples) => samples,
        Err(why) => wanted.iter().map(|_| Err(why.clone())).collect(),
    };
    wanted.into_iter().map(|(index, _)| index).zip(samples).collect()
}

/// Topics that are sampled: a regular expression may match more than anybody wants to read.
pub(super) const MAX_TOPICS: usize = 100;

fn wanted(cluster: &Cluster, entries: &[String]) -> BTreeMap<String, usize> {
    let matching: BTreeSet<&str> =
        entries.iter().flat_map(|entry| cluster.matching(entry)).collect();
    let topics = matching.into_iter().take(MAX_TOPICS);
    topics.map(|name| (name.to_owned(), cluster.topics[name])).collect()
}

/// The topics that go to each route, by its index.
pub(super) fn by_route<'a>(
    config: &Config,
    topics: impl Iterator<Item = &'a String>,
) -> BTreeMap<usize, Vec<&'a str>> {
    let mut routes: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    // Every pattern was compiled when the configuration was checked.
    let Ok(mut router) = Router::new(&config.routes) else { return routes };
    for topic in topics {
        if let Some(route) = router.route_of_topic(topic) {
            routes.entry(route.index()).or_default().push(topic);
        }
    }
    routes
}

/// All records that were sampled for a route.
fn chunks<'a>(config: &Config, found: &'a Found, index: usize) -> Vec<&'a Chunk> {
    let mut chunks = Vec::new();
    if let Some(Ok(topics)) = &found.topics {
        let routes = by_route(config, topics.keys());
        let names = routes.get(&index).into_iter().flatten();
        chunks.extend(names.map(|name| &topics[*name].records));
    }
    if let Some(Ok(stream)) = found.streams.get(&index) {
        chunks.push(&stream.records);
    }
    chunks
}

/// Decodes what was sampled, and asks ClickHouse into how many partitions it would go.
async fn samples(config: &Config, found: &Found) -> BTreeMap<usize, Sample> {
    let mut samples = BTreeMap::new();
    let Ok(warehouse) = &found.clickhouse else { return samples };
    let Ok(clickhouse) = ClickHouse::new(&config.clickhouse, None) else { return samples };
    for (index, route) in config.routes.iter().enumerate() {
        let Action::Insert(insert) = &route.action else { continue };
        let chunks = chunks(config, found, index);
        if chunks.is_empty() {
            continue;
        }
        let Some(table) = warehouse.tables.get(&insert.table) else { continue };
        let Ok(schema) = &table.schema else { continue };
        let Some((mut sample, body)) = sampled::judge(schema, &insert.format, chunks) else {
            continue;
        };
        if let (Some(body), Some(Ok(facts))) = (body, &table.facts) {
            sample.partitions = clickhouse.partitions_of(facts, &body).await;
        }
        samples.insert(index, sample);
    }
    samples
}

async fn letters(config: &Config) -> Option<Result<Vec<String>, ProbeError>> {
    let asking = async {
        match Destination::open(config).await {
            Ok(Some(place)) => place.look().await.map(Some).map_err(|error| probe_error(&error)),
            Ok(None) => Ok(None),
            Err(error) => Err(ProbeError::Refused(format!("{error:#}"))),
        }
    };
    in_time(asking).await.transpose()
}

async fn in_time<T>(asking: impl Future<Output = Result<T, ProbeError>>) -> Result<T, ProbeError> {
    let late = |_| Err(ProbeError::Unreachable(format!("no answer within {WITHIN:?}")));
    tokio::time::timeout(WITHIN, asking).await.unwrap_or_else(late)
}

/// The table that a route fills.
pub(super) fn table_of(route: &Route) -> Option<&str> {
    match &route.action {
        Action::Insert(insert) => Some(&insert.table),
        Action::Count => None,
    }
}

async fn warehouse(config: &Config) -> Result<Warehouse, ProbeError> {
    // Nothing to create: `schema` would make the table for the dead letters.
    let clickhouse = ClickHouse::new(&config.clickhouse, None)
        .map_err(|error| ProbeError::Refused(format!("{error:#}")))?;
    let before = now_ms();
    let session = clickhouse.session().await.map_err(|error| probe_error(&error))?;
    let within_ms = now_ms() - before;
    let clock = Clock { ahead_ms: session.now - before - within_ms / 2, within_ms };
    let mut names: BTreeSet<&str> = config.routes.iter().filter_map(table_of).collect();
    names.extend(config.dead_letters.table());
    let tables: Vec<(String, Table)> = futures_util::stream::iter(names)
        .map(|name| async { (name.to_owned(), table(&clickhouse, name).await) })
        .buffered(AT_A_TIME)
        .collect()
        .await;
    let silent = |error: &InsertError| matches!(probe_error(error), ProbeError::Unreachable(_));
    for (_, table) in &tables {
        if let Err(error) = &table.schema
            && silent(error)
        {
            return Err(probe_error(error));
        }
    }
    Ok(Warehouse { session, clock, tables: tables.into_iter().collect() })
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn table(clickhouse: &ClickHouse, name: &str) -> Table {
    let schema = clickhouse.schema(name).await;
    let mut table =
        Table { schema, facts: None, may_insert: None, may_select: None, may_create: None };
    if table.schema.is_ok() {
        table.facts = Some(clickhouse.facts(name).await);
        table.may_insert = clickhouse.may("INSERT", name).await;
        table.may_select = clickhouse.may("SELECT", name).await;
    } else {
        table.may_create = clickhouse.may("CREATE TABLE", name).await;
    }
    table
}

/// A refusal is for a person; what would be tried again is not there.
fn probe_error(error: &InsertError) -> ProbeError {
    let text = words(error);
    match error {
        InsertError::Retry(_) => ProbeError::Unreachable(text),
        _ => ProbeError::Refused(text),
    }
}

/// What ClickHouse said, for a report that has named it already.
pub(super) fn words(error: &InsertError) -> String {
    let refusal = error.refusal();
    match refusal.code {
        Some(_) => refusal.message.clone(),
        None => refusal.message.trim_start_matches("cannot reach ClickHouse: ").to_owned(),
    }
}
