//! The oracle: what was sent, what landed, and the difference, per producer and partition.
//!
//! Every producer counts from 0; its number says which partition it takes and whether it is bad on
//! purpose, so that what has to be where is a pure function of how many were sent. Knows nothing of
//! the bridge: it asks the tables.

use std::collections::BTreeMap;
use std::fmt;

use crate::lab::ClickHouse;

/// The partitions of a place, of Kafka as of the imagination for the sources that have none.
pub(crate) const PARTITIONS: u64 = 6;

/// The last of each so many numbers becomes a dead letter. Prime to the partitions, so that each
/// has some.
pub(crate) const BAD_EVERY: u64 = 997;

/// So many numbers are named of each kind of trouble.
const NAMED: usize = 5;

/// Where a number goes.
pub(crate) fn partition(n: u64) -> u64 {
    n % PARTITIONS
}

/// Whether it is made to be refused.
pub(crate) fn is_bad(n: u64) -> bool {
    n % BAD_EVERY == BAD_EVERY - 1
}

/// What was found of one producer's numbers: how often each is there.
pub(crate) type Found = BTreeMap<(usize, u64), u64>;

/// Which of the numbers have to be in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Good,
    Bad,
}

impl Which {
    fn takes(self, n: u64) -> bool {
        is_bad(n) == (self == Self::Bad)
    }
}

/// What is wrong in one place, for one producer and partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) expected: u64,
    pub(crate) missing: u64,
    /// Beyond the first.
    pub(crate) duplicate: u64,
    pub(crate) unexpected: u64,
    named: Vec<String>,
}

/// All lines of one place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) place: String,
    pub(crate) lines: BTreeMap<(usize, u64), Line>,
}

impl Verdict {
    /// Compares what was found with what the producers sent: `sent[p]` numbers each.
    pub(crate) fn of(place: &str, which: Which, sent: &[u64], found: &Found) -> Self {
        let mut verdict = Self { place: place.to_owned(), lines: BTreeMap::new() };
        for (producer, &sent) in sent.iter().enumerate() {
            for n in (0..sent).filter(|&n| which.takes(n)) {
                let line = verdict.lines.entry((producer, partition(n))).or_default();
                line.expected += 1;
                match found.get(&(producer, n)).copied().unwrap_or_default() {
                    0 => {
                        line.missing += 1;
                        line.name("missing", n);
                    }
                    1 => {}
                    more => {
                        line.duplicate += more - 1;
                        line.name("twice", n);
                    }
                }
            }
        }
        let expected = |producer: usize, n: u64| {
            sent.get(producer).is_some_and(|&sent| n < sent) && which.takes(n)
        };
        for (&(producer, n), &times) in found {
            if !expected(producer, n) {
                let line = verdict.lines.entry((producer, partition(n))).or_default();
                line.unexpected += times;
                line.name("unexpected", n);
            }
        }
        verdict
    }

    /// Every line that is not clean.
    pub(crate) fn troubles(&self) -> String {
        let troubles = self.lines.iter().filter(|(_, line)| !line.is_clean());
        let describe = |((producer, partition), line): (&(usize, u64), &Line)| {
            let Line { expected, missing, duplicate, unexpected, named } = line;
            format!(
                "    producer {producer}, partition {partition}: expected {expected}, missing \
                 {missing}, duplicate {duplicate}, unexpected {unexpected} ({})",
                named.join(", ")
            )
        };
        troubles.map(describe).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn total(&self) -> Line {
        let mut total = Line::default();
        for line in self.lines.values() {
            total.expected += line.expected;
            total.missing += line.missing;
            total.duplicate += line.duplicate;
            total.unexpected += line.unexpected;
        }
        total
    }
}

impl Line {
    fn name(&mut self, what: &str, n: u64) {
        if self.named.len() < NAMED {
            self.named.push(format!("{what} {n}"));
        }
    }

    fn is_clean(&self) -> bool {
        (self.missing, self.duplicate, self.unexpected) == (0, 0, 0)
    }
}

/// The sum of the place.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { expected, missing, duplicate, unexpected, .. } = self.total();
        write!(
            f,
            "{:<28} expected {expected:>8}  missing {missing}  duplicate {duplicate}  \
             unexpected {unexpected}",
            self.place
        )
    }
}

/// What a table of rows `(p, n, ...)` holds.
pub(crate) async fn rows(clickhouse: &ClickHouse, table: &str) -> Found {
    count(clickhouse, &format!("SELECT p, n, count() FROM {table} GROUP BY p, n")).await
}

/// What the dead letters of this topic or subject hold; `prefix` is how its name begins. None where
/// nothing was ever refused and so no table was made.
pub(crate) async fn letters(clickhouse: &ClickHouse, prefix: &str) -> Found {
    let there = "SELECT count() FROM system.tables WHERE database = currentDatabase() \
                 AND name = 'dead_letters'";
    if clickhouse.number(there).await == 0 {
        return Found::new();
    }
    let sql = format!(
        "SELECT JSONExtractUInt(payload, 'p') AS p, JSONExtractUInt(payload, 'n') AS n, count() \
         FROM dead_letters WHERE startsWith(topic_or_subject, '{prefix}') GROUP BY p, n"
    );
    count(clickhouse, &sql).await
}

async fn count(clickhouse: &ClickHouse, sql: &str) -> Found {
    let text = clickhouse.query(&format!("{sql} FORMAT TSV")).await;
    let row = |line: &str| {
        let mut fields = line.split('\t').map(|field| field.parse::<u64>().unwrap());
        let mut next = || fields.next().unwrap();
        ((usize::try_from(next()).unwrap(), next()), next())
    };
    text.lines().map(row).collect()
}

fn everything(sent: &[u64], which: Which) -> Found {
    let numbers = |(p, &sent): (usize, &u64)| (0..sent).map(move |n| ((p, n), 1));
    sent.iter().enumerate().flat_map(numbers).filter(|((_, n), _)| which.takes(*n)).collect()
}

#[test]
fn what_landed_once_is_clean() {
    let sent = [3_000, 2_000];
    for (which, expected) in [(Which::Good, 4_995), (Which::Bad, 5)] {
        let verdict = Verdict::of("t", which, &sent, &everything(&sent, which));
        assert!(verdict.total().is_clean(), "{verdict}");
        assert_eq!(verdict.total().expected, expected);
    }
}

#[test]
fn one_that_is_missing_twice_or_unexpected_is_named_with_its_producer_and_partition() {
    let sent = [3_000, 2_000];
    let mut found = everything(&sent, Which::Good);
    found.remove(&(0, 7));
    found.insert((1, 8), 3);
    found.insert((1, 2_000), 1); // never sent
    found.insert((0, 996), 1); // a bad one does not belong here
    let verdict = Verdict::of("t", Which::Good, &sent, &found);
    let Line { missing, duplicate, unexpected, .. } = verdict.total();
    assert_eq!((missing, duplicate, unexpected), (1, 2, 2));
    let line = |producer, partition| &verdict.lines[&(producer, partition)];
    assert_eq!(line(0, 1).named, ["missing 7"]);
    assert_eq!(line(1, 2).named, ["twice 8", "unexpected 2000"]);
    assert_eq!(line(0, 0).named, ["unexpected 996"]);
}
