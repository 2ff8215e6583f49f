//! A message to ourselves. The server keeps the order, so when it is back, everything that the
//! server had sent before has arrived.

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};

/// Sent, not yet back; or none.
#[derive(Debug, Default)]
pub(super) struct Fence(Option<Subscriber>);

impl Fence {
    /// When we may not send or receive it, the server's refusal is as good.
    pub(super) async fn send(&mut self, client: &Client) {
        let inbox = client.new_inbox();
        if let Ok(subscriber) = client.subscribe(inbox.clone()).await {
            self.0 = Some(subscriber);
        }
        if client.publish(inbox, bytes::Bytes::new()).await.is_err() {
            self.0 = None;
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for it; false if it can't come any more. Waits for ever when it is not out.
    pub(super) async fn back(&mut self) -> bool {
        let Some(subscriber) = &mut self.0 else { return std::future::pending().await };
        let back = subscriber.next().await.is_some();
        self.0 = None;
        back
    }

    /// Whether it has come meanwhile: it may do so after it was given up.
    pub(super) fn look(&mut self) -> bool {
        let back = self.0.as_mut().and_then(|fence| fence.next().now_or_never());
        if back.is_some() {
            self.0 = None;
        }
        matches!(back, Some(Some(_)))
    }
}
