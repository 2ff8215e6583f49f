//! What bridges that share a ClickHouse tell each other, and what follows from it. Pure.
//!
//! Each says how it is under a key of its own, again and again. No clock of another one is ever
//! compared: an entry has a number that changes when it is written, and how long it has not changed
//! is measured here. What nobody can read, or is too much, is left out and counted.
//!
//! **The policy**: when the fleet as a whole is filling, what they share is what is slow; so all pull
//! more slowly than ClickHouse takes, until they have drained. One that is full alone has trouble of
//! its own, and moves the mean by its share only; and whoever has drained goes on whatever becomes of
//! the others, so that one that stays full can't hold the rest back for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config;
use crate::config::RateLimit;
use crate::subject::token;

/// Others that are kept in mind: more than share one ClickHouse by such means.
pub const MAX_OTHERS: usize = 64;
/// What an entry may be long: names have 128 letters at most.
pub const MAX_ENTRY_BYTES: usize = 1_024;
/// Slowed down, a source takes at least so many records a second: else one that begins when
/// ClickHouse takes nothing would stand still.
const LEAST_PER_SECOND: f64 = 100.0;

/// What one instance says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub instance: String,
    /// Of its cap, 0 to 1.
    pub fill: f64,
    pub paused: bool,
    /// Of its pulled sources, in records; None while unknown.
    pub lag: Option<u64>,
    pub inserted_per_second: f64,
}

impl Said {
    /// What stands in an entry; None if that is not what an instance says.
    #[must_use]
    pub fn parse(entry: &[u8]) -> Option<Self> {
        let said: Self =
            serde_json::from_slice(entry.get(..MAX_ENTRY_BYTES.min(entry.len()))?).ok()?;
        let sane = (0.0..=1.0).contains(&said.fill) && said.inserted_per_second >= 0.0;
        (sane && entry.len() <= MAX_ENTRY_BYTES).then_some(said)
    }

    /// As it stands in an entry.
    #[must_use]
    pub fn entry(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and finite numbers are JSON")
    }
}

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// Another one for each time that it is written.
    pub revision: u64,
    pub value: Vec<u8>,
}

/// What is known of the fleet, and what it means.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct View {
    /// Everybody else, by the name.
    pub others: BTreeMap<String, Said>,
    /// The mean over all, this one included.
    pub fill: f64,
    /// This one pulls more slowly, as all do that are not drained.
    pub slowed: bool,
    /// Entries of which nothing is made, when they were last read.
    pub ignored: usize,
    /// Why nothing is known just now.
    pub error: Option<String>,
}

#[derive(Debug)]
struct Other {
    revision: u64,
    /// When this revision was first seen, by our clock.
    since: Instant,
    said: Said,
}

/// What this instance keeps in mind of the others.
#[derive(Debug)]
pub struct Fleet {
    me: String,
    forget_after: Duration,
    slow_above: f64,
    slow_below: f64,
    others: BTreeMap<String, Other>,
    slowed: bool,
    ignored: usize,
}

impl Fleet {
    #[must_use]
    pub fn new(me: &str, config: &config::Fleet) -> Self {
        Self {
            me: token(me),
            forget_after: config.forget_after,
            slow_above: f64::from(config.slow_above_percent) / 100.0,
            slow_below: f64::from(config.slow_below_percent) / 100.0,
            others: BTreeMap::new(),
            slowed: false,
            ignored: 0,
        }
    }

    /// All entries were read; `more` were there and were not. What is gone is forgotten at once.
    pub fn read(&mut self, entries: Vec<Entry>, more: usize, now: Instant) {
        self.ignored = more;
        let mut there = BTreeSet::new();
        for Entry { key: name, revision, value } in entries {
            if name == self.me {
                continue;
            }
            let said = Said::parse(&value).filter(|said| token(&said.instance) == name);
            let room = self.others.contains_key(&name) || self.others.len() < MAX_OTHERS;
            let Some(said) = said.filter(|_| room) else {
                self.ignored += 1;
                continue;
            };
            there.insert(name.clone());
            let known = self.others.get(&name).filter(|other| other.revision == revision);
            let since = known.map_or(now, |known| known.since);
            self.others.insert(name, Other { revision, since, said });
        }
        self.others.retain(|name, _| there.contains(name));
    }

    /// What all of it means now. Whoever says nothing for too long is gone, also when that is
    /// because nothing can be heard: then everybody works for himself.
    pub fn look(&mut self, own: &Said, now: Instant) -> View {
        let lasts = self.forget_after;
        let alive = |other: &&Other| now.saturating_duration_since(other.since) < lasts;
        let others: BTreeMap<String, Said> = self
            .others
            .values()
            .filter(alive)
            .map(|other| (other.said.instance.clone(), other.said.clone()))
            .collect();
        let fills = others.values().map(|said| said.fill).chain([own.fill]);
        let count = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        let fill = fills.sum::<f64>() / f64::from(count);
        let filling = if self.slowed { fill >= self.slow_below } else { fill > self.slow_above };
        self.slowed = filling && own.fill >= self.slow_below && !others.is_empty();
        View { others, fill, slowed: self.slowed, ignored: self.ignored, error: None }
    }
}

/// What a source may take while the fleet is slowed down, of what ClickHouse takes from it.
#[must_use]
pub fn slowed_to(percent: u8, inserted_per_second: f64) -> RateLimit {
    let rate = (inserted_per_second * f64::from(percent) / 100.0).max(LEAST_PER_SECOND);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 100, and a cast beyond the range gives its end"
    )]
    let records_per_second = rate.round() as u32;
    RateLimit { records_per_second, burst: u64::from(records_per_second) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LASTS: Duration = Duration::from_secs(10);

    fn fleet() -> Fleet {
        let config = config::Fleet {
            bucket: "fleet".to_owned(),
            interval: Duration::from_secs(2),
            forget_after: LASTS,
            slow_above_percent: 60,
            slow_below_percent: 40,
            slow_to_percent: 80,
        };
        Fleet::new("me", &config)
    }

    fn said(instance: &str, fill: f64) -> Said {
        Said { instance: instance.to_owned(), fill, ..Said::default() }
    }

    fn entry(instance: &str, revision: u64, fill: f64) -> Entry {
        Entry { key: token(instance), revision, value: said(instance, fill).entry() }
    }

    #[test]
    fn others_are_seen_until_they_say_nothing_for_too_long() {
        let (mut fleet, begin) = (fleet(), Instant::now());
        let me = said("me", 0.1);
        fleet.read(vec![entry("me", 1, 0.9), entry("a", 2, 0.3), entry("b.c", 3, 0.2)], 0, begin);
        let view = fleet.look(&me, begin);
        assert_eq!(view.others.keys().collect::<Vec<_>>(), ["a", "b.c"]);
        assert!((view.fill - 0.2).abs() < 1e-9, "{}", view.fill);
        let later = begin + LASTS;
        fleet.read(vec![entry("a", 4, 0.3), entry("b.c", 3, 0.2)], 0, later);
        assert_eq!(fleet.look(&me, later).others.len(), 1, "b has not changed for too long");
        fleet.read(vec![], 0, later);
        assert!(fleet.look(&me, later).others.is_empty(), "a has taken its leave");
    }

    #[test]
    fn without_a_word_from_anybody_everybody_works_for_himself() {
        let (mut fleet, begin) = (fleet(), Instant::now());
        fleet.read(vec![entry("a", 1, 1.0)], 0, begin);
        assert!(fleet.look(&said("me", 1.0), begin).slowed);
        let view = fleet.look(&said("me", 1.0), begin + LASTS);
        assert!(!view.slowed && view.others.is_empty(), "{view:?}");
    }

    #[test]
    fn the_mean_slows_all_down_and_lets_go_at_a_lower_level() {
        let (mut fleet, now) = (fleet(), Instant::now());
        let mut slowed = |revision, mine, other| {
            fleet.read(vec![entry("a", revision, other)], 0, now);
            fleet.look(&said("me", mine), now).slowed
        };
        assert!(!slowed(1, 1.0, 0.1), "one that is full alone has trouble of its own");
        assert!(slowed(2, 0.7, 0.7));
        assert!(slowed(3, 0.5, 0.5), "not yet");
        assert!(!slowed(4, 0.3, 0.4));
    }

    #[test]
    fn one_that_stays_full_does_not_hold_back_for_ever_who_has_drained() {
        let (mut fleet, now) = (fleet(), Instant::now());
        let mut slowed = |revision, mine| {
            fleet.read(vec![entry("stuck", revision, 1.0)], 0, now);
            fleet.look(&said("me", mine), now).slowed
        };
        assert!(slowed(1, 0.7));
        assert!(slowed(2, 0.4), "not yet");
        assert!(!slowed(3, 0.39), "the mean is still above what slows down");
        assert!(!slowed(4, 0.3));
    }

    #[test]
    fn what_is_foreign_or_too_much_is_left_out_and_counted() {
        let (mut fleet, now) = (fleet(), Instant::now());
        let raw = |key: &str, value: &str| Entry {
            key: key.to_owned(),
            revision: 1,
            value: value.as_bytes().to_vec(),
        };
        let long =
            format!("{}{}", String::from_utf8(said("a", 0.1).entry()).unwrap(), " ".repeat(2_000));
        let wrong = vec![
            raw("x", "not json"),
            raw("x", "{}"),
            raw("other", &String::from_utf8(said("x", 0.1).entry()).unwrap()),
            raw("x", &String::from_utf8(said("x", 7.0).entry()).unwrap()),
            raw("a", &long),
        ];
        fleet.read(wrong, 2, now);
        let view = fleet.look(&said("me", 0.0), now);
        assert_eq!((view.others.len(), view.ignored), (0, 7));
        let many = (0..100_u64).map(|n| entry(&format!("i{n}"), n, 0.5)).collect();
        fleet.read(many, 0, now);
        let view = fleet.look(&said("me", 0.0), now);
        assert_eq!((view.others.len(), view.ignored), (MAX_OTHERS, 100 - MAX_OTHERS));
    }

    #[test]
    fn a_source_goes_on_at_least_slowly() {
        assert_eq!(slowed_to(80, 10_000.0).records_per_second, 8_000);
        assert_eq!(slowed_to(80, 0.0).records_per_second, 100);
    }

    proptest! {
        /// Whatever stands in the bucket, and whenever it is read: bounded, sane, and nobody who has
        /// not changed for `forget_after` counts.
        #[test]
        fn whatever_is_read_the_view_is_bounded_and_sane(
            reads in prop::collection::vec(
                (0_u64..15, prop::collection::vec((0_u8..60, 0_u64..4, 0.0_f64..=1.0), 0..90)), 1..20,
            ),
            mine in 0.0_f64..=1.0,
        ) {
            let (mut fleet, mut now) = (fleet(), Instant::now());
            let mut changed: BTreeMap<String, (u64, Instant)> = BTreeMap::new();
            for (seconds, entries) in reads {
                now += Duration::from_secs(seconds);
                let entries: BTreeMap<u8, (u64, f64)> =
                    entries.into_iter().map(|(who, revision, fill)| (who, (revision, fill))).collect();
                let entries: Vec<Entry> = entries
                    .into_iter()
                    .map(|(who, (revision, fill))| entry(&format!("i{who}"), revision, fill))
                    .collect();
                changed.retain(|name, _| entries.iter().any(|entry| entry.key == *name));
                for entry in &entries {
                    let known = changed.entry(entry.key.clone()).or_insert((entry.revision, now));
                    if known.0 != entry.revision {
                        *known = (entry.revision, now);
                    }
                }
                fleet.read(entries, 0, now);
                let view = fleet.look(&said("me", mine), now);
                prop_assert!(view.others.len() <= MAX_OTHERS);
                prop_assert!((0.0..=1.0).contains(&view.fill));
                prop_assert!(!view.slowed || (!view.others.is_empty() && mine >= 0.4));
                for name in view.others.keys() {
                    prop_assert!(now.saturating_duration_since(changed[name].1) < LASTS, "{}", name);
                }
            }
        }
    }
}
