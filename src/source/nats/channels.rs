//! The channels that the client puts messages into, read in turn. Core NATS and JetStream both
//! read through this; what becomes of a message is theirs.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber};
use futures_util::Stream as _;

#[derive(Debug)]
struct Channel {
    key: usize,
    subscriber: Subscriber,
    ended: bool,
}

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    all: Vec<Channel>,
    /// Where the next turn begins, so that a busy subject starves no other.
    turn: usize,
}

impl Channels {
    /// Adds a subscription; its messages come with this key.
    pub(super) fn push(&mut self, key: usize, subscriber: Subscriber) {
        self.all.push(Channel { key, subscriber, ended: false });
    }

    /// Ends the subscription of this key, with what is in it.
    pub(super) fn remove(&mut self, key: usize) {
        self.all.retain(|channel| channel.key != key);
        self.turn = 0;
    }

    /// Gives `take` one message after the other, until it says that it has room for no more
    /// (false) or every channel is empty, which is returned. It is asked without a message first.
    pub(super) fn poll_each(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Option<(usize, Message)>) -> bool,
    ) -> bool {
        let count = self.all.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let mut room = take(None);
            loop {
                if !room {
                    self.turn = (index + 1) % count;
                    return false;
                }
                let channel = &mut self.all[index];
                if channel.ended {
                    break;
                }
                match Pin::new(&mut channel.subscriber).poll_next(cx) {
                    Poll::Ready(Some(message)) => room = take(Some((channel.key, message))),
                    Poll::Ready(None) => channel.ended = true,
                    Poll::Pending => break,
                }
            }
        }
        true
    }

    /// Asks the server to deliver no more, while what is on its way still gets into the channels.
    ///
    /// The client's own `drain` and `unsubscribe` throw away what arrives before the server has
    /// read them. With a maximum the client keeps the subscription until that many have come; the
    /// server reads a maximum of more than nine digits as none at all and ends it at once. (One
    /// that took it literally would go on delivering until [`Self::close`]: counted, not lost
    /// silently.)
    pub(super) async fn end(&mut self) {
        for channel in &mut self.all {
            if let Err(error) = channel.subscriber.unsubscribe_after(u64::MAX).await {
                tracing::debug!(%error, "the NATS client has ended");
            }
        }
    }

    /// Ends them, with what is in them.
    pub(super) fn close(&mut self) {
        self.all.clear();
        self.turn = 0;
    }
}
