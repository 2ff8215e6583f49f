//! What was asked of one consumer and has not come: a credit is reserved for each record of it.
//! Pure.
//!
//! The server answers several requests in turn, and says nothing when one is fulfilled. So only
//! the sum is known, and by how much a request that ended early fell short.

use std::collections::VecDeque;

/// A request that ended silently is forgotten after so many later ones; only one that the server
/// refuses as a whole must be remembered, and that comes at once.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// Records that may still come.
    outstanding: usize,
    /// The number of the last request.
    last: u64,
    asked: VecDeque<(u64, usize)>,
    /// Requests up to this one count no more.
    void: u64,
}

impl Pulls {
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How many to ask for, if so many are `wanted` to be on their way: nothing while half of it
    /// is, so that one request follows the other before that one is used up.
    pub(super) fn room(&self, wanted: usize) -> usize {
        if self.outstanding > wanted / 2 { 0 } else { wanted }
    }

    /// So many are asked for; the number of the request.
    pub(super) fn begin(&mut self, records: usize) -> u64 {
        self.last += 1;
        self.outstanding += records;
        self.asked.push_back((self.last, records));
        if self.asked.len() > REMEMBERED {
            self.asked.pop_front();
        }
        self.last
    }

    /// A record came; false if none was asked for.
    pub(super) fn took(&mut self) -> bool {
        let asked = self.outstanding > 0;
        self.outstanding = self.outstanding.saturating_sub(1);
        asked
    }

    /// A request ended: how many records of it will not come. The server mostly says; where it does
    /// not, it took nothing of it.
    pub(super) fn ended(&mut self, number: u64, pending: Option<usize>) -> usize {
        if number <= self.void {
            return 0;
        }
        let index = self.asked.iter().position(|(known, _)| *known == number);
        let asked = index.and_then(|index| self.asked.remove(index)).map_or(0, |(_, n)| n);
        let missing = pending.unwrap_or(asked).min(self.outstanding);
        self.outstanding -= missing;
        missing
    }

    /// Whether this request was given up: what is said of it concerns a consumer that was left.
    pub(super) fn is_void(&self, number: u64) -> bool {
        number <= self.void
    }

    /// Nothing that was asked for is waited for any more: how much that was.
    pub(super) fn give_up(&mut self) -> usize {
        self.void = self.last;
        self.asked.clear();
        std::mem::take(&mut self.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_what_was_asked_without_what_came_and_what_ended() {
        let mut pulls = Pulls::default();
        assert_eq!(pulls.room(10), 10);
        let first = pulls.begin(10);
        assert_eq!(pulls.room(10), 0);
        for _ in 0..6 {
            assert!(pulls.took());
        }
        assert_eq!(pulls.room(10), 10, "more than half has come");
        let second = pulls.begin(10);
        assert_eq!(pulls.ended(first, Some(2)), 2);
        assert_eq!(pulls.ended(second, None), 10, "refused as a whole");
        assert_eq!(pulls.outstanding(), 2);
        assert!(pulls.took() && pulls.took() && !pulls.took());
    }

    #[test]
    fn what_was_given_up_does_not_end_again() {
        let mut pulls = Pulls::default();
        let old = pulls.begin(10);
        assert_eq!(pulls.give_up(), 10);
        let new = pulls.begin(5);
        assert_eq!(pulls.ended(old, Some(10)), 0);
        assert_eq!(pulls.ended(new, Some(9)), 5, "never more than is outstanding");
    }
}
