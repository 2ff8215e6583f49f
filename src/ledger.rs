//! The ledger: which records are admitted, which of them are settled, and so how far each
//! partition may be committed.
//!
//! Pure. Records of one partition go to different tables with different lingers, so they do not
//! settle in order; only the contiguous settled prefix may be committed. Committing "the last
//! offset of the last batch" loses data.

mod by_route;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::by_route::ByRoute;
use crate::record::{Partition, Position};
use crate::route::RouteId;
use crate::source::SourceId;

/// One assignment of a partition, or a source without partitions. Never used again once released,
/// so a ticket of an old assignment cannot be mistaken for one of a new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// The claim of one admitted record; given back by [`Ledger::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    slot: Slot,
    route: RouteId,
    offset: i64,
}

impl Ticket {
    #[must_use]
    pub fn slot(self) -> Slot {
        self.slot
    }
}

/// A record that is not settled, or a settled one behind it that was not folded into it yet.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    settled: bool,
    /// Settled records directly behind this one that have no entry of their own any more.
    folded: u64,
}

/// Settled entries are folded when there are this many, and more than unsettled ones: so a record
/// that stays for hours costs nothing for all that pass it, and folding costs little per record.
const FOLD_AT: usize = 1_024;

#[derive(Debug)]
struct State {
    source: SourceId,
    /// None: no position, nothing to commit, ever; only counted.
    partition: Option<Arc<Partition>>,
    /// From the first record that is not settled on, in order.
    open: VecDeque<Entry>,
    unsettled: usize,
    /// The same, by route.
    held: ByRoute,
    /// The offset after the last record that was admitted.
    end: i64,
    /// How far everything is durable; None before the first.
    committable: Option<i64>,
    /// Records of the durable prefix since the start of the assignment.
    prefix_records: u64,
    admitted_records: u64,
    /// The last commit that was asked for, and the records of the one that was acknowledged.
    asked: Option<(i64, u64)>,
    committed_records: u64,
}

impl State {
    fn enter(&mut self, offset: i64) {
        self.unsettled += 1;
        self.admitted_records += 1;
        if self.partition.is_some() {
            debug_assert!(self.end <= offset, "offsets ascend");
            self.end = offset + 1;
            self.open.push_back(Entry { offset, settled: false, folded: 0 });
        }
    }

    fn settle(&mut self, offset: i64) {
        self.unsettled -= 1;
        if self.partition.is_none() {
            return;
        }
        let found = self.open.binary_search_by_key(&offset, |entry| entry.offset);
        let entry = &mut self.open[found.expect("a ticket is settled once")];
        assert!(!entry.settled, "a ticket is settled once");
        entry.settled = true;
        while let Some(first) = self.open.front().filter(|entry| entry.settled) {
            self.prefix_records += 1 + first.folded;
            self.open.pop_front();
            self.committable = Some(self.open.front().map_or(self.end, |next| next.offset));
        }
        if self.open.len() - self.unsettled > self.unsettled.max(FOLD_AT) {
            self.fold();
        }
    }

    fn fold(&mut self) {
        let mut kept: VecDeque<Entry> = VecDeque::with_capacity(self.unsettled);
        for entry in self.open.drain(..) {
            match kept.back_mut().filter(|_| entry.settled) {
                Some(before) => before.folded += 1 + entry.folded,
                None => kept.push_back(entry),
            }
        }
        self.open = kept;
    }
}

/// All slots, by number; a released one stays as None.
#[derive(Debug, Default)]
pub struct Ledger {
    slots: Vec<Option<State>>,
}

impl Ledger {
    /// A new slot for an assignment, or for a source without partitions.
    pub fn open(&mut self, source: SourceId, partition: Option<Arc<Partition>>) -> Slot {
        self.slots.push(Some(State {
            source,
            partition,
            open: VecDeque::new(),
            unsettled: 0,
            held: ByRoute::default(),
            end: 0,
            committable: None,
            prefix_records: 0,
            admitted_records: 0,
            asked: None,
            committed_records: 0,
        }));
        Slot(u32::try_from(self.slots.len() - 1).expect("fewer than 4 billion assignments"))
    }

    /// Admits a record. Offsets of one slot come in ascending order, with gaps. Without a
    /// partition there is no order to keep and nothing to commit: the record is only counted.
    pub fn admit(&mut self, slot: Slot, offset: i64, route: RouteId) -> Ticket {
        let state = self.open_slot(slot);
        state.enter(offset);
        *state.held.entry(route.index()) += 1;
        Ticket { slot, route, offset }
    }

    /// A record that needs nothing more (a tombstone, a filtered one): settled at once, so that
    /// the lag reaches zero.
    pub fn pass(&mut self, slot: Slot, offset: i64) {
        let state = self.open_slot(slot);
        state.enter(offset);
        state.settle(offset);
    }

    /// The record is durable. False if its slot was released: then it is nobody's any more.
    pub fn settle(&mut self, ticket: Ticket) -> bool {
        match self.state_mut(ticket.slot) {
            Some(state) => {
                state.settle(ticket.offset);
                *state.held.entry(ticket.route.index()) -= 1;
                true
            }
            None => false,
        }
    }

    /// Forgets a slot; says how many of its records were not settled: they come again.
    pub fn release(&mut self, slot: Slot) -> ByRoute {
        let state = self.slots.get_mut(slot.0 as usize).and_then(Option::take);
        state.map(|state| state.held).unwrap_or_default()
    }

    /// Gives up what a source holds, says how much that is. What is durable may be committed all
    /// the same. Nothing may be settled any more.
    pub fn give_up(&mut self, source: SourceId) -> ByRoute {
        let mut given_up = ByRoute::default();
        for state in self.slots.iter_mut().flatten().filter(|state| state.source == source) {
            state.unsettled = 0;
            given_up.add(&std::mem::take(&mut state.held));
        }
        given_up
    }

    /// The source of a slot that is open.
    #[must_use]
    pub fn source(&self, slot: Slot) -> Option<SourceId> {
        self.state(slot).map(|state| state.source)
    }

    /// Records admitted and not settled; 0 for a released slot.
    #[must_use]
    pub fn held(&self, slot: Slot) -> usize {
        self.state(slot).map_or(0, |state| state.unsettled)
    }

    /// How far the slot may be committed: to the first record that is not durable. None while
    /// nothing of it is durable.
    #[must_use]
    pub fn committable(&self, slot: Slot) -> Option<Position> {
        let state = self.state(slot)?;
        let offset = state.committable?;
        Some(Position { partition: Arc::clone(state.partition.as_ref()?), offset })
    }

    /// Everything of a source that may be committed. What is returned counts as asked for.
    pub fn take_committable(&mut self, source: SourceId) -> Vec<Position> {
        let mut positions = Vec::new();
        for state in self.slots.iter_mut().flatten().filter(|state| state.source == source) {
            if let (Some(offset), Some(partition)) = (state.committable, &state.partition) {
                state.asked = Some((offset, state.prefix_records));
                positions.push(Position { partition: Arc::clone(partition), offset });
            }
        }
        positions
    }

    /// The source says that this position is committed.
    pub fn committed(&mut self, position: &Position) {
        let of_partition =
            |state: &&mut State| state.partition.as_ref() == Some(&position.partition);
        if let Some(state) = self.slots.iter_mut().flatten().find(of_partition) {
            // A position beyond the one asked for (behind control records) covers it as well.
            if let Some((_, records)) = state.asked.filter(|(asked, _)| *asked <= position.offset) {
                state.committed_records = state.committed_records.max(records);
            }
        }
    }

    /// Records of a source that would come again after a crash: admitted and not committed.
    #[must_use]
    pub fn uncommitted(&self, source: SourceId) -> u64 {
        let of_source = self.slots.iter().flatten().filter(|state| state.source == source);
        of_source
            .filter(|state| state.partition.is_some())
            .map(|state| state.admitted_records - state.committed_records)
            .sum()
    }

    /// Records of a source that are admitted and not settled.
    #[must_use]
    pub fn held_of(&self, source: SourceId) -> usize {
        let of_source = self.slots.iter().flatten().filter(|state| state.source == source);
        of_source.map(|state| state.unsettled).sum()
    }

    /// Records of all sources that are admitted and not settled, by route.
    #[must_use]
    pub fn held_by_route(&self) -> ByRoute {
        let mut held = ByRoute::default();
        self.slots.iter().flatten().for_each(|state| held.add(&state.held));
        held
    }

    fn open_slot(&mut self, slot: Slot) -> &mut State {
        self.state_mut(slot).expect("records are admitted to open slots only")
    }

    fn state(&self, slot: Slot) -> Option<&State> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    fn state_mut(&mut self, slot: Slot) -> Option<&mut State> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KAFKA: SourceId = SourceId(0);
    const ROUTE: RouteId = RouteId(0);

    fn partition(number: i32, epoch: u64) -> Arc<Partition> {
        Arc::new(Partition { topic: "ticks".into(), number, epoch })
    }

    fn committable(ledger: &Ledger, slot: Slot) -> Option<i64> {
        ledger.committable(slot).map(|position| position.offset)
    }

    #[test]
    fn a_durable_tick_waits_for_the_candle_before_it() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let candle = ledger.admit(slot, 10, ROUTE);
        let tick = ledger.admit(slot, 11, ROUTE);
        ledger.settle(tick);
        assert_eq!(committable(&ledger, slot), None);
        ledger.settle(candle);
        assert_eq!(committable(&ledger, slot), Some(12));
    }

    #[test]
    fn a_filtered_record_behind_a_held_one_waits_for_it() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let candle = ledger.admit(slot, 5, ROUTE);
        ledger.pass(slot, 9);
        assert_eq!(committable(&ledger, slot), None);
        ledger.settle(candle);
        assert_eq!(committable(&ledger, slot), Some(10));
    }

    #[test]
    fn a_record_that_stays_costs_nothing_for_all_that_pass_it() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let bad = ledger.admit(slot, 0, ROUTE);
        for offset in 1..1_000_000 {
            ledger.pass(slot, offset);
        }
        let state = ledger.state(slot).unwrap();
        assert!(state.open.len() <= 2 * FOLD_AT, "{} entries for one record", state.open.len());
        assert_eq!((committable(&ledger, slot), ledger.uncommitted(KAFKA)), (None, 1_000_000));
        ledger.settle(bad);
        assert_eq!(committable(&ledger, slot), Some(1_000_000));
    }

    #[test]
    fn a_late_insert_of_a_released_partition_commits_nothing() {
        let mut ledger = Ledger::default();
        let old = ledger.open(KAFKA, Some(partition(0, 1)));
        let ticket = ledger.admit(old, 5, ROUTE);
        assert_eq!(ledger.release(old).total(), 1);
        let new = ledger.open(KAFKA, Some(partition(0, 2)));
        assert!(!ledger.settle(ticket));
        assert_eq!(committable(&ledger, new), None);
        assert_eq!(ledger.held_of(KAFKA), 0);
    }

    #[test]
    fn what_is_given_up_is_not_held_and_what_was_durable_stays_committable() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let first = ledger.admit(slot, 5, ROUTE);
        ledger.admit(slot, 6, ROUTE);
        ledger.settle(first);
        assert_eq!(ledger.give_up(KAFKA).total(), 1);
        assert_eq!((ledger.held(slot), ledger.held_of(KAFKA)), (0, 0));
        assert_eq!(committable(&ledger, slot), Some(6));
        assert_eq!(ledger.give_up(KAFKA).total(), 0);
    }

    #[test]
    fn what_is_held_is_known_by_route_until_it_is_settled_or_let_go() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let first = ledger.admit(slot, 5, ROUTE);
        ledger.admit(slot, 6, RouteId(2));
        ledger.pass(slot, 7);
        let held = |ledger: &Ledger| ledger.held_by_route().iter().collect::<Vec<_>>();
        assert_eq!(held(&ledger), [(0, 1), (2, 1)]);
        ledger.settle(first);
        assert_eq!(held(&ledger), [(2, 1)]);
        assert_eq!(ledger.release(slot).of(RouteId(2)), 1);
    }

    #[test]
    fn without_a_partition_one_stuck_record_does_not_make_the_ledger_grow() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, None);
        ledger.admit(slot, 0, ROUTE);
        for _ in 0..1_000 {
            let ticket = ledger.admit(slot, 0, ROUTE);
            assert!(ledger.settle(ticket));
        }
        assert_eq!(ledger.held(slot), 1);
        let state = ledger.state(slot).expect("it is open");
        assert!(state.open.is_empty());
    }

    #[test]
    fn what_would_come_again_is_counted_until_the_commit_is_acknowledged() {
        let mut ledger = Ledger::default();
        let slot = ledger.open(KAFKA, Some(partition(0, 1)));
        let tickets: Vec<_> = (0..5).map(|offset| ledger.admit(slot, offset, ROUTE)).collect();
        assert_eq!(ledger.uncommitted(KAFKA), 5);
        ledger.settle(tickets[0]);
        ledger.settle(tickets[1]);
        assert_eq!(ledger.uncommitted(KAFKA), 5);
        let asked = ledger.take_committable(KAFKA);
        ledger.settle(tickets[2]);
        ledger.committed(&asked[0]);
        assert_eq!(ledger.uncommitted(KAFKA), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Random histories: what may be committed is always the contiguous settled prefix, and
        /// never goes back.
        #[test]
        fn only_the_contiguous_durable_prefix_is_committable(
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..120), folds in 0u8..2
        ) {
            let mut ledger = Ledger::default();
            let slot = ledger.open(KAFKA, Some(partition(0, 1)));
            // The reference: every offset ever admitted, and whether it is settled.
            let mut reference: BTreeMap<i64, bool> = BTreeMap::new();
            let mut tickets: Vec<(i64, Ticket)> = Vec::new();
            let mut next = 0;
            let mut before = None;
            for (kind, index) in steps {
                match kind {
                    0 | 1 => {
                        next += 1 + i64::from(kind) * 3;
                        tickets.push((next, ledger.admit(slot, next, ROUTE)));
                        reference.insert(next, false);
                    }
                    2 => {
                        next += 1;
                        ledger.pass(slot, next);
                        reference.insert(next, true);
                    }
                    _ if !tickets.is_empty() => {
                        let (offset, ticket) = tickets.swap_remove(index.index(tickets.len()));
                        prop_assert!(ledger.settle(ticket));
                        reference.insert(offset, true);
                    }
                    _ => {}
                }
                if folds == 1 {
                    ledger.state_mut(slot).unwrap().fold();
                }
                // Behind the last record of the durable prefix, not behind the first that is open:
                // there may be a gap between the two, in which there is nothing.
                let prefix = reference.iter().take_while(|(_, settled)| **settled).last();
                let first_open = reference.iter().find(|(_, settled)| !**settled);
                let now = committable(&ledger, slot);
                prop_assert_eq!(now.is_some(), prefix.is_some());
                if let (Some(now), Some((last, _))) = (now, prefix) {
                    prop_assert!(now > *last && now <= first_open.map_or(next + 1, |(o, _)| *o));
                }
                prop_assert!(committable(&ledger, slot) >= before);
                before = committable(&ledger, slot);
                let held = reference.values().filter(|settled| !**settled).count();
                prop_assert_eq!(ledger.held(slot), held);
            }
        }
    }
}
