//! Whether the books close: received = inserted + dead-lettered + filtered + dropped + released +
//! held, for every source and every route. Pure. The owner publishes between two actions only, so
//! the sum holds in every snapshot; where it does not, the bridge itself is wrong.

use std::fmt;

use super::{RouteStatus, Snapshot, SourceStatus};
use crate::thousands::thousands;

/// A sum that does not close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// `source kafka`, `route candles`.
    pub of: String,
    /// Records received that are nowhere; below 0: more are accounted for than were received.
    pub records: i64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, records } = self;
        let count = thousands(records.unsigned_abs());
        write!(f, "the accounting of {of} does not close: ")?;
        if *records > 0 {
            write!(f, "{count} records were received and are nowhere")?;
        } else {
            write!(f, "{count} records more are accounted for than were received")?;
        }
        f.write_str(
            "; this is a bug of data-bridge: please report it, and run `data-bridge audit` to see \
             whether anything is missing",
        )
    }
}

impl SourceStatus {
    /// Received, less everything that became of it: 0, or the bridge is wrong.
    #[must_use]
    pub fn gap(&self) -> i64 {
        let gone = [self.inserted, self.dead_lettered, self.filtered, self.released];
        difference(self.received, &[&gone[..], &[self.dropped_total(), held(self.held)]].concat())
    }
}

impl RouteStatus {
    /// Received, less everything that became of it: 0, or the bridge is wrong.
    #[must_use]
    pub fn gap(&self) -> i64 {
        let Self { inserted, dead_lettered, filtered, dropped, released, .. } = *self;
        let terms = [inserted, dead_lettered, filtered, dropped, released, held(self.held)];
        difference(self.received, &terms)
    }
}

impl Snapshot {
    /// Every sum that does not close; empty, or the bridge is wrong.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let sources = self.sources.iter().map(|(name, s)| (format!("source {name}"), s.gap()));
        let routes = self.routes.iter().map(|(name, r)| (format!("route {name}"), r.gap()));
        let open = sources.chain(routes).filter(|(_, records)| *records != 0);
        open.map(|(of, records)| Gap { of, records }).collect()
    }

    /// Those that are new or other than they were, so that each is said once.
    #[must_use]
    pub fn gaps_since(&self, previous: Option<&Self>) -> Vec<Gap> {
        let known = previous.map(Self::gaps).unwrap_or_default();
        self.gaps().into_iter().filter(|gap| !known.contains(gap)).collect()
    }
}

fn difference(received: u64, terms: &[u64]) -> i64 {
    terms.iter().fold(signed(received), |left, term| left - signed(*term))
}

fn held(records: usize) -> u64 {
    u64::try_from(records).unwrap_or(u64::MAX)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::samples;

    #[test]
    fn the_books_of_a_busy_bridge_close() {
        assert_eq!(samples::busy().gaps(), []);
    }

    #[test]
    fn a_record_that_is_nowhere_is_named_once() {
        let good = samples::busy();
        let mut bad = good.clone();
        bad.sources.get_mut("kafka").unwrap().inserted -= 2;
        bad.routes.get_mut("candles").unwrap().released += 1;
        let said: Vec<String> = bad.gaps().iter().map(ToString::to_string).collect();
        assert!(
            said[0].contains("source kafka does not close: 2 records were received"),
            "{said:?}"
        );
        assert!(said[1].contains("route candles does not close: 1 records more are"), "{said:?}");
        assert_eq!(bad.gaps_since(Some(&good)).len(), 2);
        assert_eq!(bad.gaps_since(Some(&bad)), []);
        let mut worse = bad.clone();
        worse.sources.get_mut("kafka").unwrap().held += 1;
        assert_eq!(worse.gaps_since(Some(&bad)).len(), 1);
    }
}
