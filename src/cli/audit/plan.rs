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
    /// Or the consumer.
    pub(super) topic: String,
    pub(super) from: From,
    /// The route's index.
    pub(super) route: usize,
    /// None: the route only counts.
    pub(super) table: Option<String>,
    /// By what it can be proved, or why it cannot.
    pub(super) columns: Result<OriginColumns, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Topic { partitions: usize },
    Stream,
}

/// The topics of the configuration.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    /// Configured, and not there.
    pub(super) absent: Vec<String>,
}

/// Every topic and consumer that a route takes, or those of `only`. Without a cluster no topics.
pub(super) fn plan(
    config: &Config,
    cluster: Option<&Cluster>,
    only: &[String],
) -> Result<Plan, String> {
    let mut plan = Plan::default();
    if let Some(cluster) = cluster {
        plan.topics(config, cluster)?;
    }
    for (index, route) in config.routes.iter().enumerate() {
        if let Some(takes) = &route.jetstream {
            plan.targets.push(target(route, &takes.consumer, From::Stream, index));
        }
    }
    plan.doubtful(config);
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

impl Plan {
    fn topics(&mut self, config: &Config, cluster: &Cluster) -> Result<(), String> {
        let mut router = Router::new(&config.routes).map_err(|error| format!("{error:#}"))?;
        let mut seen = BTreeSet::new();
        for entry in config.routes.iter().flat_map(|route| &route.kafka_topics) {
            let topics = cluster.matching(entry);
            if topics.is_empty() && !entry.starts_with('^') && seen.insert(entry.as_str()) {
                self.absent.push(entry.clone());
            }
            for topic in topics {
                let Some(index) = router.route_of_topic(topic).map(|id| id.index()) else {
                    continue;
                };
                if seen.insert(topic) {
                    let from = From::Topic { partitions: cluster.topics[topic] };
                    self.targets.push(target(&config.routes[index], topic, from, index));
                }
            }
        }
        Ok(())
    }

    /// A table without a column for the topic can hold one only, and offsets of two streams cannot
    /// be told apart at all.
    fn doubtful(&mut self, config: &Config) {
        let mut of_table: BTreeMap<String, Vec<(String, From, usize)>> = BTreeMap::new();
        for Target { topic, from, route, table, .. } in &self.targets {
            let all = of_table.entry(table.clone().unwrap_or_default()).or_default();
            all.push((topic.clone(), *from, *route));
        }
        for target in &mut self.targets {
            let Ok(columns) = &target.columns else { continue };
            let all = &of_table[&columns.table];
            let names =
                || all.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
            let streams = all.iter().filter(|(_, from, _)| *from == From::Stream);
            let streams = streams.map(|(.., route)| {
                config.routes[*route].jetstream.as_ref().and_then(|takes| takes.stream.as_deref())
            });
            let streams: Vec<Option<&str>> = streams.collect();
            let one_stream = streams.iter().all(|stream| stream.is_some() && *stream == streams[0]);
            let table = &columns.table;
            if columns.topic.is_none() && all.len() > 1 {
                target.columns = Err(format!(
                    "table {table} has no column from @topic, and takes {}: add `_topic`, {HOW}",
                    names()
                ));
            } else if target.from == From::Stream && streams.len() > 1 && !one_stream {
                target.columns = Err(format!(
                    "table {table} takes {}, whose rows it cannot tell apart, unless they name the \
                     same jetstream_stream",
                    names()
                ));
            }
        }
    }
}

const HOW: &str = "`ALTER TABLE … ADD COLUMN _topic LowCardinality(Nullable(String)), ADD COLUMN \
                   _partition Nullable(Int32), ADD COLUMN _offset Nullable(Int64)`, and in the route \
                   `columns = { _topic = \"@topic\", _partition = \"@partition\", _offset = \
                   \"@offset\" }`; rows that come from then on can be proved";

fn target(route: &Route, topic: &str, from: From, index: usize) -> Target {
    let (table, columns) = match &route.action {
        Action::Count => (None, Err("the route counts its records and stores none".to_owned())),
        Action::Insert(insert) => (Some(insert.table.clone()), columns(route, insert, from)),
    };
    Target { topic: topic.to_owned(), from, route: index, table, columns }
}

/// The columns that say where a row came from, whatever they are called.
fn columns(route: &Route, insert: &InsertAction, from: From) -> Result<OriginColumns, String> {
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
    let partition = match (column(&Metadata::Partition), from) {
        (None, From::Topic { .. }) => return Err(missing("@partition")),
        // A stream is one.
        (partition, _) => partition,
    };
    Ok(OriginColumns {
        table: insert.table.clone(),
        topic: column(&Metadata::Topic),
        partition,
        offset: column(&Metadata::Offset).ok_or_else(|| missing("@offset"))?,
    })
}
