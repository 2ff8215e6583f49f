//! The intake: one task that takes what is offered as far as there are credits for it, numbers it, and
//! hands it to the pipeline. It waits in `select` and changes things in `apply`.
//!
//! One offer at a time, in the order in which they came: so the records of a route are numbered in
//! the order in which they are handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::receipt::Counting;
use super::{COME_AGAIN, Hall, Message, NOT_RUNNING, Refusal, Stand};
use crate::credits::Gate;
use crate::receipt::Receipt;
use crate::record::{Chunk, ID_HEADER, NewRecord, Partition, Position};
use crate::route::LIVE_TOPIC;
use crate::source::{Assigned, SourceEvent, SourcePort, Stage};

/// A route whose table is broken, or that is over its own rate, goes on after seconds.
const HELD_FOR: Duration = Duration::from_secs(5);

/// Who was refused is not sent away for longer than this.
const AT_THE_LATEST: Duration = Duration::from_secs(60);

/// Records of a chunk, as other sources have them.
const CHUNK_RECORDS: usize = 1_000;

/// What a publisher brings.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) topic: String,
    pub(super) records: Vec<Message>,
    pub(super) receipt: Arc<Counting>,
    /// Until then it may wait for room.
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Answer, Refusal>>,
}

/// How much of an offer was taken.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) records: usize,
    /// When to come again with the rest.
    pub(super) retry_after: Option<Duration>,
}

/// A route that is published into.
#[derive(Debug)]
struct Lane {
    partition: Arc<Partition>,
    /// The number of its next record.
    next: i64,
}

/// The offer that is being taken.
#[derive(Debug)]
struct Current {
    offer: Offer,
    taken: usize,
}

enum Action {
    Wanted,
    Offered(Offer),
    /// Credits may be free, or the time is up.
    Look,
    /// The pipeline has ended.
    Gone,
}

#[derive(Debug)]
pub(super) struct Intake {
    port: SourcePort,
    credits: Gate,
    offers: mpsc::Receiver<Offer>,
    stand: watch::Sender<Stand>,
    lanes: BTreeMap<String, Lane>,
    /// Of those the routes that are published into now.
    open: Arc<BTreeSet<String>>,
    current: Option<Current>,
    /// What the pipeline was told to be committed.
    committed: Vec<Position>,
    stage: Stage,
    /// The partition of all lanes, different in each process: what two bridges take is not one
    /// record, whatever number both have given.
    number: i32,
    /// Where lanes begin to number.
    first: i64,
}

impl Intake {
    pub(super) fn new(
        hall: Hall,
        routes: &BTreeSet<String>,
        port: SourcePort,
        credits: Gate,
    ) -> Self {
        let Hall { offers, stand, .. } = hall;
        Self {
            port,
            credits,
            offers,
            stand,
            lanes: BTreeMap::new(),
            open: Arc::new(routes.clone()),
            current: None,
            committed: Vec::new(),
            stage: Stage::Running,
            number: rand::random_range(0..=i32::MAX),
            // Microseconds: no number is given twice, whenever the bridge is started again.
            first: jiff::Timestamp::now().as_microsecond(),
        }
    }

    /// Until the pipeline wants it closed.
    pub(super) async fn run(mut self) {
        // the pipeline may have wanted something before we began
        self.port.wanted.mark_changed();
        self.port.observed.connected.store(true, Ordering::Relaxed);
        self.open_lanes().await;
        while self.stage < Stage::Closing {
            match self.select().await {
                Action::Gone => break,
                action => self.apply(action).await,
            }
        }
        self.refuse_all();
        self.send(SourceEvent::Closed { error: None }).await;
    }

    async fn select(&mut self) -> Action {
        let Self { port, credits, offers, current, stage, .. } = self;
        let running = *stage == Stage::Running;
        let deadline = current.as_ref().map(|current| current.offer.deadline);
        tokio::select! {
            biased;
            changed = port.wanted.changed() => changed.map_or(Action::Gone, |()| Action::Wanted),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Action::Look,
            () = credits.freed(), if deadline.is_some() => Action::Look,
            Some(offer) = offers.recv(), if running && deadline.is_none() => Action::Offered(offer),
        }
    }

    async fn apply(&mut self, action: Action) {
        match action {
            Action::Wanted => self.obey().await,
            Action::Offered(offer) => {
                self.current = Some(Current { offer, taken: 0 });
                self.advance().await;
            }
            Action::Look => self.advance().await,
            Action::Gone => {}
        }
    }

    async fn obey(&mut self) {
        let (takes, commit) = {
            let wanted = self.port.wanted.borrow_and_update();
            self.stage = wanted.stage;
            (wanted.takes.clone(), wanted.commit.clone())
        };
        if let Some(takes) = takes.filter(|takes| takes.published != *self.open) {
            self.open = Arc::new(takes.published.clone());
            self.open_lanes().await;
        }
        // There is nobody behind us to tell: who published hears it by the receipt.
        if commit != self.committed {
            self.committed.clone_from(&commit);
            self.send(SourceEvent::Committed { positions: commit, error: None }).await;
        }
        if self.stage > Stage::Running {
            self.refuse_all();
        } else {
            // its route may have to wait now
            self.advance().await;
        }
    }

    /// Makes the partitions known to the pipeline, and then the routes to those who publish. A lane
    /// stays when its route is not published into any more: it may be again.
    async fn open_lanes(&mut self) {
        let mut new = Vec::new();
        for route in self.open.iter().filter(|route| !self.lanes.contains_key(*route)) {
            let (topic, number) = (format!("{LIVE_TOPIC}{route}"), self.number);
            let partition = Arc::new(Partition { topic, number, epoch: 1 });
            new.push((route.clone(), Lane { partition, next: self.first }));
        }
        let assigned: Vec<Assigned> =
            new.iter().map(|(_, lane)| Arc::clone(&lane.partition).into()).collect();
        self.lanes.extend(new);
        if !assigned.is_empty() {
            self.send(SourceEvent::Assigned(assigned)).await;
        }
        self.stand.send_replace(Stand::Open(Arc::clone(&self.open)));
    }

    /// Takes as much of the current offer as there is room for, and answers it when that was all of
    /// it, or its time is up.
    async fn advance(&mut self) {
        while let Some(Current { offer, taken }) = self.current.take() {
            let (left, in_time) = (offer.records.len() - taken, Instant::now() < offer.deadline);
            let stands = self.lane_of(&offer.topic);
            let room =
                if stands.is_ok() { self.credits.reserve(left.min(CHUNK_RECORDS)) } else { 0 };
            if room > 0 {
                let taken = taken + room;
                self.hand_over(&offer, taken - room..taken).await;
                if taken == offer.records.len() {
                    return answer(offer, taken, None);
                }
                self.current = Some(Current { offer, taken });
                continue;
            }
            match stands {
                Ok(()) if left == 0 => return answer(offer, taken, None),
                Ok(()) if in_time => {
                    self.current = Some(Current { offer, taken });
                    return;
                }
                Ok(()) => {
                    let held_back = self.credits.is_held_back();
                    self.port.observed.starved.fetch_or(!held_back, Ordering::AcqRel);
                    let retry_after = match held_back {
                        true => self.credits.until_some_pass().clamp(COME_AGAIN, AT_THE_LATEST),
                        false => COME_AGAIN,
                    };
                    return answer(offer, taken, Some(Refusal::Busy { retry_after }));
                }
                Err(refusal) => return answer(offer, taken, Some(refusal)),
            }
        }
    }

    /// Whether the records of this topic may come now.
    fn lane_of(&self, topic: &str) -> Result<(), Refusal> {
        let lane = self.lanes.get(topic).filter(|_| self.open.contains(topic));
        let lane = lane.ok_or(Refusal::NoSuchTopic)?;
        if self.port.wanted.borrow().held.contains(&lane.partition) {
            return Err(Refusal::Busy { retry_after: HELD_FOR });
        }
        Ok(())
    }

    /// Their credits are reserved.
    async fn hand_over(&mut self, offer: &Offer, which: std::ops::Range<usize>) {
        let lane = self.lanes.get_mut(&offer.topic).expect("it was looked at just now");
        let records = &offer.records[which];
        let now = jiff::Timestamp::now().as_millisecond();
        let bytes = records.iter().map(|record| record.payload.len()).sum();
        let mut chunk = Chunk::with_capacity(now, records.len(), bytes)
            .with_receipt(Arc::clone(&offer.receipt) as Arc<dyn Receipt>);
        let index = chunk.partition(&lane.partition);
        let mut written = Uuid::encode_buffer();
        for Message { payload, id } in records {
            let record = NewRecord {
                place: Some((index, lane.next)),
                // It is made here, as far as anybody knows.
                timestamp: Some(now),
                payload: Some(payload),
                ..NewRecord::default()
            };
            let id = id.map(|id| &*id.hyphenated().encode_lower(&mut written));
            chunk.push(record, id.map(|id| (ID_HEADER, id.as_bytes())));
            lane.next += 1;
        }
        self.send(SourceEvent::Records(chunk)).await;
    }

    /// The bridge stops: what was not taken is not taken any more.
    fn refuse_all(&mut self) {
        self.stand.send_replace(Stand::Stopping);
        self.offers.close();
        if let Some(Current { offer, taken }) = self.current.take() {
            answer(offer, taken, Some(NOT_RUNNING));
        }
        while let Ok(offer) = self.offers.try_recv() {
            answer(offer, 0, Some(NOT_RUNNING));
        }
    }

    async fn send(&self, event: SourceEvent) {
        if self.port.events.send((self.port.id, event)).await.is_err() {
            tracing::debug!("the pipeline has ended before its live source");
        }
    }
}

/// Tells the publisher how much was taken, and why no more.
fn answer(offer: Offer, taken: usize, why: Option<Refusal>) {
    let retry_after = why.map(|why| match why {
        Refusal::Busy { retry_after } | Refusal::NotRunning { retry_after } => retry_after,
        Refusal::NoSuchTopic | Refusal::TooManyRecords { .. } => COME_AGAIN,
    });
    let result = match why {
        Some(why) if taken == 0 => Err(why),
        _ => Ok(Answer { records: taken, retry_after }),
    };
    if offer.answer.send(result).is_err() {
        tracing::debug!(topic = offer.topic, taken, "a publisher did not wait for its answer");
    }
}
