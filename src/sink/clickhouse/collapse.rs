//! What a table does with rows after it took them: whether it keeps each, or one of each key; and
//! whether a row that is not there would be hidden behind another one anyway.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;
use serde::Deserialize;

use super::probe::literal;
use super::{ClickHouse, quote, quoted};
use crate::schema::facts::TableFacts;
use crate::schema::{ColumnDefault, TableSchema};
use crate::sink::InsertError;

/// Keys are looked up by the primary index.
const WITHIN: Duration = Duration::from_secs(120);
/// ClickHouse takes form fields of 128 KiB; of the body this much goes in one, as two hexadecimal
/// digits a byte.
const FIELD_BYTES: usize = 60_000;

/// What a table keeps of the rows that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeps {
    /// Every row; or, with a TTL, each for its time.
    Rows { ttl: bool },
    /// The last of each key.
    OneOfEachKey(Key),
    /// Rows of one key become another row, whose position means nothing.
    Sums,
    /// The engine is not known to the audit, or keeps nothing; its name.
    Other(String),
}

/// What a ReplacingMergeTree compares, as SQL on its columns that ClickHouse wrote itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Rows of one key in one partition become one.
    parts: Vec<String>,
    /// The highest wins.
    version: Option<String>,
    /// Columns that ClickHouse computes, and how.
    computed: Vec<(String, ColumnDefault, String)>,
    ttl: bool,
}

impl ClickHouse {
    /// What the table keeps.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked, or the table is not there.
    pub async fn keeps(&self, table: &str) -> Result<Keeps, InsertError> {
        let facts = self.facts(table).await?;
        let mut keeps = keeps(&facts);
        if let Keeps::OneOfEachKey(key) = &mut keeps {
            let (database, name) = (literal(&facts.place.database), literal(&facts.place.name));
            let query = format!(
                "SELECT name, default_kind, default_expression FROM system.columns \
                 WHERE database = {database} AND table = {name} AND default_expression != ''"
            );
            let columns = self.lines::<Computed>(&query).await?;
            key.computed = columns.into_iter().map(Computed::into_parts).collect();
        }
        Ok(keeps)
    }

    /// Which rows of the body, one Native block made for the table, no row of the table stands for:
    /// there is none of their key, or only older ones. By their offset.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked, or the key cannot be computed from the block.
    pub async fn nothing_stands_for(
        &self,
        schema: &TableSchema,
        key: &Key,
        body: &Bytes,
        offset: &str,
    ) -> Result<Vec<i64>, InsertError> {
        let fields: Vec<String> = body.chunks(FIELD_BYTES).map(hex).collect();
        let sql = missing(schema, key, fields.len(), offset);
        let query = |client: &Client| {
            let query = client.query_raw(&sql).with_setting("join_use_nulls", "1");
            let numbered = fields.into_iter().enumerate();
            numbered.fold(query, |query, (n, field)| query.param(&format!("f{n}"), field))
        };
        let text = self.answer(query, "TabSeparated", WITHIN).await?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }
}

#[derive(Deserialize)]
struct Computed {
    name: String,
    default_kind: String,
    default_expression: String,
}

impl Computed {
    fn into_parts(self) -> (String, ColumnDefault, String) {
        let kind = match self.default_kind.as_str() {
            "MATERIALIZED" => ColumnDefault::Materialized,
            "ALIAS" => ColumnDefault::Alias,
            "EPHEMERAL" => ColumnDefault::Ephemeral,
            _ => ColumnDefault::Default,
        };
        (self.name, kind, self.default_expression)
    }
}

fn keeps(facts: &TableFacts) -> Keeps {
    let ttl = facts.ttl.is_some();
    let kind = ["Replicated", "Shared"].iter().find_map(|prefix| facts.engine.strip_prefix(prefix));
    match kind.unwrap_or(&facts.engine) {
        "MergeTree" | "Log" | "TinyLog" | "StripeLog" | "Memory" => Keeps::Rows { ttl },
        "ReplacingMergeTree" => {
            let parts = [&facts.sorting_key, &facts.partition_key];
            let parts = parts.into_iter().filter(|part| !part.is_empty()).cloned().collect();
            Keeps::OneOfEachKey(Key {
                parts,
                version: facts.version.clone(),
                computed: Vec::new(),
                ttl,
            })
        }
        "SummingMergeTree"
        | "AggregatingMergeTree"
        | "CollapsingMergeTree"
        | "VersionedCollapsingMergeTree"
        | "CoalescingMergeTree"
        | "GraphiteMergeTree" => Keeps::Sums,
        _ => Keeps::Other(facts.engine.clone()),
    }
}

impl Key {
    /// Rows go away after their time.
    #[must_use]
    pub fn has_ttl(&self) -> bool {
        self.ttl
    }
}

fn missing(schema: &TableSchema, key: &Key, fields: usize, offset: &str) -> String {
    let key_sql = format!("tuple({})", key.parts.join(", "));
    let version = key.version.as_deref().unwrap_or("0");
    let fields: Vec<String> = (0..fields).map(|n| format!("unhex({{f{n}:String}})")).collect();
    let mut offset_sql = String::new();
    quote(offset, &mut offset_sql);
    format!(
        "WITH gone AS (SELECT *{} FROM format(Native, concat({}, ''))) \
         SELECT toInt64(lost.o) FROM \
         (SELECT {offset_sql} AS o, {key_sql} AS k, {version} AS v FROM gone) AS lost \
         LEFT ANY JOIN (SELECT {key_sql} AS k, max({version}) AS v FROM {} \
             WHERE {key_sql} IN (SELECT {key_sql} FROM gone) GROUP BY k) AS kept \
         ON lost.k = kept.k \
         WHERE isNull(kept.v) OR kept.v < lost.v",
        computed(key),
        fields.join(", "),
        quoted(&schema.table),
    )
}

/// What the table computes for itself: the block has only what was inserted.
fn computed(key: &Key) -> String {
    let (mut replaced, mut added) = (Vec::new(), String::new());
    for (name, kind, expression) in &key.computed {
        let mut column = String::new();
        quote(name, &mut column);
        match kind {
            // A null stands for it.
            ColumnDefault::Default => {
                replaced.push(format!("ifNull({column}, {expression}) AS {column}"));
            }
            ColumnDefault::Materialized | ColumnDefault::Alias => {
                write!(added, ", {expression} AS {column}").expect("a String takes everything");
            }
            ColumnDefault::None | ColumnDefault::Ephemeral => {}
        }
    }
    let replaced = if replaced.is_empty() {
        String::new()
    } else {
        format!(" REPLACE ({})", replaced.join(", "))
    };
    replaced + &added
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::facts::{Place, PositionColumns};

    #[test]
    fn what_a_table_keeps_follows_from_its_engine() {
        let of = |engine: &str, ttl: Option<&str>| {
            keeps(&TableFacts {
                place: Place::default(),
                engine: engine.to_owned(),
                window: None,
                partition_key: String::new(),
                sorting_key: "symbol, time".to_owned(),
                version: None,
                ttl: ttl.map(str::to_owned),
                views: Vec::new(),
                positions: PositionColumns::default(),
            })
        };
        assert_eq!(of("MergeTree", None), Keeps::Rows { ttl: false });
        assert_eq!(of("ReplicatedMergeTree", Some("time")), Keeps::Rows { ttl: true });
        assert_eq!(of("SharedSummingMergeTree", None), Keeps::Sums);
        assert_eq!(of("Null", None), Keeps::Other("Null".to_owned()));
        let Keeps::OneOfEachKey(key) = of("ReplicatedReplacingMergeTree", None) else { panic!() };
        assert_eq!(key.parts, ["symbol, time"]);
    }

    #[test]
    fn a_body_is_sent_as_digits_and_never_as_sql() {
        assert_eq!(hex(b"\x00'; DROP"), "00273b2044524f50");
    }
}
