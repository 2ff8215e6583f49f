//! Asks every server at once, each under a time-out, and notes down what it said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::config::{Action, Config, Route};
use crate::dead_letter::Destination;
use crate::schema::TableSchema;
use crate::sink::clickhouse::{ClickHouse, TableKind};
use crate::sink::{InsertError, Sink as _};
use crate::source::{ProbeError, kafka, nats};

/// For all that is asked of one server; what a dead server costs at most.
const WITHIN: Duration = Duration::from_secs(12);

/// Tables that are asked about at a time: so many connections a busy ClickHouse has to spare.
const AT_A_TIME: usize = 4;

/// What the servers said.
pub(super) struct Found {
    pub(super) clickhouse: Result<Warehouse, ProbeError>,
    /// None: not configured.
    pub(super) kafka: Option<Result<kafka::probe::Cluster, ProbeError>>,
    pub(super) nats: Option<Result<nats::probe::Server, ProbeError>>,
    /// Where dead letters go outside ClickHouse: what would make it forget them. None: they do
    /// not go there.
    pub(super) letters: Option<Result<Vec<String>, ProbeError>>,
}

pub(super) struct Warehouse {
    pub(super) version: String,
    /// Those of the routes and of the dead letters, by name.
    pub(super) tables: BTreeMap<String, Table>,
}

pub(super) struct Table {
    pub(super) schema: Result<TableSchema, InsertError>,
    pub(super) kind: Option<TableKind>,
    /// None: ClickHouse does not say.
    pub(super) may_insert: Option<bool>,
    pub(super) may_create: Option<bool>,
}

pub(super) async fn everything(config: &Config) -> Found {
    let topics: BTreeSet<_> = config.routes.iter().flat_map(|route| &route.kafka_topics).collect();
    let topics: Vec<String> = topics.into_iter().cloned().collect();
    let instance = &config.instance;
    let kafka = async {
        let kafka = config.kafka.as_ref()?;
        Some(in_time(kafka::probe::probe(kafka, instance, &topics)).await)
    };
    let nats = async {
        let nats = config.nats.as_ref()?;
        Some(in_time(nats::probe::probe(nats, instance)).await)
    };
    let (clickhouse, kafka, nats, letters) =
        tokio::join!(in_time(warehouse(config)), kafka, nats, letters(config));
    Found { clickhouse, kafka, nats, letters }
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
    let version = clickhouse.version().await.map_err(|error| probe_error(&error))?;
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
    Ok(Warehouse { version, tables: tables.into_iter().collect() })
}

async fn table(clickhouse: &ClickHouse, name: &str) -> Table {
    let schema = clickhouse.schema(name).await;
    let mut table = Table { schema, kind: None, may_insert: None, may_create: None };
    if table.schema.is_ok() {
        table.kind = clickhouse.table_kind(name).await;
        table.may_insert = clickhouse.may("INSERT", name).await;
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
