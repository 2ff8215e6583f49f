//! What a batch of a replay holds, written down before it is sent.
//!
//! Pure. It is kept as a letter of its own, with the reason `replay_plan`, so that it needs no
//! other place than the letters have; `list` leaves it out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::batch::Part;
use crate::dead_letter::letter::DeadLetter;
use crate::dead_letter::store::PLAN;
use crate::record::UnixMs;
use crate::sink::Window;

/// Who writes plans, among the sources.
const SOURCE: &str = "data-bridge";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) id: Uuid,
    pub(super) table: String,
    pub(super) token: String,
    /// The letters, in the order of their rows.
    pub(super) ids: Vec<Uuid>,
    /// Of the body.
    digest: String,
    /// [`Window::block`] before the insert.
    block: u64,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    table: String,
    token: String,
    ids: Vec<String>,
    digest: String,
    block: u64,
}

impl Plan {
    pub(super) fn new(part: &Part, block: u64) -> Self {
        let id = Uuid::from_u128(rand::random());
        let (table, token) = (part.table.clone(), format!("replay-{id}"));
        Self { id, table, token, ids: Vec::new(), digest: String::new(), block }
    }

    /// For these letters, and the body that they make.
    pub(super) fn of(self, letters: &[DeadLetter], body: &[u8]) -> Self {
        let ids = letters.iter().map(|letter| letter.id).collect();
        Self { ids, digest: digest(body), ..self }
    }

    /// Whether this is the body that was planned.
    pub(super) fn is_of(&self, body: &[u8]) -> bool {
        self.digest == digest(body)
    }

    pub(super) fn letter(&self, time: UnixMs, instance: &str) -> DeadLetter {
        let written = Written {
            table: self.table.clone(),
            token: self.token.clone(),
            ids: self.ids.iter().map(ToString::to_string).collect(),
            digest: self.digest.clone(),
            block: self.block,
        };
        DeadLetter {
            id: self.id,
            time,
            record_time: time,
            instance: instance.to_owned(),
            source: SOURCE.to_owned(),
            topic_or_subject: self.table.clone(),
            partition: None,
            offset: None,
            key: None,
            headers: Vec::new(),
            route: String::new(),
            reason: PLAN.to_owned(),
            error: format!("{} dead letters are replayed into {}", self.ids.len(), self.table),
            payload: serde_json::to_vec(&written).expect("texts and numbers, into memory"),
            replayed_at: None,
        }
    }

    pub(super) fn read(letter: &DeadLetter) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_slice(&letter.payload)?;
        let ids = written.ids.iter().map(|id| id.parse()).collect::<Result<_, uuid::Error>>()?;
        let Written { table, token, digest, block, .. } = written;
        Ok(Self { id: letter.id, table, token, ids, digest, block })
    }

    /// Why the table may have forgotten the insert, if it landed; None: it would recognise it.
    pub(super) fn forgotten(&self, window: &Window, begun: UnixMs, now: UnixMs) -> Option<String> {
        if !window.problems.is_empty() {
            return Some(window.problems.join("; "));
        }
        let since = now.checked_sub(begun).and_then(|since| u64::try_from(since).ok());
        let since = Duration::from_millis(since.unwrap_or(u64::MAX));
        if let Some(lasts) = window.lasts.filter(|lasts| since >= *lasts) {
            let lasts = humantime::format_duration(lasts);
            return Some(format!("the table remembers inserts for {lasts} only"));
        }
        // It falls when parts are dropped: then nothing is known.
        match window.used_since(self.block) {
            Some(taken) if taken < window.entries => None,
            _ => Some(format!(
                "the table remembers {} inserts, and may have taken more since",
                window.entries
            )),
        }
    }
}

fn digest(body: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(body))
}
