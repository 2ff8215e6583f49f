//! Which positions ClickHouse holds: asked of the tables and the dead letters, answered as stretches
//! of offsets. Whatever a table's size, no rows travel: ClickHouse makes bitmaps of 65,536 offsets
//! each, and only their edges come here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;

use super::probe::literal;
use super::{ClickHouse, quote, quoted};
use crate::sink::{InsertError, Refusal};

/// A billion rows take minutes.
const WITHIN: Duration = Duration::from_secs(900);
/// Buckets with holes whose offsets are listed at a time: 64 MB of them in ClickHouse at most.
const HOLED_AT_A_TIME: usize = 256;
/// Buckets in which repeated offsets are looked for, and how many of those are named.
const REPEATED_BUCKETS: usize = 64;
const REPEATED_NAMED: usize = 20;
/// Beyond it the answer would be of no use to anybody, and large.
const MAX_STRETCHES: usize = 4_000_000;

/// Offsets of a bucket. Its bitmap takes 8 KiB at most.
const BUCKET: i64 = 65_536;

/// A table, and its columns that say where a row came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginColumns {
    pub table: String,
    /// None: the table does not tell the rows of one origin from those of another.
    pub topic: Option<String>,
    /// None: all is one partition.
    pub partition: Option<String>,
    pub offset: String,
}

/// Which rows are meant, by the column for the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Topic(String),
    /// Those that came on a subject.
    NoTopic,
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub rows: OriginColumns,
    pub origin: Origin,
    /// For each partition the offsets in question.
    pub bounds: Vec<(i32, Range<i64>)>,
    pub dead_letters: Option<DeadLetters>,
}

/// Which dead letters are meant.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub table: String,
    /// The source's name.
    pub source: &'static str,
    pub of: LettersOf,
}

#[derive(Debug, Clone)]
pub enum LettersOf {
    Topic(String),
    Route(String),
}

/// What is held of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Where there is a row or a dead letter; in no order, touching each other.
    pub stretches: Vec<Range<i64>>,
    /// Rows in the tables, and how many different offsets they have.
    pub rows: u64,
    pub stored: u64,
    /// Different offsets among the dead letters.
    pub dead_lettered: u64,
    /// Different offsets that have a row and a dead letter that was never replayed.
    pub both: u64,
    /// Some of the offsets that have several rows, and how many.
    pub repeated: Vec<(i64, u64)>,
}

impl ClickHouse {
    /// What is held of a topic, by partition; a partition of which nothing is held is left out.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked, or refuses. `Ok(None)`: the positions are so scattered that
    /// their list would not fit; narrower bounds are needed.
    pub async fn positions(
        &self,
        wanted: &Wanted,
    ) -> Result<Option<Vec<(i32, Held)>>, InsertError> {
        let mut all: BTreeMap<i32, Held> = BTreeMap::new();
        let (mut holed, mut repeated, mut stretches) = (Vec::new(), Vec::new(), 0);
        for bucket in self.lines::<Bucket>(&buckets(wanted)).await? {
            let held = all.entry(bucket.partition).or_default();
            held.rows += bucket.rows;
            held.stored += bucket.stored;
            held.dead_lettered += bucket.dead_lettered;
            held.both += bucket.both;
            let place = (bucket.partition, bucket.number);
            if bucket.rows > bucket.stored {
                repeated.push(place);
            }
            let base = bucket.number * BUCKET;
            if bucket.last - bucket.first + 1 == bucket.different {
                held.stretches.push(base + bucket.first..base + bucket.last + 1);
            } else {
                holed.push(place);
            }
        }
        for places in holed.chunks(HOLED_AT_A_TIME) {
            for bucket in self.lines::<Holed>(&holed_buckets(wanted, places)).await? {
                let base = bucket.number * BUCKET;
                let ends = bucket.starts.iter().zip(&bucket.ends);
                let ranges = ends.map(|(first, last)| base + first..base + last + 1);
                stretches += bucket.starts.len();
                all.entry(bucket.partition).or_default().stretches.extend(ranges);
            }
            if stretches > MAX_STRETCHES {
                return Ok(None);
            }
        }
        repeated.truncate(REPEATED_BUCKETS);
        if !repeated.is_empty() {
            for row in self.lines::<Repeated>(&repeated_offsets(wanted, &repeated)).await? {
                let held = all.entry(row.partition).or_default();
                held.repeated.push((row.offset, row.rows));
            }
        }
        Ok(Some(all.into_iter().collect()))
    }

    /// The lines of an answer, each read as JSON.
    pub(super) async fn lines<T: for<'a> Deserialize<'a>>(
        &self,
        query: &str,
    ) -> Result<Vec<T>, InsertError> {
        let text = self.answer(|client| client.query_raw(query), "JSONEachRow", WITHIN).await?;
        let lines: Result<Vec<T>, _> = text.lines().map(serde_json::from_str).collect();
        lines.map_err(|error| {
            let message = format!("cannot read the answer of ClickHouse: {error}");
            InsertError::AwaitFix(Refusal::without_code(message))
        })
    }
}

#[derive(Deserialize)]
struct Bucket {
    partition: i32,
    number: i64,
    rows: u64,
    stored: u64,
    dead_lettered: u64,
    both: u64,
    different: i64,
    first: i64,
    last: i64,
}

#[derive(Deserialize)]
struct Holed {
    partition: i32,
    number: i64,
    starts: Vec<i64>,
    ends: Vec<i64>,
}

#[derive(Deserialize)]
struct Repeated {
    partition: i32,
    offset: i64,
    rows: u64,
}

fn buckets(wanted: &Wanted) -> String {
    format!(
        "SELECT partition, number, countIf(kind = 0) AS rows, \
         bitmapCardinality(groupBitmapStateIf(at, kind = 0) AS in_tables) AS stored, \
         bitmapCardinality(groupBitmapStateIf(at, kind > 0)) AS dead_lettered, \
         bitmapAndCardinality(in_tables, groupBitmapStateIf(at, kind = 1)) AS both, \
         groupBitmap(at) AS different, min(at) AS first, max(at) AS last \
         FROM ({}) GROUP BY partition, number ORDER BY partition, number {SETTINGS}",
        positions(wanted)
    )
}

/// Where the runs of offsets that follow each other begin and end.
fn holed_buckets(wanted: &Wanted, places: &[(i32, i64)]) -> String {
    format!(
        "SELECT partition, number, \
         arrayFilter((at, before) -> at != before + 1, all, \
             arrayPushFront(arrayPopBack(all), all[1] - 2)) AS starts, \
         arrayFilter((at, next) -> next != at + 1, all, \
             arrayPushBack(arrayPopFront(all), all[-1] + 2)) AS ends \
         FROM (SELECT partition, number, \
             arrayMap(at -> toInt32(at), bitmapToArray(groupBitmapState(at))) AS all \
             FROM ({}) WHERE {} GROUP BY partition, number) \
         ORDER BY partition, number {SETTINGS}",
        positions(wanted),
        one_of(places),
    )
}

fn repeated_offsets(wanted: &Wanted, places: &[(i32, i64)]) -> String {
    format!(
        "SELECT partition, number * {BUCKET} + at AS offset, count() AS rows \
         FROM ({}) WHERE kind = 0 AND {} GROUP BY partition, number, at HAVING rows > 1 \
         ORDER BY partition, offset LIMIT {REPEATED_NAMED} BY partition {SETTINGS}",
        positions(wanted),
        one_of(places),
    )
}

/// Numbers as numbers: ours are below 2^53.
const SETTINGS: &str = "SETTINGS output_format_json_quote_64bit_integers = 0";

fn one_of(places: &[(i32, i64)]) -> String {
    let pairs: Vec<String> = places.iter().map(|(p, n)| format!("({p}, {n})")).collect();
    format!("(partition, number) IN ({})", pairs.join(", "))
}

/// Every position within the bounds, as often as it is there: its `partition`, the `number` of its
/// bucket, its place there (`at`), and its `kind`: 0 a row, 1 a dead letter, 2 one that was replayed.
fn positions(wanted: &Wanted) -> String {
    let OriginColumns { table, topic, partition, offset } = &wanted.rows;
    let of_origin = match (topic, &wanted.origin) {
        (None, _) => "1".to_owned(),
        (Some(column), Origin::Topic(topic)) => format!("{} = {}", name(column), literal(topic)),
        (Some(column), Origin::NoTopic) => format!("isNull({})", name(column)),
    };
    let partition = partition.as_ref().map_or_else(|| "0".to_owned(), |column| name(column));
    let mut sql = select(wanted, table, (&partition, &name(offset)), &of_origin, "0");
    if let Some(DeadLetters { table, source, of }) = &wanted.dead_letters {
        let of = match of {
            LettersOf::Topic(topic) => format!("topic_or_subject = {}", literal(topic)),
            LettersOf::Route(route) => format!("route = {}", literal(route)),
        };
        let of_origin = format!("source = {} AND {of}", literal(source));
        let kind = "if(isNull(replayed_at), 1, 2)";
        let letters = select(wanted, table, ("partition", "offset"), &of_origin, kind);
        sql = format!("{sql} UNION ALL {letters}");
    }
    // Renamed outside: a table may have columns of these names.
    format!(
        "SELECT audit_p AS partition, intDiv(audit_o, {BUCKET}) AS number, \
         toUInt32(audit_o % {BUCKET}) AS at, audit_k AS kind FROM ({sql})"
    )
}

fn name(column: &str) -> String {
    let mut sql = String::new();
    quote(column, &mut sql);
    sql
}

fn select(
    wanted: &Wanted,
    table: &str,
    (partition, offset): (&str, &str),
    of_origin: &str,
    kind: &str,
) -> String {
    let list = |of: fn(&(i32, Range<i64>)) -> i64| {
        let all: Vec<String> = wanted.bounds.iter().map(|bound| of(bound).to_string()).collect();
        all.join(", ")
    };
    // Partitions that are not asked for have no offset below -1.
    let bound = |of| format!("transform(audit_p, [{}], [{}], -1)", list(|b| b.0.into()), list(of));
    format!(
        "SELECT toInt32(assumeNotNull({partition})) AS audit_p, \
         toInt64(assumeNotNull({offset})) AS audit_o, toUInt8({kind}) AS audit_k FROM {} \
         WHERE {of_origin} AND {partition} IS NOT NULL AND {offset} IS NOT NULL \
         AND audit_o >= {} AND audit_o < {}",
        quoted(table),
        bound(|b| b.1.start),
        bound(|b| b.1.end),
    )
}
