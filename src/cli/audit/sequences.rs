//! What can be said of core NATS: its records have no positions, so that nothing can be proved. Where
//! a table keeps a producer's own sequence (`_seq`), its numbers tell what is there and what is not.

use super::ranges::Ranges;
use super::report::{AtMostOnce, Sequence};
use crate::config::{Action, Config, InsertAction, Route, RouteFormat};
use crate::decode::{Metadata, Source};
use crate::schema::TableSchema;
use crate::sink::clickhouse::{ClickHouse, Origin, OriginColumns, Wanted};
use crate::sink::{InsertError, Sink as _};

/// The column, and the payload's key that it comes from; the load generator writes it.
const SEQUENCE: &str = "_seq";
/// ClickHouse's numbers in JSON are exact so far.
const ALL: std::ops::Range<i64> = 0..1 << 53;

/// Every route that takes records from core NATS and stores them.
///
/// # Errors
/// When ClickHouse cannot be asked.
pub(super) async fn sequences(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<Vec<AtMostOnce>, InsertError> {
    let mut all = Vec::new();
    for route in config.routes.iter().filter(|route| !route.nats_subjects.is_empty()) {
        let Action::Insert(insert) = &route.action else { continue };
        let sequence = match clickhouse.schema(&insert.table).await {
            Ok(schema) => sequence(route, insert, &schema, clickhouse).await?,
            Err(error @ InsertError::Retry(_)) => return Err(error),
            Err(_) => None,
        };
        let (route, table) = (route.name.clone(), insert.table.clone());
        all.push(AtMostOnce { route, table, sequence });
    }
    Ok(all)
}

/// None: there are no such numbers.
async fn sequence(
    route: &Route,
    insert: &InsertAction,
    schema: &TableSchema,
    clickhouse: &ClickHouse,
) -> Result<Option<Sequence>, InsertError> {
    let RouteFormat::Columns(mapping) = &insert.format else { return Ok(None) };
    let of_payload = |column: &crate::decode::ColumnMapping| {
        let path = Source::Path(vec![SEQUENCE.to_owned()]);
        column.from.is_empty() || column.from.first() == Some(&path)
    };
    let is_there = schema.columns.iter().any(|column| column.name == SEQUENCE);
    if !is_there || !mapping.columns().get(SEQUENCE).is_none_or(of_payload) {
        return Ok(None);
    }
    let mut columns = mapping.columns().iter();
    let topic = columns
        .find(|(_, column)| column.from.first() == Some(&Source::Meta(Metadata::Topic)))
        .map(|(name, _)| name.clone());
    // Without that column the rows of Kafka cannot be told from those of NATS.
    if topic.is_none() && !route.kafka_topics.is_empty() {
        return Ok(None);
    }
    let rows = OriginColumns {
        table: insert.table.clone(),
        topic,
        partition: None,
        offset: SEQUENCE.to_owned(),
    };
    let bounds = vec![(0, ALL)];
    let wanted = Wanted { rows, origin: Origin::NoTopic, bounds, dead_letters: None };
    let Some((_, held)) = clickhouse.positions(&wanted).await?.and_then(|mut all| all.pop()) else {
        return Ok(None);
    };
    let there: Ranges = held.stretches.into_iter().collect();
    let Some(bounds) = there.bounds() else { return Ok(None) };
    Ok(Some(Sequence {
        first: bounds.start,
        last: bounds.end - 1,
        rows: held.rows,
        different: held.stored,
        absent: Ranges::one(bounds).without(&there),
    }))
}
