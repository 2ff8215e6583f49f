//! How the source leaves: everything that is durable was said, and everything else is given back.

use async_nats::jetstream::AckKind;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{Action, Out, Puller, fill};
use crate::source::nats::jetstream::follow;

impl Puller {
    /// Says what is durable, and gives back the rest, so that it comes again at once: what is held
    /// all the same, and what is on its way to us.
    pub(super) async fn leave(&mut self) {
        for lane in self.lanes.values_mut() {
            for reply in lane.give_up() {
                self.outbox.push(Out::Answer { reply, kind: AckKind::Nak(None) });
            }
        }
        self.resign().await;
        if !self.connected() {
            return;
        }
        self.send_all().await;
        self.channels.end().await;
        self.fence.send(&self.client).await;
        self.take_until_fence().await;
        self.send_all().await;
        // The server has read everything when this one comes back.
        self.fence.send(&self.client).await;
        self.take_until_fence().await;
    }

    /// Streams that only one instance reads are left to others at once, with the last word on them.
    async fn resign(&mut self) {
        let left: Vec<_> = self.lanes.values_mut().filter_map(super::Lane::resign).collect();
        loop {
            let now = Instant::now();
            self.claim_all(now);
            let Some((lane, answer)) = self.questions.next().await else { break };
            self.apply(Action::Answered(lane, answer));
        }
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
        while let Some(event) = self.events.pop_front() {
            crate::source::nats::send(&self.port, event).await;
        }
    }
}
