//! Where a topic's partitions begin and end, and how far the group has committed them. Asks, and
//! takes nothing: the client knows the group's name, but never joins it.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::settings;
use crate::config;
use crate::record::UnixMs;
use crate::source::{Extent, ProbeError};

/// A broker far away answers within this; so long for each question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Asks for every partition of these topics, each with its number of partitions.
///
/// # Errors
/// When the brokers do not answer, or refuse us.
pub async fn extents(
    config: &config::Kafka,
    instance: &str,
    topics: Vec<(String, usize)>,
    since: Option<UnixMs>,
) -> Result<Vec<Extent>, ProbeError> {
    let refused = |error: anyhow::Error| ProbeError::Refused(format!("{error:#}"));
    let mut client = settings::client_config(config, instance).map_err(refused)?;
    client.set("statistics.interval.ms", "0");
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().map_err(settings::refused).map_err(refused)?;
        ask(&consumer, &topics, since).map_err(|error| ProbeError::Unreachable(error.to_string()))
    });
    asking.await.unwrap_or_else(|error| Err(ProbeError::Refused(format!("Kafka: {error}"))))
}

fn ask(
    consumer: &BaseConsumer,
    topics: &[(String, usize)],
    since: Option<UnixMs>,
) -> Result<Vec<Extent>, KafkaError> {
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in topics {
        for number in (0..).take(*partitions) {
            all.add_partition(topic, number);
        }
    }
    if all.count() == 0 {
        return Ok(Vec::new());
    }
    // First what was committed: everything that a bridge does meanwhile is beyond it.
    let committed = consumer.committed_offsets(all.clone(), ANSWER_WITHIN)?;
    let since = since.map(|time| since_of(consumer, &all, time)).transpose()?;
    let mut extents = Vec::with_capacity(committed.count());
    for element in committed.elements() {
        element.error()?;
        let (topic, number) = (element.topic(), element.partition());
        let (low, end) = consumer.fetch_watermarks(topic, number, ANSWER_WITHIN)?;
        let offset = |list: &TopicPartitionList| match list.find_partition(topic, number)?.offset()
        {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        extents.push(Extent {
            topic: topic.to_owned(),
            number,
            low,
            end,
            committed: offset(&committed),
            // No record is so young: nothing is asked for.
            since: since.as_ref().map(|since| offset(since).unwrap_or(end)),
        });
    }
    Ok(extents)
}

fn since_of(
    consumer: &BaseConsumer,
    all: &TopicPartitionList,
    time: UnixMs,
) -> Result<TopicPartitionList, KafkaError> {
    let mut times = TopicPartitionList::new();
    for element in all.elements() {
        let (topic, number) = (element.topic(), element.partition());
        times.add_partition_offset(topic, number, Offset::Offset(time))?;
    }
    consumer.offsets_for_times(times, ANSWER_WITHIN)
}
