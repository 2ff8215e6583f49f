//! One route's consumer, as it is for us: whether it is bound, what was asked of it. What of it is
//! done is kept in mind in one of two ways: by acknowledgements (`acks.rs`), or, where exactly once
//! is promised, like a place in a log (`owned.rs`). Says what is to be done; does nothing itself.

mod acks;
mod intake;
mod owned;
mod parting;
mod question;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use tokio::time::Instant;

use super::bind::{Bound, Unbound, Wish};
use super::follow::Followed;
use super::pulls::Pulls;
use super::unacked;
use crate::config::Retry;
use crate::record::{Partition, Position};
use crate::retry;
use crate::source::{PartitionObserved, SourceEvent};
use crate::subject::SubjectPattern;

use self::acks::Acks;
pub(super) use self::intake::{Pull, Taken};
use self::owned::{Follows, Owned};
use self::parting::Parting;
pub(super) use self::question::{Answer, Question};

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
    /// What it asks for could not be heard yet.
    Deaf,
    /// To be bound, at this time.
    Unbound(Instant),
    Bound(Arc<Consumer<pull::Config>>),
}

/// How it is kept in mind what of the stream is done.
#[derive(Debug)]
enum Keeping {
    /// By acknowledgements, of a consumer that instances share.
    Acks(Acks),
    /// By a place in a log, of which this instance may be the owner.
    Owned(Owned),
}

#[derive(Debug)]
pub(super) struct Lane {
    wish: Wish,
    /// Where its requests are answered: this and a number.
    pub(super) inbox: String,
    state: State,
    attempts: u32,
    /// A question about the consumer is on its way.
    asked: bool,
    /// What is answered to it is about what was wanted before.
    outdated: bool,
    /// It is wanted otherwise, or not any more.
    parting: Option<Parting>,
    /// What the consumer may have filtered by before.
    before: Vec<Vec<SubjectPattern>>,
    /// Subjects that were wanted before: what was delivered of them may come again.
    left: Vec<SubjectPattern>,
    look_at: Instant,
    keeping: Keeping,
    pulls: Pulls,
    heard_at: Instant,
    pending: u64,
    /// Records that came since the last look, and about how many come between two.
    came: usize,
    rate: usize,
    /// One record is larger than all bytes that may be on their way: it comes alone.
    alone: bool,
    /// What stands in the way.
    trouble: Option<Unbound>,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) events: Vec<SourceEvent>,
    /// So many credits are free.
    pub(super) free: usize,
    /// To be sent.
    pub(super) answers: Vec<unacked::Answer>,
}

impl Lane {
    pub(super) fn new(wish: Wish, instance: &str, inbox: String, now: Instant) -> Self {
        let keeping = match wish.takes.exactly_once {
            false => Keeping::Acks(Acks::new(wish.settings.ack, now)),
            true => Keeping::Owned(Owned::new(&wish, instance, now)),
        };
        Self {
            wish,
            inbox,
            state: State::Deaf,
            attempts: 0,
            asked: false,
            outdated: false,
            parting: None,
            before: Vec::new(),
            left: Vec::new(),
            look_at: now,
            keeping,
            pulls: Pulls::default(),
            heard_at: now,
            pending: 0,
            came: 0,
            rate: 0,
            alone: false,
            trouble: None,
        }
    }

    pub(super) fn partition(&self) -> Option<&Arc<Partition>> {
        match &self.keeping {
            Keeping::Acks(acks) => acks.partition.as_ref(),
            Keeping::Owned(owned) => owned.partition.as_ref(),
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        self.pulls.outstanding()
    }

    pub(super) fn lag(&self) -> Option<u64> {
        self.partition().map(|_| self.pending)
    }

    pub(super) fn observed(&self) -> Option<PartitionObserved> {
        let Partition { topic, number, .. } = &**self.partition()?;
        let done_to = match &self.keeping {
            Keeping::Acks(acks) => Some(acks.known_to),
            Keeping::Owned(owned) => owned.done_to(),
        };
        Some(PartitionObserved {
            topic: topic.clone(),
            number: *number,
            lag: i64::try_from(self.pending).ok(),
            committed: done_to.and_then(|sequence| i64::try_from(sequence).ok()),
        })
    }

    /// What a person has to do, if anything.
    pub(super) fn needs_person(&self) -> Option<&str> {
        let of_bucket = match &self.keeping {
            Keeping::Acks(_) => None,
            Keeping::Owned(owned) => owned.trouble.as_ref(),
        };
        self.trouble.iter().chain(of_bucket).find_map(|trouble| match trouble {
            Unbound::NeedsPerson(what) => Some(what.as_str()),
            Unbound::Later(_) => None,
        })
    }

    // --- the consumer ----------------------------------------------------------------------

    /// What to ask now: for a consumer, or how it is.
    pub(super) fn question(&mut self, now: Instant) -> Option<Question> {
        if self.asked {
            return None;
        }
        let question = match (&self.state, &mut self.keeping) {
            (State::Deaf, _) => Question::Listen(self.inbox.clone()),
            (State::Unbound(due), Keeping::Acks(acks)) if *due <= now => {
                Question::Bind(self.wish.clone(), acks.known_to(), self.before.clone())
            }
            (State::Unbound(_), Keeping::Owned(_)) if self.parting.is_some() => return None,
            (State::Unbound(due), Keeping::Owned(owned)) if *due <= now => {
                owned.follow(&self.wish)?
            }
            (State::Bound(consumer), _) if self.look_at <= now => {
                self.look_at = now + LOOK_EVERY;
                let info = consumer.cached_info();
                Question::Look(self.wish.clone(), info.stream_name.clone(), info.name.clone())
            }
            _ => return None,
        };
        self.asked = true;
        Some(question)
    }

    /// What to ask of the bucket now, where the lane has one.
    pub(super) fn claim(&mut self, now: Instant) -> Option<Question> {
        match &mut self.keeping {
            Keeping::Acks(_) => None,
            Keeping::Owned(owned) => owned.claim(&self.wish, now),
        }
    }

    /// What it asks for can be heard from here on.
    pub(super) fn listening(&mut self, now: Instant) {
        (self.asked, self.outdated) = (false, false);
        self.state = State::Unbound(now);
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Instant) -> Heard {
        if matches!(answer, Answer::Bound(_) | Answer::Followed(_)) {
            self.asked = false;
            if std::mem::take(&mut self.outdated) {
                return Heard::default();
            }
        }
        match answer {
            Answer::Bound(bound) => match bound {
                Ok(Some(bound)) => self.bound(*bound, now),
                Ok(None) => Heard::free(self.lost("it was deleted", now)),
                Err(trouble) => self.unbound(trouble, now),
            },
            Answer::Followed(followed) => match followed {
                Ok(Followed::Bound(bound)) => self.bound(*bound, now),
                Ok(Followed::Another { made, last }) => self.another(made, last, now),
                Err(trouble) => self.unbound(trouble, now),
            },
            Answer::Bucket(told) => {
                let Keeping::Owned(owned) = &mut self.keeping else { return Heard::default() };
                let follows = owned.told(*told, &self.wish, now);
                self.follows(follows, now)
            }
            Answer::Parted(done) => self.parted(&done, now),
            Answer::Listening(_) | Answer::Forgotten => Heard::default(),
        }
    }

    fn unbound(&mut self, trouble: Unbound, now: Instant) -> Heard {
        // While records come, that one question was not answered is no matter.
        if let (Unbound::Later(why), State::Bound(_)) = (&trouble, &self.state) {
            tracing::debug!(route = self.wish.route, "JetStream: {why}");
            return Heard::default();
        }
        self.try_later(now);
        trouble.note(&mut self.trouble);
        Heard::free(self.give_up_pulls())
    }

    fn try_later(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Unbound(now + retry::delay(&BIND, self.attempts));
    }

    fn another(&mut self, made: i64, last: u64, now: Instant) -> Heard {
        self.try_later(now);
        if let Keeping::Owned(owned) = &mut self.keeping
            && let Some(trouble) = owned.another(made, last, &self.wish, now)
        {
            trouble.note(&mut self.trouble);
        }
        Heard::default()
    }

    fn follows(&mut self, follows: Follows, now: Instant) -> Heard {
        let Follows { events, unbind } = follows;
        let mut heard = Heard { events, ..Heard::default() };
        if unbind {
            self.attempts = 0;
            self.state = State::Unbound(now);
            heard.free = self.give_up_pulls();
        }
        heard
    }

    /// A consumer was found, made, or looked at.
    fn bound(&mut self, bound: Bound, now: Instant) -> Heard {
        let info = bound.consumer.cached_info();
        let fresh = matches!(self.state, State::Unbound(_));
        let mut events = Vec::new();
        match &mut self.keeping {
            Keeping::Acks(acks) => {
                let new = acks.bound(&bound, self.pulls.outstanding(), now);
                events.extend(new.map(|new| SourceEvent::Assigned(vec![new.into()])));
                self.look_at = now + if acks.quiet { LOOK_AGAIN } else { LOOK_EVERY };
                let trouble = acks.foreign_reader(&self.wish, now);
                match trouble {
                    Some(trouble) => trouble.note(&mut self.trouble),
                    None => self.trouble = None,
                }
            }
            // One that was left meanwhile.
            Keeping::Owned(owned) if fresh && !owned.suits(&info.config.deliver_policy) => {
                return Heard::default();
            }
            Keeping::Owned(owned) => {
                if fresh {
                    events.extend(owned.bound(&info.name, &self.wish));
                }
                self.look_at = now + LOOK_EVERY;
                self.trouble = None;
            }
        }
        self.before.clear();
        if fresh {
            let name = format!("{}/{}", info.stream_name, info.name);
            tracing::info!(
                event = "jetstream_consumer_bound",
                route = self.wish.route,
                consumer = name,
                "JetStream consumer bound"
            );
            self.heard_at = now;
            if let Keeping::Acks(_) = &self.keeping {
                self.wish.note_narrow(&info.config);
            }
        }
        self.pending = info.num_pending;
        self.state = State::Bound(Arc::new(bound.consumer));
        Heard { events, ..Heard::default() }
    }

    /// The consumer is gone, or does not get through to us: it is bound again. Says how many
    /// credits are free.
    pub(super) fn lost(&mut self, why: &str, now: Instant) -> usize {
        if matches!(self.state, State::Bound(_)) {
            tracing::warn!(
                event = "jetstream_consumer_lost",
                route = self.wish.route,
                "JetStream consumer lost, bound again: {why}"
            );
            self.try_later(now);
        }
        self.give_up_pulls()
    }

    /// Nothing that was asked for is waited for; so many credits are free.
    pub(super) fn give_up_pulls(&mut self) -> usize {
        self.pulls.give_up()
    }

    // --- what is done ----------------------------------------------------------------------

    /// What is durable up to here: what to answer.
    pub(super) fn settle(&mut self, position: &Position) -> Vec<unacked::Answer> {
        match &mut self.keeping {
            Keeping::Acks(acks) => acks.settle(position),
            Keeping::Owned(owned) => {
                owned.settle(position);
                Vec::new()
            }
        }
    }

    /// What can be answered by now although it could not before.
    pub(super) fn settle_bulk(&mut self) -> Option<unacked::Answer> {
        self.acks()?.settle_bulk()
    }

    /// What the pipeline is to be told when all answers so far were sent.
    pub(super) fn told(&mut self) -> Option<Position> {
        self.acks()?.told()
    }

    /// Streams that are no more, and of which everything is durable by this.
    pub(super) fn past(&mut self, position: &Position) -> Option<Arc<Partition>> {
        self.acks()?.past(position)
    }

    /// What the server must hear of, or it would deliver it again.
    pub(super) fn in_progress(&mut self, now: Instant) -> Vec<Box<str>> {
        match (&self.state, &mut self.keeping) {
            (State::Bound(consumer), Keeping::Acks(acks)) => acks.in_progress(consumer, now),
            _ => Vec::new(),
        }
    }

    fn acks(&mut self) -> Option<&mut Acks> {
        match &mut self.keeping {
            Keeping::Acks(acks) => Some(acks),
            Keeping::Owned(_) => None,
        }
    }

    // --- the end ---------------------------------------------------------------------------

    /// What is held no longer although it is not durable.
    pub(super) fn give_up(&mut self) -> Vec<Box<str>> {
        self.acks().map(Acks::give_up).unwrap_or_default()
    }

    /// Nothing new is begun.
    pub(super) fn stand_down(&mut self) {
        if let Keeping::Owned(owned) = &mut self.keeping {
            owned.stand_down();
        }
    }

    /// Leaves the stream to others. Says which consumer is of no use any more.
    pub(super) fn resign(&mut self) -> Option<(String, String)> {
        let Keeping::Owned(owned) = &mut self.keeping else { return None };
        owned.resign();
        owned.reader()
    }

    /// It has the last word in the bucket, or none to say there.
    pub(super) fn has_left(&self) -> bool {
        match &self.keeping {
            Keeping::Acks(_) => true,
            Keeping::Owned(owned) => owned.has_left(),
        }
    }

    /// The consumer that is of no use any more, of a lane that is over.
    pub(super) fn reader(&self) -> Option<(String, String)> {
        match &self.keeping {
            Keeping::Acks(_) => None,
            Keeping::Owned(owned) => owned.reader(),
        }
    }
}

impl Heard {
    fn free(free: usize) -> Self {
        Self { free, ..Self::default() }
    }
}
