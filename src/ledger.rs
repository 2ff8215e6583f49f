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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// Of the record, in its partition; without one it means nothing.
    #[must_use]
    pub fn offset(self) -> i64 {
        self.offset
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
    /// Where in it the next one to be settled lies, most likely: those of a batch follow each other.
    next: usize,
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
        let index = self.find(offset);
        let entry = &mut self.open[index];
        assert!(!entry.settled, "a ticket is settled once");
        entry.settled = true;
        self.next = index + 1;
        while let Some(first) = self.open.front().filter(|entry| entry.settled) {
            self.prefix_records += 1 + first.folded;
            self.open.pop_front();
            self.next = self.next.saturating_sub(1);
            self.committable = Some(self.open.front().map_or(self.end, |next| next.offset));
        }
        if self.open.len() - self.unsettled > self.unsettled.max(FOLD_AT) {
            self.fold();
        }
    }

    fn find(&self, offset: i64) -> usize {
        if self.open.get(self.next).is_some_and(|entry| entry.offset == offset) {
            return self.next;
        }
        let found = self.open.binary_search_by_key(&offset, |entry| entry.offset);
        found.expect("a ticket is settled once")
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

/// All slots that are open.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In order; what is known of each stands in the same place of `states`.
    slots: Vec<Slot>,
    states: Vec<State>,
    /// How many were ever opened.
    opened: u32,
}

impl Ledger {
    /// A new slot for an assignment, or for a source without partitions.
    pub fn open(&mut self, source: SourceId, partition: Option<Arc<Partition>>) -> Slot {
        let slot = Slot(self.opened);
        self.opened = self.opened.checked_add(1).expect("fewer than 4 billion assignments");
        self.slots.push(slot);
        self.states.push(State {
            source,
            partition,
            open: VecDeque::new(),
            next: 0,
            unsettled: 0,
            held: ByRoute::default(),
            end: 0,
            committable: None,
            prefix_records: 0,
            admitted_records: 0,
            asked: None,
            committed_records: 0,
        });
        slot
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
        let Some(place) = self.place(slot) else { return ByRoute::default() };
        self.slots.remove(place);
        self.states.remove(place).held
    }

    /// Gives up what a source holds, says how much that is. What is durable may be committed all
    /// the same. Nothing may be settled any more.
    pub fn give_up(&mut self, source: SourceId) -> ByRoute {
        let mut given_up = ByRoute::default();
        for state in self.states.iter_mut().filter(|state| state.source == source) {
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
        Some(Position::new(Arc::clone(state.partition.as_ref()?), offset))
    }

    /// The offset to go on from if the partition were given up now: everything before it is
    /// durable, or was so before this assignment. None while nothing was admitted.
    #[must_use]
    pub fn next_needed(&self, slot: Slot) -> Option<i64> {
        let state = self.state(slot)?;
        state.committable.or_else(|| state.open.front().map(|entry| entry.offset))
    }

    /// The partition of a slot that is open.
    #[must_use]
    pub fn partition(&self, slot: Slot) -> Option<&Arc<Partition>> {
        self.state(slot)?.partition.as_ref()
    }

    /// Everything of a source that may be committed. What is returned counts as asked for.
    pub fn take_committable(&mut self, source: SourceId) -> Vec<Position> {
        let mut positions = Vec::new();
        for state in self.states.iter_mut().filter(|state| state.source == source) {
            if let (Some(offset), Some(partition)) = (state.committable, &state.partition) {
                state.asked = Some((offset, state.prefix_records));
                positions.push(Position::new(Arc::clone(partition), offset));
            }
        }
        positions
    }

    /// The source says that this position is committed.
    pub fn committed(&mut self, position: &Position) {
        let of_partition =
            |state: &&mut State| state.partition.as_ref() == Some(&position.partition);
        if let Some(state) = self.states.iter_mut().find(of_partition) {
            // A position beyond the one asked for (behind control records) covers it as well.
            if let Some((_, records)) = state.asked.filter(|(asked, _)| *asked <= position.offset) {
                state.committed_records = state.committed_records.max(records);
            }
        }
    }

    /// Records of a source that would come again after a crash: admitted and not committed.
    #[must_use]
    pub fn uncommitted(&self, source: SourceId) -> u64 {
        let of_source = self.states.iter().filter(|state| state.source == source);
        of_source
            .filter(|state| state.partition.is_some())
            .map(|state| state.admitted_records - state.committed_records)
            .sum()
    }

    /// Records of a source that are admitted and not settled.
    #[must_use]
    pub fn held_of(&self, source: SourceId) -> usize {
        let of_source = self.states.iter().filter(|state| state.source == source);
        of_source.map(|state| state.unsettled).sum()
    }

    /// Records of all sources that are admitted and not settled, by route.
    #[must_use]
    pub fn held_by_route(&self) -> ByRoute {
        let mut held = ByRoute::default();
        self.states.iter().for_each(|state| held.add(&state.held));
        held
    }

    fn open_slot(&mut self, slot: Slot) -> &mut State {
        self.state_mut(slot).expect("records are admitted to open slots only")
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        self.slots.binary_search(&slot).ok()
    }

    fn state(&self, slot: Slot) -> Option<&State> {
        self.place(slot).map(|place| &self.states[place])
    }

    fn state_mut(&mut self, slot: Slot) -> Option<&mut State> {
        self.place(slot).map(|place| &mut self.states[place])
    }
}

#[cfg(test)]
mod tests;
