//! Dead letters that are not in ClickHouse: read from where they are kept, and laid beside the rows.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::Ranges;
use crate::config::Config;
use crate::dead_letter::Destination;
use crate::dead_letter::log::LogStore;
use crate::sink::InsertError;
use crate::sink::clickhouse::{Held, LettersOf};
use crate::source::ProbeError;

/// Letters in a file, a topic or a stream.
#[derive(Debug)]
pub(super) struct Elsewhere {
    place: String,
    /// None: they cannot be read.
    store: Option<LogStore>,
    /// Why one that was written may not be found.
    caveats: Vec<String>,
}

/// The offsets of one partition with a letter, and whether it was replayed.
pub(super) type Lettered = BTreeMap<i64, bool>;

impl Elsewhere {
    /// None: they are in ClickHouse.
    pub(super) async fn open(config: &Config) -> Result<Option<Self>, ProbeError> {
        let place = config.dead_letters.place();
        let unreachable = |why: String| ProbeError::Unreachable(format!("{place}: {why}"));
        let destination = Destination::open(config).await;
        let destination = destination.map_err(|error| unreachable(format!("{error:#}")))?;
        let Some(destination) = destination else { return Ok(None) };
        let (readable, caveats) = match destination.look().await {
            Ok(caveats) => (true, caveats),
            Err(InsertError::Retry(refusal)) => return Err(unreachable(refusal.to_string())),
            Err(error) => (false, vec![error.refusal().to_string()]),
        };
        let store = readable.then(|| LogStore::new(destination, place.clone(), config.retry));
        Ok(Some(Self { place, store, caveats }))
    }

    /// Those of one topic, or of a route's stream, as they are now.
    pub(super) async fn of(
        &self,
        source: &str,
        of: &LettersOf,
    ) -> Result<BTreeMap<i32, Lettered>, ProbeError> {
        let mut all: BTreeMap<i32, Lettered> = BTreeMap::new();
        let Some(store) = &self.store else { return Ok(all) };
        let letters = store.outlines().await;
        let letters = letters
            .map_err(|error| ProbeError::Unreachable(format!("{}: {error:#}", self.place)))?;
        for letter in letters {
            let its = match of {
                LettersOf::Topic(topic) => letter.topic_or_subject == *topic,
                LettersOf::Route(route) => letter.route == *route,
            };
            if let Some(offset) = letter.offset.filter(|_| its && letter.source == source) {
                let partition = all.entry(letter.partition.unwrap_or_default()).or_default();
                partition.insert(offset, letter.replayed_at.is_some());
            }
        }
        Ok(all)
    }

    /// Why a record without a row and a letter need not be lost.
    pub(super) fn excuse(&self) -> Option<String> {
        let caveats = (!self.caveats.is_empty()).then(|| self.caveats.join("; "))?;
        Some(format!("no row, and no dead letter in {}: {caveats}", self.place))
    }
}

/// What is held of a partition, with the letters of these offsets.
pub(super) fn lay_beside(held: &mut Held, letters: &Lettered, bounds: &Range<i64>) {
    let rows: Ranges = held.stretches.iter().cloned().collect();
    for (&offset, &replayed) in letters.range(bounds.clone()) {
        held.dead_lettered += 1;
        if rows.contains(offset) {
            held.both += u64::from(!replayed);
        } else {
            held.stretches.push(offset..offset + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_held_once_and_one_beside_a_row_is_noticed_unless_it_was_replayed() {
        let mut held = Held { stretches: vec![0..10, 12..20], stored: 18, ..Held::default() };
        let letters =
            Lettered::from([(5, true), (6, false), (10, false), (11, false), (30, false)]);
        lay_beside(&mut held, &letters, &(0..20));
        let all: Ranges = held.stretches.into_iter().collect();
        assert_eq!((all, held.dead_lettered, held.both), (Ranges::one(0..20), 4, 1));
    }
}
