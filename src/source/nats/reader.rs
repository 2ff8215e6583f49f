//! Reads one connection: one task, which waits in `select` and changes things in `apply`.
//!
//! It goes on reading whatever the pipeline does with the records: what is not read here, the
//! client drops. It waits for the pipeline only when the bounded channel to it is full.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use futures_util::FutureExt as _;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::fence::Fence;
use super::link::Notes;
use super::missing::Missing;
use super::subscriptions::Subscriptions;
use crate::source::{SourceEvent, SourceId, SourcePort, Stage};

/// How often it is looked whether the client dropped something.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Permit = OwnedPermit<(SourceId, SourceEvent)>;

/// What happened.
enum Action {
    Stage(Stage),
    /// Others take its place: what was delivered is still to be handed over.
    Leave,
    /// The first fence is back, or can't come.
    Begun(bool),
    /// Time to see whether messages are missing.
    Look,
    /// The client has answered: it is done with so many messages.
    Answered(u64),
    /// There is something to hand over, and room for it.
    Hand(Permit),
    /// The pipeline has ended.
    Gone,
}

pub(super) struct Reader {
    client: Client,
    notes: Arc<Notes>,
    subscriptions: Subscriptions,
    port: SourcePort,
    missing: Missing,
    tick: Interval,
    /// Sent when draining.
    fence: Fence,
    drained: bool,
    /// How long a drain may take.
    drain_for: Duration,
    /// Others take its place.
    leave: CancellationToken,
    /// To be told when the server has its subscriptions: when a first fence is back.
    begun: Option<oneshot::Sender<()>>,
}

impl Reader {
    pub(super) fn new(
        client: Client,
        notes: Arc<Notes>,
        subscriptions: Subscriptions,
        port: SourcePort,
        drain_for: Duration,
        leave: CancellationToken,
    ) -> Self {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            missing: Missing::new(client.clone()),
            client,
            notes,
            subscriptions,
            port,
            tick,
            fence: Fence::default(),
            drained: false,
            drain_for,
            leave,
            begun: None,
        }
    }

    /// Until the pipeline wants it closed. `undrained` counts the readers that are not drained.
    pub(super) async fn run(mut self, undrained: Arc<AtomicUsize>) {
        // the pipeline may have wanted something before we began
        self.port.wanted.mark_changed();
        if self.begun.is_some() {
            self.fence.send(&self.client).await;
        }
        loop {
            self.say_begun();
            match self.select().await {
                Action::Stage(Stage::Closing) | Action::Gone => break,
                Action::Stage(Stage::Draining) if !self.drained => {
                    self.drain().await;
                    self.say_drained(&undrained).await;
                }
                Action::Leave => {
                    self.drain().await;
                    self.say_drained(&undrained).await;
                    break;
                }
                action => self.apply(action).await,
            }
        }
        self.notes.park();
        self.report_rest().await;
    }

    async fn select(&mut self) -> Action {
        let Self { port, subscriptions, tick, missing, leave, drained, fence, begun, .. } = self;
        let any_missing = missing.is_any();
        let hand = async {
            if !any_missing {
                subscriptions.ready().await;
            }
            port.events.clone().reserve_owned().await
        };
        tokio::select! {
            biased;
            changed = port.wanted.changed() => match changed {
                Ok(()) => Action::Stage(port.wanted.borrow_and_update().stage),
                Err(_) => Action::Gone,
            },
            () = leave.cancelled(), if !*drained => Action::Leave,
            back = fence.back(), if begun.is_some() => Action::Begun(back),
            _ = tick.tick() => Action::Look,
            in_messages = missing.answer() => Action::Answered(in_messages),
            permit = hand => permit.map_or(Action::Gone, Action::Hand),
        }
    }

    async fn apply(&mut self, action: Action) {
        match action {
            Action::Look => self.missing.ask(),
            Action::Answered(in_messages) => {
                self.missing.answered(in_messages);
                // nothing there: settle now, nobody else will
                if self.subscriptions.ready().now_or_never().is_none() {
                    self.missing.settle(&mut self.fence);
                }
            }
            Action::Hand(permit) if self.missing.is_any() => {
                permit.send((self.port.id, SourceEvent::DroppedByClient(self.missing.take())));
            }
            Action::Hand(permit) => self.hand(permit).await,
            Action::Begun(back) => self.missing.took(u64::from(back)),
            Action::Stage(_) | Action::Leave | Action::Gone => {}
        }
    }

    /// The last of all readers to be drained says so for the source; while it does not stop, there
    /// are others that are not.
    async fn say_drained(&mut self, undrained: &AtomicUsize) {
        if super::is_last(undrained) {
            super::send(&self.port, SourceEvent::Drained).await;
        }
    }

    /// Has the caller told when the server has its subscriptions.
    pub(super) fn tell_when_begun(&mut self) -> oneshot::Receiver<()> {
        let (begun, told) = oneshot::channel();
        self.begun = Some(begun);
        told
    }

    /// Says that it has begun, if the fence is back: whoever saw it first. A server that refuses it
    /// has seen the subscriptions too.
    fn say_begun(&mut self) {
        let seen = !self.fence.is_out() || self.notes.fence_refused();
        if let Some(begun) = self.begun.take_if(|_| seen)
            && begun.send(()).is_err()
        {
            tracing::debug!("nobody waits for this reader to begin");
        }
    }

    async fn hand(&mut self, permit: Permit) {
        let taken = self.subscriptions.take().await;
        self.missing.took(taken.messages);
        if !taken.chunk.is_empty() {
            permit.send((self.port.id, SourceEvent::Records(taken.chunk)));
        }
        if taken.emptied {
            self.missing.settle(&mut self.fence);
        }
    }

    /// Ends the subscriptions and hands over what the server had delivered by then.
    async fn drain(&mut self) {
        self.drained = true;
        let deadline = Instant::now() + self.drain_for;
        if tokio::time::timeout_at(deadline, self.hand_over_rest()).await.is_err() {
            tracing::warn!(
                event = "nats_drain_late",
                "what NATS had delivered could not be handed over in time"
            );
        }
        self.subscriptions.close();
        self.report_rest().await;
    }

    /// Asks the server for the end, then reads until a fence that was sent after it comes back:
    /// the server keeps the order, so nothing can come after it.
    async fn hand_over_rest(&mut self) {
        if self.connected() {
            self.subscriptions.end().await;
            if self.begun.take().is_some() && self.fence.back().await {
                self.missing.took(1);
            }
            self.fence.send(&self.client).await;
        }
        while self.fence.is_out() {
            let room = async {
                self.subscriptions.ready().await;
                self.port.events.clone().reserve_owned().await
            };
            tokio::select! {
                biased;
                back = self.fence.back() => match back {
                    true => self.missing.took(1),
                    false => break,
                },
                _ = self.tick.tick() => if self.notes.fence_refused() || !self.connected() {
                    break;
                },
                permit = room => match permit {
                    Ok(permit) => self.hand(permit).await,
                    Err(_) => return,
                },
            }
        }
        while self.subscriptions.ready().now_or_never().is_some() {
            match self.port.events.clone().reserve_owned().await {
                Ok(permit) => self.hand(permit).await,
                Err(_) => return,
            }
        }
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What was counted, and will never be taken any more.
    async fn report_rest(&mut self) {
        self.missing.settle_rest(&mut self.fence);
        if self.missing.is_any() {
            let lost = self.missing.take();
            super::send(&self.port, SourceEvent::DroppedByClient(lost)).await;
        }
    }
}
