//! What one connection may say, and what becomes of it. Knows no socket: it is given texts, and
//! answers into its mailbox.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::hub::{Live, Refusal};
use super::mailbox::Mailbox;
use super::protocol::{self, Ask, Code, Problem, Publish, RequestId, Subscribe};
use super::topic::Published;
use crate::rate::TokenBucket;

/// A connection; when it is dropped, its subscriptions end.
#[derive(Debug)]
pub struct Session {
    live: Arc<Live>,
    id: u64,
    mailbox: Arc<Mailbox>,
    messages: TokenBucket,
    /// The stop waits for it.
    _token: TaskTrackerToken,
}

impl Session {
    pub(super) fn new(
        live: Arc<Live>,
        id: u64,
        mailbox: Arc<Mailbox>,
        token: TaskTrackerToken,
    ) -> Self {
        let rate = live.settings.message_rate;
        let messages = TokenBucket::new(f64::from(rate), u64::from(rate), Instant::now());
        Self { live, id, mailbox, messages, _token: token }
    }

    /// A connection that only listens, to one topic.
    ///
    /// # Errors
    ///
    /// As [`Live::connect`]; or why it cannot be subscribed.
    pub fn listening(
        live: &Arc<Live>,
        address: IpAddr,
        subscribe: &Subscribe<'_>,
    ) -> Result<Result<Self, Problem>, Refusal> {
        let session = live.connect(address)?;
        let subscribed = session.live.subscribe(session.id, None, subscribe);
        Ok(subscribed.map(|()| session))
    }

    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Does what a message says, and answers. Waits only where the message asks for it.
    pub async fn hear(&mut self, text: &str) {
        let (request_id, ask) = protocol::parse(text);
        let done = match ask {
            _ if !self.messages.take(1, Instant::now()) => {
                let rate = self.live.settings.message_rate;
                let why = format!("more than {rate} messages a second (live.message_rate)");
                Err(Problem::new(Code::RateLimited, why))
            }
            Err(problem) => Err(problem),
            Ok(Ask::Ping) => {
                self.mailbox.note(protocol::pong(request_id, &now()));
                Ok(())
            }
            Ok(Ask::Subscribe(ask)) => self.live.subscribe(self.id, request_id, &ask),
            Ok(Ask::Unsubscribe { topic }) => {
                let done = self.live.unsubscribe(self.id, &topic);
                done.map(|()| self.mailbox.note(protocol::ack(request_id, &topic, "", &now())))
            }
            Ok(Ask::Publish(publish)) => self.publish(request_id, &publish).await,
        };
        if let Err(problem) = done {
            self.refuse(request_id, &problem);
        }
    }

    /// What was sent is no message at all.
    pub fn refuse_frame(&self, why: &str) {
        self.refuse(None, &Problem::new(Code::BadRequest, why));
    }

    async fn publish(
        &self,
        request_id: RequestId<'_>,
        publish: &Publish<'_>,
    ) -> Result<(), Problem> {
        let Publish { topic, id, payload, block, durable } = publish;
        if *durable {
            let text = format!("{topic} is in memory: nothing of it is ever durable");
            return Err(Problem::new(Code::BadRequest, text));
        }
        let Published { subscribers, .. } = if *block {
            self.live.publish_with_room(topic, *id, payload).await?
        } else {
            self.live.publish(topic, *id, payload)?
        };
        let more = format!(r#","id":"{id}","durable":false,"subscribers":{subscribers}"#);
        self.mailbox.note(protocol::ack(request_id, topic, &more, &now()));
        Ok(())
    }

    fn refuse(&self, request_id: Option<&RawValue>, problem: &Problem) {
        self.mailbox.note(protocol::error(request_id, problem, &now()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.live.leave(self.id);
    }
}

fn now() -> String {
    protocol::timestamp(jiff::Timestamp::now())
}
