//! What is told of the live feed: by topic, and by subscriber only where that is asked for.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::out::{NONE, Out};
use crate::live::Live;

/// Subscribers that have series of their own.
const MAX_CLIENTS: usize = 100;

#[derive(Debug)]
pub(super) struct LiveCollector(Arc<Live>);

impl LiveCollector {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self(live)
    }
}

impl Collector for LiveCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let live = &self.0;
        let mut out = Out::new(encoder);
        let topics = live.topics();
        let of = |value: fn(&crate::live::TopicStatus) -> u64| {
            topics.iter().map(move |topic| ([("topic", topic.name.to_string())], value(topic)))
        };
        out.gauge(
            "live_connections",
            "Sockets and streams of the live feed",
            NONE,
            live.connections(),
        )?;
        let help = "Subscriptions by topic";
        out.gauges("live_subscribers", help, NONE, of(|topic| topic.subscribers as u64))?;
        let help = "Messages of the live feed by topic";
        out.counters("live_messages", help, NONE, of(|topic| topic.messages))?;
        let help = "Records that came faster than the live feed could take them, by topic";
        out.counters("live_overrun", help, NONE, of(|topic| topic.overrun))?;
        let help = "Records seen under no key, because there were live.max_topics topics";
        out.counter("live_keyless", help, NONE, live.keyless())?;
        let help = "Messages that slow subscribers lost, by topic";
        out.counters("subscriber_drops", help, NONE, of(|topic| topic.dropped))?;
        self.clients(&mut out)
    }
}

impl LiveCollector {
    fn clients(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let wanted = if self.0.settings().client_metrics { MAX_CLIENTS } else { 0 };
        let mut subscribers = self.0.subscribers();
        subscribers.truncate(wanted);
        let labels = |client: &Arc<str>, topic: &Arc<str>| {
            [("topic", topic.to_string()), ("client_id", client.to_string())]
        };
        let waiting = subscribers.iter().map(|(id, queue)| (labels(id, &queue.topic), queue.size));
        let help = "Messages that wait, of the first 100 subscribers, with live.client_metrics";
        out.gauges("subscriber_queue_messages", help, NONE, waiting)?;
        let lost = subscribers.iter().map(|(id, queue)| (labels(id, &queue.topic), queue.dropped));
        let help = "Messages lost, of the first 100 subscribers, with live.client_metrics";
        out.counters("subscriber_messages_dropped", help, NONE, lost)
    }
}
