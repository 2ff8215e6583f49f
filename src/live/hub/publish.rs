//! Publishing to the topics of users: in memory, to those who are subscribed now.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use super::{Live, no_such};
use crate::live::event;
use crate::live::protocol::{self, Code, Problem, Text};
use crate::live::topic::{Offered, Owner, Published, Topic};

/// Where a message goes.
#[derive(Debug)]
pub(in crate::live) enum Target {
    User(Arc<Topic>),
    /// It is a record, and goes the way of records.
    Route,
}

impl Live {
    /// Where what is published to this topic goes.
    pub(in crate::live) fn target(&self, name: &str) -> Result<Target, Problem> {
        let topic = self.lock().topics.get(name).map(Arc::clone).ok_or_else(|| no_such(name))?;
        match topic.owner {
            Owner::User => Ok(Target::User(topic)),
            Owner::Route => Ok(Target::Route),
            Owner::Key => {
                let text = format!("{name} is a part of a route's topic: publish to the whole");
                Err(Problem::bad(text))
            }
        }
    }

    pub(in crate::live) fn topic_of_user(&self, name: &str) -> Result<Arc<Topic>, Problem> {
        match self.target(name)? {
            Target::User(topic) => Ok(topic),
            Target::Route => {
                let text = format!("{name} is what a route carries: hand records to the route");
                Err(Problem::bad(text))
            }
        }
    }

    /// Publishes several payloads to a topic of a user, whatever they are, one behind the other, and
    /// waits for nobody. Each is given an id.
    ///
    /// # Errors
    ///
    /// When there is no such topic.
    pub fn publish_all(&self, topic: &str, payloads: &[Bytes]) -> Result<Published, Problem> {
        let to = self.topic_of_user(topic)?;
        let ts = protocol::timestamp(jiff::Timestamp::now());
        let written = |payload: &Bytes| {
            let id = Builder::from_random_bytes(rand::random()).into_uuid();
            event::of_payload(&to.name, id, payload, &ts)
        };
        let texts: Vec<Text> = payloads.iter().map(written).collect();
        to.publish(&texts, Instant::now()).ok_or_else(|| no_such(topic))
    }

    /// Publishes as soon as every subscriber has room for it, within `live.block_timeout`; if there
    /// is none in time, not at all.
    pub(in crate::live) async fn publish_when_room(
        &self,
        to: &Topic,
        id: Uuid,
        payload: &RawValue,
    ) -> Result<Published, Problem> {
        let text = written(to, id, payload);
        let deadline = Instant::now() + self.settings.block_timeout;
        let mut is_late = false;
        loop {
            let drained = self.drained.notified();
            match to.publish_if_room(&text, Instant::now()) {
                Offered::Done(published) => return Ok(published),
                Offered::Deleted => return Err(no_such(&to.name)),
                Offered::Full if is_late => {
                    let text = "a subscriber has no room; the message was not published";
                    return Err(Problem::new(Code::SlowConsumer, text));
                }
                Offered::Full => {}
            }
            is_late = tokio::time::timeout_at(deadline, drained).await.is_err();
        }
    }
}

/// Publishes, and waits for nobody.
pub(in crate::live) fn publish(
    to: &Topic,
    id: Uuid,
    payload: &RawValue,
) -> Result<Published, Problem> {
    let text = written(to, id, payload);
    to.publish(&[text], Instant::now()).ok_or_else(|| no_such(&to.name))
}

fn written(to: &Topic, id: Uuid, payload: &RawValue) -> Text {
    let ts = protocol::timestamp(jiff::Timestamp::now());
    protocol::event(&to.name, id, payload.get(), &ts)
}
