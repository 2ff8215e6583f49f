//! The running counts of sources, routes and writers. Plain numbers that only grow.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Letter;
use crate::config::Route;
use crate::record::{Record, UnixMs};
use crate::status::{LetterSample, SystemSubject};

/// Names come from whoever publishes; beyond this many they are counted as `other`.
const MAX_NAMES: usize = 1_000;
const OTHER: &str = "other";

/// Counts of one source. At every quiet moment received = inserted + dead-lettered + filtered +
/// dropped + released + held.
#[derive(Debug, Default)]
pub(super) struct SourceTally {
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    pub released: u64,
    pub dropped: BTreeMap<String, BTreeMap<&'static str, u64>>,
    pub dropped_subjects: Names<u64>,
    pub system: Names<SystemSubject>,
    pub unrouted: Names<u64>,
    /// What the source said last; None while the connection is up.
    pub connection_error: Option<String>,
}

impl SourceTally {
    /// Every class is there from the start: what was never dropped reads 0, not nothing.
    pub(super) fn new(classes: &[&str]) -> Self {
        let mut tally = Self::default();
        tally.know(classes);
        tally
    }

    pub(super) fn know(&mut self, classes: &[&str]) {
        for class in classes {
            self.dropped.entry((*class).to_owned()).or_default();
        }
    }

    pub(super) fn drop_record(&mut self, class: &str, subject: &str, reason: &'static str) {
        self.drop_records(class, reason, 1);
        *self.dropped_subjects.entry(subject) += 1;
    }

    pub(super) fn drop_records(&mut self, class: &str, reason: &'static str, count: u64) {
        if !self.dropped.contains_key(class) {
            self.dropped.insert(class.to_owned(), BTreeMap::new());
        }
        if let Some(reasons) = self.dropped.get_mut(class) {
            *reasons.entry(reason).or_default() += count;
        }
    }

    pub(super) fn saw_system(&mut self, subject: &str, at: UnixMs) {
        let seen = self.system.entry(subject);
        seen.count += 1;
        seen.last_seen = at;
    }
}

/// Something counted by name, for a bounded number of names.
#[derive(Debug, Clone, Default)]
pub(super) struct Names<T>(BTreeMap<String, T>);

impl<T: Default + Clone> Names<T> {
    pub(super) fn entry(&mut self, name: &str) -> &mut T {
        let known = self.0.contains_key(name) || self.0.len() < MAX_NAMES;
        let key = if known { name } else { OTHER };
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), T::default());
        }
        self.0.get_mut(key).expect("was there, or has just been put there")
    }

    pub(super) fn to_map(&self) -> BTreeMap<String, T> {
        self.0.clone()
    }
}

/// Counts of one route, over all sources; they close as those of a source do. What is held is the
/// ledger's to say.
#[derive(Debug)]
pub(super) struct RouteTally {
    pub name: String,
    pub class: String,
    /// The index of its table; None for a route that only counts.
    pub table: Option<usize>,
    /// That table's name.
    pub fills: Option<Arc<str>>,
    /// What is promised of its records, by source.
    pub guarantees: BTreeMap<&'static str, &'static str>,
    /// It is not in the configuration any more; what it holds is settled all the same.
    pub retired: bool,
    pub received: u64,
    pub inserted: u64,
    pub dead_lettered: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub released: u64,
    pub rounded: u64,
    /// Letters written, by reason; also those of records that were let go meanwhile.
    pub reasons: BTreeMap<&'static str, Letters>,
}

/// Letters of one route and reason.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub count: u64,
    pub newest: Arc<LetterSample>,
}

impl RouteTally {
    pub(super) fn new(route: &Route, table: Option<usize>) -> Self {
        Self {
            name: route.name.clone(),
            class: route.class.clone(),
            table,
            fills: route.table().map(Arc::from),
            guarantees: route.guarantees().collect(),
            retired: false,
            received: 0,
            inserted: 0,
            dead_lettered: 0,
            filtered: 0,
            dropped: 0,
            released: 0,
            rounded: 0,
            reasons: BTreeMap::new(),
        }
    }

    /// One of its records is a dead letter, durably.
    pub(super) fn letter_written(&mut self, letter: &Letter, record: &Record<'_>) {
        let letters = self.reasons.entry(letter.refused.reason).or_default();
        letters.count += 1;
        letters.newest = Arc::new(sample(&self.name, letter, record));
    }

    /// What may still come goes to this table.
    pub(super) fn retire(&mut self, table: Option<usize>) {
        self.retired = true;
        self.table = table;
    }

    /// What the configuration says of it now.
    pub(super) fn become_of(&mut self, route: &Route, table: Option<usize>) {
        route.class.clone_into(&mut self.class);
        (self.table, self.fills) = (table, route.table().map(Arc::from));
        self.guarantees = route.guarantees().collect();
        self.retired = false;
    }

    /// Whether its records are never dropped because the bridge is full.
    pub(super) fn is_system(&self) -> bool {
        self.class == "system"
    }
}

fn sample(route: &str, letter: &Letter, record: &Record<'_>) -> LetterSample {
    let place = record.place();
    LetterSample {
        time: letter.time,
        route: route.to_owned(),
        reason: letter.refused.reason,
        outline: letter.refused.outline.clone(),
        source: letter.source,
        topic_or_subject: record.topic_or_subject().to_owned(),
        partition: place.map(|(partition, _)| partition.number),
        offset: place.and(record.offset()),
    }
}

/// Counts of one writer.
#[derive(Debug)]
pub(super) struct WriterTally {
    pub name: String,
    pub inserted: u64,
    pub inserts: u64,
    pub failed_inserts: u64,
    /// What the acknowledged inserts took, in all.
    pub insert_seconds: f64,
}

impl WriterTally {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, inserted: 0, inserts: 0, failed_inserts: 0, insert_seconds: 0.0 }
    }
}
