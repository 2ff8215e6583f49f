//! Where the records of a target come from, and can be asked for again: a topic of Kafka, or a
//! consumer's stream.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use tokio::sync::mpsc;

use super::Options;
use super::plan::{From, Target};
use crate::config::{Config, Deliver, JetStreamRoute, Kafka};
use crate::record::Chunk;
use crate::sink::clickhouse::{LettersOf, Origin};
use crate::source::kafka::extents::extents;
use crate::source::kafka::reread::{Stretches, reread};
use crate::source::nats::jetstream::streams::{Consumed, Streams};
use crate::source::{Extent, ProbeError};

pub(super) enum Feed<'a> {
    Topic { kafka: &'a Kafka, instance: &'a str, topic: &'a str, partitions: usize },
    Stream(Box<Stream<'a>>),
}

pub(super) struct Stream<'a> {
    streams: &'a Streams,
    route: &'a str,
    takes: &'a JetStreamRoute,
    consumed: Consumed,
    from_the_beginning: bool,
}

impl<'a> Feed<'a> {
    /// The inner error is why nothing can be proved of it.
    pub(super) async fn of(
        config: &'a Config,
        streams: Option<&'a Streams>,
        target: &'a Target,
    ) -> Result<Result<Self, String>, ProbeError> {
        let route = &config.routes[target.route];
        match (target.from, &config.kafka, streams, &route.jetstream) {
            (From::Topic { partitions }, Some(kafka), ..) => {
                let (instance, topic) = (&config.instance, &target.topic);
                Ok(Ok(Self::Topic { kafka, instance, topic, partitions }))
            }
            (From::Stream, _, Some(streams), Some(takes)) => {
                let settings = config.nats.as_ref().and_then(|nats| nats.jetstream.as_ref());
                let deliver = settings.map(|settings| settings.deliver);
                let consumed = in_nats(streams.consumed(&route.name, takes).await)?;
                Ok(consumed.map(|consumed| {
                    Self::Stream(Box::new(Stream {
                        streams,
                        route: &route.name,
                        takes,
                        consumed,
                        from_the_beginning: deliver == Some(Deliver::All),
                    }))
                }))
            }
            _ => Ok(Err("its source is not configured".to_owned())),
        }
    }

    /// How far its partitions reach now.
    pub(super) async fn extents(
        &self,
        options: &Options,
    ) -> Result<Result<Vec<Extent>, String>, ProbeError> {
        let mut all = match self {
            Self::Topic { kafka, instance, topic, partitions } => {
                let topics = vec![((*topic).to_owned(), *partitions)];
                in_kafka(extents(kafka, instance, topics, options.since).await)?
            }
            Self::Stream(_) if options.since.is_some() => {
                return Ok(Err("--since is for Kafka; of a stream say --offsets".to_owned()));
            }
            Self::Stream(stream) => {
                let Stream { streams, route, takes, .. } = stream.as_ref();
                match in_nats(streams.consumed(route, takes).await)? {
                    Ok(consumed) => vec![consumed.extent()],
                    Err(why) => return Ok(Err(why)),
                }
            }
        };
        all.retain(|extent| options.partition.is_none_or(|only| only == extent.number));
        Ok(Ok(all))
    }

    pub(super) fn begins_at_the_beginning(&self) -> bool {
        match self {
            Self::Topic { kafka, .. } => kafka.auto_offset_reset == "earliest",
            Self::Stream(stream) => stream.from_the_beginning,
        }
    }

    /// Which rows are its.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Topic { topic, .. } => Origin::Topic((*topic).to_owned()),
            Self::Stream(_) => Origin::NoTopic,
        }
    }

    /// Which dead letters are its, and the source's name in them.
    pub(super) fn letters(&self) -> (&'static str, LettersOf) {
        match self {
            Self::Topic { topic, .. } => ("kafka", LettersOf::Topic((*topic).to_owned())),
            Self::Stream(stream) => ("jetstream", LettersOf::Route(stream.route.to_owned())),
        }
    }

    /// Hands over what is there within the stretches.
    pub(super) async fn reread(
        &self,
        stretches: BTreeMap<i32, VecDeque<Range<i64>>>,
        chunks: mpsc::Sender<Chunk>,
    ) -> Result<(), ProbeError> {
        match self {
            Self::Topic { kafka, instance, topic, .. } => {
                let stretches = Stretches { topic: (*topic).to_owned(), of: stretches };
                in_kafka(reread(kafka, instance, stretches, chunks).await)
            }
            Self::Stream(stream) => {
                let Stream { streams, takes, consumed, .. } = stream.as_ref();
                let stretches = stretches.into_values().flatten().collect();
                in_nats(streams.reread(consumed, takes, stretches, chunks).await)
            }
        }
    }
}

fn in_kafka<T>(result: Result<T, ProbeError>) -> Result<T, ProbeError> {
    said_by("Kafka", result)
}

fn in_nats<T>(result: Result<T, ProbeError>) -> Result<T, ProbeError> {
    said_by("NATS", result)
}

pub(super) fn said_by<T>(who: &str, result: Result<T, ProbeError>) -> Result<T, ProbeError> {
    result.map_err(|error| match error {
        ProbeError::Unreachable(text) => ProbeError::Unreachable(format!("{who}: {text}")),
        ProbeError::Refused(text) => ProbeError::Refused(format!("{who}: {text}")),
    })
}
