//! What goes wrong on the way to Kafka: which errors say that the source does not get on, and how
//! often the others are logged. None of them ends the source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::record::Partition;
use crate::source::Observed;

use super::{Poller, remedy, settings};

/// Repeated errors are logged at most this often, with their count.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What stands in the way at the moment.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Why no broker can be talked to; over when one can.
    brokers: Option<String>,
    /// What was last said of a connection: that all are down says nothing by itself.
    connection: Option<String>,
    /// What a broker refuses, by topic (or [`GROUP`]) and partition, if it is said of one; over when
    /// the topic is assigned, or that partition read.
    refused: BTreeMap<(String, Option<i32>), String>,
    was_up: bool,
    /// What was last told to the pipeline, once there was anything to tell.
    told: Option<Option<String>>,
    logged: BTreeMap<String, (Instant, u64)>,
}

const GROUP: &str = "the group";

impl Troubles {
    pub(super) fn broker_is_up(&mut self, observed: &Observed) {
        if std::mem::replace(&mut self.was_up, true) {
            observed.reconnects.fetch_add(1, Ordering::AcqRel);
        }
        (self.brokers, self.connection) = (None, None);
    }

    pub(super) fn is_assigned(&mut self, topic: &str) {
        self.refused.retain(|(refused, _), _| refused != topic && refused != GROUP);
    }

    /// Records of these came.
    pub(super) fn are_read(&mut self, partitions: &[Arc<Partition>]) {
        self.refused.retain(|(topic, number), _| {
            !partitions.iter().any(|p| p.topic == *topic && Some(p.number) == *number)
        });
    }

    /// These topics are wanted, and no others.
    pub(super) fn are_wanted(&mut self, topics: &[String]) {
        self.refused.retain(|(topic, _), _| topic == GROUP || topics.contains(topic));
    }

    /// The client is made anew: what stays refused is said again.
    pub(super) fn begin_anew(&mut self) {
        self.refused.clear();
    }

    /// What to tell the pipeline, if it is not what it was told last.
    pub(super) fn news(&mut self) -> Option<Option<String>> {
        let refused: BTreeSet<_> = self.refused.values().collect();
        let all = self.brokers.iter().chain(refused);
        let now = all.cloned().reduce(|all, one| format!("{all}; {one}"));
        if self.told.as_ref() == Some(&now) || (now.is_none() && !self.was_up) {
            return None;
        }
        self.told = Some(now.clone());
        Some(now)
    }

    pub(super) fn commit_failed(&mut self, error: &str) {
        self.log("commit", &format!("a commit failed and is tried again: {error}"));
    }

    /// At once the first time, then at most every ten seconds with a count.
    fn log(&mut self, kind: &str, text: &str) {
        let now = Instant::now();
        match self.logged.get_mut(kind) {
            Some((at, hidden)) if now < *at + LOG_EVERY => *hidden += 1,
            known => {
                // How often it came since the last line; nothing at the first.
                let repeated = known.map(|(_, hidden)| *hidden);
                tracing::warn!(event = "kafka_error", repeated, "Kafka: {text}");
                self.logged.insert(kind.to_owned(), (now, 0));
            }
        }
    }
}

impl Poller {
    /// `reason` are the words that came with it; `place` is the partition that it was said of.
    pub(super) fn apply_error(
        &mut self,
        error: &KafkaError,
        reason: Option<String>,
        place: Option<(&str, i32)>,
    ) {
        let mut text = remedy::with_remedy(&reason.unwrap_or_else(|| error.to_string()));
        let code = error.rdkafka_error_code();
        let missing = topic_in(&text).map(str::to_owned);
        if missing.is_some() {
            text += &self.looked_for_again();
        } else if text.starts_with(NO_COMMITTED) {
            text += NOT_ASKED_AGAIN;
        }
        if let KafkaError::MessageConsumptionFatal(code) = error {
            self.fatal = Some(format!("{code}: {text}"));
        }
        self.troubles.log(&format!("{code:?}"), &text);
        let Some(code) = code else { return };
        match code {
            // Says less than what it follows, such as a wrong password.
            Code::AllBrokersDown if self.troubles.brokers.is_some() => {}
            Code::AllBrokersDown => {
                self.port.observed.connected.store(false, Ordering::Release);
                let why = self.troubles.connection.as_ref();
                self.troubles.brokers =
                    Some(why.map_or_else(|| text.clone(), |why| format!("{text}: {why}")));
            }
            // Said of one broker: others may do.
            Code::BrokerTransportFailure
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::Resolve => self.troubles.connection = Some(text),
            Code::Fatal => {
                self.port.observed.connected.store(false, Ordering::Release);
                self.troubles.brokers = Some(text);
            }
            Code::GroupAuthorizationFailed => {
                self.troubles.refused.insert((GROUP.to_owned(), None), text);
            }
            code if is_of_a_topic(code) || code == Code::AutoOffsetReset => {
                let of = match (place, missing) {
                    (Some((topic, number)), _) => (topic.to_owned(), Some(number)),
                    (None, missing) => (missing.unwrap_or_else(|| text.clone()), None),
                };
                self.troubles.refused.insert(of, text);
            }
            _ => {} // one broker of several, a timeout: librdkafka sees to it
        }
    }

    /// Whoever creates the topic, or allows it, shall know that this needs no restart, and takes a
    /// while.
    fn looked_for_again(&self) -> String {
        let every = settings::look_for_topics_every(&self.client);
        let every = every.map(humantime::format_duration);
        every.map_or_else(String::new, |every| format!(" (looked for again every {every})"))
    }
}

/// What librdkafka says of a partition that it then leaves alone until it is assigned anew.
const NO_COMMITTED: &str = "Failed to fetch committed offset";
const NOT_ASKED_AGAIN: &str =
    " (the client does not ask again by itself: allow it, then restart the bridge)";

/// An error that is over when the brokers describe the topic in another way.
fn is_of_a_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
    )
}

/// librdkafka says `Subscribed topic not available: NAME: why`.
fn topic_in(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("Subscribed topic not available: ")?;
    rest.split_once(": ").map(|(topic, _)| topic)
}
