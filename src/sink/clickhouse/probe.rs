//! What can be asked of ClickHouse without changing anything: what the server and a table are, and
//! what we may do there.

use std::fmt::Write as _;

use bytes::Bytes;

use super::insert::INSERT_SETTINGS;
use super::{ClickHouse, QUERY_TIMEOUT, quoted};
use crate::schema::facts::TableFacts;
use crate::sink::{InsertError, Refusal};

/// What a session of ours is like, with the settings that inserts send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub version: String,
    /// The server's clock, in milliseconds since the Unix epoch.
    pub now: i64,
    /// True: the server collects inserts although the bridge says that it must not.
    pub async_insert: bool,
    /// What others get who do not say so.
    pub async_insert_default: bool,
    /// An insert into more partitions is refused; 0: none is.
    pub max_partitions: u64,
    /// An insert into a Distributed table is acknowledged only when the shards have it.
    pub distributed_foreground: bool,
}

/// Bytes of a sample that go into the address of a request, twice as long: ClickHouse takes 1 MiB.
const MAX_SAMPLE_BYTES: usize = 200_000;

impl ClickHouse {
    /// Sends no insert; the settings of one are tried.
    ///
    /// # Errors
    /// When nobody answers, or our user or one of the settings is refused.
    pub async fn session(&self) -> Result<Session, InsertError> {
        let query = |names: &str| {
            format!(
                "SELECT version(), toString(toUnixTimestamp64Milli(now64(3))), \
                 (SELECT groupArray(concat(name, '=', value)) FROM system.settings WHERE name IN ({names}))"
            )
        };
        let ours = "'async_insert', 'max_partitions_per_insert_block', \
                    'distributed_foreground_insert', 'insert_distributed_sync'";
        let before = self.text(&query("'async_insert'"), "JSONCompactEachRow").await?;
        let inserting = |client: &clickhouse::Client| {
            INSERT_SETTINGS.iter().fold(client.query_raw(&query(ours)), |asked, (name, value)| {
                asked.with_setting(*name, *value)
            })
        };
        let answer = self.answer(inserting, "JSONCompactEachRow", QUERY_TIMEOUT).await?;
        session_of(&before, &answer).ok_or_else(|| {
            let message = "ClickHouse does not tell its settings".to_owned();
            InsertError::AwaitFix(Refusal::without_code(message))
        })
    }

    /// Into how many partitions of a table these rows would go: the expression is the table's, the
    /// rows travel as a parameter. None if it cannot be told, as when the expression needs a column
    /// that only ClickHouse computes, or our user may not use table functions.
    pub async fn partitions_of(&self, facts: &TableFacts, native: &Bytes) -> Option<u64> {
        if facts.partition_key.is_empty() {
            return Some(1);
        }
        if native.len() > MAX_SAMPLE_BYTES {
            return None;
        }
        let query = format!(
            "SELECT toString(uniqExact(tuple({}))) FROM format(Native, unhex({{body:String}}))",
            facts.partition_key
        );
        let mut hex = String::with_capacity(native.len() * 2);
        for byte in native {
            write!(hex, "{byte:02x}").expect("a String takes everything");
        }
        let asked = |client: &clickhouse::Client| client.query_raw(&query).param("body", hex);
        let answer = self.answer(asked, "TabSeparated", QUERY_TIMEOUT).await.ok()?;
        answer.trim().parse().ok()
    }

    /// Whether we have a privilege on a table; None if the server does not say (before 24.11).
    pub async fn may(&self, privilege: &str, table: &str) -> Option<bool> {
        let (database, name) = self.place(table);
        let place = quoted(&format!("{database}.{name}"));
        let query = format!("CHECK GRANT {privilege} ON {place}");
        match self.text(&query, "TabSeparated").await.ok()?.trim() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        }
    }

    pub(super) fn place<'a>(&'a self, table: &'a str) -> (&'a str, &'a str) {
        table.split_once('.').unwrap_or((&self.database, table))
    }
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn session_of(before: &str, answer: &str) -> Option<Session> {
    let (_, _, defaults): (String, String, Vec<String>) = serde_json::from_str(before).ok()?;
    let (version, now, settings): (String, String, Vec<String>) =
        serde_json::from_str(answer).ok()?;
    let value = |settings: &[String], name: &str| {
        let pairs = settings.iter().filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let is_on = |value: Option<String>| value.is_some_and(|v| v == "1" || v == "true");
    // Renamed in 23.11.
    let foreground = value(&settings, "distributed_foreground_insert")
        .or_else(|| value(&settings, "insert_distributed_sync"));
    Some(Session {
        version,
        now: now.parse().ok()?,
        async_insert: is_on(value(&settings, "async_insert")),
        async_insert_default: is_on(value(&defaults, "async_insert")),
        max_partitions: value(&settings, "max_partitions_per_insert_block")?.parse().ok()?,
        distributed_foreground: is_on(foreground),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_from_its_settings() {
        let before = r#"["26.7.2.1","1795284094122",["async_insert=1"]]"#;
        let answer = r#"["26.7.2.1","1795284094123",["async_insert=0",
            "max_partitions_per_insert_block=100","insert_distributed_sync=1"]]"#;
        let session = session_of(before, answer).unwrap();
        assert_eq!((session.now, session.max_partitions), (1_795_284_094_123, 100));
        assert!(!session.async_insert && session.async_insert_default);
        assert!(session.distributed_foreground);
        assert_eq!(session_of(before, before), None);
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(literal("a'b\\"), r"'a\'b\\'");
    }
}
