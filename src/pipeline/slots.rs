//! Which of the batches that wait goes next. Pure.
//!
//! There are `max_in_flight` slots for anyone, and one more for a table that works and has nothing
//! under way: so tables that hang until `insert_timeout` keep nobody else waiting, however many
//! they are. A table that is broken has one insert under way at a time: it is asked whether it
//! works again, not flooded. Among the others the one with the fewest under way comes first.

/// A table, as far as this is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// Inserts of it under way.
    pub under_way: usize,
    /// Its last insert was refused.
    pub broken: bool,
}

/// The position in the queue of what may go now; None while everything has to wait. `queue` has
/// the tables of the batches that wait, in their order, None for those that are not ready.
pub(super) fn next(
    queue: impl Iterator<Item = Option<usize>>,
    claims: &[Claim],
    max_in_flight: usize,
) -> Option<usize> {
    let in_all: usize = claims.iter().map(|claim| claim.under_way).sum();
    let may_go = |claim: Claim| {
        let last_slot = in_all == max_in_flight;
        let one_alone = claim.broken || last_slot;
        in_all <= max_in_flight
            && !(one_alone && claim.under_way > 0)
            && !(claim.broken && last_slot)
    };
    queue
        .enumerate()
        .filter_map(|(position, table)| Some((position, claims[table?])))
        .filter(|(_, claim)| may_go(*claim))
        .min_by_key(|(position, claim)| (claim.under_way, *position))
        .map(|(position, _)| position)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn works(under_way: usize) -> Claim {
        Claim { under_way, broken: false }
    }

    fn broken(under_way: usize) -> Claim {
        Claim { under_way, broken: true }
    }

    fn choice(queue: &[usize], claims: &[Claim], max_in_flight: usize) -> Option<usize> {
        next(queue.iter().copied().map(Some), claims, max_in_flight)
    }

    #[test]
    fn one_table_alone_may_have_every_slot_but_the_last() {
        assert_eq!(choice(&[0, 0], &[works(1)], 2), Some(0));
        assert_eq!(choice(&[0, 0], &[works(2)], 2), None);
    }

    #[test]
    fn a_table_that_holds_every_slot_keeps_no_other_waiting() {
        assert_eq!(choice(&[0, 0, 1], &[works(2), works(0)], 2), Some(2));
        assert_eq!(choice(&[0, 0, 1], &[works(2), works(1)], 2), None, "the last slot is taken");
    }

    #[test]
    fn broken_tables_never_take_the_last_slot_and_one_at_a_time_of_the_others() {
        let claims = [broken(1), broken(1), works(0)];
        assert_eq!(choice(&[0, 1, 2], &claims, 2), Some(2));
        assert_eq!(choice(&[0, 0], &[broken(1)], 2), None);
        assert_eq!(choice(&[0], &[broken(0), works(2)], 2), None);
    }

    #[test]
    fn a_long_queue_of_one_table_does_not_hold_up_a_single_batch_of_another() {
        assert_eq!(choice(&[0, 0, 0, 1], &[works(1), works(0)], 2), Some(3));
    }

    #[test]
    fn what_is_not_ready_is_passed_over() {
        let queue = [None, Some(0)];
        assert_eq!(next(queue.into_iter(), &[works(0)], 2), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// However the slots are filled: never more than one beyond `max_in_flight`, and a table
        /// that works and has nothing under way always finds a slot once it is the only such one.
        #[test]
        fn a_table_that_works_is_never_kept_waiting_by_those_that_do_not(
            max_in_flight in 1..5_usize,
            broken in prop::collection::vec(any::<bool>(), 2..6),
            queue in prop::collection::vec(0..6_usize, 0..40),
        ) {
            let mut claims: Vec<Claim> =
                broken.iter().map(|broken| Claim { under_way: 0, broken: *broken }).collect();
            let mut queue: Vec<usize> =
                queue.into_iter().filter(|table| *table < claims.len()).collect();
            while let Some(position) = choice(&queue, &claims, max_in_flight) {
                claims[queue.remove(position)].under_way += 1;
            }
            let in_all: usize = claims.iter().map(|claim| claim.under_way).sum();
            prop_assert!(in_all <= max_in_flight + 1);
            prop_assert!(claims.iter().all(|claim| !claim.broken || claim.under_way <= 1));
            let works = |table: &&usize| !claims[**table].broken;
            let starving = |table: &&usize| claims[**table].under_way == 0;
            let helped = claims.iter().any(|claim| !claim.broken && claim.under_way > 0);
            let waits = queue.iter().filter(works).any(|table| starving(&table));
            prop_assert!(helped || !waits, "{claims:?} {queue:?}");
        }
    }
}
