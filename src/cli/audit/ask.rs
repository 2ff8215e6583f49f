//! Asks Kafka and ClickHouse, in the order that makes the answers comparable: what the group has
//! committed first, then what ClickHouse holds below that, then what the topic says of the rest.

use std::collections::BTreeMap;

use super::super::Failure;
use super::feed::{Feed, said_by};
use super::judge::{self, Asked, Case, Read};
use super::letters::{Elsewhere, lay_beside};
use super::plan::{From, Plan, Target};
use super::report::{NotProvable, Partition, Promise, Report, Route};
use super::reread::{self, Table};
use super::{Options, ReadTopic, plan, sequences};
use crate::config::{Action, Config, Delivery, OnUncertain};
use crate::schema::TableSchema;
use crate::sink::clickhouse::{ClickHouse, DeadLetters, Held, Keeps, UNKNOWN_TABLE, Wanted};
use crate::sink::{InsertError, Sink as _};
use crate::source::kafka::probe::{self, Cluster};
use crate::source::nats::jetstream::streams::Streams;
use crate::source::{Extent, ProbeError};

/// So many offsets are read from the topics without being asked for: seconds.
const READ_UNASKED: u64 = 1_000_000;

/// Where the dead letters are.
enum Letters {
    /// In no table yet: it is made with the first one.
    None,
    Table(String),
    Elsewhere(Box<Elsewhere>),
}

/// A table as it is.
struct Known {
    schema: TableSchema,
    keeps: Keeps,
}

struct Auditor<'a> {
    config: &'a Config,
    streams: Option<Streams>,
    options: &'a Options,
    clickhouse: ClickHouse,
    letters: Letters,
    /// What may still be read without being asked for.
    budget: u64,
}

pub(super) async fn audit(config: &Config, options: &Options) -> Result<Report, Failure> {
    let mut report = Report::default();
    let clickhouse = ClickHouse::new(&config.clickhouse, None);
    let clickhouse = clickhouse.map_err(|error| Failure::usage(format!("{error:#}")))?;
    clickhouse.answers().await.map_err(|error| clickhouse_error(&error))?;
    if options.topics.is_empty() {
        let sequences = sequences::sequences(config, &clickhouse).await;
        report.at_most_once = sequences.map_err(|error| clickhouse_error(&error))?;
    }
    let cluster = cluster(config).await?;
    let Plan { targets, absent } =
        plan::plan(config, cluster.as_ref(), &options.topics).map_err(Failure::usage)?;
    report.notes.extend(notes(&absent, cluster.as_ref()));
    let streams = if targets.iter().any(|target| target.from == From::Stream) {
        streams(config).await?
    } else {
        None
    };
    let letters = letters(config, &clickhouse).await?;
    let mut auditor =
        Auditor { config, streams, options, clickhouse, letters, budget: READ_UNASKED };
    for index in 0..config.routes.len() {
        let of_route: Vec<&Target> = targets.iter().filter(|t| t.route == index).collect();
        if !of_route.is_empty() {
            report.routes.push(auditor.route(index, &of_route).await?);
        }
    }
    Ok(report.settled())
}

/// Exactly once is promised, and repeated rows were not accepted for want of knowing better.
fn repeats_are_faults(route: &crate::config::Route) -> bool {
    let Action::Insert(insert) = &route.action else { return false };
    match insert.delivery {
        Delivery::AtLeastOnce => false,
        Delivery::ExactlyOnce { on_uncertain } => on_uncertain != OnUncertain::AcceptDuplicates,
    }
}

async fn cluster(config: &Config) -> Result<Option<Cluster>, ProbeError> {
    let Some(kafka) = &config.kafka else { return Ok(None) };
    let named = config.routes.iter().flat_map(|route| route.kafka_topics.clone());
    let named: Vec<String> = named.collect();
    said_by("Kafka", probe::probe(kafka, &config.instance, &named).await).map(Some)
}

async fn streams(config: &Config) -> Result<Option<Streams>, ProbeError> {
    let Some(nats) = &config.nats else { return Ok(None) };
    let Some(settings) = &nats.jetstream else { return Ok(None) };
    said_by("NATS", Streams::connect(nats, settings, &config.instance).await).map(Some)
}

/// On topics that are not there.
fn notes(absent: &[String], cluster: Option<&Cluster>) -> Vec<String> {
    let Some(cluster) = cluster else { return Vec::new() };
    let (refused, absent): (Vec<_>, Vec<_>) =
        absent.iter().partition(|topic| cluster.refused.contains_key(topic.as_str()));
    let why = |topic: &&String| {
        format!("Kafka refuses topic {topic}: {}", cluster.refused[topic.as_str()])
    };
    let mut notes: Vec<String> = refused.iter().map(why).collect();
    if !absent.is_empty() {
        let names: Vec<&str> = absent.into_iter().map(String::as_str).collect();
        let them = if names.len() == 1 { "it" } else { "them" };
        let names = names.join(", ");
        notes.push(format!("Kafka has no topic {names}: nothing was delivered from {them}"));
    }
    notes
}

async fn letters(config: &Config, clickhouse: &ClickHouse) -> Result<Letters, ProbeError> {
    let Some(table) = config.dead_letters.table() else {
        let elsewhere = Elsewhere::open(config).await?;
        return Ok(
            elsewhere.map_or(Letters::None, |elsewhere| Letters::Elsewhere(Box::new(elsewhere)))
        );
    };
    match clickhouse.schema(table).await {
        Ok(_) => Ok(Letters::Table(table.to_owned())),
        Err(error) if error.refusal().code == Some(UNKNOWN_TABLE) => Ok(Letters::None),
        Err(error) => Err(clickhouse_error(&error)),
    }
}

impl Auditor<'_> {
    async fn route(&mut self, index: usize, targets: &[&Target]) -> Result<Route, ProbeError> {
        let route = &self.config.routes[index];
        let mut report = Route {
            route: route.name.clone(),
            table: targets[0].table.clone(),
            promise: match route.is_exactly_once() {
                true => Promise::ExactlyOnce,
                false => Promise::AtLeastOnce,
            },
            keeps: String::new(),
            partitions: Vec::new(),
            not_provable: Vec::new(),
        };
        let Some(table) = &report.table else {
            report.keeps = "nothing: the route counts its records".to_owned();
            return Ok(report);
        };
        let known = match self.known(table).await? {
            Ok(known) => known,
            Err(why) => {
                report.not_provable = targets.iter().map(|t| not_provable(t, &why)).collect();
                return Ok(report);
            }
        };
        report.keeps = in_words(&known.keeps);
        for target in targets {
            match (&target.columns, &known.keeps) {
                (Err(why), _) => report.not_provable.push(not_provable(target, why)),
                (Ok(_), Keeps::Sums) => {
                    let why = format!("table {table} adds up the rows of a key, and their offsets");
                    report.not_provable.push(not_provable(target, &why));
                }
                (Ok(_), _) => match self.topic(target, &known).await? {
                    Ok(partitions) => report.partitions.extend(partitions),
                    Err(why) => report.not_provable.push(not_provable(target, &why)),
                },
            }
        }
        Ok(report)
    }

    /// The inner error is why nothing can be proved of the table.
    async fn known(&self, table: &str) -> Result<Result<Known, String>, ProbeError> {
        match self.clickhouse.schema(table).await {
            Ok(schema) => {
                let keeps = self.clickhouse.keeps(table).await;
                let keeps = keeps.map_err(|error| clickhouse_error(&error))?;
                Ok(Ok(Known { schema, keeps }))
            }
            Err(error @ InsertError::Retry(_)) => Err(clickhouse_error(&error)),
            Err(error) => Ok(Err(error.refusal().message.clone())),
        }
    }

    /// The inner error is why nothing can be proved of the topic.
    async fn topic(
        &mut self,
        target: &Target,
        known: &Known,
    ) -> Result<Result<Vec<Partition>, String>, ProbeError> {
        let streams = self.streams.clone();
        let feed = match Feed::of(self.config, streams.as_ref(), target).await? {
            Ok(feed) => feed,
            Err(why) => return Ok(Err(why)),
        };
        let asked = Asked {
            offsets: self.options.offsets.clone(),
            from_the_beginning: feed.begins_at_the_beginning(),
            exactly_once: repeats_are_faults(&self.config.routes[target.route]),
        };
        let extents = match feed.extents(self.options).await? {
            Ok(extents) => extents,
            Err(why) => return Ok(Err(why)),
        };
        let mut held = match self.held(target, &feed, &extents, &asked).await? {
            Ok(held) => held,
            Err(why) => return Ok(Err(why)),
        };
        let case = |extent: Extent| {
            let held = held.remove(&extent.number).unwrap_or_default();
            Case::new(extent, held, &asked)
        };
        let cases: Vec<Case> = extents.into_iter().map(case).collect();
        let mut read = self.read(target, &feed, known, &cases).await?;
        let now = feed.extents(self.options).await?.unwrap_or_default();
        let now: BTreeMap<i32, Extent> =
            now.into_iter().map(|extent| (extent.number, extent)).collect();
        let judged = |case: Case| {
            let now = now.get(&case.extent.number).cloned();
            let now = now.unwrap_or_else(|| case.extent.clone());
            let read = read.as_mut().map(|all| all.remove(&now.number).unwrap_or_default());
            case.judged(read, &now, &asked)
        };
        Ok(Ok(cases.into_iter().map(judged).collect()))
    }

    async fn held(
        &self,
        target: &Target,
        feed: &Feed<'_>,
        extents: &[Extent],
        asked: &Asked,
    ) -> Result<Result<BTreeMap<i32, Held>, String>, ProbeError> {
        let bounds = extents.iter().map(|extent| (extent.number, judge::bounds(extent, asked)));
        let bounds: Vec<_> = bounds.filter(|(_, range)| !range.is_empty()).collect();
        if bounds.is_empty() {
            return Ok(Ok(BTreeMap::new()));
        }
        let columns = target.columns.clone().expect("only what can be proved gets here");
        let (source, of) = feed.letters();
        let (dead_letters, elsewhere) = match &self.letters {
            Letters::None => (None, BTreeMap::new()),
            Letters::Table(table) => {
                (Some(DeadLetters { table: table.clone(), source, of }), BTreeMap::new())
            }
            Letters::Elsewhere(elsewhere) => (None, elsewhere.of(source, &of).await?),
        };
        let wanted = Wanted { rows: columns, origin: feed.origin(), bounds, dead_letters };
        match self.clickhouse.positions(&wanted).await {
            Ok(Some(held)) => {
                let mut held: BTreeMap<i32, Held> = held.into_iter().collect();
                for (number, bounds) in &wanted.bounds {
                    if let Some(letters) = elsewhere.get(number) {
                        lay_beside(held.entry(*number).or_default(), letters, bounds);
                    }
                }
                Ok(Ok(held))
            }
            Ok(None) => {
                Ok(Err("its offsets are so scattered that the list does not fit: look at \
                                less, with --offsets or --since"
                    .to_owned()))
            }
            Err(error @ InsertError::Retry(_)) => Err(clickhouse_error(&error)),
            Err(error) => Ok(Err(format!("ClickHouse: {}", error.refusal()))),
        }
    }

    /// None: it was not read, because that would take long or was not wanted.
    async fn read(
        &mut self,
        target: &Target,
        feed: &Feed<'_>,
        known: &Known,
        cases: &[Case],
    ) -> Result<Option<BTreeMap<i32, Read>>, ProbeError> {
        let cost = reread::cost(cases.iter());
        let wanted = match self.options.read_topic {
            ReadTopic::Always => true,
            ReadTopic::Never => cost == 0,
            ReadTopic::Auto => cost <= self.budget,
        };
        if !wanted {
            tracing::debug!(topic = target.topic, cost, "not read");
            return Ok(None);
        }
        self.budget = self.budget.saturating_sub(cost);
        if cost == 0 {
            return Ok(Some(BTreeMap::new()));
        }
        let Known { schema, keeps } = known;
        let table = Table { clickhouse: &self.clickhouse, schema, keeps };
        let excuse = match &self.letters {
            Letters::Elsewhere(elsewhere) => elsewhere.excuse(),
            Letters::None | Letters::Table(_) => None,
        };
        reread::look(self.config, target, feed, table, cases, excuse).await.map(Some)
    }
}

fn not_provable(target: &Target, why: &str) -> NotProvable {
    NotProvable { topic: target.topic.clone(), why: why.to_owned() }
}

fn in_words(keeps: &Keeps) -> String {
    match keeps {
        Keeps::Rows { ttl: false } => "every row".to_owned(),
        Keeps::Rows { ttl: true } => "every row, for its TTL".to_owned(),
        Keeps::OneOfEachKey(_) => "one row of each key".to_owned(),
        Keeps::Sums => "sums".to_owned(),
        Keeps::Other(engine) => format!("engine {engine}"),
    }
}

fn clickhouse_error(error: &InsertError) -> ProbeError {
    let text = format!("ClickHouse: {}", error.refusal());
    match error {
        InsertError::Retry(_) => ProbeError::Unreachable(text),
        _ => ProbeError::Refused(text),
    }
}
