//! What the process takes in memory, by what it may fetch ahead and hold.
//!
//! Pure: two ways to read one sum.
//!
//! ```text
//! budget = what is always there + fetched ahead and on its way
//!        + held × 3 (what is held, its bookkeeping, the bodies made from it)
//! ```

/// What the process takes when it holds nothing: 25 MiB measured, and the arenas of its threads.
pub const ALWAYS: usize = 48 * 1024 * 1024;

/// For each byte that is held, so many are there: the record itself (1), its place in the batch, the
/// ledger and a chunk's arena that is not full (0.5), and a body made of it that is being
/// compressed, copied and sent (1.5). With 2.5 a stalled bridge peaked at 223 of 256 MiB.
const PER_BYTE_HELD: usize = 3;

/// How much may be held within the budget; 0 where nothing is left for it.
#[must_use]
pub fn held(budget: usize, fetched: usize) -> usize {
    budget.saturating_sub(ALWAYS.saturating_add(fetched)) / PER_BYTE_HELD
}

/// The budget that it takes to hold so much.
#[must_use]
pub fn needed(held: usize, fetched: usize) -> usize {
    held.saturating_mul(PER_BYTE_HELD).saturating_add(ALWAYS).saturating_add(fetched)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_may_be_held_fits_and_no_more_would(budget in 0usize..1 << 40, fetched in 0usize..1 << 34) {
            let most = held(budget, fetched);
            prop_assert!(most == 0 || needed(most, fetched) <= budget);
            prop_assert!(needed(most + 1, fetched) > budget);
        }
    }
}
