//! Dead letters on a NATS subject that a JetStream stream takes.
//!
//! A letter counts when the stream has acknowledged it: a core publish is kept by nobody. Each
//! carries a message id made from its content, so that one that is sent again because its
//! acknowledgement was lost is recognised within the stream's duplicate window. The connection is
//! the letters' own, and may be down: they are held and tried again.

mod read;

use std::error::Error as _;
use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{GetStreamByNameErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;

use super::landed::Landed;
use crate::causes::causes;
use crate::config;
use crate::sink::{Insert, InsertError, Refusal};
use crate::source::nats::{server_addresses, with_identity};

/// Letters under way at a time, of up to `max_payload` each.
const AT_A_TIME: usize = 64;
/// For an acknowledgement, and for questions about the stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// JetStream's code for what passes by itself: no leader, not enough members, not enough memory.
const UNAVAILABLE: usize = 503;

/// The subject, and the connection that publishes on it.
#[derive(Debug)]
pub struct Subject {
    name: String,
    client: Client,
    stream: Context,
    landed: Landed,
}

impl Subject {
    /// Begins to connect; a server that is down is waited for.
    ///
    /// # Errors
    /// When a file that `[nats]` names cannot be read, or does not hold what it should.
    pub async fn new(config: &config::Nats, instance: &str, subject: &str) -> anyhow::Result<Self> {
        let options = ConnectOptions::new()
            .name(format!("data-bridge {instance} dead letters"))
            .retry_on_initial_connect();
        let options = with_identity(options, config).await?;
        let client = options.connect(server_addresses(config)?).await?;
        let mut stream = jetstream::new(client.clone());
        stream.set_timeout(ANSWER_WITHIN);
        Ok(Self { name: subject.to_owned(), client, stream, landed: Landed::default() })
    }

    /// Whether a stream takes the subject; and what would make it forget letters.
    pub async fn look(&self) -> Result<Vec<String>, InsertError> {
        let asking = self.stream.stream_by_subject(self.name.clone());
        let found = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        let Ok(found) = found else { return Err(self.silent()) };
        let stream = found.map_err(|error| match error.kind() {
            GetStreamByNameErrorKind::NotFound => self.no_stream(),
            _ => InsertError::Retry(said(format!("JetStream: {}", causes(&error)))),
        })?;
        Ok(self.caveats(&stream).await)
    }

    /// What the stream's settings do to letters that nobody has looked at.
    async fn caveats(&self, stream: &str) -> Vec<String> {
        let Ok(found) = self.stream.get_stream(stream).await else { return Vec::new() };
        let config = &found.cached_info().config;
        let mut caveats = Vec::new();
        if config.storage == StorageType::Memory {
            caveats.push(format!("stream {stream} is in memory: a restart of NATS loses them"));
        }
        if !config.max_age.is_zero() {
            let age = humantime::format_duration(config.max_age);
            caveats.push(format!("stream {stream} deletes them after {age} (max_age)"));
        }
        let limited = [config.max_messages, config.max_bytes, config.max_messages_per_subject];
        if config.discard == DiscardPolicy::Old && limited.iter().any(|&limit| limit > 0) {
            caveats.push(format!(
                "stream {stream} deletes the oldest when it is full; with discard = new it would \
                 refuse new ones, which are then held"
            ));
        }
        caveats
    }

    /// Returns `Ok` only when the stream has acknowledged every letter.
    pub async fn append(&self, insert: Insert) -> Result<(), InsertError> {
        self.landed.publish(&insert, AT_A_TIME, |line| self.publish(line)).await
    }

    async fn publish(&self, line: Bytes) -> Result<(), InsertError> {
        let bytes = line.len();
        let mut headers = HeaderMap::new();
        let content = xxhash_rust::xxh3::xxh3_128(&line);
        headers.insert(NATS_MESSAGE_ID, format!("{content:032x}").as_str());
        let publishing = async {
            let sent = self.stream.publish_with_headers(self.name.clone(), headers, line).await?;
            sent.await
        };
        // While there is no connection, even handing over may wait.
        match tokio::time::timeout(2 * ANSWER_WITHIN, publishing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.refused(&error, bytes)),
            Err(_) => Err(self.silent()),
        }
    }

    fn refused(&self, error: &PublishError, bytes: usize) -> InsertError {
        let subject = &self.name;
        match error.kind() {
            PublishErrorKind::StreamNotFound => self.no_stream(),
            PublishErrorKind::MaxPayloadExceeded => {
                let most = self.client.server_info().max_payload;
                InsertError::AwaitFix(said(format!(
                    "a dead letter of {bytes} bytes is more than NATS takes ({most}): raise \
                     max_payload, or keep dead letters elsewhere (dead_letters.to)"
                )))
            }
            PublishErrorKind::TimedOut => self.silent(),
            _ => {
                let text = format!("subject {subject}: {}", causes(error));
                match answered(error) {
                    Some(code) if code != UNAVAILABLE => InsertError::AwaitFix(said(format!(
                        "{text}; make room in its stream, or correct its limits"
                    ))),
                    _ => InsertError::Retry(said(text)),
                }
            }
        }
    }

    fn no_stream(&self) -> InsertError {
        let subject = &self.name;
        InsertError::AwaitFix(said(format!(
            "no JetStream stream takes the subject {subject}, so nobody would keep dead letters: \
             create one (`nats stream add DEAD_LETTERS --subjects {subject} --storage file`), or \
             correct dead_letters.subject"
        )))
    }

    fn silent(&self) -> InsertError {
        let state = self.client.connection_state();
        InsertError::Retry(said(format!(
            "subject {}: no answer from JetStream (connection: {state})",
            self.name
        )))
    }
}

fn said(message: String) -> Refusal {
    Refusal::without_code(message)
}

/// The status of JetStream's own answer, if it gave one.
fn answered(error: &PublishError) -> Option<usize> {
    let error = error.source()?.downcast_ref::<jetstream::Error>()?;
    Some(error.code())
}
