//! One route's consumer, as it is for us: whether it is bound, what was asked of it, what of it is
//! not acknowledged. Says what is to be done; does nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::{Message, StatusCode};
use tokio::time::Instant;

use super::bind::{Bound, Unbound, Wish, ack_wait};
use super::bulk::Standing;
use super::pulls::Pulls;
use super::reply::Delivery;
use super::unacked::{Answer, Arrival, Unacked};
use crate::config::{Ack, Retry};
use crate::record::{Partition, Position};
use crate::retry;
use crate::source::PartitionObserved;

/// A request that was not fulfilled ends after this long: how long an idle consumer keeps its
/// credit, and how soon a server that says nothing is noticed.
pub(super) const EXPIRES: Duration = Duration::from_secs(5);
/// What is silent for so much longer is gone.
const SILENT_AFTER: Duration = EXPIRES.saturating_add(Duration::from_secs(3));
/// How often a consumer is looked at: its lag, and whether it is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same while nothing is asked for until that is known.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between attempts to bind.
const BIND: Retry =
    Retry { base_delay: Duration::from_millis(200), max_delay: Duration::from_secs(5) };

/// Where a route is with its consumer.
#[derive(Debug)]
enum State {
    /// To be bound, at this time.
    Unbound(Instant),
    Bound(Arc<Consumer<pull::Config>>),
}

/// What a message of the consumer's turned out to be.
#[derive(Debug)]
pub(super) enum Taken {
    /// A record to hand over, and its place.
    Record { place: i64, delivery: Delivery, poisoned: bool },
    /// Held already: its credit is free.
    Again,
    /// Durable already: to be acknowledged, again.
    Done,
    /// There is no credit for it, or nobody takes it any more: to be given back.
    Back { asked: bool },
    /// A word of the server's; so many credits are free.
    Status(usize),
}

#[derive(Debug)]
pub(super) struct Lane {
    wish: Wish,
    /// Where its requests are answered: this and a number.
    pub(super) inbox: String,
    state: State,
    attempts: u32,
    /// A question is on its way.
    asked: bool,
    look_at: Instant,
    stream_made: Option<i128>,
    /// When the consumer was made: another one counts its deliveries anew.
    consumer_made: Option<i128>,
    /// Nothing is asked for until the consumer was looked at: deliveries are missing.
    quiet: bool,
    /// Durable up to here; told when everything that says so was answered.
    to_tell: Option<Position>,
    /// Of the stream that it reads; None until it was bound.
    partition: Option<Arc<Partition>>,
    /// Streams that were deleted under us: let go when all that we had of them is durable.
    past: Vec<(Arc<Partition>, i64)>,
    unacked: Unacked,
    acked_to: i64,
    pulls: Pulls,
    heard_at: Instant,
    tell_again_at: Instant,
    /// Up to here the server knows that everything is acknowledged.
    known_to: u64,
    pending: u64,
    /// Records that came since the last look, and about how many come between two.
    came: usize,
    rate: usize,
    /// One record is larger than all bytes that may be on their way: it comes alone.
    alone: bool,
    /// What stands in the way.
    trouble: Option<Unbound>,
}

impl Lane {
    pub(super) fn new(wish: Wish, inbox: String, now: Instant) -> Self {
        Self {
            inbox,
            state: State::Unbound(now),
            attempts: 0,
            asked: false,
            look_at: now,
            stream_made: None,
            consumer_made: None,
            quiet: false,
            to_tell: None,
            partition: None,
            past: Vec::new(),
            unacked: Unacked::new(wish.settings.ack == Ack::All, now),
            wish,
            acked_to: 0,
            pulls: Pulls::default(),
            heard_at: now,
            tell_again_at: now,
            known_to: 0,
            pending: 0,
            came: 0,
            rate: 0,
            alone: false,
            trouble: None,
        }
    }

    pub(super) fn partition(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref()
    }

    pub(super) fn outstanding(&self) -> usize {
        self.pulls.outstanding()
    }

    pub(super) fn lag(&self) -> Option<u64> {
        self.partition.as_ref().map(|_| self.pending)
    }

    pub(super) fn observed(&self) -> Option<PartitionObserved> {
        let Partition { topic, number, .. } = &**self.partition.as_ref()?;
        Some(PartitionObserved {
            topic: topic.clone(),
            number: *number,
            lag: i64::try_from(self.pending).ok(),
            committed: i64::try_from(self.known_to).ok(),
        })
    }

    /// What a person has to do, if anything.
    pub(super) fn needs_person(&self) -> Option<&str> {
        match &self.trouble {
            Some(Unbound::NeedsPerson(what)) => Some(what),
            _ => None,
        }
    }

    // --- the consumer ----------------------------------------------------------------------

    /// What to ask now: to bind, or how the consumer is.
    pub(super) fn question(&mut self, now: Instant) -> Option<Question> {
        if self.asked {
            return None;
        }
        let question = match &self.state {
            State::Unbound(due) if *due <= now => Question::Bind(
                self.wish.clone(),
                self.stream_made.map(|made| (made, self.known_to)),
            ),
            State::Bound(consumer) if self.look_at <= now => {
                self.look_at = now + LOOK_EVERY;
                Question::Look(self.wish.clone(), consumer.cached_info().stream_name.clone())
            }
            _ => return None,
        };
        self.asked = true;
        Some(question)
    }

    /// The answer. Says which partition is ours from here on, if that is new, and how many credits
    /// are free.
    pub(super) fn answered(
        &mut self,
        answer: Result<Option<Box<Bound>>, Unbound>,
        now: Instant,
    ) -> (Option<Arc<Partition>>, usize) {
        self.asked = false;
        match answer {
            Ok(Some(bound)) => (self.bound(*bound, now), 0),
            Ok(None) => (None, self.lost("it was deleted", now)),
            // While records come, that one question was not answered is no matter.
            Err(Unbound::Later(why)) if matches!(self.state, State::Bound(_)) => {
                tracing::debug!(route = self.wish.route, "JetStream: {why}");
                (None, 0)
            }
            Err(trouble) => {
                self.attempts = self.attempts.saturating_add(1);
                self.state = State::Unbound(now + retry::delay(&BIND, self.attempts));
                self.note(trouble);
                (None, self.give_up_pulls())
            }
        }
    }

    fn note(&mut self, trouble: Unbound) {
        if self.trouble.as_ref() != Some(&trouble) {
            match &trouble {
                Unbound::NeedsPerson(what) => tracing::error!("needs a person: {what}"),
                Unbound::Later(why) => tracing::warn!("JetStream, trying again: {why}"),
            }
            self.trouble = Some(trouble);
        }
    }

    fn bound(&mut self, bound: Bound, now: Instant) -> Option<Arc<Partition>> {
        let Bound { consumer, stream_made } = bound;
        let info = consumer.cached_info();
        let name = format!("{}/{}", info.stream_name, info.name);
        let another =
            stream_made.is_some() && self.stream_made.is_some_and(|it| Some(it) != stream_made);
        let standing = Standing {
            open: info.num_ack_pending,
            delivery: info.delivered.consumer_sequence,
            sequence: info.delivered.stream_sequence,
            floor: info.ack_floor.stream_sequence,
        };
        let made = Some(info.created.unix_timestamp_nanos());
        let (pending, on_their_way) = (info.num_pending, self.pulls.outstanding());
        if matches!(self.state, State::Unbound(_)) {
            tracing::info!(route = self.wish.route, consumer = name, "JetStream consumer bound");
            self.heard_at = now;
        }
        let new = another || self.partition.as_ref().is_none_or(|known| known.topic != name);
        if new {
            self.begin_stream(name, now);
        } else if self.consumer_made != made {
            self.unacked.begin_again(now);
        }
        (self.consumer_made, self.known_to, self.pending) = (made, standing.floor, pending);
        self.quiet = self.unacked.looked(standing, on_their_way);
        self.stream_made = stream_made.or(self.stream_made);
        self.attempts = 0;
        self.look_at = now + if self.quiet { LOOK_AGAIN } else { LOOK_EVERY };
        match self.foreign_reader(now) {
            Some(trouble) => self.note(trouble),
            None => self.trouble = None,
        }
        self.state = State::Bound(Arc::new(consumer));
        self.partition.clone().filter(|_| new)
    }

    /// With one acknowledgement for all before it nobody else may read.
    fn foreign_reader(&self, now: Instant) -> Option<Unbound> {
        let patience = 2 * self.wish.settings.ack_wait + SILENT_AFTER;
        self.unacked.gap_for(now).filter(|gap| *gap > patience).map(|_| {
            Unbound::NeedsPerson(format!(
                "route {}: deliveries of the consumer {} do not come here; with \
                 nats.jetstream.ack = \"all\" nobody else may read it: stop the other reader, or \
                 set ack = \"each\" and delete the consumer",
                self.wish.route, self.wish.takes.consumer
            ))
        })
    }

    /// Another stream than before: its numbers have nothing to do with those that we know.
    fn begin_stream(&mut self, topic: String, now: Instant) {
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        if let Some(before) = self.partition.take() {
            tracing::warn!(before = before.topic, now = topic, "the stream was made anew");
            self.past.push((before, self.unacked.end()));
        }
        self.unacked = Unacked::new(self.wish.settings.ack == Ack::All, now);
        self.to_tell = None;
        (self.acked_to, self.known_to) = (0, 0);
        let epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
        self.partition = Some(Arc::new(Partition { topic, number: 0, epoch }));
    }

    /// The consumer is gone, or does not get through to us: it is bound again. Says how many
    /// credits are free.
    pub(super) fn lost(&mut self, why: &str, now: Instant) -> usize {
        if matches!(self.state, State::Bound(_)) {
            tracing::warn!(route = self.wish.route, "JetStream consumer lost, bound again: {why}");
            self.state = State::Unbound(now);
        }
        self.give_up_pulls()
    }

    /// Nothing that was asked for is waited for; so many credits are free.
    pub(super) fn give_up_pulls(&mut self) -> usize {
        self.pulls.give_up()
    }

    // --- records ---------------------------------------------------------------------------

    /// What to ask the server for, were there credits: how many records.
    pub(super) fn wants(&self) -> usize {
        let State::Bound(consumer) = &self.state else { return 0 };
        if self.quiet {
            return 0;
        }
        let limit = usize::try_from(consumer.cached_info().config.max_batch).unwrap_or(0);
        let limit = if limit == 0 { usize::MAX } else { limit };
        // As many as there are, or as came lately; one when it is idle.
        let there = usize::try_from(self.pending).unwrap_or(usize::MAX).max(self.rate);
        let most = if self.alone { 1 } else { self.wish.settings.batch.min(limit) };
        self.pulls.room(there.clamp(1, most))
    }

    /// So many are asked for: by which request, and where the answer goes.
    pub(super) fn pull(&mut self, records: usize, now: Instant) -> Option<Pull> {
        let State::Bound(consumer) = &self.state else { return None };
        if self.pulls.outstanding() == 0 {
            self.heard_at = now;
        }
        let number = self.pulls.begin(records);
        let config = &consumer.cached_info().config;
        let longest = Some(config.max_expires).filter(|longest| !longest.is_zero());
        let request = pull::BatchConfig {
            batch: records,
            expires: Some(longest.map_or(EXPIRES, |longest| longest.min(EXPIRES))),
            // two may be on their way
            max_bytes: if self.alone { 0 } else { self.wish.settings.prefetch_bytes / 2 },
            ..pull::BatchConfig::default()
        };
        let inbox = format!("{}.{number}", self.inbox);
        Some(Pull { consumer: Arc::clone(consumer), request, inbox })
    }

    /// A message came on the inbox. `wanted` is false when nobody takes records any more.
    pub(super) fn take(&mut self, message: &Message, wanted: bool, now: Instant) -> Taken {
        self.heard_at = now;
        if let Some(status) = message.status.filter(|status| *status != StatusCode::OK) {
            return Taken::Status(self.status(status, message, now));
        }
        let reply = message.reply.as_ref().map_or("", |reply| reply.as_str());
        let Some(delivery) = Delivery::parse(reply) else {
            tracing::warn!(subject = %message.subject, "not a message of JetStream: left");
            return Taken::Status(usize::from(self.pulls.took()));
        };
        self.pending = delivery.pending;
        let asked = self.pulls.took();
        if !asked || !wanted {
            self.unacked.pass(&delivery, now);
            return Taken::Back { asked };
        }
        self.came += 1;
        self.alone = false;
        let poisoned = delivery.times > self.wish.settings.max_deliver;
        match self.unacked.arrive(&delivery, reply, poisoned, now) {
            Arrival::New(place) => Taken::Record { place, delivery, poisoned },
            Arrival::Held => Taken::Again,
            Arrival::Done => Taken::Done,
        }
    }

    fn status(&mut self, status: StatusCode, message: &Message, now: Instant) -> usize {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let pending =
            message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let pending = pending.and_then(|pending| pending.as_str().parse().ok());
        let text = message.description.as_deref().unwrap_or_default();
        let ended = self.pulls.ended(number.unwrap_or_default(), pending);
        match status {
            StatusCode::IDLE_HEARTBEAT | StatusCode::TIMEOUT | StatusCode::NOT_FOUND => ended,
            StatusCode::REQUEST_TERMINATED if text.contains("MaxBytes") => {
                self.alone = true;
                ended
            }
            StatusCode::REQUEST_TERMINATED if text.starts_with("Batch Completed") => ended,
            // Too many requests wait, of all instances: a moment later there may be room.
            StatusCode::REQUEST_TERMINATED if text.starts_with("Exceeded Max") => {
                tracing::debug!(route = self.wish.route, "JetStream: {text}");
                ended
            }
            _ => ended + self.lost(&format!("{status} {text}"), now),
        }
    }

    // --- acknowledgements ------------------------------------------------------------------

    /// What is durable up to here: what to answer.
    pub(super) fn settle(&mut self, position: &Position) -> Vec<Answer> {
        let ours = self.partition.as_ref() == Some(&position.partition);
        if !ours || position.offset <= self.acked_to {
            return Vec::new();
        }
        self.acked_to = position.offset;
        self.to_tell = Some(position.clone());
        self.unacked.settle(position.offset)
    }

    /// What can be answered by now although it could not before.
    pub(super) fn settle_bulk(&mut self) -> Option<Answer> {
        self.unacked.settle_bulk()
    }

    /// What the pipeline is to be told when all answers so far were sent.
    pub(super) fn told(&mut self) -> Option<Position> {
        if self.unacked.is_told_all() { self.to_tell.take() } else { None }
    }

    /// Streams that are no more, and of which everything is durable by this.
    pub(super) fn past(&mut self, position: &Position) -> Option<Arc<Partition>> {
        let over = |(partition, end): &(Arc<Partition>, i64)| {
            *partition == position.partition && *end <= position.offset
        };
        let index = self.past.iter().position(over)?;
        Some(self.past.swap_remove(index).0)
    }

    /// What the server must hear of, or it would deliver it again.
    pub(super) fn in_progress(&mut self, now: Instant) -> Vec<Box<str>> {
        let State::Bound(consumer) = &self.state else { return Vec::new() };
        if now < self.tell_again_at {
            return Vec::new();
        }
        let wait = ack_wait(consumer);
        self.tell_again_at = now + wait / 6;
        self.unacked.in_progress(now, wait / 3)
    }

    /// What is held no longer although it is not durable.
    pub(super) fn give_up(&mut self) -> Vec<Box<str>> {
        self.unacked.give_up()
    }

    /// A look at the clock; says how many credits are free.
    pub(super) fn tick(&mut self, now: Instant) -> usize {
        self.rate = (self.rate / 2).max(std::mem::take(&mut self.came));
        if self.pulls.outstanding() > 0 && self.heard_at + SILENT_AFTER <= now {
            self.heard_at = now;
            return self.lost("nothing heard of it, not even that there is nothing", now);
        }
        0
    }
}

/// A question to JetStream.
#[derive(Debug)]
pub(super) enum Question {
    Bind(Wish, Option<(i128, u64)>),
    Look(Wish, String),
}

/// A request for records.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) consumer: Arc<Consumer<pull::Config>>,
    pub(super) request: pull::BatchConfig,
    pub(super) inbox: String,
}
