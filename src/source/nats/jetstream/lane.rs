//! One route's consumer, as it is for us: whether it is bound, what was asked of it, what of it is
//! not acknowledged. Says what is to be done; does nothing itself.

mod intake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use tokio::time::Instant;

use super::bind::{Bound, Unbound, Wish, ack_wait};
use super::bulk::Standing;
use super::pulls::Pulls;
use super::unacked::{Answer, Unacked};
use crate::config::{Ack, Retry};
use crate::record::{Partition, Position};
use crate::retry;
use crate::source::PartitionObserved;

pub(super) use self::intake::{Pull, Taken};

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
        (self.consumer_made, self.pending) = (made, pending);
        self.known_to = self.known_to.max(standing.floor);
        self.quiet = self.unacked.looked(standing, on_their_way);
        self.stream_made = stream_made.or(self.stream_made);
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
            self.attempts = self.attempts.saturating_add(1);
            self.state = State::Unbound(now + retry::delay(&BIND, self.attempts));
        }
        self.give_up_pulls()
    }

    /// Nothing that was asked for is waited for; so many credits are free.
    pub(super) fn give_up_pulls(&mut self) -> usize {
        self.pulls.give_up()
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
}

/// A question to JetStream.
#[derive(Debug)]
pub(super) enum Question {
    Bind(Wish, Option<(i128, u64)>),
    Look(Wish, String),
}
