//! What a lane keeps in mind of a stream that it reads like a log, alone, because exactly once is
//! promised: its lease, where it reads on, and what is announced. Nothing is acknowledged: what is
//! done is in the bucket.
//!
//! ```text
//! lease: gained --> follow: a consumer from there --> Assigned, with the note --> records
//!        lost   --> Lost, and it competes again
//! consumer gone, or a delivery missing --> follow, from the next record: nothing is read twice
//! stream made anew --> what was read of the old one becomes durable --> Lost, Assigned: a new life
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use tokio::time::Instant;

use super::super::bind::{Unbound, Wish};
use super::super::bucket::{Bucket, Told};
use super::super::follow::From;
use super::super::lease::{Lease, News, Place};
use super::super::reply::Delivery;
use super::acks::new_partition;
use super::question::Question;
use crate::record::{Partition, Position};
use crate::source::{Assigned, SourceEvent};

/// A stream that seems to end before what was read of it is believed after this long: a new leader
/// may have to catch up first.
const SET_BACK_FOR: Duration = Duration::from_secs(10);
/// So many writes that fail in a row are no accident.
const FAILURES_TO_TELL: u32 = 3;

#[derive(Debug)]
pub(super) struct Owned {
    lease: Lease,
    bucket: Option<Bucket>,
    /// Who had the lease when we last looked.
    holder: Option<String>,
    /// Where the lease was gained, or the stream begun anew, until a consumer is there.
    begins: Option<Place>,
    pub(super) partition: Option<Arc<Partition>>,
    /// The sequence that may come next.
    next: u64,
    /// The number that the consumer's next delivery must have.
    delivery: u64,
    /// What reads for us, or did last.
    consumer: Option<String>,
    /// The stream was made anew: to be begun there, as soon as all that we had is durable.
    anew: Option<Place>,
    /// Since when it seems to end before what was read of it.
    set_back: Option<Instant>,
    /// What stands between us and the bucket.
    pub(super) trouble: Option<Unbound>,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(super) struct Follows {
    pub(super) events: Vec<SourceEvent>,
    /// A consumer has to be found, or must not be used any more.
    pub(super) unbind: bool,
}

impl Owned {
    pub(super) fn new(wish: &Wish, instance: &str, now: Instant) -> Self {
        let me = format!("{instance}/{:016x}", rand::random::<u64>());
        Self {
            lease: Lease::new(me, wish.settings.state.lease, now),
            bucket: None,
            holder: None,
            begins: None,
            partition: None,
            next: 0,
            delivery: 1,
            consumer: None,
            anew: None,
            set_back: None,
            trouble: None,
        }
    }

    // --- the lease -------------------------------------------------------------------------

    /// What to ask of the bucket now.
    pub(super) fn claim(&mut self, wish: &Wish, now: Instant) -> Option<Question> {
        let ask = self.lease.question(now)?;
        Some(Question::Bucket(wish.clone(), self.bucket.clone(), ask))
    }

    pub(super) fn told(&mut self, told: Told, wish: &Wish, now: Instant) -> Follows {
        let mut follows = Follows::default();
        let news = match told {
            Told::Read { bucket, entry, first } => {
                self.bucket = Some(bucket);
                self.trouble.take_if(|_| self.lease.failures() < FAILURES_TO_TELL);
                self.lease.read(entry, first, now)
            }
            Told::Unread(why) => {
                // It may have been deleted: opened again, and made if need be.
                self.bucket = None;
                self.lease.unread(now);
                why.note(&mut self.trouble);
                None
            }
            Told::Wrote(revision) => {
                self.trouble = None;
                self.lease.wrote(Some(revision), now)
            }
            Told::Unwritten(why) => {
                let news = self.lease.wrote(None, now);
                if self.lease.failures() >= FAILURES_TO_TELL {
                    let why = format!("route {}: cannot write {why}", wish.route);
                    Unbound::Later(why).note(&mut self.trouble);
                }
                news
            }
        };
        self.tell_holder(wish);
        match news {
            None => {}
            Some(News::Gained(place)) => {
                tracing::info!(
                    event = "stream_owned",
                    route = wish.route,
                    next = place.next,
                    "this instance reads it now"
                );
                self.begin(place);
                follows.unbind = true;
            }
            Some(News::Landed(place)) => self.landed(place, &mut follows),
            Some(News::Lost) => {
                let holder = self.lease.holder().unwrap_or("nobody");
                tracing::warn!(
                    event = "stream_taken_over",
                    route = wish.route,
                    holder,
                    "another instance reads it now"
                );
                self.anew = None;
                self.begins = None;
                follows.events.extend(self.let_go());
                follows.unbind = true;
            }
        }
        follows
    }

    fn tell_holder(&mut self, wish: &Wish) {
        let holder = self.lease.holder().map(str::to_owned);
        if self.holder != holder {
            if let Some(holder) = &holder {
                tracing::info!(
                    event = "stream_standby",
                    route = wish.route,
                    holder,
                    "read by another instance: standing by"
                );
            }
            self.holder = holder;
        }
    }

    fn landed(&mut self, place: Place, follows: &mut Follows) {
        if self.anew.as_ref() == Some(&place) {
            self.anew = None;
            self.begin(place);
            follows.events.extend(self.let_go());
            follows.unbind = true;
            return;
        }
        if let Some(partition) = &self.partition {
            let offset = signed(place.next);
            let positions =
                vec![Position { partition: Arc::clone(partition), offset, note: place.note }];
            follows.events.push(SourceEvent::Committed { positions, error: None });
        }
        self.begin_anew();
    }

    fn let_go(&mut self) -> Option<SourceEvent> {
        Some(SourceEvent::Lost(vec![self.partition.take()?]))
    }

    /// Everything before is durable: to be in the bucket as soon as possible.
    pub(super) fn settle(&mut self, position: &Position) {
        let ours = self.partition.as_ref() == Some(&position.partition);
        let Some(landed) = self.lease.landed().filter(|_| ours) else { return };
        let stream = landed.stream;
        let next = position.offset.unsigned_abs();
        self.lease.want(Place { stream, next, note: position.note.clone() });
        self.begin_anew();
    }

    /// Everything before this is done.
    pub(super) fn done_to(&self) -> Option<u64> {
        self.lease.landed().map(|place| place.next.saturating_sub(1))
    }

    /// The pipeline has let go of what was read, done up to here: that is to be in the bucket, and
    /// what follows begins there; or somebody else does, if it does not stay ours.
    pub(super) fn parted(&mut self, done: &[Position], stays: bool) {
        let partition = self.partition.take();
        let done = done.iter().find(|position| partition.as_ref() == Some(&position.partition));
        let landed = self.lease.landed();
        let place = landed.map(|landed| match done {
            None => landed.clone(),
            Some(position) => Place {
                stream: landed.stream,
                next: position.offset.unsigned_abs(),
                note: position.note.clone(),
            },
        });
        let is_there = place.as_ref() == landed;
        match place {
            Some(place) if stays && is_there => self.begin(place),
            Some(place) if stays => {
                self.anew = Some(place);
                self.begin_anew();
            }
            // Somebody else took it meanwhile: it stands by, for what is wanted now.
            None if stays => {}
            place => {
                place.into_iter().for_each(|place| self.lease.want(place));
                self.lease.resign();
            }
        }
    }

    fn begin(&mut self, place: Place) {
        self.next = place.next;
        self.begins = Some(place);
    }

    /// Another stream is about to take the place of the one that was read.
    pub(super) fn begins_anew(&self) -> bool {
        self.anew.is_some()
    }

    /// Somebody else reads it, or nobody knows yet.
    pub(super) fn stands_by(&self) -> bool {
        self.lease.landed().is_none()
    }

    /// It is nobody's, or somebody else's, for good.
    pub(super) fn has_left(&self) -> bool {
        self.lease.has_left()
    }

    /// Does not begin what it would have to leave.
    pub(super) fn stand_down(&mut self) {
        if self.stands_by() {
            self.lease.resign();
        }
    }

    /// Leaves it to whoever wants it, at once.
    pub(super) fn resign(&mut self) {
        self.lease.resign();
    }

    // --- the consumer ----------------------------------------------------------------------

    /// What to ask for a consumer; None while there is nothing to read.
    pub(super) fn follow(&mut self, wish: &Wish) -> Option<Question> {
        let landed = self.lease.landed().filter(|_| self.anew.is_none())?;
        let bucket = self.bucket.as_ref()?;
        let (stream, made) = (bucket.stream.clone(), landed.stream);
        let before = self.consumer.take();
        Some(Question::Follow(wish.clone(), From { stream, made, next: self.next, before }))
    }

    /// What reads for us: its stream and its name.
    pub(super) fn reader(&self) -> Option<(String, String)> {
        Some((self.bucket.as_ref()?.stream.clone(), self.consumer.clone()?))
    }

    /// Whether this consumer, which was just made, reads on where we are now. It does not if the
    /// lease was lost meanwhile, also if it was gained again.
    pub(super) fn suits(&self, policy: &DeliverPolicy) -> bool {
        let reads = self.lease.landed().is_some() && self.anew.is_none();
        let start_sequence = self.next.max(1);
        reads && *policy == DeliverPolicy::ByStartSequence { start_sequence }
    }

    /// A consumer is there. Says which partition is ours from here on, if that is new.
    pub(super) fn bound(&mut self, consumer: &str, wish: &Wish) -> Option<SourceEvent> {
        self.consumer = Some(consumer.to_owned());
        self.delivery = 1;
        self.set_back = None;
        let begins = self.begins.take()?;
        let stream = &self.bucket.as_ref()?.stream;
        let partition = new_partition(format!("{stream}/{}", wish.takes.consumer));
        self.partition = Some(Arc::clone(&partition));
        let note = begins.note.as_deref().map(str::to_owned);
        Some(SourceEvent::Assigned(vec![Assigned { partition, note }]))
    }

    /// It is another stream than the one that was read: its numbers have nothing to do with those
    /// that we know. One that was set back gives them to other records.
    pub(super) fn another(
        &mut self,
        made: i64,
        last: u64,
        wish: &Wish,
        now: Instant,
    ) -> Option<Unbound> {
        let landed = self.lease.landed()?;
        let same = made == landed.stream;
        if same && *self.set_back.get_or_insert(now) + SET_BACK_FOR > now {
            let (route, next) = (&wish.route, self.next);
            return Some(Unbound::Later(format!(
                "route {route}: its stream ends at {last} and was read up to {next} already"
            )));
        }
        self.set_back = None;
        let next = if same { last + 1 } else { 1 };
        tracing::warn!(
            event = "stream_made_anew",
            route = wish.route,
            made,
            next,
            "the stream was made anew, or set back"
        );
        if self.partition.is_none()
            && let Some(note) = landed.note.as_deref().filter(|note| note.contains(':'))
        {
            tracing::error!(
                event = "uncertain",
                route = wish.route,
                note,
                "what was announced of the stream before cannot be read any more: whether it landed \
                 is not known"
            );
        }
        self.anew = Some(Place { stream: made, next, note: None });
        self.begin_anew();
        self.anew.as_ref().filter(|_| self.partition.is_some()).map(|_| {
            Unbound::Later(format!(
                "route {}: its stream was made anew; it is read as soon as all records of the one \
                 before are in ClickHouse",
                wish.route
            ))
        })
    }

    /// Once all that was read of the stream before is durable, and that is in the bucket.
    fn begin_anew(&mut self) {
        let Some(anew) = &self.anew else { return };
        let done = self.lease.landed().is_some_and(|landed| landed.next >= self.next);
        if self.partition.is_none() || done {
            self.lease.want(anew.clone());
        }
    }

    /// Its place, if it is the delivery that must come next.
    pub(super) fn arrive(&mut self, delivery: &Delivery) -> Option<i64> {
        if delivery.number != self.delivery || delivery.sequence < self.next {
            return None;
        }
        self.delivery += 1;
        self.next = delivery.sequence + 1;
        Some(signed(delivery.sequence))
    }

    /// Whether it comes from a consumer that was left.
    pub(super) fn is_stale(&self, consumer: Option<&str>) -> bool {
        consumer.is_none() || consumer != self.consumer.as_deref()
    }
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::bind::tests::wish;
    use super::*;

    fn owned() -> Owned {
        Owned::new(&wish(), "i", Instant::now())
    }

    fn delivery(number: u64, sequence: u64) -> Delivery {
        Delivery { times: 1, sequence, number, published: 0, pending: 0 }
    }

    #[test]
    fn sequences_may_have_gaps_and_deliveries_may_not() {
        let mut owned = owned();
        assert_eq!(owned.arrive(&delivery(1, 3)), Some(3));
        assert_eq!(owned.arrive(&delivery(2, 9)), Some(9), "others lie between");
        assert_eq!(owned.arrive(&delivery(4, 11)), None, "the third is missing");
        assert_eq!(owned.next, 10, "it is asked for again");
        assert_eq!(owned.arrive(&delivery(3, 9)), None, "what came already");
    }

    #[test]
    fn whoever_lost_the_stream_while_it_was_let_go_stands_by_if_it_is_wanted() {
        let (mut wanted, mut unwanted, now) = (owned(), owned(), Instant::now());
        wanted.parted(&[], true);
        assert!(!wanted.has_left() && wanted.claim(&wish(), now).is_some());
        unwanted.parted(&[], false);
        assert!(unwanted.has_left() && unwanted.claim(&wish(), now).is_none());
    }

    #[test]
    fn what_a_consumer_that_was_left_still_sends_is_recognised() {
        let mut owned = owned();
        assert!(owned.is_stale(Some("a")), "there is none yet");
        owned.consumer = Some("a".to_owned());
        assert!(!owned.is_stale(Some("a")));
        assert!(owned.is_stale(Some("b")) && owned.is_stale(None));
    }
}
