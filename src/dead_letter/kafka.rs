//! Dead letters in a Kafka topic: one record a letter, its key the letter's id.
//!
//! A letter counts when all in-sync replicas have it (`acks=all`). The producer is not idempotent
//! in Kafka's sense, on purpose: a repeated record has the same key and content, so readers (and a
//! compacted topic) see one letter, and no sequence error can ever make the client unusable.

mod read;

use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::landed::Landed;
use crate::config;
use crate::sink::{Insert, InsertError, Refusal};
use crate::source::kafka::settings;

/// Letters under way at a time: the client puts them into few requests.
const AT_A_TIME: usize = 256;
/// After this the outcome is unknown, and the letter is sent again. Below the client's default of
/// 5 minutes: the pipeline's own retries say more, and sooner.
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);
/// For questions about the topic.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The client's own limit is out of the way: the topic's decides.
const NO_LIMIT_BYTES: &str = "1000000000";

/// The topic, and the producer that writes to it.
pub struct Topic {
    name: String,
    client: ClientConfig,
    producer: ThreadedProducer<Deliveries>,
    landed: Landed,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Topic {
    /// A producer; nothing is connected yet.
    ///
    /// # Errors
    /// When librdkafka refuses the settings of `[kafka]`.
    pub fn new(config: &config::Kafka, instance: &str, topic: &str) -> anyhow::Result<Self> {
        let client = settings::connection(config, &format!("data-bridge-{instance}-letters"));
        let mut producer = client.clone();
        for (key, value) in [
            ("acks", "all"),
            ("compression.type", "lz4"),
            // Letters are few, and each is waited for.
            ("linger.ms", "5"),
            ("message.max.bytes", NO_LIMIT_BYTES),
            ("message.timeout.ms", &DELIVERED_WITHIN.as_millis().to_string()),
            ("reconnect.backoff.max.ms", "5000"),
            // A topic that is missing is said to be so, not waited for.
            ("topic.metadata.propagation.max.ms", "5000"),
            ("log.connection.close", "false"),
        ] {
            producer.set(key, value);
        }
        let producer = producer.create_with_context(Deliveries).map_err(settings::refused)?;
        Ok(Self { name: topic.to_owned(), client, producer, landed: Landed::default() })
    }

    /// Whether the topic is there; and what would make it forget letters.
    pub async fn look(&self) -> Result<Vec<String>, InsertError> {
        let (producer, name) = (self.producer.clone(), self.name.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&name), ANSWER_WITHIN)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            match topic.map(|topic| topic.error().map(Code::from)) {
                Some(None) => Ok(()),
                Some(Some(code)) => Err(KafkaError::MetadataFetch(code)),
                None => Err(KafkaError::MetadataFetch(Code::UnknownTopic)),
            }
        });
        match asking.await {
            Ok(answer) => answer.map_err(|error| self.refused(&error))?,
            Err(error) => return Err(InsertError::Retry(said(error.to_string()))),
        }
        Ok(self.forgets().await.into_iter().collect())
    }

    /// What the topic's settings do to letters that nobody has looked at; None if nothing, or if
    /// the brokers do not say.
    async fn forgets(&self) -> Option<String> {
        let admin: AdminClient<DefaultClientContext> = self.client.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let topic = ResourceSpecifier::Topic(&self.name);
        let answers = admin.describe_configs([&topic], &options).await.ok()?;
        let settings = answers.into_iter().next()?.ok()?;
        let value = |name: &str| settings.get(name)?.value.clone();
        if !value("cleanup.policy")?.contains("delete") {
            return None;
        }
        let age_ms: i64 = value("retention.ms")?.parse().ok()?;
        let size: i64 = value("retention.bytes")?.parse().ok()?;
        let after = match u64::try_from(age_ms) {
            Ok(ms) => humantime::format_duration(Duration::from_millis(ms)).to_string(),
            Err(_) if size >= 0 => format!("{size} bytes a partition"),
            Err(_) => return None,
        };
        let name = &self.name;
        Some(format!(
            "topic {name} deletes them after {after} (retention.ms, retention.bytes); set \
             cleanup.policy=compact to keep the newest of each id for ever"
        ))
    }

    /// Returns `Ok` only when every letter is acknowledged by all in-sync replicas.
    pub async fn append(&self, insert: Insert) -> Result<(), InsertError> {
        self.landed.publish(&insert, AT_A_TIME, |line| self.publish(line)).await
    }

    async fn publish(&self, line: Bytes) -> Result<(), InsertError> {
        let labels: Labels = serde_json::from_slice(&line)
            .map_err(|error| InsertError::AwaitFix(said(format!("no dead letter: {error}"))))?;
        let (delivered, delivery) = oneshot::channel();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "route", value: Some(&labels.route) })
            .insert(Header { key: "reason", value: Some(&labels.reason) });
        let record = BaseRecord::with_opaque_to(&self.name, Box::new(delivered))
            .key(labels.id.as_str())
            .payload(&line[..])
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| self.refused(&error))?;
        match delivery.await {
            Ok(result) => result.map_err(|error| self.refused(&error)),
            Err(_) => Err(InsertError::Retry(said("the Kafka client was closed".to_owned()))),
        }
    }

    /// What is to be done about an error.
    fn refused(&self, error: &KafkaError) -> InsertError {
        let topic = &self.name;
        let code = error.rdkafka_error_code();
        let remedy = match code {
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                format!("topic {topic} does not exist: create it, or correct dead_letters.topic")
            }
            Some(Code::MessageSizeTooLarge) => format!(
                "topic {topic} takes no letter so large: raise its max.message.bytes (and the \
                 brokers' message.max.bytes)"
            ),
            Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                format!("we may not write to topic {topic}: allow WRITE and DESCRIBE on it")
            }
            Some(Code::PolicyViolation | Code::InvalidRecord) => {
                format!("topic {topic} refuses letters: {error}")
            }
            Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
                "Kafka does not accept our login: correct sasl.* in [kafka.client]".to_owned()
            }
            _ => return InsertError::Retry(said(format!("topic {topic}: {error}"))),
        };
        InsertError::AwaitFix(said(remedy))
    }
}

fn said(message: String) -> Refusal {
    Refusal::without_code(message)
}

/// What of a letter the record says outside its payload.
#[derive(Deserialize)]
struct Labels {
    id: String,
    route: String,
    reason: String,
}

/// Passes what became of a record to whoever waits for it.
#[derive(Clone)]
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "librdkafka (dead letters): {message}");
    }

    fn error(&self, _: KafkaError, reason: &str) {
        tracing::debug!("librdkafka (dead letters): {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more when the attempt was given up.
        drop(waiting.send(result));
    }
}
