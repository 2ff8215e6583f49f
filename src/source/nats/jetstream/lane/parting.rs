//! What becomes of a lane when the configuration wants something else of it, or nothing any more.
//!
//! Where records are acknowledged, the consumer goes on where it is and filters by other subjects;
//! nothing is interrupted. In every other case:
//!
//! ```text
//! nothing more is asked for, what was asked for comes --> Revoked: the pipeline lets go, and says
//! how far all is durable --> acknowledged, or in the bucket --> it begins anew there, or is over
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::acks::Acks;
use super::{Heard, Keeping, Lane, Question, State};
use crate::record::{Partition, Position};
use crate::source::SourceEvent;
use crate::source::nats::jetstream::bind::Wish;
use crate::subject::SubjectPattern;

/// No group waits for an answer: what is held becomes durable, however long that takes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How far a lane is that is not wanted as it is. It carries what is wanted then; None: nothing.
#[derive(Debug)]
pub(super) enum Parting {
    /// What was asked for still comes.
    Emptying(Option<Box<Wish>>),
    /// The pipeline lets go of what came.
    LettingGo(Option<Box<Wish>>),
    /// It holds nothing any more, and does not come back.
    Over,
}

impl Lane {
    pub(in super::super) fn consumer(&self) -> &str {
        &self.wish.takes.consumer
    }

    /// This is wanted from here on; false if another lane must do that, when this one is gone.
    pub(in super::super) fn follow(&mut self, wish: &Wish, now: Instant) -> bool {
        let same = self.wish.is_same(wish);
        if wish.takes.exactly_once != matches!(self.keeping, Keeping::Owned(_)) {
            self.leave();
            return false;
        }
        match (&self.keeping, &mut self.parting) {
            (_, Some(Parting::Over)) => return false,
            (_, None) if same => {}
            (Keeping::Acks(_), None | Some(Parting::Emptying(_))) => {
                self.parting = None;
                if !same {
                    self.filter_anew(wish, now);
                }
            }
            // It reads nothing that it would have to part from.
            (Keeping::Owned(owned), None) if owned.stands_by() => self.wish = wish.clone(),
            (Keeping::Owned(_), None) => self.part(Some(wish)),
            (_, Some(Parting::Emptying(then) | Parting::LettingGo(then))) => {
                *then = Some(Box::new(wish.clone()));
            }
        }
        true
    }

    /// Nothing is wanted any more.
    pub(in super::super) fn leave(&mut self) {
        match &mut self.parting {
            None => self.part(None),
            Some(Parting::Emptying(then) | Parting::LettingGo(then)) => *then = None,
            Some(Parting::Over) => {}
        }
    }

    /// Nothing is left to be done: what it has said still has to be sent.
    pub(in super::super) fn is_over(&self) -> bool {
        matches!(self.parting, Some(Parting::Over)) && self.has_left()
    }

    /// Whether records on this subject are what was asked for, now or before. An instance that
    /// still has the old configuration also gets what the new one asks for.
    pub(super) fn knows(&self, subject: &str) -> bool {
        self.wish.takes.subjects.iter().chain(&self.left).any(|pattern| pattern.matches(subject))
    }

    /// Another instance, or a restart, finds the consumer changed and the records where they were.
    fn filter_anew(&mut self, wish: &Wish, now: Instant) {
        let before = std::mem::replace(&mut self.wish, wish.clone()).takes.subjects;
        let known: Vec<SubjectPattern> =
            before.iter().filter(|pattern| !self.left.contains(pattern)).cloned().collect();
        self.left.extend(known);
        self.before.push(before);
        self.bind_anew(now);
    }

    fn part(&mut self, then: Option<&Wish>) {
        self.parting = Some(Parting::Emptying(then.map(|wish| Box::new(wish.clone()))));
        self.outdated = self.asked;
    }

    fn bind_anew(&mut self, now: Instant) {
        self.outdated = self.asked;
        self.attempts = 0;
        if !matches!(self.state, State::Deaf) {
            self.state = State::Unbound(now);
        }
    }

    /// When what was asked for has come: what to tell the pipeline, and how to hear its answer.
    pub(in super::super) fn let_go(&mut self, now: Instant) -> Option<(SourceEvent, Question)> {
        let waits = self.pulls.outstanding() > 0 || self.keeping.begins_anew();
        let Some(Parting::Emptying(then)) = self.parting.as_mut().filter(|_| !waits) else {
            return None;
        };
        self.parting = Some(Parting::LettingGo(then.take()));
        let partitions = self.keeping.partitions();
        if partitions.is_empty() {
            self.parted(&[], now);
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let deadline = now + FOR_EVER;
        let revoked = SourceEvent::Revoked { partitions, deadline, answer };
        Some((revoked, Question::Part(answered)))
    }

    /// The pipeline has let go, and is done with everything up to these positions.
    pub(super) fn parted(&mut self, done: &[Position], now: Instant) -> Heard {
        let mut heard = Heard::default();
        let Some(Parting::LettingGo(then)) = self.parting.take() else { return heard };
        match &mut self.keeping {
            Keeping::Acks(acks) => {
                heard.answers.extend(done.iter().flat_map(|position| acks.settle(position)));
                *acks = Acks::new(self.wish.settings.ack, now);
            }
            Keeping::Owned(owned) => owned.parted(done, then.is_some()),
        }
        let Some(wish) = then else {
            self.parting = Some(Parting::Over);
            return heard;
        };
        match self.keeping {
            Keeping::Acks(_) => self.filter_anew(&wish, now),
            Keeping::Owned(_) => {
                self.wish = *wish;
                self.bind_anew(now);
            }
        }
        heard
    }
}

impl Keeping {
    /// What the pipeline knows of it.
    fn partitions(&self) -> Vec<Arc<Partition>> {
        match self {
            Self::Acks(acks) => acks.partitions(),
            Self::Owned(owned) => owned.partition.iter().cloned().collect(),
        }
    }

    /// Another stream is about to take the place of the one that was read.
    fn begins_anew(&self) -> bool {
        matches!(self, Self::Owned(owned) if owned.begins_anew())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::bind::Unbound;
    use super::super::super::bind::tests::wish;
    use super::super::super::bucket::Told;
    use super::super::Answer;
    use super::*;

    fn once() -> Wish {
        let mut wish = wish();
        wish.takes.exactly_once = true;
        wish
    }

    fn renamed(mut wish: Wish) -> Wish {
        wish.route = "another".to_owned();
        wish
    }

    fn lane(wish: Wish) -> Lane {
        Lane::new(wish, "i", "inbox".to_owned(), Instant::now())
    }

    fn unread() -> Answer {
        Answer::Bucket(Box::new(Told::Unread(Unbound::Later("no answer".to_owned()))))
    }

    #[test]
    fn an_instance_that_stands_by_does_so_for_what_is_wanted_now() {
        let (mut lane, now) = (lane(once()), Instant::now());
        assert!(lane.claim(now).is_some(), "it looks who reads");
        assert!(lane.follow(&renamed(once()), now));
        assert!(lane.let_go(now).is_none());
        let _ = lane.answered(unread(), now);
        let Some(Question::Bucket(wish, ..)) = lane.claim(now + FOR_EVER) else {
            panic!("it does not look any more: {lane:?}")
        };
        assert_eq!(wish.route, "another");
    }

    #[test]
    fn one_that_is_wanted_again_with_another_promise_is_over_first() {
        for (before, after) in [(wish(), once()), (once(), wish())] {
            let (mut lane, now) = (lane(before), Instant::now());
            lane.leave();
            assert!(!lane.follow(&after, now), "another lane has to do that");
            assert!(lane.let_go(now).is_none(), "nothing came yet");
            assert!(!lane.follow(&after, now));
            assert!(lane.is_over());
        }
    }
}
