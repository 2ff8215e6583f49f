//! Publishing to the topics of users: in memory, to those who are subscribed now.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Live, no_such};
use crate::live::protocol::{self, Code, Problem, Text};
use crate::live::topic::{Offered, Owner, Published, Topic};

impl Live {
    fn topic_of_user(&self, name: &str) -> Result<Arc<Topic>, Problem> {
        let topic = self.lock().topics.get(name).map(Arc::clone).ok_or_else(|| no_such(name))?;
        if topic.owner != Owner::User {
            let text = format!("{name} is what a route carries; it takes what its source brings");
            return Err(Problem::bad(text));
        }
        Ok(topic)
    }

    /// Publishes to a topic of a user, and waits for nobody.
    ///
    /// # Errors
    ///
    /// When there is no such topic.
    pub fn publish(&self, topic: &str, id: Uuid, payload: &RawValue) -> Result<Published, Problem> {
        let (to, text) = self.written(topic, id, payload)?;
        to.publish(&[text], Instant::now()).ok_or_else(|| no_such(topic))
    }

    /// The same as soon as every subscriber has room for it, within `live.block_timeout`.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or no room in time: then it was not published.
    pub async fn publish_with_room(
        &self,
        topic: &str,
        id: Uuid,
        payload: &RawValue,
    ) -> Result<Published, Problem> {
        let (to, text) = self.written(topic, id, payload)?;
        let deadline = Instant::now() + self.settings.block_timeout;
        loop {
            let drained = self.drained.notified();
            match to.publish_if_room(&text, Instant::now()) {
                Offered::Done(published) => return Ok(published),
                Offered::Deleted => return Err(no_such(topic)),
                Offered::Full => {}
            }
            if tokio::time::timeout_at(deadline, drained).await.is_err() {
                let text = "a subscriber has no room; the message was not published";
                return Err(Problem::new(Code::SlowConsumer, text));
            }
        }
    }

    fn written(
        &self,
        topic: &str,
        id: Uuid,
        payload: &RawValue,
    ) -> Result<(Arc<Topic>, Text), Problem> {
        let to = self.topic_of_user(topic)?;
        let ts = protocol::timestamp(jiff::Timestamp::now());
        let text = protocol::event(&to.name, id, payload.get(), &ts);
        Ok((to, text))
    }
}
