//! What can be asked of whatever keeps dead letters, to list them and to send them through again.
//!
//! A letter is the newest of what was written under its id; that it was replayed is never undone by
//! the same letter coming again.

use std::collections::BTreeMap;
use std::future::Future;

use uuid::Uuid;

use super::letter::DeadLetter;
use crate::record::UnixMs;

/// The reason under which the plan of a replay is kept among the letters, see `replay/plan.rs`.
pub const PLAN: &str = "replay_plan";

/// Which letters. Empty lists mean all; plans are never among them unless they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub routes: Vec<String>,
    pub reasons: Vec<String>,
    pub topics_or_subjects: Vec<String>,
    /// When they were refused, from this on.
    pub since: Option<UnixMs>,
    /// And before this.
    pub until: Option<UnixMs>,
    /// None: whether or not.
    pub replayed: Option<bool>,
}

impl Filter {
    /// The plans of replays that were not finished.
    #[must_use]
    pub fn open_plans() -> Self {
        Self { reasons: vec![PLAN.to_owned()], replayed: Some(false), ..Self::default() }
    }

    #[must_use]
    pub fn takes_plans(&self) -> bool {
        self.reasons.iter().any(|reason| reason == PLAN)
    }

    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let one_of = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        one_of(&self.routes, &letter.route)
            && one_of(&self.reasons, &letter.reason)
            && one_of(&self.topics_or_subjects, &letter.topic_or_subject)
            && self.since.is_none_or(|since| letter.time >= since)
            && self.until.is_none_or(|until| letter.time < until)
            && self.replayed.is_none_or(|replayed| letter.replayed_at.is_some() == replayed)
            && (letter.reason != PLAN || self.takes_plans())
    }
}

/// The letters of one route and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub count: u64,
    pub oldest: UnixMs,
    pub newest: UnixMs,
    /// One of the errors.
    pub example: String,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// By route and reason.
    pub groups: BTreeMap<(String, String), Group>,
    /// The newest of them, newest first.
    pub letters: Vec<DeadLetter>,
    /// Lines that are no letter: somebody else wrote them.
    pub unreadable: u64,
}

/// How much is read at a time. A page has at least one letter if there is one.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    pub letters: usize,
    pub bytes: usize,
}

/// Whatever keeps dead letters, and can be read.
pub trait LetterStore {
    fn list(
        &self,
        filter: &Filter,
        newest: usize,
    ) -> impl Future<Output = anyhow::Result<Listing>> + Send;

    /// The next letters that fulfil the filter, in an order of the store's own; none at the end.
    /// The filter is that of the first call: a letter that is written meanwhile may be left out,
    /// and none comes twice.
    fn page(
        &mut self,
        filter: &Filter,
        limits: PageLimits,
    ) -> impl Future<Output = anyhow::Result<Vec<DeadLetter>>> + Send;

    /// The letters of these ids, as far as they are there.
    fn fetch(&self, ids: &[Uuid]) -> impl Future<Output = anyhow::Result<Vec<DeadLetter>>> + Send;

    /// Writes letters anew: the newest of an id counts. Durable when it returns.
    fn append(&self, letters: &[DeadLetter]) -> impl Future<Output = anyhow::Result<()>> + Send;
}
