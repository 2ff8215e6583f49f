//! The ledger: which records are admitted, which of them are settled, and so how far each
//! partition may be committed.
//!
//! Pure. Records of one partition go to different tables with different lingers, so they do not
//! settle in order; only the contiguous settled prefix may be committed. Committing "the last
//! offset of the last batch" loses data.

mod by_route;
mod runs;

use std::sync::Arc;

pub use self::by_route::ByRoute;
use self::runs::Runs;
use crate::record::{Partition, Position};
use crate::route::RouteId;
use crate::source::SourceId;

/// One assignment of a partition, or a source without partitions. Never used again once released,
/// so a ticket of an old assignment cannot be mistaken for one of a new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

/// The claim of one admitted record, or of the first of some; given back by [`Ledger::settle`].
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

    #[must_use]
    pub fn route(self) -> RouteId {
        self.route
    }

    /// Of the record, in its partition; without one it is its number in the slot.
    #[must_use]
    pub fn offset(self) -> i64 {
        self.offset
    }

    /// That of the record so many behind this one, where they took the same way and no offset
    /// between them is missing.
    #[must_use]
    pub fn nth(self, n: u32) -> Self {
        Self { offset: self.offset + i64::from(n), ..self }
    }
}

#[derive(Debug)]
struct State {
    source: SourceId,
    /// None: no position, nothing to commit, ever; only counted.
    partition: Option<Arc<Partition>>,
    open: Runs,
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
    /// A record comes; returns what its ticket says of its place.
    fn enter(&mut self, offset: i64) -> i64 {
        let offset = if self.partition.is_some() { offset } else { self.end };
        debug_assert!(self.end <= offset, "offsets ascend");
        self.end = offset + 1;
        self.admitted_records += 1;
        offset
    }

    fn prefix_grows(&mut self, records: u64) {
        if records > 0 {
            self.prefix_records += records;
            self.committable = Some(self.open.first().unwrap_or(self.end));
        }
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
            open: Runs::default(),
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
        let offset = state.enter(offset);
        if state.partition.is_some() {
            state.open.enter(offset);
        }
        state.unsettled += 1;
        *state.held.entry(route.index()) += 1;
        Ticket { slot, route, offset }
    }

    /// A record that needs nothing more (a tombstone, a filtered one): settled at once, so that
    /// the lag reaches zero.
    pub fn pass(&mut self, slot: Slot, offset: i64) {
        let state = self.open_slot(slot);
        state.enter(offset);
        if state.partition.is_some() {
            let longer = state.open.pass();
            state.prefix_grows(longer);
        }
    }

    /// The record is durable, and so are those of the next tickets ([`Ticket::nth`]), `records` in
    /// all. False if its slot was released: then they are nobody's any more.
    pub fn settle(&mut self, first: Ticket, records: u32) -> bool {
        let Some(state) = self.state_mut(first.slot) else { return false };
        state.unsettled -= records as usize;
        *state.held.entry(first.route.index()) -= records as usize;
        if state.partition.is_some() {
            let longer = state.open.settle(first.offset, first.nth(records).offset);
            state.prefix_grows(longer);
        }
        true
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
        state.committable.or_else(|| state.open.first())
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
