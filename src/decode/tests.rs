//! The decoder as its callers see it: a schema, a mapping, payloads, and the bytes of a block.

mod conversions;
pub(super) mod fixtures;
mod letters;
mod mappings;
