//! What one connection may say, and what becomes of it. Knows no socket: it is given texts, and
//! answers into its mailbox. What is published to a route is a record, which goes another way: it
//! gives that back as an [`Offer`], which whoever takes it there answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::hub::publish::Target;
use super::hub::{self, Live, Refusal};
use super::mailbox::{Mailbox, Owed};
use super::protocol::{self, Ask, Code, Problem, Publish, RequestId, Subscribe};
use super::topic::Published;
use crate::rate::TokenBucket;

/// When to come again with a message that found too many before it.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// A message for a route, on its way to be a record. Its connection goes on meanwhile, and does not
/// end before it is answered.
#[derive(Debug)]
pub struct Offer {
    owed: Owed,
    request_id: Option<Box<RawValue>>,
    pub topic: String,
    pub id: Uuid,
    pub payload: Bytes,
    /// It is to be answered when it is in ClickHouse, not when it is held.
    pub durable: bool,
}

impl Offer {
    /// It is as far as was asked for. `dead_letter`: it is stored as one.
    pub fn accept(self, dead_letter: bool) {
        let Self { owed, request_id, topic, id, durable, .. } = self;
        let letter = if dead_letter { r#","dead_letter":true"# } else { "" };
        let more = format!(r#","id":"{id}","durable":{durable}{letter}"#);
        owed.pay(protocol::ack(request_id.as_deref(), &topic, &more, &now()));
    }

    pub fn refuse(self, problem: &Problem) {
        self.owed.pay(protocol::error(self.request_id.as_deref(), problem, &now()));
    }
}

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

    /// Does what a message says, and answers, unless it is for a route. Waits only where the message
    /// asks for it.
    pub async fn hear(&mut self, text: &str) -> Option<Offer> {
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
                Ok(None)
            }
            Ok(Ask::Subscribe(ask)) => {
                self.live.subscribe(self.id, request_id, &ask).map(|()| None)
            }
            Ok(Ask::Unsubscribe { topic }) => {
                let done = self.live.unsubscribe(self.id, &topic);
                done.map(|()| self.mailbox.note(protocol::ack(request_id, &topic, "", &now())))
                    .map(|()| None)
            }
            Ok(Ask::Publish(publish)) => self.publish(request_id, &publish).await,
        };
        done.unwrap_or_else(|problem| {
            self.refuse(request_id, &problem);
            None
        })
    }

    /// What was sent is no message at all.
    pub fn refuse_frame(&self, why: &str) {
        self.refuse(None, &Problem::new(Code::BadRequest, why));
    }

    async fn publish(
        &self,
        request_id: RequestId<'_>,
        publish: &Publish<'_>,
    ) -> Result<Option<Offer>, Problem> {
        let Publish { topic, id, payload, block, durable } = publish;
        let to = match self.live.target(topic)? {
            Target::User(to) => to,
            Target::Route => return self.offer(request_id, publish).map(Some),
        };
        if *durable {
            let text = format!("{topic} is in memory: nothing of it is ever durable");
            return Err(Problem::new(Code::BadRequest, text));
        }
        let Published { subscribers, .. } = if *block {
            self.live.publish_when_room(&to, *id, payload).await?
        } else {
            hub::publish::publish(&to, *id, payload)?
        };
        let more = format!(r#","id":"{id}","durable":false,"subscribers":{subscribers}"#);
        self.mailbox.note(protocol::ack(request_id, topic, &more, &now()));
        Ok(None)
    }

    fn offer(&self, request_id: RequestId<'_>, publish: &Publish<'_>) -> Result<Offer, Problem> {
        let Publish { topic, id, payload, block, durable } = publish;
        if *block {
            let text = format!(
                "{topic} is what a route carries: nothing that goes there waits for \
                                subscribers; leave out `block`"
            );
            return Err(Problem::bad(text));
        }
        let owed = self.mailbox.owe().ok_or_else(|| {
            let text = "too many messages of this connection wait to be durable";
            Problem::new(Code::RateLimited, text).again_after(COME_AGAIN)
        })?;
        let payload = Bytes::copy_from_slice(payload.get().as_bytes());
        let (request_id, topic) = (request_id.map(ToOwned::to_owned), topic.to_string());
        Ok(Offer { owed, request_id, topic, id: *id, payload, durable: *durable })
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
