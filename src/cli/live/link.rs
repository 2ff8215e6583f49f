//! A feed that is followed through reconnections: owns the connection, what is subscribed to on it,
//! and up to where it was seen. Says on stderr when it is lost and when it is there again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::resume::{REMEMBERED, Resume};
use super::show::Told;
use super::socket::Socket;
use super::{Bridge, Trouble, note};
use crate::config::Retry;
use crate::retry;

/// Soon at first: most bridges that go come again at once.
const AGAIN: Retry =
    Retry { base_delay: Duration::from_millis(500), max_delay: Duration::from_secs(10) };

pub(super) struct Link {
    bridge: Bridge,
    /// Bytes on the way to us, where they are to be few.
    narrow: Option<u32>,
    socket: Option<Socket>,
    failures: u32,
    /// By topic, as what it was asked for.
    subscriptions: BTreeMap<String, Json>,
    resume: Resume,
    asked: u64,
}

impl Link {
    /// The first connection: who cannot be reached now is not waited for.
    pub(super) async fn open(bridge: Bridge, narrow: Option<u32>) -> Result<Self, Trouble> {
        let socket = Socket::connect(&bridge, narrow).await?;
        let subscriptions = BTreeMap::new();
        let resume = Resume::default();
        let socket = Some(socket);
        Ok(Self { bridge, narrow, socket, failures: 0, subscriptions, resume, asked: 0 })
    }

    pub(super) fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Asks for a topic; `more` goes into the message. It is asked for again after a reconnection.
    pub(super) async fn subscribe(&mut self, topic: &str, more: &Json) -> Result<(), Trouble> {
        let mut ask = more.clone();
        ask["type"] = json!("subscribe");
        ask["topic"] = json!(topic);
        self.say(ask.clone()).await?;
        self.resume.asked_for();
        self.subscriptions.insert(topic.to_owned(), ask);
        Ok(())
    }

    pub(super) async fn unsubscribe(&mut self, topic: &str) -> Result<(), Trouble> {
        self.subscriptions.remove(topic);
        self.say(json!({ "type": "unsubscribe", "topic": topic })).await
    }

    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscriptions.contains_key(topic)
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// Sends a request under a number of its own.
    pub(super) async fn say(&mut self, mut message: Json) -> Result<(), Trouble> {
        let Some(socket) = &mut self.socket else {
            return Err(Trouble::Away("not connected".to_owned()));
        };
        self.asked += 1;
        message["request_id"] = json!(self.asked);
        socket.say(&message).await
    }

    /// The next message that is new. Reconnects where it must; may be cancelled.
    pub(super) async fn next(&mut self) -> Result<String, Trouble> {
        loop {
            let Some(socket) = &mut self.socket else {
                self.reconnect().await?;
                continue;
            };
            match socket.hear().await {
                Ok(text) if self.is_new(&text) => return Ok(text),
                Ok(_) => {}
                Err(Trouble::Away(why)) => {
                    note(&format!("{why}; connecting again"));
                    self.socket = None;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    pub(super) async fn part(self) {
        if let Some(socket) = self.socket {
            socket.part().await;
        }
    }

    /// Keeps books of what a message says, and whether it is to be shown.
    fn is_new(&mut self, text: &str) -> bool {
        let Some(told) = Told::read(text) else { return true };
        match &told.message {
            Some(message) => self.resume.is_new(&message.id, &told.ts),
            None => {
                self.resume.is_now(&told.ts);
                if told.event.as_deref() == Some("topic_deleted") {
                    self.subscriptions.remove(&*told.topic);
                }
                true
            }
        }
    }

    /// One try, after a wait that grows.
    async fn reconnect(&mut self) -> Result<(), Trouble> {
        self.failures += 1;
        sleep(retry::delay(&AGAIN, self.failures)).await;
        let mut socket = match Socket::connect(&self.bridge, self.narrow).await {
            Ok(socket) => socket,
            Err(Trouble::Away(_)) => return Ok(()),
            Err(trouble) => return Err(trouble),
        };
        self.resume.reconnected();
        for subscription in self.subscriptions.values() {
            let mut again = subscription.clone();
            again["last_n"] = json!(REMEMBERED);
            self.asked += 1;
            again["request_id"] = json!(self.asked);
            if socket.say(&again).await.is_err() {
                return Ok(());
            }
        }
        note("connected again; what came meanwhile follows as far as the bridge remembers it");
        (self.socket, self.failures) = (Some(socket), 0);
        Ok(())
    }
}
