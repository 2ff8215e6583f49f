//! Who owns a consumer of which exactly once is promised, and how far it is: one key of a bucket,
//! written by compare-and-set only. Pure: says what to ask of the bucket and what the answer means.
//!
//! **The compare-and-set is the fence.** No batch is sent before its range is in the key, so whoever
//! was replaced can announce nothing more, and what it had announced is in the key, where its
//! successor finds it. The lease decides only how soon somebody else tries: clocks are never
//! compared, each instance measures with its own how long the key has not changed.
//!
//! A write of which nobody knows whether it landed is never guessed about: the key is read, and the
//! number that each write carries tells.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Writes of unknown outcome that are remembered. One that is forgotten and lands all the same is
/// written over by the next.
const REMEMBERED: usize = 16;
/// The longest wait between two attempts to write; the first is repeated at once.
const RETRY_AT_MOST: Duration = Duration::from_secs(2);
const RETRY_FROM: Duration = Duration::from_millis(20);
/// How often somebody else's key is looked at: often enough to take over soon after the lease, and
/// no more often than a server minds.
const LOOKS_A_LEASE: u32 = 5;
const LOOK_AT_MOST: Duration = Duration::from_secs(2);

/// How far a consumer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// When its stream was made, in nanoseconds since the epoch: another time is another stream.
    pub(super) stream: i64,
    /// The sequence to go on from.
    pub(super) next: u64,
    /// What is announced (`intent.rs`).
    pub(super) note: Option<Arc<str>>,
}

/// What is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Value {
    /// One life of one instance; no other ever has this name.
    pub(super) owner: String,
    /// The owner has given it up.
    pub(super) free: bool,
    /// Of the owner's writes, so that each can be told from any other.
    pub(super) count: u64,
    pub(super) place: Place,
}

/// The key as it was read. Revision 0: there was never anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) value: Option<Value>,
}

/// What to ask of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Read,
    /// Write it if the key is at this revision still.
    Write {
        value: Value,
        revision: u64,
    },
}

/// What became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The consumer is ours, from here on.
    Gained(Place),
    /// This is in the key.
    Landed(Place),
    /// It is somebody else's.
    Lost,
}

#[derive(Debug)]
enum State {
    /// Somebody else has it, or nothing is known yet.
    Watching(Option<Seen>),
    /// It may be had.
    Claiming {
        revision: u64,
        place: Place,
    },
    Owner(Owner),
    /// Given up, for good.
    Left,
}

/// Somebody else's key.
#[derive(Debug)]
struct Seen {
    revision: u64,
    /// When this revision was first seen, by our clock.
    since: Instant,
    place: Place,
}

#[derive(Debug)]
struct Owner {
    revision: u64,
    /// What is in the key.
    landed: Place,
    /// What shall be.
    wanted: Place,
    /// What became of the last write is not known.
    doubt: bool,
}

#[derive(Debug)]
pub(super) struct Lease {
    me: String,
    lasts: Duration,
    state: State,
    /// Of our writes.
    count: u64,
    /// Writes that may have landed, or may yet.
    attempts: Vec<Value>,
    /// When the question on its way was asked.
    asked_at: Option<Instant>,
    /// When to look, to try again, or to renew.
    due: Instant,
    failures: u32,
    leaving: bool,
    /// Who has it, if it is somebody else.
    holder: Option<String>,
}

impl Lease {
    /// `me` is a name that nobody else has, or ever had.
    pub(super) fn new(me: String, lasts: Duration, now: Instant) -> Self {
        Self {
            me,
            lasts,
            state: State::Watching(None),
            count: 0,
            attempts: Vec::new(),
            asked_at: None,
            due: now,
            failures: 0,
            leaving: false,
            holder: None,
        }
    }

    /// Who else has it, when that is what is waited for.
    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// What is in the key, while it is ours.
    pub(super) fn landed(&self) -> Option<&Place> {
        match &self.state {
            State::Owner(owner) => Some(&owner.landed),
            _ => None,
        }
    }

    /// Writes that failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// This shall be in the key. Nothing while it is not ours.
    pub(super) fn want(&mut self, place: Place) {
        if let State::Owner(owner) = &mut self.state {
            owner.wanted = place;
        }
    }

    /// Gives it up, with what is wanted to be in the key.
    pub(super) fn resign(&mut self) {
        self.leaving = true;
        if self.asked_at.is_none() && !matches!(self.state, State::Owner(_)) {
            self.state = State::Left;
        }
    }

    /// It was given up, for good.
    pub(super) fn has_left(&self) -> bool {
        matches!(self.state, State::Left)
    }

    /// What to ask now; nothing while a question is on its way.
    pub(super) fn question(&mut self, now: Instant) -> Option<Ask> {
        if self.asked_at.is_some() {
            return None;
        }
        let ask = match &self.state {
            State::Left => return None,
            State::Watching(_) => (self.due <= now).then_some(Ask::Read),
            State::Claiming { revision, place } => {
                let (revision, place) = (*revision, place.clone());
                Some(self.write(revision, place, false))
            }
            State::Owner(owner) if owner.doubt => (self.due <= now).then_some(Ask::Read),
            State::Owner(owner) => {
                let news = self.leaving || owner.wanted != owner.landed;
                let write = self.due <= now || (news && self.failures == 0);
                let (revision, place) = (owner.revision, owner.wanted.clone());
                write.then(|| self.write(revision, place, self.leaving))
            }
        }?;
        self.asked_at = Some(now);
        Some(ask)
    }

    fn write(&mut self, revision: u64, place: Place, free: bool) -> Ask {
        self.count += 1;
        if self.attempts.len() == REMEMBERED {
            self.attempts.remove(0);
        }
        let value = Value { owner: self.me.clone(), free, count: self.count, place };
        self.attempts.push(value.clone());
        Ask::Write { value, revision }
    }

    /// The write was answered: its revision, or that it did not land, or that nobody knows.
    pub(super) fn wrote(&mut self, revision: Option<u64>, now: Instant) -> Option<News> {
        let asked_at = self.asked_at.take().unwrap_or(now);
        let Some(revision) = revision else {
            self.failures = self.failures.saturating_add(1);
            self.due = now;
            if let State::Owner(owner) = &mut self.state {
                owner.doubt = true;
            } else {
                self.due += self.pause();
                self.watch(None);
            }
            return None;
        };
        let value = self.attempts.pop()?;
        self.landed_at(revision, value, asked_at)
    }

    /// A write of ours is in the key, and it is the last one there.
    fn landed_at(&mut self, revision: u64, value: Value, asked_at: Instant) -> Option<News> {
        // Those before it wanted a revision that will not come again.
        self.attempts.clear();
        self.failures = 0;
        self.holder = None;
        self.due = asked_at + self.lasts / 3;
        let place = value.place;
        match &mut self.state {
            _ if value.free => {
                self.state = State::Left;
                Some(News::Landed(place))
            }
            State::Owner(owner) => {
                (owner.revision, owner.doubt) = (revision, false);
                owner.landed = place.clone();
                Some(News::Landed(place))
            }
            _ => {
                let (landed, wanted) = (place.clone(), place.clone());
                self.state = State::Owner(Owner { revision, landed, wanted, doubt: false });
                Some(News::Gained(place))
            }
        }
    }

    /// The key was read. `first` is where to begin if nobody ever did.
    pub(super) fn read(
        &mut self,
        entry: Entry,
        first: Option<Place>,
        now: Instant,
    ) -> Option<News> {
        let asked_at = self.asked_at.take().unwrap_or(now);
        let Entry { revision, value } = entry;
        if let Some(value) = value.as_ref().filter(|value| self.attempts.contains(value)) {
            return self.landed_at(revision, value.clone(), asked_at);
        }
        match &mut self.state {
            State::Owner(owner) if value.as_ref().is_none_or(|value| value.owner == self.me) => {
                // Nothing of it landed, or somebody removed the key: ours is what counts.
                (owner.revision, owner.doubt) = (revision, false);
                self.due = now + self.pause();
                None
            }
            State::Owner(_) => {
                self.attempts.clear();
                self.note_holder(value.as_ref());
                self.watch(value.map(|value| Seen { revision, since: now, place: value.place }));
                self.due = now + self.look_every();
                Some(News::Lost)
            }
            State::Watching(_) if self.leaving => {
                self.state = State::Left;
                None
            }
            State::Watching(seen) => {
                let seen = seen.take();
                self.look(revision, value, first, seen, asked_at, now);
                None
            }
            State::Claiming { .. } | State::Left => None,
        }
    }

    /// Somebody else's key, or nobody's.
    fn look(
        &mut self,
        revision: u64,
        value: Option<Value>,
        first: Option<Place>,
        seen: Option<Seen>,
        asked_at: Instant,
        now: Instant,
    ) {
        self.due = now + self.look_every().max(self.pause());
        self.note_holder(value.as_ref());
        let free = value.as_ref().is_none_or(|value| value.free);
        let place = value.map(|value| value.place);
        let unchanged = seen.as_ref().filter(|seen| seen.revision == revision);
        // A key that was there and is gone may be written again by its owner: as long as any other.
        let at_once = free && (place.is_some() || seen.is_none());
        let expired = unchanged.is_some_and(|seen| asked_at >= seen.since + self.lasts);
        let since = unchanged.map_or(now, |seen| seen.since);
        let place = place.or_else(|| seen.map(|seen| seen.place)).or(first);
        let Some(place) = place else { return };
        if at_once || expired {
            self.state = State::Claiming { revision, place };
        } else {
            self.failures = 0;
            self.state = State::Watching(Some(Seen { revision, since, place }));
        }
    }

    /// The bucket could not be read.
    pub(super) fn unread(&mut self, now: Instant) {
        self.asked_at = None;
        self.failures = self.failures.saturating_add(1);
        self.due = now + self.pause().max(RETRY_FROM);
        // Its owner could write it as little: it has all of its lease again.
        if let State::Watching(Some(seen)) = &mut self.state {
            seen.since = now;
        }
        if self.leaving && matches!(self.state, State::Watching(_)) {
            self.state = State::Left;
        }
    }

    fn watch(&mut self, seen: Option<Seen>) {
        self.state = if self.leaving { State::Left } else { State::Watching(seen) };
    }

    fn note_holder(&mut self, value: Option<&Value>) {
        self.holder = value.filter(|value| !value.free).map(|value| value.owner.clone());
    }

    fn look_every(&self) -> Duration {
        (self.lasts / LOOKS_A_LEASE).min(LOOK_AT_MOST)
    }

    /// None after the first failure, then doubling.
    fn pause(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            failures => (RETRY_FROM * (1 << (failures - 2).min(10))).min(RETRY_AT_MOST),
        }
    }
}

#[cfg(test)]
mod tests;
