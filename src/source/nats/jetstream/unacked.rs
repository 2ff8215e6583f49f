//! The records of one consumer that are not acknowledged: by their arrival, because the ledger
//! counts in the order of arrival, and by their number in the stream, because that is how a record
//! is known when it comes again. Pure.
//!
//! A record that is delivered again while it is held is not admitted again: only its newest reply
//! subject is kept. One that is delivered again although it was acknowledged (the server died
//! before it had written that down) is acknowledged again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::bulk::{Bulk, Standing};
use super::ranges::Ranges;
use super::reply::Delivery;

/// What a record that came is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Its place: a count of arrivals.
    New(i64),
    /// It is held already.
    Held,
    /// It was durable, and acknowledged, before.
    Done,
}

/// What to answer for a record that is durable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) reply: Box<str>,
    /// It is a dead letter because of how often it came: it shall not come again, ever.
    pub(super) poisoned: bool,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    reply: Box<str>,
    /// When the server last heard that we are at it.
    told_at: Instant,
    poisoned: bool,
}

#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// The arrival of the first entry.
    first: i64,
    entries: VecDeque<Entry>,
    held: HashMap<u64, i64>,
    /// Durable, above what the server is known to know.
    done: Ranges,
    /// Where one acknowledgement stands for all before it.
    bulk: Option<Bulk>,
}

impl Unacked {
    pub(super) fn new(in_bulk: bool, now: Instant) -> Self {
        Self { bulk: in_bulk.then(|| Bulk::new(now)), ..Self::default() }
    }

    /// A delivery that is not kept: it is given back.
    pub(super) fn pass(&mut self, delivery: &Delivery, now: Instant) {
        if let Some(bulk) = &mut self.bulk {
            bulk.came(delivery.number, delivery.sequence, false, now);
        }
    }

    pub(super) fn arrive(
        &mut self,
        delivery: &Delivery,
        reply: &str,
        poisoned: bool,
        now: Instant,
    ) -> Arrival {
        let sequence = delivery.sequence;
        if let Some(bulk) = &mut self.bulk {
            bulk.came(delivery.number, sequence, true, now);
        }
        if let Some(arrival) = self.held.get(&sequence) {
            let index = usize::try_from(arrival - self.first).expect("what is held has an entry");
            let entry = &mut self.entries[index];
            entry.reply = reply.into();
            entry.told_at = now;
            return Arrival::Held;
        }
        if self.done.contains(sequence) {
            let Some(bulk) = &mut self.bulk else { return Arrival::Done };
            bulk.durable(sequence, reply.into(), now);
            return Arrival::Held;
        }
        let arrival = self.end();
        self.held.insert(sequence, arrival);
        self.entries.push_back(Entry { sequence, reply: reply.into(), told_at: now, poisoned });
        Arrival::New(arrival)
    }

    /// The arrival that comes next.
    pub(super) fn end(&self) -> i64 {
        self.first + i64::try_from(self.entries.len()).expect("fewer entries than memory")
    }

    /// Everything that arrived before `until` is durable: what to answer.
    pub(super) fn settle(&mut self, until: i64) -> Vec<Answer> {
        let mut answers = Vec::new();
        while self.first < until
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.held.remove(&entry.sequence);
            self.done.insert(entry.sequence);
            match &mut self.bulk {
                Some(bulk) => bulk.durable(entry.sequence, entry.reply, entry.told_at),
                None => answers.push(Answer { reply: entry.reply, poisoned: entry.poisoned }),
            }
        }
        answers.extend(self.settle_bulk());
        answers
    }

    /// The one answer for many, as far as it may be given by now.
    pub(super) fn settle_bulk(&mut self) -> Option<Answer> {
        let lowest = || self.entries.iter().map(|entry| entry.sequence).min();
        self.bulk.as_mut()?.acknowledge(lowest())
    }

    /// Everything that is durable was answered.
    pub(super) fn is_told_all(&self) -> bool {
        self.bulk.as_ref().is_none_or(Bulk::is_told_all)
    }

    /// How the consumer stands, after a look at it. Says whether deliveries are missing that a
    /// moment without new ones may bring to light.
    pub(super) fn looked(&mut self, standing: Standing, on_their_way: usize) -> bool {
        self.done.forget_to(standing.floor);
        let Some(bulk) = &mut self.bulk else { return false };
        bulk.looked(standing);
        bulk.may_close(standing, on_their_way)
    }

    /// The consumer was made anew, with numbers of its own for its deliveries.
    pub(super) fn begin_again(&mut self, now: Instant) {
        if let Some(bulk) = &mut self.bulk {
            bulk.begin_again(now);
        }
    }

    /// How long nothing could be acknowledged because deliveries are missing.
    pub(super) fn gap_for(&self, now: Instant) -> Option<Duration> {
        self.bulk.as_ref()?.gap_for(now)
    }

    /// The replies of what the server has not heard of for so long; it does now.
    pub(super) fn in_progress(&mut self, now: Instant, after: Duration) -> Vec<Box<str>> {
        let mut replies = Vec::new();
        for entry in &mut self.entries {
            if entry.told_at + after <= now {
                entry.told_at = now;
                replies.push(entry.reply.clone());
            }
        }
        replies.extend(self.bulk.iter_mut().flat_map(|bulk| bulk.in_progress(now, after)));
        replies
    }

    /// Gives up everything; the replies of what it was.
    pub(super) fn give_up(&mut self) -> Vec<Box<str>> {
        self.held.clear();
        self.first = self.end();
        self.entries.drain(..).map(|entry| entry.reply).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn delivery(sequence: u64) -> Delivery {
        Delivery { times: 1, sequence, number: 0, published: 0, pending: 0 }
    }

    fn known_to(floor: u64) -> Standing {
        Standing { open: 0, delivery: 0, sequence: 0, floor }
    }

    #[test]
    fn what_comes_again_while_it_is_held_keeps_its_place_and_gets_the_newest_reply() {
        let now = Instant::now();
        let mut unacked = Unacked::default();
        assert_eq!(unacked.arrive(&delivery(10), "a1", false, now), Arrival::New(0));
        assert_eq!(unacked.arrive(&delivery(11), "b1", true, now), Arrival::New(1));
        assert_eq!(unacked.arrive(&delivery(10), "a2", false, now), Arrival::Held);
        let answer = |reply: &str, poisoned| Answer { reply: reply.into(), poisoned };
        assert_eq!(unacked.settle(2), [answer("a2", false), answer("b1", true)]);
        assert_eq!(unacked.arrive(&delivery(10), "a3", false, now), Arrival::Done);
        unacked.looked(known_to(10), 0);
        assert_eq!(unacked.arrive(&delivery(11), "b2", false, now), Arrival::Done);
        assert_eq!(unacked.arrive(&delivery(12), "c1", false, now), Arrival::New(2));
    }

    #[test]
    fn progress_is_told_when_it_is_due_and_not_before() {
        let (now, after) = (Instant::now(), Duration::from_secs(40));
        let mut unacked = Unacked::default();
        unacked.arrive(&delivery(1), "a", false, now);
        unacked.arrive(&delivery(2), "b", false, now + after / 2);
        assert_eq!(unacked.in_progress(now + after / 2, after), []);
        assert_eq!(unacked.in_progress(now + after, after), [Box::from("a")]);
        assert_eq!(unacked.in_progress(now + after * 3 / 2, after), [Box::from("b")]);
        assert_eq!(unacked.give_up(), [Box::from("a"), Box::from("b")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Deliveries and redeliveries in any order: each record is new once, answered only when
        /// the prefix covers its place, by the reply that came last.
        #[test]
        fn each_record_is_new_once_and_answered_by_its_newest_reply(
            steps in prop::collection::vec((0u8..4, 0u64..30), 1..120),
        ) {
            let now = Instant::now();
            let mut unacked = Unacked::default();
            let mut newest: BTreeMap<u64, String> = BTreeMap::new();
            let mut places: Vec<u64> = Vec::new();
            let (mut done, mut settled) = (BTreeSet::<u64>::new(), 0);
            for (count, (kind, sequence)) in steps.into_iter().enumerate() {
                if kind > 0 {
                    let reply = format!("{sequence}-{count}");
                    let arrival = unacked.arrive(&delivery(sequence), &reply, false, now);
                    let expected = if done.contains(&sequence) {
                        Arrival::Done
                    } else if newest.contains_key(&sequence) {
                        Arrival::Held
                    } else {
                        places.push(sequence);
                        Arrival::New(i64::try_from(places.len()).unwrap() - 1)
                    };
                    prop_assert_eq!(arrival, expected);
                    if arrival != Arrival::Done {
                        newest.insert(sequence, reply);
                    }
                } else {
                    let until = usize::try_from(sequence).unwrap().min(places.len()).max(settled);
                    let answers = unacked.settle(i64::try_from(until).unwrap());
                    let expected: Vec<String> =
                        places[settled..until].iter().map(|s| newest[s].clone()).collect();
                    let got: Vec<String> =
                        answers.into_iter().map(|answer| answer.reply.into_string()).collect();
                    prop_assert_eq!(got, expected);
                    done.extend(&places[settled..until]);
                    settled = until;
                }
            }
        }
    }
}
