//! What a ClickHouse that is short of memory, or behind with its merges, can take.

use std::sync::{Mutex, MutexGuard};

use data_bridge::sink::InsertError;
use tokio::time::Instant;

use super::sink::refusal;

/// Parts that may wait to be merged.
const PARTS: f64 = 100.0;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Short {
    /// So many rows fit into memory at a time.
    OfMemory { rows: usize },
    /// So many parts are merged a second; an insert makes one.
    OfMerges { per_second: f64 },
}

#[derive(Debug, Default)]
struct State {
    short: Option<Short>,
    rows: usize,
    parts: f64,
    merged_at: Option<Instant>,
    refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Shortage(Mutex<State>);

/// Rows in memory, until the insert is through.
pub(crate) struct InMemory<'a> {
    shortage: &'a Shortage,
    rows: usize,
}

impl Drop for InMemory<'_> {
    fn drop(&mut self) {
        self.shortage.state().rows -= self.rows;
    }
}

impl Shortage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set(&self, short: Option<Short>) {
        self.state().short = short;
    }

    /// Inserts refused for it so far.
    pub(crate) fn refused(&self) -> u64 {
        self.state().refused
    }

    /// There is room for so many rows, and for one more part.
    pub(crate) fn enter(&self, rows: usize) -> Result<InMemory<'_>, InsertError> {
        let now = Instant::now();
        let mut state = self.state();
        let refused = match state.short {
            None => None,
            Some(Short::OfMemory { rows: room }) => {
                (state.rows + rows > room).then(|| refusal(241, "memory limit exceeded"))
            }
            Some(Short::OfMerges { per_second }) => {
                let merging = state.merged_at.map_or(0.0, |at| (now - at).as_secs_f64());
                state.parts = (state.parts - merging * per_second).max(0.0);
                state.merged_at = Some(now);
                let full = state.parts >= PARTS;
                state.parts += f64::from(u8::from(!full));
                full.then(|| refusal(252, "too many parts"))
            }
        };
        if let Some(refusal) = refused {
            state.refused += 1;
            return Err(InsertError::Retry(refusal));
        }
        state.rows += rows;
        Ok(InMemory { shortage: self, rows })
    }
}
