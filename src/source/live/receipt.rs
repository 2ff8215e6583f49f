//! A receipt that counts: whoever waits sees the counts change, and their end.

use std::sync::Arc;

use tokio::sync::watch;

use crate::receipt::{Outcome, Receipt};

/// What became of the records of one request, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that were ever held.
    pub admitted: usize,
    pub inserted: usize,
    pub dead_lettered: usize,
    pub filtered: usize,
    pub dropped: usize,
}

impl Tally {
    /// It is known whether they are held.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.admitted + self.filtered + self.dropped
    }

    /// It is known what became of them.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.inserted + self.dead_lettered + self.filtered + self.dropped
    }
}

#[derive(Debug)]
pub(super) struct Counting(watch::Sender<Tally>);

/// The receipt goes with the records; when the last of them is gone, the other end learns it.
pub(super) fn new() -> (Arc<Counting>, watch::Receiver<Tally>) {
    let (sender, receiver) = watch::channel(Tally::default());
    (Arc::new(Counting(sender)), receiver)
}

impl Receipt for Counting {
    fn note(&self, outcome: Outcome, records: usize) {
        self.0.send_modify(|tally| {
            let count = match outcome {
                Outcome::Admitted => &mut tally.admitted,
                Outcome::Inserted => &mut tally.inserted,
                Outcome::DeadLettered => &mut tally.dead_lettered,
                Outcome::Filtered => &mut tally.filtered,
                Outcome::Dropped => &mut tally.dropped,
            };
            *count += records;
        });
    }
}
