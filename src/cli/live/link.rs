//! A feed that is followed through reconnections: owns the connection, and what is remembered for the
//! next one. Says on stderr when it is lost and when it is there again; a topic that a bridge has not
//! any more, because it has started again, is waited for.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::resume::Resume;
use super::show::Told;
use super::socket::Socket;
use super::{Bridge, Trouble, note};
use crate::config::Retry;
use crate::retry;

/// Soon at first: most bridges that go come again at once.
const AGAIN: Retry =
    Retry { base_delay: Duration::from_millis(500), max_delay: Duration::from_secs(10) };

/// Between two questions for a topic that is not there any more.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What the bridge says then.
const NOT_FOUND: &str = "TOPIC_NOT_FOUND";

pub(super) struct Link {
    bridge: Bridge,
    /// Bytes on the way to us, where they are to be few.
    narrow: Option<u32>,
    socket: Option<Socket>,
    failures: u32,
    resume: Resume,
    asked: u64,
    /// When topics that are not there any more are asked for.
    look_again: Option<Instant>,
}

impl Link {
    /// The first connection: who cannot be reached now is not waited for.
    pub(super) async fn open(bridge: Bridge, narrow: Option<u32>) -> Result<Self, Trouble> {
        let socket = Some(Socket::connect(&bridge, narrow).await?);
        let resume = Resume::default();
        Ok(Self { bridge, narrow, socket, failures: 0, resume, asked: 0, look_again: None })
    }

    pub(super) fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Asks for a topic; `more` goes into the message. It is asked for again after a reconnection.
    pub(super) async fn subscribe(&mut self, topic: &str, more: &Json) -> Result<(), Trouble> {
        let mut ask = more.clone();
        ask["type"] = json!("subscribe");
        ask["topic"] = json!(topic);
        let request = self.say(ask.clone()).await?;
        if !self.resume.is_subscribed(topic) {
            self.resume.asked_for(topic, ask, request);
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&mut self, topic: &str) -> Result<(), Trouble> {
        self.resume.forget(topic);
        self.say(json!({ "type": "unsubscribe", "topic": topic })).await.map(drop)
    }

    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.resume.is_subscribed(topic)
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        !self.resume.is_empty()
    }

    /// Sends a request under a number of its own, and says which.
    pub(super) async fn say(&mut self, mut message: Json) -> Result<u64, Trouble> {
        let request = self.number(&mut message);
        let Some(socket) = &mut self.socket else {
            return Err(Trouble::Away("not connected".to_owned()));
        };
        socket.say(&message).await?;
        Ok(request)
    }

    fn number(&mut self, message: &mut Json) -> u64 {
        self.asked += 1;
        message["request_id"] = json!(self.asked);
        self.asked
    }

    /// The next message that is new. Reconnects where it must; may be cancelled.
    pub(super) async fn next(&mut self) -> Result<String, Trouble> {
        loop {
            let Some(socket) = &mut self.socket else {
                self.reconnect().await?;
                continue;
            };
            let at = self.look_again;
            let heard = tokio::select! {
                heard = socket.hear() => Some(heard),
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => None,
            };
            let heard = match heard {
                Some(heard) => heard.map(Some),
                None => self.ask_for_missing().await.map(|()| None),
            };
            match heard {
                Ok(Some(text)) if self.is_new(&text) => return Ok(text),
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
        if let Some(message) = &told.message {
            return self.resume.is_new(&told.topic, &message.id, &told.ts);
        }
        match (told.request_id, &told.error) {
            (Some(request), None) => self.resume.acknowledged(request, &told.ts),
            (Some(request), Some(error)) if error.code == NOT_FOUND => {
                return !self.is_awaited(request);
            }
            _ => {}
        }
        if told.event.as_deref() == Some("topic_deleted") {
            self.resume.forget(&told.topic);
        }
        true
    }

    /// Whether a topic that is not there was there before: then it is waited for.
    fn is_awaited(&mut self, request: u64) -> bool {
        let Some((topic, is_news)) = self.resume.not_found(request) else { return false };
        if is_news {
            note(&format!("{topic} is not there any more; waiting until it is"));
        }
        self.look_again = Some(Instant::now() + LOOK_AGAIN);
        true
    }

    /// Asks for all that was there before, and was not lately.
    async fn ask_for_missing(&mut self) -> Result<(), Trouble> {
        for (topic, ask) in self.resume.missing() {
            let request = self.say(ask).await?;
            self.resume.asked_again(&topic, request, true);
        }
        self.look_again = None;
        Ok(())
    }

    /// One try, after a wait that grows.
    async fn reconnect(&mut self) -> Result<(), Trouble> {
        self.failures += 1;
        self.look_again = None;
        sleep(retry::delay(&AGAIN, self.failures)).await;
        let mut socket = match Socket::connect(&self.bridge, self.narrow).await {
            Ok(socket) => socket,
            Err(Trouble::Away(_)) => return Ok(()),
            Err(trouble) => return Err(trouble),
        };
        self.resume.reconnected();
        for (topic, mut ask) in self.resume.all() {
            let request = self.number(&mut ask);
            if socket.say(&ask).await.is_err() {
                return Ok(());
            }
            self.resume.asked_again(&topic, request, false);
        }
        note("connected again; what came meanwhile follows as far as the bridge remembers it");
        (self.socket, self.failures) = (Some(socket), 0);
        Ok(())
    }
}
