//! What is to be proved, and by which columns: topics, their routes, their tables. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Action, Config, InsertAction, Route, RouteFormat};
use crate::decode::{Metadata, Source};
use crate::route::Router;
use crate::sink::clickhouse::OriginColumns;
use crate::source::kafka::probe::Cluster;

/// One topic on its way into its table.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: String,
    pub(super) partitions: usize,
    /// The route's index.
    pub(super) route: usize,
    /// None: the route only counts.
    pub(super) table: Option<String>,
    /// By what it can be proved, or why it cannot.
    pub(super) columns: Result<OriginColumns, String>,
}

/// The topics of the configuration.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    /// Configured, and not there.
    pub(super) absent: Vec<String>,
}

/// Every topic that a route takes, or those of `only`.
pub(super) fn plan(config: &Config, cluster: &Cluster, only: &[String]) -> Result<Plan, String> {
    let mut router = Router::new(&config.routes).map_err(|error| format!("{error:#}"))?;
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for entry in config.routes.iter().flat_map(|route| &route.kafka_topics) {
        let topics = cluster.matching(entry);
        if topics.is_empty() && !entry.starts_with('^') && seen.insert(entry.as_str()) {
            plan.absent.push(entry.clone());
        }
        for topic in topics {
            let Some(route) = router.route_of_topic(topic).map(|id| id.index()) else { continue };
            if seen.insert(topic) {
                plan.targets.push(target(config, topic, cluster.topics[topic], route));
            }
        }
    }
    // A table without a column for the topic can hold one topic only.
    let mut topics_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Target { topic, table, .. } in &plan.targets {
        topics_of.entry(table.clone().unwrap_or_default()).or_default().push(topic.clone());
    }
    for target in &mut plan.targets {
        let Ok(columns) = &target.columns else { continue };
        let topics = &topics_of[&columns.table];
        if columns.topic.is_none() && topics.len() > 1 {
            target.columns = Err(format!(
                "table {} has no column from @topic, and takes {}: add `_topic`, {}",
                columns.table,
                topics.join(", "),
                HOW
            ));
        }
    }
    let known = |topic: &&String| {
        plan.targets.iter().any(|target| target.topic == **topic) || plan.absent.contains(topic)
    };
    if let Some(topic) = only.iter().find(|topic| !known(topic)) {
        return Err(format!("no route takes topic {topic} (--topic)"));
    }
    plan.targets.retain(|target| only.is_empty() || only.contains(&target.topic));
    plan.absent.retain(|topic| only.is_empty() || only.contains(topic));
    Ok(plan)
}

const HOW: &str = "`ALTER TABLE … ADD COLUMN _topic LowCardinality(Nullable(String)), ADD COLUMN \
                   _partition Nullable(Int32), ADD COLUMN _offset Nullable(Int64)`, and in the route \
                   `columns = { _topic = \"@topic\", _partition = \"@partition\", _offset = \
                   \"@offset\" }`; rows that come from then on can be proved";

fn target(config: &Config, topic: &str, partitions: usize, index: usize) -> Target {
    let route = &config.routes[index];
    let (table, columns) = match &route.action {
        Action::Count => (None, Err("the route counts its records and stores none".to_owned())),
        Action::Insert(insert) => (Some(insert.table.clone()), columns(route, insert)),
    };
    Target { topic: topic.to_owned(), partitions, route: index, table, columns }
}

/// The columns that say where a row came from, whatever they are called.
fn columns(route: &Route, insert: &InsertAction) -> Result<OriginColumns, String> {
    let RouteFormat::Columns(mapping) = &insert.format else {
        return Err(format!(
            "route {} passes its payloads on as they are (format = \"json\"), without their \
             positions",
            route.name
        ));
    };
    let column = |wanted: &Metadata| {
        let mut columns = mapping.columns().iter();
        let found = columns.find(|(_, column)| match column.from.first() {
            Some(Source::Meta(meta)) => meta == wanted,
            _ => false,
        });
        found.map(|(name, _)| name.clone())
    };
    let missing = |what: &str| format!("table {} has no column from {what}: {HOW}", insert.table);
    Ok(OriginColumns {
        table: insert.table.clone(),
        topic: column(&Metadata::Topic),
        partition: Some(column(&Metadata::Partition).ok_or_else(|| missing("@partition"))?),
        offset: column(&Metadata::Offset).ok_or_else(|| missing("@offset"))?,
    })
}
