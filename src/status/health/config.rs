//! The configuration in force, as `/health` has it.

use serde::Serialize;

use super::rfc3339;
use crate::status::ConfigStatus;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// The same for the same settings; secrets are not part of it.
    pub hash: String,
    pub applied_at: String,
    /// Changes applied, and refused, since the start.
    pub reloads: u64,
    pub refusals: u64,
    /// Null before the first.
    pub last_refusal: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refusal {
    pub at: String,
    pub why: String,
}

impl Config {
    pub(super) fn of(status: &ConfigStatus) -> Self {
        let refusal = |refusal: &crate::status::Refusal| Refusal {
            at: rfc3339(refusal.at),
            why: refusal.why.clone(),
        };
        Self {
            hash: status.hash.clone(),
            applied_at: rfc3339(status.applied_at),
            reloads: status.reloads,
            refusals: status.refusals,
            last_refusal: status.last_refusal.as_ref().map(refusal),
        }
    }
}
