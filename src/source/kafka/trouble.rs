//! What goes wrong on the way to Kafka: which errors say that the source does not get on, and how
//! often the others are logged. None of them ends the source.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

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
    /// What a broker refuses, by topic (or [`GROUP`]); over when partitions of it are assigned.
    refused: BTreeMap<String, String>,
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
        self.refused.remove(topic);
        self.refused.remove(GROUP);
    }

    /// What to tell the pipeline, if it is not what it was told last.
    pub(super) fn news(&mut self) -> Option<Option<String>> {
        let all = self.brokers.iter().chain(self.refused.values());
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
                tracing::warn!(repeated, "Kafka: {text}");
                self.logged.insert(kind.to_owned(), (now, 0));
            }
        }
    }
}

impl Poller {
    /// `reason` are the words that came with it.
    pub(super) fn apply_error(&mut self, error: &KafkaError, reason: Option<String>) {
        let mut text = remedy::with_remedy(&reason.unwrap_or_else(|| error.to_string()));
        let code = error.rdkafka_error_code();
        if code.is_some_and(is_of_a_topic) {
            text += &self.looked_for_again();
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
            Code::BrokerTransportFailure => self.troubles.connection = Some(text),
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::Resolve
            | Code::Fatal => {
                self.port.observed.connected.store(false, Ordering::Release);
                self.troubles.brokers = Some(text);
            }
            Code::GroupAuthorizationFailed => {
                self.troubles.refused.insert(GROUP.to_owned(), text);
            }
            code if is_of_a_topic(code) || code == Code::AutoOffsetReset => {
                let topic = topic_in(&text).unwrap_or(&text).to_owned();
                self.troubles.refused.insert(topic, text);
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
