//! How the source leaves: everything that is durable was said, and everything else is given back.

use async_nats::jetstream::AckKind;
use tokio::time::Instant;

use super::{Action, Out, Puller, fill};

impl Puller {
    /// Says what is durable, and gives back the rest, so that it comes again at once: what is held
    /// all the same, and what is on its way to us.
    pub(super) async fn leave(&mut self) {
        for lane in &mut self.lanes {
            for reply in lane.give_up() {
                self.outbox.push(Out::Answer { reply, kind: AckKind::Nak(None) });
            }
        }
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
