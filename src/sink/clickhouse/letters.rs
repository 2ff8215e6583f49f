//! The table of dead letters, read and written by those who look after them.
//!
//! Rows travel as the same JSON objects that files and topics keep: ClickHouse makes base64 of what
//! is not text, and takes it back. The filter's texts reach it as parameters, never as SQL.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Client;
use clickhouse::query::Query;
use serde::Deserialize;
use uuid::Uuid;

use super::{ClickHouse, quoted};
use crate::dead_letter::letter::DeadLetter;
use crate::dead_letter::store::{Filter, Group, LetterStore, Listing, PLAN, PageLimits};
use crate::sink::InsertError;

/// ClickHouse's code for FINAL on a table that replaces nothing.
const ILLEGAL_FINAL: u32 = 181;

/// The sums of a large table take longer than most questions.
const WITHIN: Duration = Duration::from_secs(60);

/// A letter as a JSON object.
const OBJECT: &str = "toString(l.id) AS id, toUnixTimestamp64Milli(l.time) AS time, \
    toUnixTimestamp64Milli(l.record_time) AS record_time, l.instance AS instance, \
    l.source AS source, l.topic_or_subject AS topic_or_subject, l.partition AS partition, \
    l.offset AS offset, \
    if(isValidUTF8(ifNull(l.key, '')), l.key, base64Encode(ifNull(l.key, ''))) AS key, \
    if(isValidUTF8(ifNull(l.key, '')), 'utf8', 'base64') AS key_encoding, \
    l.headers AS headers, l.route AS route, l.reason AS reason, l.error AS error, \
    if(isValidUTF8(l.payload), l.payload, base64Encode(l.payload)) AS payload, \
    if(isValidUTF8(l.payload), 'utf8', 'base64') AS payload_encoding, \
    toUnixTimestamp64Milli(l.replayed_at) AS replayed_at";

/// And back.
const ROW: &str = "toUUID(id), time, record_time, instance, source, topic_or_subject, partition, \
    offset, if(key_encoding = 'utf8', key, base64Decode(key)), headers, route, reason, error, \
    if(payload_encoding = 'utf8', payload, base64Decode(payload)), replayed_at";

/// Headers are an object here, and a text there.
const APPEND_SETTINGS: [(&str, &str); 3] = [
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("input_format_json_read_objects_as_strings", "1"),
];

const COLUMNS: &str = "id, time, record_time, instance, source, topic_or_subject, partition, \
    offset, key, headers, route, reason, error, payload, replayed_at";

const STRUCTURE: &str = "id String, time DateTime64(3, ''UTC''), record_time DateTime64(3, \
    ''UTC''), instance String, source String, topic_or_subject String, partition Nullable(Int32), \
    offset Nullable(Int64), key Nullable(String), key_encoding String, headers String, \
    route String, reason String, error String, payload String, payload_encoding String, \
    replayed_at Nullable(DateTime64(3, ''UTC''))";

/// The table, and how far a paging has come.
#[derive(Debug)]
pub struct LetterTable {
    server: ClickHouse,
    table: String,
    after: Option<Uuid>,
}

impl LetterTable {
    #[must_use]
    pub fn new(server: ClickHouse, table: String) -> Self {
        Self { server, table, after: None }
    }

    /// The newest of each letter; `rest` begins with its condition.
    fn select(&self, columns: &str, rest: &str) -> String {
        format!("SELECT {columns} FROM {} AS l FINAL WHERE {rest}", quoted(&self.table))
    }

    async fn filtered(&self, columns: &str, filter: &Filter, rest: &str) -> anyhow::Result<String> {
        let sql = self.select(columns, &format!("{} {rest}", conditions(filter)));
        let lists = [
            ("routes", &filter.routes),
            ("reasons", &filter.reasons),
            ("places", &filter.topics_or_subjects),
        ];
        let given = lists.into_iter().filter(|(_, texts)| !texts.is_empty());
        self.lines(|client| {
            given.fold(client.query_raw(&sql), |query, (name, texts)| query.param(name, texts))
        })
        .await
    }

    async fn lines(&self, query: impl FnOnce(&Client) -> Query) -> anyhow::Result<String> {
        let plain = |client: &Client| {
            query(client).with_setting("output_format_json_quote_64bit_integers", "0")
        };
        let answer = self.server.answer(plain, "JSONEachRow", WITHIN).await;
        answer.map_err(|error| self.said(&error))
    }

    fn said(&self, error: &InsertError) -> anyhow::Error {
        let refusal = error.refusal();
        if refusal.code == Some(ILLEGAL_FINAL) {
            return anyhow::anyhow!(
                "table {} must be a ReplacingMergeTree that keeps the replayed version of a \
                 letter, as config/schema/dead_letters.sql has it",
                self.table
            );
        }
        anyhow::anyhow!("ClickHouse: {}", refusal.message)
    }
}

/// The filter as SQL; every text in it is a parameter.
fn conditions(filter: &Filter) -> String {
    let mut sql = "1".to_owned();
    let mut and = |condition: std::fmt::Arguments<'_>| {
        write!(sql, " AND {condition}").expect("a String takes everything");
    };
    for (name, column, texts) in [
        ("routes", "l.route", &filter.routes),
        ("reasons", "l.reason", &filter.reasons),
        ("places", "l.topic_or_subject", &filter.topics_or_subjects),
    ] {
        if !texts.is_empty() {
            and(format_args!("has({{{name}:Array(String)}}, toString({column}))"));
        }
    }
    if let Some(since) = filter.since {
        and(format_args!("l.time >= fromUnixTimestamp64Milli({since})"));
    }
    if let Some(until) = filter.until {
        and(format_args!("l.time < fromUnixTimestamp64Milli({until})"));
    }
    match filter.replayed {
        Some(true) => and(format_args!("l.replayed_at IS NOT NULL")),
        Some(false) => and(format_args!("l.replayed_at IS NULL")),
        None => {}
    }
    if !filter.takes_plans() {
        and(format_args!("l.reason != '{PLAN}'"));
    }
    sql
}

fn letters(lines: &str) -> anyhow::Result<Vec<DeadLetter>> {
    let read = |line: &str| DeadLetter::read(line.as_bytes()).map_err(anyhow::Error::msg);
    lines.lines().map(read).collect::<anyhow::Result<_>>().context("reading a dead letter")
}

#[derive(Deserialize)]
struct GroupRow {
    route: String,
    reason: String,
    count: u64,
    oldest: i64,
    newest: i64,
    example: String,
}

#[derive(Deserialize)]
struct SizeRow {
    id: String,
    bytes: u64,
}

impl LetterStore for LetterTable {
    async fn list(&self, filter: &Filter, newest: usize) -> anyhow::Result<Listing> {
        let columns = "toString(l.route) AS route, toString(l.reason) AS reason, count() AS count, \
                       toUnixTimestamp64Milli(min(l.time)) AS oldest, \
                       toUnixTimestamp64Milli(max(l.time)) AS newest, \
                       argMax(l.error, l.time) AS example";
        let groups = self.filtered(columns, filter, "GROUP BY route, reason").await?;
        let mut listing = Listing::default();
        for line in groups.lines() {
            let row: GroupRow = serde_json::from_str(line).context("reading ClickHouse's sums")?;
            let GroupRow { route, reason, count, oldest, newest, example } = row;
            listing.groups.insert((route, reason), Group { count, oldest, newest, example });
        }
        let rest = format!("ORDER BY l.time DESC, l.id DESC LIMIT {newest}");
        listing.letters = letters(&self.filtered(OBJECT, filter, &rest).await?)?;
        Ok(listing)
    }

    async fn page(
        &mut self,
        filter: &Filter,
        limits: PageLimits,
    ) -> anyhow::Result<Vec<DeadLetter>> {
        let after = self.after.map_or_else(String::new, |id| format!("AND l.id > toUUID('{id}')"));
        let rest = format!("{after} ORDER BY l.id LIMIT {}", limits.letters);
        let columns = "toString(l.id) AS id, length(l.payload) AS bytes";
        let sizes = self.filtered(columns, filter, &rest).await?;
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for line in sizes.lines() {
            let row: SizeRow = serde_json::from_str(line).context("reading ClickHouse's sizes")?;
            bytes += row.bytes;
            if bytes > limits.bytes as u64 && !ids.is_empty() {
                break;
            }
            ids.push(row.id.parse().context("reading an id")?);
        }
        self.after = ids.last().copied().or(self.after);
        self.fetch(&ids).await
    }

    async fn fetch(&self, ids: &[Uuid]) -> anyhow::Result<Vec<DeadLetter>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list: Vec<String> = ids.iter().map(|id| format!("toUUID('{id}')")).collect();
        let sql = self.select(OBJECT, &format!("l.id IN ({})", list.join(", ")));
        letters(&self.lines(|client| client.query_raw(&sql)).await?)
    }

    async fn append(&self, letters: &[DeadLetter]) -> anyhow::Result<()> {
        let mut body = Vec::new();
        letters.iter().for_each(|letter| letter.write(&mut body));
        let statement = format!(
            "INSERT INTO {} ({COLUMNS}) SELECT {ROW} FROM input('{}') FORMAT JSONEachRow",
            quoted(&self.table),
            STRUCTURE.replace("''", "\\'"),
        );
        let writing = self.server.write(statement, &APPEND_SETTINGS, body.into(), &self.table);
        writing.await.map_err(|error| self.said(&error))
    }
}
