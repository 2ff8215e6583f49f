//! From a record's payload to typed columns.

/// Placeholder of the contract; the decoder defines it.
#[derive(Debug, Clone, Default)]
pub struct Mapping;
