//! What is on its way to the server: acknowledgements and requests, sent by a future of their own,
//! because the client makes its caller wait while it is disconnected.

use async_nats::jetstream::AckKind;
use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

use super::lane::Pull;
use super::unacked::Answer;
use crate::record::Position;

/// Acknowledgements that wait for their confirmation at a time: enough to fill a round trip.
const CONFIRMED_AT_A_TIME: usize = 256;

/// One thing to send.
#[derive(Debug)]
pub(super) enum Out {
    Answer {
        reply: Box<str>,
        kind: AckKind,
    },
    /// To be confirmed by the server.
    Confirmed {
        reply: Box<str>,
        kind: AckKind,
    },
    Pull(Box<Pull>),
    /// Everything that acknowledges up to here was sent before.
    Acked(Position),
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) acked: Vec<Position>,
    /// Not confirmed: to be sent again, in this order.
    pub(super) unconfirmed: Vec<Out>,
}

pub(super) struct Outbox {
    /// Reads the subscriptions too: what is sent by it is in order with what comes.
    client: Client,
    /// For what is answered elsewhere.
    control: Client,
    waiting: Vec<Out>,
    sending: Option<BoxFuture<'static, Sent>>,
}

impl Outbox {
    pub(super) fn new(client: Client, control: Client) -> Self {
        Self { client, control, waiting: Vec::new(), sending: None }
    }

    pub(super) fn push(&mut self, out: Out) {
        self.waiting.push(out);
    }

    /// Answers for what is durable, and then what is acknowledged by them.
    pub(super) fn acknowledge(
        &mut self,
        answers: impl IntoIterator<Item = Answer>,
        told: Option<Position>,
        confirmed: bool,
    ) {
        let answers = answers.into_iter().map(|Answer { reply, poisoned }| {
            let kind = if poisoned { AckKind::Term } else { AckKind::Ack };
            if confirmed { Out::Confirmed { reply, kind } } else { Out::Answer { reply, kind } }
        });
        self.waiting.extend(answers);
        self.waiting.extend(told.map(Out::Acked));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_none()
    }

    /// Begins to send what waits, unless something is on its way.
    pub(super) fn begin(&mut self) {
        if self.sending.is_none() && !self.waiting.is_empty() {
            let all = std::mem::take(&mut self.waiting);
            self.sending = Some(send(self.client.clone(), self.control.clone(), all).boxed());
        }
    }

    /// Waits until what is on its way was sent; for ever when nothing is.
    pub(super) async fn sent(&mut self) -> Sent {
        match &mut self.sending {
            Some(sending) => {
                let sent = sending.await;
                self.sending = None;
                sent
            }
            None => std::future::pending().await,
        }
    }
}

async fn send(client: Client, control: Client, all: Vec<Out>) -> Sent {
    let mut sent = Sent::default();
    let mut to_confirm = Vec::new();
    for out in all {
        match out {
            Out::Answer { reply, kind } => publish(&client, &reply, kind).await,
            Out::Confirmed { reply, kind } => to_confirm.push((reply, kind)),
            Out::Pull(pull) => {
                let Pull { consumer, request, inbox } = *pull;
                if let Err(error) = consumer.request_batch(request, inbox.into()).await {
                    tracing::debug!(%error, "the NATS client has ended");
                }
            }
            Out::Acked(position) => {
                let failed = confirm(&control, std::mem::take(&mut to_confirm)).await;
                if failed.is_empty() && sent.unconfirmed.is_empty() {
                    sent.acked.push(position);
                } else {
                    sent.unconfirmed.extend(failed);
                    sent.unconfirmed.push(Out::Acked(position));
                }
            }
        }
    }
    sent.unconfirmed.extend(confirm(&control, to_confirm).await);
    sent
}

async fn publish(client: &Client, reply: &str, kind: AckKind) {
    if let Err(error) = client.publish(reply.to_owned(), kind.into()).await {
        tracing::debug!(%error, "the NATS client has ended");
    }
}

/// What the server did not confirm.
async fn confirm(control: &Client, all: Vec<(Box<str>, AckKind)>) -> Vec<Out> {
    let asking = all.into_iter().map(|(reply, kind)| async move {
        let payload: Bytes = kind.into();
        match control.request(reply.to_string(), payload).await {
            Ok(_) => None,
            // The consumer is gone: whoever makes it anew delivers the record again, and we know it.
            Err(error) if error.kind() == RequestErrorKind::NoResponders => None,
            Err(error) => Some((error, Out::Confirmed { reply, kind })),
        }
    });
    let failed = futures_util::stream::iter(asking).buffered(CONFIRMED_AT_A_TIME);
    let failed: Vec<_> = failed.filter_map(std::future::ready).collect().await;
    if let Some((error, _)) = failed.first() {
        tracing::warn!(event = "jetstream_ack_unconfirmed", count = failed.len(), %error, "JetStream has not confirmed what was acknowledged");
    }
    failed.into_iter().map(|(_, out)| out).collect()
}
