//! When one acknowledgement may stand for all before it. Pure.
//!
//! The server takes it for every record with a lower number, whether we have that one or not. So
//! it may name a record only when everything below came to us and is durable. What came can be
//! told by the deliveries, which the consumer counts: without a gap in them none went elsewhere or
//! was lost on its way. Behind a gap nothing is acknowledged until the server knows of no more
//! open records than we do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::unacked::Answer;

/// What the server says of the consumer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Delivered and not acknowledged.
    pub(super) open: usize,
    /// The number of the last delivery, and the highest number in the stream that was delivered.
    pub(super) delivery: u64,
    pub(super) sequence: u64,
    /// Everything up to here is acknowledged.
    pub(super) floor: u64,
}

#[derive(Debug)]
struct Durable {
    reply: Box<str>,
    told_at: Instant,
}

#[derive(Debug)]
pub(super) struct Bulk {
    /// The number of the next delivery; 0 while that is not known.
    next: u64,
    /// Everything up to this number of the stream came to us, or is acknowledged.
    complete_to: u64,
    /// Since when deliveries are missing.
    gap_since: Option<Instant>,
    /// What came from this consumer and is not acknowledged, and of it what is durable.
    open: BTreeSet<u64>,
    durable: BTreeMap<u64, Durable>,
}

impl Bulk {
    pub(super) fn new(now: Instant) -> Self {
        let (open, durable) = (BTreeSet::new(), BTreeMap::new());
        // Until the server has said how the consumer is.
        Self { next: 0, complete_to: 0, gap_since: Some(now), open, durable }
    }

    /// The consumer was made anew: what it delivers again is open, and nothing else.
    pub(super) fn begin_again(&mut self, now: Instant) {
        *self = Self { complete_to: self.complete_to, ..Self::new(now) };
    }

    /// A delivery came; `kept` is false if it was given back.
    pub(super) fn came(&mut self, delivery: u64, sequence: u64, kept: bool, now: Instant) {
        if delivery != self.next || !kept {
            self.gap_since.get_or_insert(now);
        }
        self.next = delivery + 1;
        if kept {
            self.open.insert(sequence);
        }
        if self.gap_since.is_none() {
            self.complete_to = self.complete_to.max(sequence);
        }
    }

    /// Compares what the server knows with what we know.
    pub(super) fn looked(&mut self, standing: Standing) {
        self.complete_to = self.complete_to.max(standing.floor);
        if self.next == 0 {
            self.next = standing.delivery + 1;
        }
        let all_came = standing.delivery + 1 == self.next;
        if all_came && standing.open == self.open.len() {
            self.complete_to = self.complete_to.max(standing.sequence);
            self.gap_since = None;
        }
    }

    /// Whether a moment without new deliveries may close the gap.
    pub(super) fn may_close(&self, standing: Standing, on_their_way: usize) -> bool {
        self.gap_since.is_some() && standing.open <= self.open.len() + on_their_way
    }

    /// How long nothing could be acknowledged because deliveries are missing.
    pub(super) fn gap_for(&self, now: Instant) -> Option<Duration> {
        self.gap_since.map(|since| now - since)
    }

    /// A record is durable, or comes again although it is.
    pub(super) fn durable(&mut self, sequence: u64, reply: Box<str>, told_at: Instant) {
        self.durable.insert(sequence, Durable { reply, told_at });
    }

    /// The one answer that says the most, given the lowest number that is held; what it stands for
    /// is forgotten.
    pub(super) fn acknowledge(&mut self, lowest_held: Option<u64>) -> Option<Answer> {
        let limit = self.complete_to.min(lowest_held.map_or(u64::MAX, |lowest| lowest - 1));
        let above = self.durable.split_off(&limit.saturating_add(1));
        let said = std::mem::replace(&mut self.durable, above);
        let (sequence, last) = said.into_iter().next_back()?;
        self.open = self.open.split_off(&(sequence + 1));
        Some(Answer { reply: last.reply, poisoned: false })
    }

    pub(super) fn is_told_all(&self) -> bool {
        self.durable.is_empty()
    }

    pub(super) fn in_progress(&mut self, now: Instant, after: Duration) -> Vec<Box<str>> {
        let due = self.durable.values_mut().filter(|durable| durable.told_at + after <= now);
        due.map(|durable| {
            durable.told_at = now;
            durable.reply.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn standing(open: usize, delivery: u64, sequence: u64) -> Standing {
        Standing { open, delivery, sequence, floor: 0 }
    }

    fn acked(bulk: &mut Bulk, lowest_held: Option<u64>) -> Option<String> {
        bulk.acknowledge(lowest_held).map(|answer| answer.reply.into_string())
    }

    #[test]
    fn behind_a_gap_nothing_is_acknowledged_until_the_server_knows_no_more_than_we_do() {
        let now = Instant::now();
        let mut bulk = Bulk::new(now);
        bulk.looked(standing(0, 0, 0));
        bulk.came(1, 10, true, now);
        bulk.came(3, 12, true, now); // the second, of number 11, got lost
        bulk.durable(10, "10".into(), now);
        bulk.durable(12, "12".into(), now);
        assert_eq!(acked(&mut bulk, None).as_deref(), Some("10"));
        bulk.looked(standing(2, 3, 12));
        assert_eq!(acked(&mut bulk, None), None);
        bulk.came(4, 11, true, now); // it comes again
        bulk.looked(standing(2, 4, 12));
        assert_eq!(acked(&mut bulk, Some(11)), None, "it is held");
        bulk.durable(11, "11".into(), now);
        assert_eq!(acked(&mut bulk, None).as_deref(), Some("12"));
        assert!(bulk.is_told_all());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// A server that delivers in order and again, loses some deliveries on their way, and takes
        /// an acknowledgement for everything below: it never forgets what is not durable here.
        #[test]
        fn nothing_is_forgotten_that_is_not_durable(
            steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 1..150),
        ) {
            let now = Instant::now();
            let mut bulk = Bulk::new(now);
            let (mut open, mut held, mut durable) =
                (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let (mut delivery, mut sequence) = (0, 0);
            for (kind, index) in steps {
                match kind {
                    // a first delivery, one again; each may get lost
                    0..=2 => {
                        let again = kind == 2 && !open.is_empty();
                        let of = if again {
                            *open.iter().nth(index.index(open.len())).unwrap()
                        } else {
                            sequence += 1;
                            sequence
                        };
                        open.insert(of);
                        delivery += 1;
                        if index.index(4) > 0 {
                            bulk.came(delivery, of, true, now);
                            if durable.contains(&of) {
                                bulk.durable(of, of.to_string().into(), now);
                            } else {
                                held.insert(of);
                            }
                        }
                    }
                    3 if !held.is_empty() => {
                        let of = *held.iter().nth(index.index(held.len())).unwrap();
                        held.remove(&of);
                        durable.insert(of);
                        bulk.durable(of, of.to_string().into(), now);
                    }
                    4 => {
                        if let Some(answer) = bulk.acknowledge(held.first().copied()) {
                            let to: u64 = answer.reply.parse().unwrap();
                            open.retain(|of| *of > to);
                            let lost: Vec<_> =
                                (1..=to).filter(|of| !durable.contains(of)).collect();
                            prop_assert!(lost.is_empty(), "{lost:?} forgotten by {to}");
                        }
                    }
                    _ => {
                        let floor = open.first().map_or(sequence, |first| first - 1);
                        bulk.looked(Standing { open: open.len(), delivery, sequence, floor });
                    }
                }
            }
        }
    }
}
