//! What librdkafka calls back: everything is noted down and dealt with between two polls, on the
//! same thread. A callback never waits and never calls the pipeline: it runs inside a poll, when
//! the chunk being built has not been handed over yet.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Statistics, TopicPartitionList};

use super::lag;

/// What happened inside a poll.
pub(super) enum Happening {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
    Stats(lag::Stats),
}

#[derive(Default)]
pub(super) struct Context {
    happened: Mutex<Vec<Happening>>,
    /// The words that came with the error which the poll is about to return.
    reason: Mutex<Option<String>>,
    /// The consumer is being closed: rebalances are waved through.
    closing: AtomicBool,
}

impl Context {
    pub(super) fn take(&self) -> Vec<Happening> {
        std::mem::take(&mut *self.happened.lock().expect("no panic while held"))
    }

    pub(super) fn take_reason(&self) -> Option<String> {
        self.reason.lock().expect("no panic while held").take()
    }

    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn note(&self, happening: Happening) {
        self.happened.lock().expect("no panic while held").push(happening);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes again as an error, with a rate limit; these lines repeat at each
        // attempt to connect.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(event = "kafka_error", facility, "librdkafka: {message}");
            }
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn stats_raw(&self, json: &[u8]) {
        match lag::parse(json) {
            Ok(stats) => self.note(Happening::Stats(stats)),
            Err(error) => tracing::debug!("unreadable librdkafka statistics: {error}"),
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        *self.reason.lock().expect("no panic while held") = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {
    /// Only notes the rebalance down: the group waits until the loop has assigned or unassigned.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            if let Err(error) = let_go(consumer, list, assign) {
                tracing::warn!(event = "kafka_leave_failed", "leaving the Kafka group: {error}");
            }
        } else if assign {
            self.note(Happening::Assign(list.clone()));
        } else {
            self.note(Happening::Revoke(list.clone()));
        }
    }
}

/// Answers a rebalance with nothing: what was assigned is not taken, what is revoked goes.
fn let_go(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
    assign: bool,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative if assign => {
            consumer.incremental_assign(&TopicPartitionList::new())
        }
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        _ => consumer.unassign(),
    }
}
