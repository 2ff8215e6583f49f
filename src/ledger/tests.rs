//! The ledger, alone.

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
    ledger.settle(tick, 1);
    assert_eq!(committable(&ledger, slot), None);
    ledger.settle(candle, 1);
    assert_eq!(committable(&ledger, slot), Some(12));
}

#[test]
fn a_filtered_record_behind_a_held_one_waits_for_it() {
    let mut ledger = Ledger::default();
    let slot = ledger.open(KAFKA, Some(partition(0, 1)));
    let candle = ledger.admit(slot, 5, ROUTE);
    ledger.pass(slot, 9);
    assert_eq!(committable(&ledger, slot), None);
    ledger.settle(candle, 1);
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
    assert_eq!(state.open.len(), 1);
    assert_eq!((committable(&ledger, slot), ledger.uncommitted(KAFKA)), (None, 1_000_000));
    ledger.settle(bad, 1);
    assert_eq!(committable(&ledger, slot), Some(1_000_000));
}

#[test]
fn a_late_insert_of_a_released_partition_commits_nothing() {
    let mut ledger = Ledger::default();
    let old = ledger.open(KAFKA, Some(partition(0, 1)));
    let ticket = ledger.admit(old, 5, ROUTE);
    assert_eq!(ledger.release(old).total(), 1);
    let new = ledger.open(KAFKA, Some(partition(0, 2)));
    assert!(!ledger.settle(ticket, 1));
    assert_eq!(committable(&ledger, new), None);
    assert_eq!(ledger.held_of(KAFKA), 0);
}

#[test]
fn what_is_given_up_is_not_held_and_what_was_durable_stays_committable() {
    let mut ledger = Ledger::default();
    let slot = ledger.open(KAFKA, Some(partition(0, 1)));
    let first = ledger.admit(slot, 5, ROUTE);
    ledger.admit(slot, 6, ROUTE);
    ledger.settle(first, 1);
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
    ledger.settle(first, 1);
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
        assert!(ledger.settle(ticket, 1));
    }
    assert_eq!(ledger.held(slot), 1);
    let state = ledger.state(slot).expect("it is open");
    assert_eq!(state.open.len(), 0);
}

#[test]
fn what_would_come_again_is_counted_until_the_commit_is_acknowledged() {
    let mut ledger = Ledger::default();
    let slot = ledger.open(KAFKA, Some(partition(0, 1)));
    let tickets: Vec<_> = (0..5).map(|offset| ledger.admit(slot, offset, ROUTE)).collect();
    assert_eq!(ledger.uncommitted(KAFKA), 5);
    ledger.settle(tickets[0], 1);
    ledger.settle(tickets[1], 1);
    assert_eq!(ledger.uncommitted(KAFKA), 5);
    let asked = ledger.take_committable(KAFKA);
    ledger.settle(tickets[2], 1);
    let before = Position { offset: asked[0].offset - 1, ..asked[0].clone() };
    ledger.committed(&before);
    assert_eq!(ledger.uncommitted(KAFKA), 5, "an answer to less than was asked for");
    ledger.committed(&asked[0]);
    assert_eq!(ledger.uncommitted(KAFKA), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Random histories: what may be committed is always the contiguous settled prefix, and
    /// never goes back.
    #[test]
    fn only_the_contiguous_durable_prefix_is_committable(
        steps in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 1..120)
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
                // Side by side with the one before, or behind a gap.
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
                // One, or some that follow each other, as those of a batch.
                _ if !tickets.is_empty() => {
                    let first = index.index(tickets.len());
                    let end = tickets.len().min(if kind == 3 { first + 1 } else { first + 5 });
                    let batch: Vec<(i64, Ticket)> = tickets.drain(first..end).collect();
                    for run in batch.chunk_by(|(_, one), (_, next)| one.nth(1) == *next) {
                        let records = u32::try_from(run.len()).unwrap();
                        prop_assert!(ledger.settle(run[0].1, records));
                        reference.extend(run.iter().map(|(offset, _)| (*offset, true)));
                    }
                }
                _ => {}
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
            let state = ledger.state(slot).unwrap();
            let in_prefix = reference.values().take_while(|settled| **settled).count();
            prop_assert_eq!(state.prefix_records, in_prefix as u64);
            // Of neighbours that are not settled only the ends are remembered.
            let open: Vec<i64> =
                reference.iter().filter(|(_, settled)| !**settled).map(|(o, _)| *o).collect();
            let runs = open.chunk_by(|one, next| one + 1 == *next).count();
            prop_assert_eq!(state.open.len(), runs);
        }
    }
}

#[test]
fn what_was_released_takes_no_room() {
    let mut ledger = Ledger::default();
    let stays = ledger.open(KAFKA, None);
    let mut before = stays;
    for epoch in 1..=10_000 {
        let slot = ledger.open(KAFKA, Some(partition(0, epoch)));
        assert_ne!(slot, before, "a ticket of an old one is nobody's");
        let ticket = ledger.admit(slot, 0, ROUTE);
        ledger.release(slot);
        assert!(!ledger.settle(ticket, 1));
        before = slot;
    }
    assert!(ledger.states.capacity() < 10, "{}", ledger.states.capacity());
    assert_eq!(ledger.held_of(KAFKA), 0);
}
