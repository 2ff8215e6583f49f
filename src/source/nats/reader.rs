//! Reads one connection: one task, which waits in `select` and changes things in `apply`.
//!
//! It goes on reading whatever the pipeline does with the records: what is not read here, the
//! client drops. It waits for the pipeline only when the bounded channel to it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::link::Notes;
use super::losses::Losses;
use super::subscriptions::Subscriptions;
use crate::source::{SourceEvent, SourceId, SourcePort, Stage};

/// How often it is looked whether the client dropped something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a drain may take (design, section 6, step 4).
const DRAIN_FOR: Duration = Duration::from_secs(2);

type Permit = OwnedPermit<(SourceId, SourceEvent)>;

/// What happened.
enum Action {
    Stage(Stage),
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
    losses: Losses,
    tick: Interval,
    /// Outstanding while the client has not answered.
    question: Option<BoxFuture<'static, u64>>,
    /// So many messages were counted when the client was asked; to be settled when all channels
    /// are empty.
    answered: Option<u64>,
    /// Lost, not yet reported.
    lost: u64,
    /// Sent when draining, not yet back.
    fence: Option<Subscriber>,
    drained: bool,
}

impl Reader {
    pub(super) fn new(
        client: Client,
        notes: Arc<Notes>,
        subscriptions: Subscriptions,
        port: SourcePort,
    ) -> Self {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            client,
            notes,
            subscriptions,
            port,
            losses: Losses::default(),
            tick,
            question: None,
            answered: None,
            lost: 0,
            fence: None,
            drained: false,
        }
    }

    /// Until the pipeline wants it closed. `undrained` counts the readers that are not drained.
    pub(super) async fn run(mut self, undrained: Arc<AtomicUsize>) {
        // the pipeline may have wanted something before we began
        self.port.wanted.mark_changed();
        loop {
            match self.select().await {
                Action::Stage(Stage::Closing) | Action::Gone => break,
                Action::Stage(Stage::Draining) if !self.drained => {
                    self.drain().await;
                    if super::is_last(&undrained) {
                        super::send(&self.port, SourceEvent::Drained).await;
                    }
                }
                action => self.apply(action).await,
            }
        }
        self.notes.park();
        self.report_rest().await;
    }

    async fn select(&mut self) -> Action {
        let Self { port, subscriptions, tick, question, lost, .. } = self;
        let hand = async {
            if *lost == 0 {
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
            _ = tick.tick() => Action::Look,
            in_messages = answer(question) => Action::Answered(in_messages),
            permit = hand => permit.map_or(Action::Gone, Action::Hand),
        }
    }

    async fn apply(&mut self, action: Action) {
        match action {
            Action::Look => self.ask(),
            Action::Answered(in_messages) => {
                self.question = None;
                self.answered = Some(in_messages);
                // nothing there: settle now, nobody else will
                if self.subscriptions.ready().now_or_never().is_none() {
                    self.settle();
                }
            }
            Action::Hand(permit) if self.lost > 0 => {
                let lost = std::mem::take(&mut self.lost);
                permit.send((self.port.id, SourceEvent::DroppedByClient(lost)));
            }
            Action::Hand(permit) => self.hand(permit).await,
            Action::Stage(_) | Action::Gone => {}
        }
    }

    async fn hand(&mut self, permit: Permit) {
        let taken = self.subscriptions.take().await;
        self.losses.took(taken.messages);
        if !taken.chunk.is_empty() {
            permit.send((self.port.id, SourceEvent::Records(taken.chunk)));
        }
        if taken.emptied {
            self.settle();
        }
    }

    /// Asks the client to answer, if messages are missing. `flush` is no round trip to the server,
    /// but it is a command, and the client takes commands only between messages.
    fn ask(&mut self) {
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

    /// Every channel is empty.
    fn settle(&mut self) {
        if let Some(in_messages) = self.answered.take() {
            self.look_for_fence();
            self.lost += self.losses.settle(in_messages);
        }
    }

    fn in_messages(&self) -> u64 {
        self.client.statistics().in_messages.load(Ordering::Acquire)
    }

    /// Ends the subscriptions and hands over what the server had delivered by then.
    async fn drain(&mut self) {
        self.drained = true;
        let deadline = Instant::now() + DRAIN_FOR;
        if tokio::time::timeout_at(deadline, self.hand_over_rest()).await.is_err() {
            tracing::warn!("what NATS had delivered could not be handed over in time");
        }
        self.subscriptions.close();
        self.question = None;
        self.answered = None;
        self.report_rest().await;
    }

    /// Asks the server for the end, then reads until a fence that was sent after it comes back:
    /// the server keeps the order, so nothing can come after it.
    async fn hand_over_rest(&mut self) {
        if self.connected() {
            self.subscriptions.end().await;
            self.send_fence().await;
        }
        while let Some(fence) = &mut self.fence {
            let room = async {
                self.subscriptions.ready().await;
                self.port.events.clone().reserve_owned().await
            };
            tokio::select! {
                biased;
                back = fence.next() => match back {
                    Some(_) => self.fence_is_back(),
                    None => break,
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

    /// A message to ourselves. When we may not send or receive it, the server's refusal is as good.
    async fn send_fence(&mut self) {
        let inbox = self.client.new_inbox();
        if let Ok(subscriber) = self.client.subscribe(inbox.clone()).await {
            self.fence = Some(subscriber);
        }
        if self.client.publish(inbox, bytes::Bytes::new()).await.is_err() {
            self.fence = None;
        }
    }

    /// It is one of the messages that the client counts, and no record.
    fn fence_is_back(&mut self) {
        self.fence = None;
        self.losses.took(1);
    }

    /// It may come after the drain was given up.
    fn look_for_fence(&mut self) {
        let back = self.fence.as_mut().and_then(|fence| fence.next().now_or_never());
        if let Some(Some(_)) = back {
            self.fence_is_back();
        }
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What was counted, and will never be taken any more.
    async fn report_rest(&mut self) {
        let in_messages = self.in_messages();
        self.look_for_fence();
        self.lost += self.losses.settle(in_messages);
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            super::send(&self.port, SourceEvent::DroppedByClient(lost)).await;
        }
    }
}

async fn answer(question: &mut Option<BoxFuture<'static, u64>>) -> u64 {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}
