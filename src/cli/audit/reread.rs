//! Goes over the offsets of which nothing is held, in the topic itself, and finds out of each
//! whether something should be: with the bridge's own router and decoder, and with ClickHouse's
//! word for what stands for a row that its table merged away.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;

use super::feed::Feed;
use super::judge::{Case, Read};
use super::plan::Target;
use super::ranges::Ranges;
use super::report::Unknown;
use crate::config::{Action, Config, RouteFormat};
use crate::decode::{Columns, Decoder};
use crate::record::{Chunk, Record};
use crate::schema::TableSchema;
use crate::sink::InsertError;
use crate::sink::clickhouse::{ClickHouse, Keeps, Key};
use crate::source::ProbeError;

/// Stretches nearer than this are read in one go: a fetch brings thousands of records anyway.
pub(super) const APART: i64 = 5_000;
/// Rows that ClickHouse is asked about at a time, and their bytes.
const ROWS_AT_A_TIME: usize = 2_000;
const BYTES_AT_A_TIME: usize = 2 << 20;
/// Chunks on their way from the reading thread.
const CHUNKS: usize = 4;

/// What a topic's rows become.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) clickhouse: &'a ClickHouse,
    pub(super) schema: &'a TableSchema,
    pub(super) keeps: &'a Keeps,
}

/// How many offsets have to be read.
pub(super) fn cost<'a>(cases: impl Iterator<Item = &'a Case>) -> u64 {
    cases.map(|case| case.open.joined(APART).count()).sum()
}

/// Reads what is open of a topic; the answers by partition, for every one that has something open.
/// `excuse`: why a record of which nothing is found need not be lost.
pub(super) async fn look(
    config: &Config,
    target: &Target,
    feed: &Feed<'_>,
    table: Table<'_>,
    cases: &[Case],
    excuse: Option<String>,
) -> Result<BTreeMap<i32, Read>, ProbeError> {
    let open = || cases.iter().filter(|case| !case.open.is_empty());
    let stretches = open().map(|case| {
        let ranges: VecDeque<_> = case.open.joined(APART).iter().collect();
        (case.extent.number, ranges)
    });
    let (sender, mut chunks) = mpsc::channel(CHUNKS);
    let mut judge = Judge::new(config, target, table, open(), excuse);
    let reading = feed.reread(stretches.collect(), sender);
    // Whoever fails first ends the other: by a channel that is closed, or has nothing more in it.
    let (read, judged) = tokio::join!(reading, async {
        let judged = judge.all(&mut chunks).await;
        chunks.close();
        judged
    });
    judged.and(read)?;
    Ok(judge.done())
}

struct Judge<'a> {
    table: Table<'a>,
    open: BTreeMap<i32, &'a Ranges>,
    excuse: Option<String>,
    /// None: no other row can stand for one.
    rows: Option<Rows<'a>>,
    found: BTreeMap<i32, Found>,
}

#[derive(Default)]
struct Found {
    read: Read,
    lost: Vec<i64>,
}

/// How a record becomes the row that another one may stand for.
struct Rows<'a> {
    key: &'a Key,
    offset: &'a str,
    decoder: Decoder,
    /// By partition, until ClickHouse was asked.
    waiting: BTreeMap<i32, Waiting>,
}

struct Waiting {
    columns: Columns,
    offsets: Vec<i64>,
}

impl<'a> Judge<'a> {
    fn new(
        config: &'a Config,
        target: &'a Target,
        table: Table<'a>,
        cases: impl Iterator<Item = &'a Case> + Clone,
        excuse: Option<String>,
    ) -> Self {
        let found = cases.clone().map(|case| (case.extent.number, Found::default())).collect();
        let open = cases.map(|case| (case.extent.number, &case.open)).collect();
        Self { open, excuse, rows: Rows::new(config, target, &table), table, found }
    }

    async fn all(&mut self, chunks: &mut mpsc::Receiver<Chunk>) -> Result<(), ProbeError> {
        while let Some(chunk) = chunks.recv().await {
            self.chunk(&chunk).await?;
        }
        let rest = self.rows.as_mut().map(|rows| std::mem::take(&mut rows.waiting));
        for (number, waiting) in rest.unwrap_or_default() {
            self.ask(number, waiting).await?;
        }
        Ok(())
    }

    async fn chunk(&mut self, chunk: &Chunk) -> Result<(), ProbeError> {
        for record in chunk.records() {
            let Some((partition, offset)) = record.place() else { continue };
            let number = partition.number;
            if self.open.get(&number).is_some_and(|open| open.contains(offset)) {
                let full = self.record(number, offset, &record);
                if let Some(waiting) = full {
                    self.ask(number, waiting).await?;
                }
            }
        }
        Ok(())
    }

    /// A record of which nothing is held. Returns the rows of its partition when they are many.
    fn record(&mut self, number: i32, offset: i64, record: &Record<'_>) -> Option<Waiting> {
        let found = self.found.entry(number).or_default();
        found.read.records.push(offset);
        if record.payload().is_none() {
            found.read.tombstones += 1;
            return None;
        }
        let Some(rows) = &mut self.rows else {
            found.lost.push(offset);
            return None;
        };
        let fresh = || Waiting { columns: rows.decoder.columns(), offsets: Vec::new() };
        let waiting = rows.waiting.entry(number).or_insert_with(fresh);
        if rows.decoder.decode(record, None, &mut waiting.columns).is_err() {
            // It would be a dead letter.
            found.lost.push(offset);
            return None;
        }
        waiting.offsets.push(offset);
        let full =
            waiting.offsets.len() >= ROWS_AT_A_TIME || waiting.columns.bytes() >= BYTES_AT_A_TIME;
        full.then(|| rows.waiting.remove(&number)).flatten()
    }

    /// Asks for which of the rows no other one stands.
    async fn ask(&mut self, number: i32, waiting: Waiting) -> Result<(), ProbeError> {
        let Some(rows) = self.rows.as_ref().filter(|_| !waiting.offsets.is_empty()) else {
            return Ok(());
        };
        let Table { clickhouse, schema, .. } = self.table;
        let body = waiting.columns.encode();
        let asked = clickhouse.nothing_stands_for(schema, rows.key, &body, rows.offset).await;
        let found = self.found.entry(number).or_default();
        match asked {
            Ok(lost) => {
                found.read.superseded += (waiting.offsets.len() - lost.len()) as u64;
                found.lost.extend(lost);
            }
            Err(InsertError::Retry(refusal)) => {
                return Err(ProbeError::Unreachable(format!("ClickHouse: {refusal}")));
            }
            Err(error) => {
                let why = format!(
                    "no row, and ClickHouse cannot say whether another row stands for them: {}",
                    error.refusal()
                );
                found.read.undecided.push(Unknown { why, offsets: ranges(waiting.offsets) });
            }
        }
        Ok(())
    }

    /// Why a record of which nothing is held need not be lost.
    fn excuse(&self) -> Option<String> {
        if let Some(excuse) = &self.excuse {
            return Some(excuse.clone());
        }
        match self.table.keeps {
            Keeps::Rows { ttl: true } => Some("no row; the table has a TTL: it may have expired"),
            Keeps::OneOfEachKey(key) if key.has_ttl() => {
                Some("no row; the table has a TTL: it may have expired")
            }
            Keeps::Other(engine) => {
                return Some(format!("no row; what a table of engine {engine} keeps is not known"));
            }
            _ => None,
        }
        .map(str::to_owned)
    }

    fn done(self) -> BTreeMap<i32, Read> {
        let excuse = self.excuse();
        let read = |(number, Found { mut read, lost })| {
            let lost = ranges(lost);
            match &excuse {
                Some(why) if !lost.is_empty() => {
                    read.undecided.push(Unknown { why: why.clone(), offsets: lost });
                }
                _ => read.lost = lost,
            }
            (number, read)
        };
        self.found.into_iter().map(read).collect()
    }
}

impl<'a> Rows<'a> {
    fn new(config: &'a Config, target: &'a Target, table: &Table<'a>) -> Option<Self> {
        let (Keeps::OneOfEachKey(key), Ok(columns)) = (table.keeps, &target.columns) else {
            return None;
        };
        let Action::Insert(insert) = &config.routes[target.route].action else { return None };
        let RouteFormat::Columns(mapping) = &insert.format else { return None };
        let decoder = Decoder::new(table.schema, mapping).ok()?;
        Some(Self { key, offset: &columns.offset, decoder, waiting: BTreeMap::new() })
    }
}

fn ranges(offsets: Vec<i64>) -> Ranges {
    offsets.into_iter().map(|offset| offset..offset + 1).collect()
}
