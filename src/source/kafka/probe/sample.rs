//! Reads the newest records of topics, and what the brokers say of them, without leaving a trace:
//! partitions are assigned by hand, nobody subscribes, nothing is committed. The group's name only
//! serves to ask what it has committed, and to be let in where rights go by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::super::queue::View;
use super::super::{settings, take};
use super::Listener;
use crate::config;
use crate::record::{Chunk, Partition, UnixMs};

/// For each question about all partitions; the leaders answer side by side.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// For all records: they lie at the end of each partition, mostly in the broker's memory.
const READ_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Records of a topic: enough to meet what comes every twentieth time, few enough to read at once.
const RECORDS: i64 = 48;
/// Partitions of a topic that are read; those beyond are like them.
const PARTITIONS: usize = 48;

/// The pace is the fastest of these: what counts is how much comes when much comes.
const PACES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
    Duration::from_secs(86_400),
];

/// What a topic holds, and how it is kept.
#[derive(Debug)]
pub struct TopicSample {
    pub partitions: usize,
    /// Some of the newest records of its partitions.
    pub records: Chunk,
    /// Our clock when they were read.
    pub records_read_at: UnixMs,
    /// Records per second over the busiest of the last minute, ten minutes, hour and day.
    pub pace: Option<f64>,
    /// Records that the group has yet to read; None: it has committed nothing here.
    pub lag: Option<u64>,
    /// Records that were deleted before the group had read them.
    pub lost: u64,
    /// None: the brokers do not say.
    pub keeping: Option<Keeping>,
}

/// How a topic keeps its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// None: for ever.
    pub time: Option<Duration>,
    /// Of each partition; None: without limit.
    pub bytes: Option<u64>,
    /// Of records with the same key only the newest stays.
    pub compacts: bool,
    /// Records are stamped by the broker's clock, and not by their producer's.
    pub stamped_by_broker: bool,
}

/// Where a partition begins and ends, and what the group committed.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    low: i64,
    high: i64,
    committed: Option<i64>,
}

type Spans = BTreeMap<(String, i32), Span>;

/// The newest records of these topics, each with the number of its partitions.
///
/// # Errors
/// When the brokers do not answer, or do not let us read, in words.
pub async fn sample(
    config: &config::Kafka,
    instance: &str,
    topics: &BTreeMap<String, usize>,
) -> Result<BTreeMap<String, TopicSample>, String> {
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut client =
        settings::client_config(config, instance).map_err(|error| format!("{error:#}"))?;
    client
        .set("statistics.interval.ms", "0")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", "100");
    let names: Vec<String> = topics.keys().cloned().collect();
    let keeping = keeping(&client, &names);
    let (client, wanted) = (client.clone(), topics.clone());
    let reading = tokio::task::spawn_blocking(move || read(&client, &wanted));
    let (read, mut keeping) = tokio::join!(reading, keeping);
    let read = read.map_err(|error| error.to_string())?;
    let mut samples = read.map_err(|error| format!("cannot read the newest records: {error}"))?;
    for (name, sample) in &mut samples {
        sample.keeping = keeping.remove(name);
    }
    Ok(samples)
}

fn read(
    client: &ClientConfig,
    topics: &BTreeMap<String, usize>,
) -> KafkaResult<BTreeMap<String, TopicSample>> {
    let consumer: BaseConsumer<Listener> = client.create_with_context(Listener::default())?;
    let all: Vec<(String, i32)> = topics
        .iter()
        .flat_map(|(topic, count)| {
            let numbers = 0..i32::try_from(*count).unwrap_or(i32::MAX);
            numbers.map(move |number| (topic.clone(), number))
        })
        .collect();
    let spans = spans(&consumer, &all)?;
    let paces = paces(&consumer, &all, &spans)?;
    let mut chunks = newest(&consumer, &spans, topics)?;
    let read_at = take::now_ms();
    let samples = topics.iter().map(|(topic, partitions)| {
        let of_topic = || spans.iter().filter(|((name, _), _)| name == topic).map(|(_, span)| span);
        let committed = of_topic().any(|span| span.committed.is_some());
        // A partition of which nothing was committed is read from its beginning.
        let lag = |span: &Span| span.high - span.committed.unwrap_or(span.low).max(span.low);
        let lost = |span: &Span| span.committed.map_or(0, |at| (span.low - at).max(0));
        let sample = TopicSample {
            partitions: *partitions,
            records_read_at: read_at,
            records: chunks.remove(topic).unwrap_or_else(empty),
            pace: paces.get(topic).copied(),
            lag: committed.then(|| of_topic().map(|span| lag(span).max(0).unsigned_abs()).sum()),
            lost: of_topic().map(|span| lost(span).unsigned_abs()).sum(),
            keeping: None,
        };
        (topic.clone(), sample)
    });
    Ok(samples.collect())
}

fn empty() -> Chunk {
    Chunk::with_capacity(take::now_ms(), 0, 0)
}

/// Asks for all partitions at once: -2 and -1 are Kafka's words for the beginning and the end.
fn offsets(
    consumer: &BaseConsumer<Listener>,
    all: &[(String, i32)],
    time: Offset,
) -> KafkaResult<BTreeMap<(String, i32), i64>> {
    let mut list = TopicPartitionList::with_capacity(all.len());
    for (topic, number) in all {
        list.add_partition_offset(topic, *number, time)?;
    }
    let answer = consumer.offsets_for_times(list, ANSWER_WITHIN)?;
    let mut found = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            found.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(found)
}

fn spans(consumer: &BaseConsumer<Listener>, all: &[(String, i32)]) -> KafkaResult<Spans> {
    let low = offsets(consumer, all, Offset::Beginning)?;
    let high = offsets(consumer, all, Offset::End)?;
    let mut list = TopicPartitionList::with_capacity(all.len());
    for (topic, number) in all {
        list.add_partition(topic, *number);
    }
    // Without the right to look into the group, its lag is not known: nothing else needs it.
    let committed = consumer.committed_offsets(list, ANSWER_WITHIN).ok();
    let committed: BTreeMap<(String, i32), i64> = committed
        .iter()
        .flat_map(|list| list.elements())
        .filter_map(|element| match element.offset() {
            Offset::Offset(at) => Some(((element.topic().to_owned(), element.partition()), at)),
            _ => None,
        })
        .collect();
    let span = |place: &(String, i32)| Span {
        low: low.get(place).copied().unwrap_or_default(),
        high: high.get(place).copied().unwrap_or_default(),
        committed: committed.get(place).copied(),
    };
    Ok(all.iter().map(|place| (place.clone(), span(place))).collect())
}

/// Records per second, by topic.
fn paces(
    consumer: &BaseConsumer<Listener>,
    all: &[(String, i32)],
    spans: &Spans,
) -> KafkaResult<BTreeMap<String, f64>> {
    let mut paces: BTreeMap<String, f64> = BTreeMap::new();
    for over in PACES {
        let since = take::now_ms() - i64::try_from(over.as_millis()).expect("a day");
        let first = offsets(consumer, all, Offset::Offset(since))?;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for (place, span) in spans {
            // No offset: nothing is as new as that.
            let came = first.get(place).map_or(0, |first| (span.high - first).max(0));
            let count = counts.entry(&place.0).or_default();
            *count = count.saturating_add(u32::try_from(came).unwrap_or(u32::MAX));
        }
        for (topic, count) in counts {
            let pace = paces.entry(topic.to_owned()).or_default();
            *pace = pace.max(f64::from(count) / over.as_secs_f64());
        }
    }
    Ok(paces)
}

/// The last records of each partition, by topic. What does not come in time is left out.
fn newest(
    consumer: &BaseConsumer<Listener>,
    spans: &Spans,
    topics: &BTreeMap<String, usize>,
) -> KafkaResult<BTreeMap<String, Chunk>> {
    let mut list = TopicPartitionList::new();
    let mut open = BTreeSet::new();
    for ((topic, number), span) in spans {
        let partitions = topics[topic].min(PARTITIONS);
        let index = usize::try_from(*number).unwrap_or(usize::MAX);
        if span.high > span.low && index < partitions {
            let each = (RECORDS / i64::try_from(partitions).unwrap_or(RECORDS)).max(1);
            let start = (span.high - each).max(span.low);
            list.add_partition_offset(topic, *number, Offset::Offset(start))?;
            open.insert((topic.clone(), *number));
        }
    }
    let mut chunks: BTreeMap<String, Chunk> = BTreeMap::new();
    if open.is_empty() {
        return Ok(chunks);
    }
    consumer.assign(&list)?;
    let places: BTreeMap<(String, i32), Arc<Partition>> = open
        .iter()
        .map(|(topic, number)| {
            let partition = Partition { topic: topic.clone(), number: *number, epoch: 0 };
            ((topic.clone(), *number), Arc::new(partition))
        })
        .collect();
    let mut ends: BTreeMap<i32, usize> = BTreeMap::new();
    let deadline = Instant::now() + READ_WITHIN;
    while !open.is_empty() && Instant::now() < deadline {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                // What comes behind the end that we know is for the bridge.
                let Some(partition) = places.get(&place).filter(|_| open.contains(&place)) else {
                    continue;
                };
                let chunk = chunks.entry(place.0.clone()).or_insert_with(empty);
                let index = chunk.partition(partition);
                take::copy(chunk, index, View::of(&message));
                if message.offset() + 1 >= spans[&place].high {
                    open.remove(&place);
                }
            }
            // A partition whose last records are none to read, such as the marks of transactions.
            Some(Err(KafkaError::PartitionEOF(number))) => {
                *ends.entry(number).or_default() += 1;
                // Its topic is not said: they are closed when all of that number have ended.
                let of_number = places.keys().filter(|(_, other)| *other == number).count();
                if ends[&number] >= of_number {
                    open.retain(|(_, other)| *other != number);
                }
            }
            Some(Err(error)) => tracing::debug!("sampling: {error}"),
            None => {}
        }
    }
    Ok(chunks)
}

/// How the topics are kept; those that the brokers do not tell us of are left out.
async fn keeping(client: &ClientConfig, topics: &[String]) -> BTreeMap<String, Keeping> {
    let admin: KafkaResult<AdminClient<Listener>> = client.create_with_context(Listener::default());
    let Ok(admin) = admin else { return BTreeMap::new() };
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let described = admin.describe_configs(&topics, &options).await.unwrap_or_default();
    described
        .into_iter()
        .flatten()
        .filter_map(|resource| {
            let OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
                return None;
            };
            Some((name.clone(), kept(&resource)?))
        })
        .collect()
}

fn kept(resource: &ConfigResource) -> Option<Keeping> {
    let value = |name: &str| resource.get(name)?.value.clone();
    let policy = value("cleanup.policy")?;
    let policies: Vec<&str> = policy.split(',').map(str::trim).collect();
    // -1: without limit.
    let limit = |name: &str| value(name)?.parse::<u64>().ok();
    let deletes = policies.contains(&"delete");
    Some(Keeping {
        time: limit("retention.ms").map(Duration::from_millis).filter(|_| deletes),
        bytes: limit("retention.bytes").filter(|_| deletes),
        compacts: policies.contains(&"compact"),
        stamped_by_broker: value("message.timestamp.type").as_deref() == Some("LogAppendTime"),
    })
}

/// The newest time that a record of the sample carries.
#[must_use]
pub fn newest_time(sample: &TopicSample) -> Option<UnixMs> {
    sample.records.records().filter_map(|record| record.timestamp()).max()
}
