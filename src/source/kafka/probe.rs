//! Asks the brokers what is there, and takes nothing: no group, no subscription, no assignment, no
//! commit. The client has no `group.id`, so it does not even look for a coordinator.

pub mod sample;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::{ClientConfig, ClientContext};

use super::{remedy, settings};
use crate::source::ProbeError;
use crate::{config, tls};

/// A broker far away answers within this, TLS and login included.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How soon a refused login is noticed: it will not be accepted by waiting.
const LOOK: Duration = Duration::from_secs(1);
/// For all topics that the list of topics did not have.
const MISSING_WITHIN: Duration = Duration::from_secs(3);

/// What the brokers said.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub brokers: usize,
    /// The partitions of each topic that we may see.
    pub topics: BTreeMap<String, usize>,
    /// Topics that we asked for and may not read, or that are not well, and why.
    pub refused: BTreeMap<String, String>,
}

impl Cluster {
    /// The topics that a route's entry means: one name, or what a `^` expression matches now.
    #[must_use]
    pub fn matching(&self, entry: &str) -> Vec<&str> {
        let names = self.topics.keys().map(String::as_str);
        match entry.starts_with('^').then(|| regex::Regex::new(entry)) {
            Some(Ok(expression)) => names.filter(|name| expression.is_match(name)).collect(),
            Some(Err(_)) => Vec::new(),
            None => names.filter(|name| *name == entry).collect(),
        }
    }
}

/// Asks for the brokers and their topics; waits some seconds for an answer.
///
/// # Errors
/// When no broker answers, one refuses us, or librdkafka refuses the settings or a pattern.
pub async fn probe(
    config: &config::Kafka,
    instance: &str,
    topics: &[String],
) -> Result<Cluster, ProbeError> {
    let refused = |error: anyhow::Error| ProbeError::Refused(format!("{error:#}"));
    settings::check_topics(topics).map_err(refused)?;
    let mut client = settings::client_config(config, instance).map_err(refused)?;
    client.remove("group.id").set("statistics.interval.ms", "0");
    let topics = topics.to_vec();
    let asking = tokio::task::spawn_blocking(move || ask(&client, &topics));
    match asking.await {
        Ok(Err(ProbeError::Refused(why))) if why.contains(CERTIFICATE) => {
            Err(ProbeError::Refused(diagnosed(config).await.unwrap_or(why)))
        }
        Ok(said) => said,
        Err(error) => Err(ProbeError::Refused(format!("Kafka: {error}"))),
    }
}

/// How OpenSSL refuses a certificate, whatever is wrong with it.
const CERTIFICATE: &str = "certificate verify failed";

/// What exactly is wrong with the certificate of a broker.
async fn diagnosed(config: &config::Kafka) -> Option<String> {
    let ca = config.client.get("ssl.ca.location").map(Path::new);
    for broker in &config.brokers {
        if let Some(advice) = tls::diagnose(broker, ca, &tls::Keys::KAFKA).await {
            return Some(format!("{broker}: {advice}"));
        }
    }
    None
}

fn ask(client: &ClientConfig, topics: &[String]) -> Result<Cluster, ProbeError> {
    let consumer: BaseConsumer<Listener> = client
        .create_with_context(Listener::default())
        .map_err(|error| ProbeError::Refused(format!("{:#}", settings::refused(error))))?;
    let metadata = all_metadata(&consumer)?;
    let mut cluster = Cluster { brokers: metadata.brokers().len(), ..Cluster::default() };
    for topic in metadata.topics() {
        cluster.note(topic);
    }
    let deadline = Instant::now() + MISSING_WITHIN;
    for topic in topics.iter().filter(|topic| !topic.starts_with('^')) {
        let left = deadline.saturating_duration_since(Instant::now());
        if cluster.topics.contains_key(topic) || left.is_zero() {
            continue;
        }
        // The list leaves out what we may not see; asked by its name, the broker says why.
        if let Ok(metadata) = consumer.fetch_metadata(Some(topic), left) {
            metadata.topics().iter().for_each(|topic| cluster.note(topic));
        }
    }
    Ok(cluster)
}

impl Cluster {
    fn note(&mut self, topic: &MetadataTopic) {
        match topic.error().map(Code::from) {
            None => {
                self.topics.insert(topic.name().to_owned(), topic.partitions().len());
            }
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {}
            Some(code) => {
                self.refused.insert(topic.name().to_owned(), code.to_string());
            }
        }
    }
}

fn all_metadata(consumer: &BaseConsumer<Listener>) -> Result<Metadata, ProbeError> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        let answer: KafkaResult<Metadata> = consumer.fetch_metadata(None, LOOK);
        let error = match answer {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // Serves the callbacks; without a subscription nothing else can come.
        drop(consumer.poll(Duration::ZERO));
        let said = consumer.context().said();
        if remedy::is_refusal(&said) {
            return Err(ProbeError::Refused(remedy::with_remedy(&said)));
        }
        if Instant::now() >= deadline {
            let hung_up = error.rdkafka_error_code() == Some(Code::BrokerTransportFailure);
            let why = match (said.is_empty(), hung_up) {
                (false, _) => said,
                (true, false) => error.to_string(),
                (true, true) => format!(
                    "{error}: it listens and hangs up; set security.protocol in [kafka.client] as \
                     this listener has it"
                ),
            };
            return Err(ProbeError::Unreachable(why));
        }
    }
}

/// Keeps why a broker could not be talked to: the error of a request says only that it failed.
#[derive(Default)]
struct Listener {
    /// The last failure of each broker, by its name.
    failures: Mutex<BTreeMap<String, String>>,
}

impl Listener {
    fn said(&self) -> String {
        let failures = self.failures.lock().expect("no panic while held");
        failures.values().cloned().collect::<Vec<_>>().join("; ")
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        if facility == "FAIL"
            && let Some((broker, why)) = failure(message)
        {
            let mut failures = self.failures.lock().expect("no panic while held");
            failures.insert(broker.to_owned(), format!("{broker}: {why}"));
        }
    }

    fn error(&self, _: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {reason}");
    }
}

impl ConsumerContext for Listener {}

/// From `[thrd:HOST:9092/bootstrap]: HOST:9092/bootstrap: WHY (after 0ms in state CONNECT)`: who
/// and why.
fn failure(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("]: ")?;
    let (broker, why) = rest.split_once(": ")?;
    let why = why.split_once(" (after ").map_or(why, |(why, _)| why);
    // librdkafka advises to raise a limit to what the other's text amounts to as a number.
    let foreign = why.contains("Invalid response size");
    let why = if foreign { "what answers is no Kafka broker, or wants TLS" } else { why };
    // A broker is named `sasl_ssl://host:port/id`.
    let broker = broker.split_once("://").map_or(broker, |(_, broker)| broker);
    let broker = broker.split_once('/').map_or(broker, |(broker, _)| broker);
    Some((broker, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_who_and_why() {
        let line = "[thrd:sasl_plaintext://kafka:9092/bootstrap]: sasl_plaintext://kafka:9092/1: \
                    Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state \
                    CONNECT, 1 identical error(s) suppressed)";
        let why = "Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(failure(line), Some(("kafka:9092", why)));
        assert!(!remedy::is_refusal(why));
        assert_eq!(failure("no such line"), None);
    }

    #[test]
    fn an_entry_is_a_name_or_an_expression() {
        let topics = ["a.b", "a.c", "axb"].map(|name| (name.to_owned(), 1));
        let cluster = Cluster { topics: topics.into(), ..Cluster::default() };
        assert_eq!(cluster.matching("a.b"), ["a.b"]);
        assert_eq!(cluster.matching("^a[.]"), ["a.b", "a.c"]);
        assert!(cluster.matching("^z").is_empty() && cluster.matching("z").is_empty());
    }
}
