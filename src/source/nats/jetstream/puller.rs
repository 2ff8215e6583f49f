//! The one task of the JetStream source: waits in `select`, changes things in `apply`, and then
//! asks for as many records as there are credits for.
//!
//! Owns every consumer's state (`lane.rs`). Never takes a record that it holds no credit for, never
//! acknowledges one that the pipeline has not called durable, and never waits for the server: what
//! is asked and what is sent are futures beside the loop.

mod lanes;
mod leave;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{AckKind, Context};
use async_nats::{Client, Message};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::lane::{Answer, Lane, Taken};
use super::outbox::{Out, Outbox, Sent};
use crate::credits::Gate;
use crate::record::{Chunk, NewRecord};
use crate::source::nats::channels::Channels;
use crate::source::nats::fence::Fence;
use crate::source::nats::link::Notes;
use crate::source::nats::missing::Missing;
use crate::source::nats::subscriptions::{CHUNK_BYTES, CHUNK_RECORDS, push};
use crate::source::{SourceEvent, SourceId, SourcePort, Stage, Wanted};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is for an instance with another configuration comes again after this long.
const FOREIGN_AGAIN: Duration = Duration::from_secs(1);
/// What leaving may take: what is sent, and what is given back.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

pub(super) use self::lanes::Wishes;

type Permit = OwnedPermit<(SourceId, SourceEvent)>;

/// What happened.
enum Action {
    Wanted,
    Look,
    /// JetStream has answered a lane's question.
    Answered(usize, Answer),
    Sent(Sent),
    /// The client is done with so many messages.
    Counted(u64),
    /// There is something to hand over, and room for it.
    Hand(Permit),
    /// There may be credits again.
    Freed,
    /// The pipeline has ended.
    Gone,
}

pub(super) struct Puller {
    client: Client,
    notes: Arc<Notes>,
    context: Context,
    port: SourcePort,
    credits: Gate,
    /// Waits for the server to confirm each acknowledgement.
    confirmed: bool,
    /// By a number that no other lane of the process has.
    lanes: BTreeMap<usize, Lane>,
    /// The number of the next lane.
    next_lane: usize,
    /// What the lanes shall be.
    wishes: Wishes,
    /// Which lane is asked for first, so that none starves another.
    turn: usize,
    /// One channel a lane, with its number.
    channels: Channels,
    /// Taken out of the channels, not yet looked at. Reused.
    waiting: Vec<(usize, Message)>,
    waiting_bytes: usize,
    /// To be handed over, in this order, before anything is read.
    events: VecDeque<SourceEvent>,
    questions: FuturesUnordered<BoxFuture<'static, (usize, Answer)>>,
    outbox: Outbox,
    /// What came although nobody takes it any more, to be given back once nothing comes here: until then
    /// the server would deliver it to us again at once, and each time count it as a delivery.
    back: Vec<Box<str>>,
    missing: Missing,
    fence: Fence,
    tick: Interval,
    wanted: Wanted,
    /// Somebody wanted a credit and got none.
    starving: bool,
    connects: u64,
}

impl Puller {
    pub(super) fn new(
        client: Client,
        notes: Arc<Notes>,
        context: Context,
        port: SourcePort,
        credits: Gate,
        wishes: Wishes,
    ) -> Self {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            outbox: Outbox::new(client.clone(), context.client()),
            missing: Missing::new(client.clone()),
            client,
            notes,
            context,
            port,
            credits,
            confirmed: wishes.settings.double_ack,
            lanes: BTreeMap::new(),
            next_lane: 0,
            wishes,
            turn: 0,
            channels: Channels::default(),
            waiting: Vec::with_capacity(CHUNK_RECORDS),
            waiting_bytes: 0,
            back: Vec::new(),
            events: VecDeque::new(),
            questions: FuturesUnordered::new(),
            fence: Fence::default(),
            tick,
            wanted: Wanted::default(),
            starving: false,
            connects: 0,
        }
    }

    /// Until the pipeline wants it closed.
    pub(super) async fn run(mut self) {
        // the pipeline may have wanted something before we began
        self.port.wanted.mark_changed();
        loop {
            match self.select().await {
                Action::Gone => break,
                action => self.apply(action),
            }
            if self.wanted.stage == Stage::Closing {
                break;
            }
            self.go_on();
        }
        if tokio::time::timeout(LEAVE_WITHIN, self.leave()).await.is_err() {
            tracing::warn!(
                event = "jetstream_ack_unconfirmed",
                "JetStream was not told in time what is done; some of it comes again"
            );
        }
        self.channels.close();
        self.report();
    }

    async fn select(&mut self) -> Action {
        let Self { port, channels, waiting, waiting_bytes, tick, missing, .. } = self;
        let Self { questions, outbox, credits, events, starving, .. } = self;
        let busy = missing.is_any() || !events.is_empty();
        let hand = async {
            if !busy {
                fill(channels, waiting, waiting_bytes, 1).await;
            }
            port.events.clone().reserve_owned().await
        };
        tokio::select! {
            biased;
            changed = port.wanted.changed() => changed.map_or(Action::Gone, |()| Action::Wanted),
            _ = tick.tick() => Action::Look,
            Some((lane, answer)) = questions.next() => Action::Answered(lane, answer),
            sent = outbox.sent() => Action::Sent(sent),
            in_messages = missing.answer() => Action::Counted(in_messages),
            permit = hand => permit.map_or(Action::Gone, Action::Hand),
            () = credits.freed(), if *starving => Action::Freed,
        }
    }

    fn apply(&mut self, action: Action) {
        let now = Instant::now();
        match action {
            Action::Wanted => self.note_wanted(),
            Action::Look => self.look(now),
            Action::Answered(lane, answer) => self.answered(lane, answer, now),
            Action::Sent(Sent { acked, unconfirmed }) => {
                unconfirmed.into_iter().for_each(|out| self.outbox.push(out));
                if !acked.is_empty() {
                    let error = None;
                    self.events.push_back(SourceEvent::Committed { positions: acked, error });
                }
            }
            Action::Counted(in_messages) => {
                self.missing.answered(in_messages);
                // nothing there: settle now, nobody else will
                let Self { channels, waiting, waiting_bytes, .. } = self;
                if fill(channels, waiting, waiting_bytes, 1).now_or_never().is_none() {
                    self.missing.settle(&mut self.fence);
                }
            }
            Action::Hand(permit) => self.hand(permit, now),
            Action::Freed => self.starving = false,
            Action::Gone => {}
        }
    }

    /// What follows from the new state, whatever happened.
    fn go_on(&mut self) {
        let now = Instant::now();
        self.follow_wishes(now);
        self.ask_all(now);
        if self.wanted.stage == Stage::Running && self.connected() {
            self.pull(now);
        }
        if self.connected() {
            self.outbox.begin();
        }
    }

    fn note_wanted(&mut self) {
        let wanted = self.port.wanted.borrow_and_update().clone();
        let stops = wanted.stage > Stage::Running && self.wanted.stage == Stage::Running;
        let known = std::mem::replace(&mut self.wanted, wanted).takes;
        if stops {
            // What still comes is given back, so it needs no credit.
            let free: usize = self.lanes.values_mut().map(Lane::give_up_pulls).sum();
            self.credits.release(free);
            self.lanes.values_mut().for_each(Lane::stand_down);
        }
        // It stays there for as long as nothing else is wanted.
        let is_known = |takes: &&Arc<_>| known.iter().any(|known| Arc::ptr_eq(known, takes));
        if let Some(takes) = self.wanted.takes.as_ref().filter(|takes| !is_known(takes)) {
            self.wishes.change(&takes.streams);
        }
        for position in std::mem::take(&mut self.wanted.commit) {
            for lane in self.lanes.values_mut() {
                let answers = lane.settle(&position);
                self.outbox.acknowledge(answers, lane.told(), self.confirmed);
                self.events.extend(lane.past(&position).map(|over| SourceEvent::Lost(vec![over])));
            }
        }
    }

    fn look(&mut self, now: Instant) {
        self.missing.ask();
        self.starving = false;
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        let connected = self.connected();
        let reconnected = std::mem::replace(&mut self.connects, connects) != connects;
        for lane in self.lanes.values_mut() {
            let mut free = lane.tick(now);
            if reconnected && connects > 1 {
                free += lane.lost("the connection was restored", now);
            }
            self.credits.release(free);
            let answers = lane.settle_bulk();
            self.outbox.acknowledge(answers, lane.told(), self.confirmed);
            let in_progress = if connected { lane.in_progress(now) } else { Vec::new() };
            for reply in in_progress {
                self.outbox.push(Out::Answer { reply, kind: AckKind::Progress });
            }
        }
        self.report();
    }

    /// Asks for as many as there are credits for.
    fn pull(&mut self, now: Instant) {
        if self.wanted.native_pause {
            return;
        }
        let (before, from): (Vec<usize>, Vec<usize>) =
            self.lanes.keys().partition(|number| **number <= self.turn);
        self.turn = from.first().or(before.first()).copied().unwrap_or_default();
        from.into_iter().chain(before).for_each(|number| self.pull_by(number, now));
    }

    fn pull_by(&mut self, lane: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        if lane.partition().is_some_and(|partition| self.wanted.held.contains(partition)) {
            return;
        }
        let wants = lane.wants();
        if wants == 0 {
            return;
        }
        let credits = self.credits.reserve(wants);
        if credits == 0 {
            self.starving = true;
            if lane.outstanding() == 0 && !self.credits.is_held_back() {
                self.port.observed.starved.store(true, Ordering::Release);
            }
            return;
        }
        match lane.pull(credits, now) {
            Some(pull) => self.outbox.push(Out::Pull(Box::new(pull))),
            None => self.credits.release(credits),
        }
    }

    fn hand(&mut self, permit: Permit, now: Instant) {
        if self.missing.is_any() {
            let lost = self.missing.take();
            permit.send((self.port.id, SourceEvent::DroppedByClient(lost)));
            return;
        }
        if self.events.is_empty() {
            self.take(now);
        }
        if let Some(event) = self.events.pop_front() {
            permit.send((self.port.id, event));
        }
    }

    /// Takes what is there, without waiting.
    fn take(&mut self, now: Instant) {
        let Self { channels, waiting, waiting_bytes, .. } = self;
        // Ready at once: something waits.
        let filled = fill(channels, waiting, waiting_bytes, CHUNK_RECORDS).now_or_never();
        self.missing.took(self.waiting.len() as u64);
        let mut chunk = self.new_chunk();
        let wanted = self.wanted.stage == Stage::Running;
        let mut waiting = std::mem::take(&mut self.waiting);
        for (index, message) in waiting.drain(..) {
            self.take_one(index, &message, wanted, &mut chunk, now);
        }
        (self.waiting, self.waiting_bytes) = (waiting, 0);
        self.hand_over(chunk);
        if filled == Some(true) {
            self.missing.settle(&mut self.fence);
        }
    }

    fn new_chunk(&self) -> Chunk {
        let now = jiff::Timestamp::now().as_millisecond();
        Chunk::with_capacity(now, self.waiting.len(), self.waiting_bytes)
    }

    fn hand_over(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.events.push_back(SourceEvent::Records(chunk));
        }
    }

    fn take_one(
        &mut self,
        index: usize,
        message: &Message,
        wanted: bool,
        chunk: &mut Chunk,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(&index) else { return };
        let (kind, free) = match lane.take(message, wanted, now) {
            Taken::Record { place, delivery, poisoned } => {
                let Some(partition) = lane.partition() else { return };
                let record = |index| NewRecord {
                    place: Some((index, place)),
                    sequence: i64::try_from(delivery.sequence).ok(),
                    timestamp: Some(delivery.published),
                    ..NewRecord::default()
                };
                if poisoned {
                    let why = format!("delivered {} times and never done", delivery.times);
                    let partition = Arc::clone(partition);
                    let before = std::mem::replace(chunk, self.new_chunk());
                    self.hand_over(before);
                    let mut alone = self.new_chunk();
                    let index = alone.partition(&partition);
                    push(&mut alone, message, record(index));
                    self.events.push_back(SourceEvent::Poisoned { record: alone, why });
                } else {
                    let index = chunk.partition(partition);
                    push(chunk, message, record(index));
                }
                return;
            }
            Taken::Again => return self.credits.release(1),
            Taken::Status(free) => return self.credits.release(free),
            Taken::Done => (AckKind::Ack, 1),
            Taken::Back { asked } if !wanted => {
                self.back.extend(message.reply.as_ref().map(|reply| reply.as_str().into()));
                return self.credits.release(usize::from(asked));
            }
            Taken::Back { asked } => (AckKind::Nak(None), usize::from(asked)),
            Taken::Foreign { asked } => (AckKind::Nak(Some(FOREIGN_AGAIN)), usize::from(asked)),
        };
        self.credits.release(free);
        if let Some(reply) = &message.reply {
            self.outbox.push(Out::Answer { reply: reply.as_str().into(), kind });
        }
    }

    fn report(&self) {
        let observed = &self.port.observed;
        let lags = self.lanes.values().filter_map(Lane::lag);
        let lag = lags.reduce(u64::saturating_add).and_then(|lag| i64::try_from(lag).ok());
        observed.lag.store(lag.unwrap_or(-1), Ordering::Release);
        let quiet = self.lanes.values().all(|lane| lane.outstanding() == 0);
        observed.natively_paused.store(self.wanted.native_pause && quiet, Ordering::Release);
        let partitions = self.lanes.values().filter_map(Lane::observed).collect();
        *observed.partitions.lock().expect("no panic while held") = partitions;
        let needs = self.lanes.values().filter_map(Lane::needs_person).map(str::to_owned).collect();
        *observed.needs_person.lock().expect("no panic while held") = needs;
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

/// Waits until so many wait, or everything that is there; true if every channel is empty.
async fn fill(
    channels: &mut Channels,
    waiting: &mut Vec<(usize, Message)>,
    bytes: &mut usize,
    messages: usize,
) -> bool {
    // Tokio's budget would make full channels look empty.
    tokio::task::unconstrained(std::future::poll_fn(|cx| {
        let emptied = channels.poll_each(cx, |taken| {
            if let Some((index, message)) = taken {
                *bytes += message.length;
                waiting.push((index, message));
            }
            waiting.len() < messages && *bytes < CHUNK_BYTES
        });
        if waiting.is_empty() { Poll::Pending } else { Poll::Ready(emptied) }
    }))
    .await
}
