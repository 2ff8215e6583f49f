//! What there is, at one moment: for statistics and metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Live;
use crate::live::mailbox::{Mailbox, QueueStatus};
use crate::live::topic::{Owner, Topic, TopicStatus};

impl Live {
    /// Whose topic this is, if there is one.
    #[must_use]
    pub fn owner(&self, topic: &str) -> Option<Owner> {
        self.lock().topics.get(topic).map(|topic| topic.owner)
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicStatus> {
        let now = Instant::now();
        let topics: Vec<Arc<Topic>> = self.lock().topics.values().cloned().collect();
        topics.iter().map(|topic| topic.status(now)).collect()
    }

    /// All subscriptions, with what their clients call themselves; those that call themselves the
    /// same have a number behind it.
    #[must_use]
    pub fn subscribers(&self) -> Vec<(Arc<str>, QueueStatus)> {
        let now = Instant::now();
        let connections = self.lock();
        let mailboxes: Vec<Arc<Mailbox>> =
            connections.connections.values().map(|each| Arc::clone(&each.mailbox)).collect();
        drop(connections);
        let mut known: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
        let mut all = Vec::new();
        for mailbox in &mailboxes {
            let client = mailbox.client_id();
            for queue in mailbox.queues(now) {
                let same =
                    known.entry((Arc::clone(&queue.topic), Arc::clone(&client))).or_default();
                *same += 1;
                let name = match *same {
                    1 => Arc::clone(&client),
                    n => format!("{client}#{n}").into(),
                };
                all.push((name, queue));
            }
        }
        all
    }

    /// Records that were not seen under their key, because there were too many topics for it.
    #[must_use]
    pub fn keyless(&self) -> u64 {
        self.keyless.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }
}
