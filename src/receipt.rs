//! What becomes of records, for whoever handed them over and waits to hear it.
//!
//! Pure. A receipt travels with its records, wherever they are copied to, and is told at the places
//! where they are counted. When the last of them is gone and some were never spoken of, these are not
//! stored: whoever waits learns it by the end of the receipt itself.

use std::fmt::Debug;

/// What has become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is held. One of the others follows.
    Admitted,
    Inserted,
    /// Its dead letter is durable.
    DeadLettered,
    /// Nobody wanted it stored.
    Filtered,
    Dropped,
}

/// Who is told. It must not wait: the owner of everything else tells it.
pub trait Receipt: Debug + Send + Sync {
    fn note(&self, outcome: Outcome, records: usize);
}
