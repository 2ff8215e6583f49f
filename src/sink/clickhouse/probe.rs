//! What can be asked of ClickHouse without changing anything: what the server and a table are, and
//! what we may do there.

use serde::Deserialize;

use super::{ClickHouse, quoted};
use crate::sink::InsertError;

/// A table's engine, and how many inserts it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableKind {
    pub engine: String,
    /// Inserts by whose token a repeated one is recognised; None for what is no MergeTree.
    pub deduplication_window: Option<u64>,
}

impl ClickHouse {
    pub async fn version(&self) -> Result<String, InsertError> {
        let answer = self.text("SELECT version()", "TabSeparated").await?;
        Ok(answer.trim().to_owned())
    }

    /// None if the server does not say.
    pub async fn table_kind(&self, table: &str) -> Option<TableKind> {
        let (database, name) = self.place(table);
        let window = |kind| {
            format!(
                "(SELECT any(value) FROM system.merge_tree_settings \
                 WHERE name = '{kind}_deduplication_window')"
            )
        };
        let query = format!(
            "SELECT engine, engine_full, {} AS replicated, {} AS single FROM system.tables \
             WHERE database = {} AND name = {}",
            window("replicated"),
            window("non_replicated"),
            literal(database),
            literal(name),
        );
        let answer = self.text(&query, "JSONEachRow").await.ok()?;
        kind_of(answer.lines().next()?)
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

#[derive(Deserialize)]
struct Row {
    engine: String,
    engine_full: String,
    replicated: String,
    single: String,
}

fn kind_of(line: &str) -> Option<TableKind> {
    let Row { engine, engine_full, replicated, single } = serde_json::from_str(line).ok()?;
    let shared = engine.starts_with("Replicated") || engine.starts_with("Shared");
    let (setting, default) = if shared {
        (" replicated_deduplication_window = ", replicated)
    } else {
        (" non_replicated_deduplication_window = ", single)
    };
    let own = engine_full
        .split_once(setting)
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    let window = own.unwrap_or(default).parse().ok();
    let deduplication_window = window.filter(|_| engine.ends_with("MergeTree"));
    Some(TableKind { engine, deduplication_window })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(engine: &str, settings: &str) -> Option<u64> {
        let row = serde_json::json!({
            "engine": engine, "engine_full": format!("{engine} ORDER BY a{settings}"),
            "replicated": "10000", "single": "0",
        });
        kind_of(&row.to_string()).unwrap().deduplication_window
    }

    #[test]
    fn the_window_is_the_tables_own_or_the_servers() {
        let own = " SETTINGS non_replicated_deduplication_window = 77, index_granularity = 8192";
        assert_eq!(window("MergeTree", own), Some(77));
        assert_eq!(window("MergeTree", ""), Some(0));
        assert_eq!(window("ReplicatedMergeTree", own), Some(10_000));
        assert_eq!(window("SharedReplacingMergeTree", ""), Some(10_000));
        assert_eq!(window("Memory", ""), None);
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(literal("a'b\\"), r"'a\'b\\'");
    }
}
