//! Intents: what exactly once says before it inserts, and so remembers without a store of its own.
//!
//! Pure. Before a batch of a partition is sent, the offset to go on from is committed together
//! with a note that lists the batch's range. Whoever owns the partition next reads the note, takes
//! exactly the listed ranges again, and sends them with the same tokens: ClickHouse recognises
//! what had landed. A range stays listed until everything before and in it is durable. The
//! boundaries are remembered, not computed again, so batches may be cut by time and settings may
//! change in between.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::record::{Partition, UnixMs};

/// Kafka's default limit on the metadata of a committed offset (`offset.metadata.max.bytes`).
const NOTE_BYTES: usize = 4_096;

/// The longest that a listed range can be: a table's name, and seven numbers.
const RANGE_BYTES: usize = 256 + 7 * 21;

/// What a note begins with; another number will be another format.
const VERSION: &str = "db1";

/// One batch of one partition: what will be inserted under one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub table: String,
    /// The offsets of its first and its last record.
    pub first: i64,
    pub last: i64,
    /// What becomes of its records: so many rows, in a body with this checksum.
    pub rows: usize,
    pub checksum: u64,
    /// The table's block number that was seen last before the first attempt: how many entries of
    /// the deduplication window were used since can be told from it.
    pub block: u64,
    /// When it was first listed, in milliseconds since the epoch.
    pub listed_at: UnixMs,
    /// How many of its tokens were found used up, without its rows.
    pub spent: u32,
}

/// What is committed beside an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Tells this life of the partition from another of the same name: a topic that is deleted
    /// and made again loses its committed offsets, and begins with a new one.
    pub incarnation: String,
    /// Of the route's table, format and columns: a different one explains a different checksum.
    pub config: u64,
    /// In the order of offsets, apart from each other.
    pub ranges: Vec<Range>,
}

impl Range {
    /// From its first record to its last, with those that are in no topic any more.
    #[must_use]
    pub fn offsets(&self) -> usize {
        usize::try_from(self.last - self.first)
            .map_or(usize::MAX, |before| before.saturating_add(1))
    }

    /// Every offset of it was a row: none was passed over, refused or missing.
    #[must_use]
    pub fn is_all_rows(&self) -> bool {
        self.offsets() == self.rows
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, first, last, rows, checksum, block, listed_at, spent } = self;
        write!(f, "{table}:{first}-{last}:{rows}:{checksum:x}:{block}:{listed_at}")?;
        if *spent > 0 { write!(f, ":{spent}") } else { Ok(()) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} {} {:x}", self.incarnation, self.config)?;
        self.ranges.iter().try_for_each(|range| write!(f, " {range}"))
    }
}

impl Note {
    /// Reads what was committed. None if somebody else wrote it: then nothing was intended.
    ///
    /// # Errors
    /// When it is one of ours that this version cannot read: going on would insert twice.
    pub fn parse(text: &str) -> anyhow::Result<Option<Self>> {
        let mut words = text.split(' ');
        let version = words.next().unwrap_or_default();
        let ours = version.strip_prefix("db").is_some_and(|v| v.parse::<u32>().is_ok());
        if !ours {
            return Ok(None);
        }
        ensure!(version == VERSION, "it is of version {version}, this is {VERSION}");
        let incarnation = words.next().context("the incarnation is missing")?.to_owned();
        let config = words.next().context("the configuration's checksum is missing")?;
        let config = u64::from_str_radix(config, 16).context("the configuration's checksum")?;
        let ranges = words.map(range).collect::<anyhow::Result<Vec<_>>>()?;
        let apart = ranges.windows(2).all(|pair| pair[0].last < pair[1].first);
        ensure!(apart && ranges.iter().all(|r| r.first <= r.last), "its ranges overlap");
        Ok(Some(Self { incarnation, config, ranges }))
    }
}

fn range(text: &str) -> anyhow::Result<Range> {
    let mut parts = text.split(':');
    let mut next = || parts.next().with_context(|| format!("the range {text:?} is cut short"));
    let table = next()?.to_owned();
    let (first, last) = next()?.split_once('-').context("a range without an end")?;
    Ok(Range {
        table,
        first: first.parse()?,
        last: last.parse()?,
        rows: next()?.parse()?,
        checksum: u64::from_str_radix(next()?, 16)?,
        block: next()?.parse()?,
        listed_at: next()?.parse()?,
        spent: parts.next().map_or(Ok(0), str::parse)?,
    })
}

/// A listed range, and whether the broker has it.
#[derive(Debug)]
struct Listed {
    /// Ascends with the time at which it was listed.
    id: u64,
    range: Range,
    announced: bool,
    /// Its records are gone from the source, and it is not known yet what became of them: nothing
    /// beyond it may be committed.
    missing: bool,
}

/// The intents of one assignment of one partition.
#[derive(Debug)]
pub struct Intents {
    partition: Arc<Partition>,
    incarnation: String,
    config: u64,
    /// It was restored from a note that another configuration had made.
    reconfigured: bool,
    listed: VecDeque<Listed>,
    last_id: u64,
    /// Notes that the source was asked to commit, with the last range that each lists.
    asked: VecDeque<(Arc<str>, u64)>,
}

impl Intents {
    /// Of a partition of which nothing is known yet; `incarnation` was never used before.
    #[must_use]
    pub fn new(partition: Arc<Partition>, incarnation: String, config: u64) -> Self {
        let (listed, asked) = (VecDeque::new(), VecDeque::new());
        Self { partition, incarnation, config, reconfigured: false, listed, last_id: 0, asked }
    }

    /// Goes on where the note was left: its ranges are listed, and the broker has them.
    #[must_use]
    pub fn restore(partition: Arc<Partition>, note: Note, config: u64) -> Self {
        let mut intents = Self::new(partition, note.incarnation, config);
        intents.reconfigured = note.config != config;
        for range in note.ranges {
            intents.last_id += 1;
            let id = intents.last_id;
            intents.listed.push_back(Listed { id, range, announced: true, missing: false });
        }
        intents
    }

    /// What is listed from here on is made by another configuration.
    pub fn reconfigure(&mut self, config: u64) {
        self.config = config;
    }

    /// Table, format or columns are not what they were when the note was made.
    #[must_use]
    pub fn was_reconfigured(&self) -> bool {
        self.reconfigured
    }

    #[must_use]
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The same for the same records whenever they are sent, different for any others, and for each
    /// that is spent.
    #[must_use]
    pub fn token(&self, first: i64, last: i64, spent: u32) -> String {
        let Partition { topic, number, .. } = &*self.partition;
        let token = format!("{topic}/{}:{number}:{first}-{last}", self.incarnation);
        if spent == 0 { token } else { format!("{token}~{spent}") }
    }

    /// Whether one more range can be listed in one note.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.text().len() + RANGE_BYTES <= NOTE_BYTES
    }

    /// Lists a range: it may be sent once it is announced. It takes the place of all that it
    /// overlaps: its own former self, or the whole of which it is a half and which was refused.
    pub fn intend(&mut self, range: Range) {
        self.listed.retain(|l| l.range.last < range.first || range.last < l.range.first);
        self.last_id += 1;
        let at = self.listed.partition_point(|listed| listed.range.first < range.first);
        let listed = Listed { id: self.last_id, range, announced: false, missing: false };
        self.listed.insert(at, listed);
    }

    /// Whether this very range is listed.
    #[must_use]
    pub fn lists(&self, range: &Range) -> bool {
        self.listed.iter().any(|listed| listed.range == *range)
    }

    /// The listed range with these bounds, if the broker has it.
    #[must_use]
    pub fn announced(&self, first: i64, last: i64) -> Option<&Range> {
        let is = |listed: &&Listed| (listed.range.first, listed.range.last) == (first, last);
        self.listed.iter().find(is).filter(|listed| listed.announced).map(|listed| &listed.range)
    }

    /// The records of a range are gone from the source: nothing beyond it may be committed before
    /// [`Intents::resolve`].
    pub fn miss(&mut self, first: i64) {
        if let Some(listed) = self.listed_from(first) {
            listed.missing = true;
        }
    }

    /// What became of a missing range is known: it is passed as any other, when all before and in it
    /// is durable. Until then it stays listed, for what is left of it.
    pub fn resolve(&mut self, first: i64) {
        if let Some(listed) = self.listed_from(first) {
            listed.missing = false;
        }
    }

    fn listed_from(&mut self, first: i64) -> Option<&mut Listed> {
        self.listed.iter_mut().find(|listed| listed.range.first == first)
    }

    /// What to commit when everything before `offset` is durable: how far, and the note. How far:
    /// to there, or to the first range that is not durable as a whole.
    pub fn commit(&mut self, offset: i64) -> (i64, Arc<str>) {
        let passed = |listed: &Listed| listed.range.last < offset && !listed.missing;
        while self.listed.front().is_some_and(passed) {
            self.listed.pop_front();
        }
        // Never into a range: the next owner must be able to read all of it.
        let listed = self.listed.front().map_or(offset, |listed| listed.range.first);
        let offset = offset.min(listed);
        let text = self.text();
        if let Some((asked, _)) = self.asked.back().filter(|(asked, _)| **asked == *text) {
            return (offset, Arc::clone(asked));
        }
        let note: Arc<str> = text.into();
        self.asked.push_back((Arc::clone(&note), self.last_id));
        (offset, note)
    }

    /// The source says that this note is committed. Says whether that announced anything.
    pub fn committed(&mut self, note: &str) -> bool {
        let Some(at) = self.asked.iter().rposition(|(asked, _)| **asked == *note) else {
            return false;
        };
        let through = self.asked[at].1;
        // The last one stays: it may be asked for, and committed, again.
        self.asked.drain(..at);
        let mut news = false;
        for listed in self.listed.iter_mut().filter(|listed| listed.id <= through) {
            news |= !std::mem::replace(&mut listed.announced, true);
        }
        news
    }

    fn text(&self) -> String {
        let ranges = self.listed.iter().map(|listed| listed.range.clone()).collect();
        let (incarnation, config) = (self.incarnation.clone(), self.config);
        Note { incarnation, config, ranges }.to_string()
    }
}

#[cfg(test)]
mod tests;
