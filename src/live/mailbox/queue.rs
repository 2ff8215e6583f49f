//! One queue of a mailbox: what waits for a subscription, and what of it was lost.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::LiveQueue;
use crate::flow::Buffer;
use crate::live::drops::DropLog;
use crate::live::protocol::{Info, Text, info};
use crate::record::UnixMs;

/// A queue of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) struct QueueId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) id: QueueId,
    /// As it was asked for: a name or a pattern.
    pub(super) topic: Arc<str>,
    pub(super) buffer: Buffer<Text>,
    pub(super) drops: DropLog,
    since: UnixMs,
    /// Said when the last of it was taken; then it is gone.
    pub(super) farewell: Option<Text>,
}

/// A queue at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueStatus {
    pub topic: Arc<str>,
    pub size: usize,
    pub max: usize,
    pub bytes: usize,
    pub delivered: u64,
    pub dropped: u64,
    pub since: UnixMs,
}

impl Queue {
    /// It gives out nothing before its buffer is resumed.
    pub(super) fn new(
        id: QueueId,
        topic: &str,
        queue: LiveQueue,
        since: UnixMs,
        now: Instant,
    ) -> Self {
        let mut buffer = Buffer::new(queue.size, queue.strategy, now).weighing_at_most(queue.bytes);
        buffer.pause();
        let (topic, drops, farewell) = (topic.into(), DropLog::default(), None);
        Self { id, topic, buffer, drops, since, farewell }
    }

    /// What waits, until there are so many, and between it what was lost there. What was lost last is
    /// told when nothing waits any more: what comes next may come in hours.
    pub(super) fn take(
        &mut self,
        into: &mut Vec<Text>,
        most: usize,
        now: Instant,
        ts: &impl Fn() -> String,
    ) {
        while into.len() < most
            && let Some(taken) = self.buffer.take(now)
        {
            self.told(taken.missed, into, ts);
            into.push(taken.item);
        }
        if self.buffer.is_empty() {
            let missed = self.buffer.take_missed();
            self.told(missed, into, ts);
        }
    }

    fn told(&self, missed: u64, into: &mut Vec<Text>, ts: &impl Fn() -> String) {
        if missed > 0 {
            into.push(info(Info::Dropped { topic: &self.topic, count: missed }, &ts()));
        }
    }

    pub(super) fn status(&mut self, now: Instant) -> QueueStatus {
        let metrics = self.buffer.metrics(now);
        QueueStatus {
            topic: Arc::clone(&self.topic),
            size: metrics.current_depth,
            max: self.buffer.capacity(),
            bytes: self.buffer.weight(),
            delivered: metrics.consumed_count,
            dropped: metrics.dropped_count.total(),
            since: self.since,
        }
    }
}
