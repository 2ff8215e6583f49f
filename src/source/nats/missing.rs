//! Finds out at the right moments how many messages the client dropped: `losses.rs` has the rule.

use std::sync::atomic::Ordering;

use async_nats::Client;
use futures_util::future::BoxFuture;

use super::fence::Fence;
use super::losses::Losses;

/// What is missing on one connection.
pub(super) struct Missing {
    client: Client,
    losses: Losses,
    /// Outstanding while the client has not answered.
    question: Option<BoxFuture<'static, u64>>,
    /// So many messages were counted when the client was asked; to be settled when all channels
    /// are empty.
    answered: Option<u64>,
    /// Lost, not yet reported.
    lost: u64,
}

impl Missing {
    pub(super) fn new(client: Client) -> Self {
        Self { client, losses: Losses::default(), question: None, answered: None, lost: 0 }
    }

    /// `n` messages came out of the channels, whether they became records or not.
    pub(super) fn took(&mut self, n: u64) {
        self.losses.took(n);
    }

    /// Asks the client to answer, if messages are missing. `flush` is no round trip to the server,
    /// but it is a command, and the client takes commands only between messages.
    pub(super) fn ask(&mut self) {
        let in_messages = self.in_messages();
        if self.question.is_none() && self.answered.is_none() && self.losses.suspects(in_messages) {
            let client = self.client.clone();
            self.question = Some(Box::pin(async move {
                if client.flush().await.is_err() {
                    tracing::debug!("the NATS client has ended");
                }
                in_messages
            }));
        }
    }

    /// Waits for the answer; for ever when nothing was asked.
    pub(super) async fn answer(&mut self) -> u64 {
        match &mut self.question {
            Some(question) => question.await,
            None => std::future::pending().await,
        }
    }

    /// The client is done with so many messages; they are settled when every channel is empty.
    pub(super) fn answered(&mut self, in_messages: u64) {
        self.question = None;
        self.answered = Some(in_messages);
    }

    /// Every channel is empty.
    pub(super) fn settle(&mut self, fence: &mut Fence) {
        if let Some(in_messages) = self.answered.take() {
            self.settle_at(in_messages, fence);
        }
    }

    /// Nothing more is going to be taken: what is counted and was not taken is lost.
    pub(super) fn settle_rest(&mut self, fence: &mut Fence) {
        (self.question, self.answered) = (None, None);
        self.settle_at(self.in_messages(), fence);
    }

    /// The fence is one of the messages that the client counts, and no record.
    fn settle_at(&mut self, in_messages: u64, fence: &mut Fence) {
        if fence.look() {
            self.took(1);
        }
        self.lost += self.losses.settle(in_messages);
    }

    pub(super) fn is_any(&self) -> bool {
        self.lost > 0
    }

    /// What was lost since this was last asked.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn in_messages(&self) -> u64 {
        self.client.statistics().in_messages.load(Ordering::Acquire)
    }
}
