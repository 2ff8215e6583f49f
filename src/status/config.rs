//! Which configuration is in force, and what became of the wishes to change it.

use crate::record::UnixMs;

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigStatus {
    /// The same for the same settings; secrets are not part of it.
    pub hash: String,
    /// When it came into force.
    pub applied_at: UnixMs,
    /// Changes applied since the start.
    pub reloads: u64,
    /// Changes refused since the start; nothing of them was applied.
    pub refusals: u64,
    pub last_refusal: Option<Refusal>,
}

/// A change that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub at: UnixMs,
    /// What was wrong with it, and what would be right.
    pub why: String,
}

impl ConfigStatus {
    /// The first one of this process.
    #[must_use]
    pub fn first(hash: String, at: UnixMs) -> Self {
        Self { hash, applied_at: at, ..Self::default() }
    }

    /// Another one is in force.
    pub fn applied(&mut self, hash: String, at: UnixMs) {
        self.hash = hash;
        self.applied_at = at;
        self.reloads += 1;
    }

    /// One was refused, and changed nothing.
    pub fn refused(&mut self, why: String, at: UnixMs) {
        self.refusals += 1;
        self.last_refusal = Some(Refusal { at, why });
    }
}
