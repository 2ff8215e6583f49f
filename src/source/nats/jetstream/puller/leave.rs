//! How the source leaves: everything that is durable was said, and everything else is given back.

use async_nats::jetstream::AckKind;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{Action, Lane, Out, Puller, fill};
use crate::source::nats::jetstream::follow;

impl Puller {
    /// Says what is durable, and gives back the rest, so that it comes again at once: what is held
    /// all the same, and what is on its way to us. Then leaves what it alone reads: that has to ask
    /// JetStream, which may not answer when the rest of the server does.
    pub(super) async fn leave(&mut self) {
        self.back.extend(self.lanes.values_mut().flat_map(Lane::give_up));
        if self.connected() {
            self.send_all().await;
            self.channels.end().await;
            self.fence.send(&self.client).await;
            self.take_until_fence().await;
            // Nothing comes here any more: what is given back goes to others.
            for reply in std::mem::take(&mut self.back) {
                self.outbox.push(Out::Answer { reply, kind: AckKind::Nak(None) });
            }
            self.send_all().await;
            // The server has read everything when this one comes back.
            self.fence.send(&self.client).await;
            self.take_until_fence().await;
        }
        self.resign().await;
    }

    /// Streams that only one instance reads are left to others at once, with the last word on them.
    async fn resign(&mut self) {
        let left: Vec<_> = self.lanes.values_mut().filter_map(Lane::resign).collect();
        while !self.lanes.values().all(Lane::has_left) {
            self.claim_all(Instant::now());
            let Some((lane, answer)) = self.questions.next().await else { break };
            self.apply(Action::Answered(lane, answer));
        }
        self.hand_over_events().await;
        let forget = left.iter().map(|(stream, consumer)| {
            follow::forget(&self.context, stream, Some(consumer.as_str()))
        });
        futures_util::future::join_all(forget).await;
    }

    /// Takes what comes before the fence does, or until the server has refused it.
    async fn take_until_fence(&mut self) {
        while self.fence.is_out() {
            let Self { channels, waiting, waiting_bytes, fence, tick, .. } = self;
            tokio::select! {
                biased;
                _ = fill(channels, waiting, waiting_bytes, 1) => self.take(Instant::now()),
                _ = fence.back() => return,
                _ = tick.tick() => if self.notes.fence_refused() || !self.connected() {
                    return;
                },
            }
        }
    }

    async fn send_all(&mut self) {
        while !self.outbox.is_empty() {
            self.outbox.begin();
            let sent = self.outbox.sent().await;
            self.apply(Action::Sent(sent));
        }
        self.hand_over_events().await;
    }

    async fn hand_over_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            crate::source::nats::send(&self.port, event).await;
        }
    }
}
