//! Asks ClickHouse what a table is and what stands behind it. Reads system tables, changes nothing.
//!
//! What the answers mean is in `facts/read.rs`, which asks nothing.

mod read;

use std::collections::BTreeSet;

use self::read::{Answers, Defaults, Row};
use super::probe::literal;
use super::{ClickHouse, classify};
use crate::schema::facts::{Place, TableFacts};
use crate::sink::{InsertError, Refusal};

/// Views behind views; each is a round of questions. ClickHouse itself refuses cycles.
const MAX_ROUNDS: usize = 32;

/// What a user with grants of its own may not read without another one. (`tables`, `columns` and
/// `settings` everybody may; they show what the user has some right to.)
const SYSTEM_TABLES: [&str; 3] = ["parts", "merge_tree_settings", "replicated_merge_tree_settings"];

/// ClickHouse's code for a missing privilege.
const ACCESS_DENIED: u32 = 497;

impl ClickHouse {
    /// What the table is now, and every table that an insert into it reaches.
    ///
    /// # Errors
    /// A table that is missing, or that our user may not see, is `AwaitFix` with code 60.
    pub async fn facts(&self, table: &str) -> Result<TableFacts, InsertError> {
        let (database, name) = self.place(table);
        let root = Place { database: database.to_owned(), name: name.to_owned() };
        // Without the right to read them it is enough that each table has settings of its own.
        let (defaults, refused) = match self.defaults().await {
            Ok(defaults) => (defaults, None),
            Err(error) if error.refusal().code == Some(ACCESS_DENIED) => {
                (Defaults::default(), Some(error))
            }
            Err(error) => return Err(error),
        };
        let mut answers = Answers::with(defaults);
        let mut wanted = BTreeSet::from([root.clone()]);
        for _ in 0..MAX_ROUNDS {
            if wanted.is_empty() {
                break;
            }
            let rows = self.rows(&wanted).await?;
            let next: BTreeSet<Place> = rows.iter().flat_map(Row::leads_to).collect();
            answers.keep(rows);
            wanted = next.into_iter().filter(|place| !answers.knows(place)).collect();
        }
        answers.columns = self.position_columns(&root).await?;
        let facts = read::facts(&root, &answers).ok_or_else(|| {
            let why = format!("{root} does not exist, or user `{}` may not see it", self.user);
            InsertError::AwaitFix(Refusal::of_code(classify::UNKNOWN_TABLE, why))
        })?;
        let unknown = facts.reached().iter().any(|t| t.is_merge_tree() && t.window.is_none());
        match refused {
            Some(refused) if unknown => Err(refused),
            _ => Ok(facts),
        }
    }

    /// The highest number that a part of the table has had so far: its growth tells how much of a
    /// deduplication window was used. None for a table without parts.
    ///
    /// Measured on ClickHouse 26.7 with a plain MergeTree (`tests/it/check/facts.rs`):
    /// - An insert takes one number for each partition that it touches, and one entry of the window
    ///   likewise. The numbers are the table's, not the partition's.
    /// - An insert that is recognised as a duplicate takes numbers too, but no entries; they show
    ///   when the next one lands. A mutation takes one. So the growth is the entries used, or more:
    ///   who takes it for the entries used never believes in a longer window than there is.
    /// - An insert that fails and a merge take none.
    /// - It falls when the highest parts are gone (TRUNCATE, DROP PARTITION, TTL; cleaned up after
    ///   8 minutes): begin anew then. The window itself survives that, and `kill -9`.
    /// - As soon as one of an insert's k entries is forgotten, repeating it doubles *all* its
    ///   partitions: what one of them adds pushes the next one's entry out before that is looked up.
    ///
    /// Replicated tables number each partition by itself, so that there the sum over the partitions
    /// is taken (as documented; there was no Keeper to try it with).
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn block_number(&self, table: &str) -> Result<Option<u64>, InsertError> {
        let (database, name) = self.place(table);
        let query = format!(
            "SELECT toString(max(highest)) AS single, toString(sum(highest)) AS replicated, \
             any(engine) AS engine, count() AS partitions \
             FROM (SELECT any(engine) AS engine, max(max_block_number) AS highest \
             FROM system.parts WHERE database = {} AND table = {} GROUP BY partition_id)",
            literal(database),
            literal(name),
        );
        let answer = self.asked(&query).await?;
        answer.lines().next().map_or(Ok(None), |line| read::block_number(line).map_err(unreadable))
    }

    async fn rows(&self, wanted: &BTreeSet<Place>) -> Result<Vec<Row>, InsertError> {
        let list = |of: fn(&Place) -> &str| {
            let texts: BTreeSet<String> = wanted.iter().map(|place| literal(of(place))).collect();
            texts.into_iter().collect::<Vec<_>>().join(", ")
        };
        let query = format!(
            "SELECT database, name, toString(uuid) AS uuid, engine, engine_full, partition_key, \
             sorting_key, create_table_query, dependencies_database, dependencies_table \
             FROM system.tables WHERE database IN ({}) AND name IN ({})",
            list(|place| &place.database),
            list(|place| &place.name),
        );
        let answer = self.asked(&query).await?;
        let rows = answer.lines().map(read::row).collect::<Result<Vec<_>, _>>();
        // Two lists allow more pairs than were asked for.
        let mut rows = rows.map_err(unreadable)?;
        rows.retain(|row| wanted.contains(&row.place()));
        Ok(rows)
    }

    /// The server's settings, for tables that have none of their own.
    async fn defaults(&self) -> Result<Defaults, InsertError> {
        let of = |kind: &str, table: &str| {
            format!(
                "SELECT '{kind}' AS kind, name, value FROM system.{table} \
                 WHERE name LIKE '%replicated_deduplication_window%'"
            )
        };
        let query = format!(
            "{} UNION ALL {}",
            of("single", "merge_tree_settings"),
            of("replicated", "replicated_merge_tree_settings"),
        );
        read::defaults(&self.asked(&query).await?).map_err(unreadable)
    }

    async fn position_columns(&self, place: &Place) -> Result<Vec<String>, InsertError> {
        let query = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table = {} \
             AND name IN ('_topic', '_partition', '_offset', '_seq')",
            literal(&place.database),
            literal(&place.name),
        );
        let answer = self.text(&query, "TabSeparated").await.map_err(|error| self.told(error))?;
        Ok(answer.lines().map(str::to_owned).collect())
    }

    async fn asked(&self, query: &str) -> Result<String, InsertError> {
        self.text(query, "JSONEachRow").await.map_err(|error| self.told(error))
    }

    /// A missing privilege here is one on the system tables.
    fn told(&self, error: InsertError) -> InsertError {
        if error.refusal().code != Some(ACCESS_DENIED) {
            return error;
        }
        let grants = SYSTEM_TABLES.map(|table| format!("SELECT ON system.{table}")).join(", ");
        let user = &self.user;
        let message =
            format!("user `{user}` may not read what tables remember: GRANT {grants} TO {user}");
        InsertError::AwaitFix(Refusal::of_code(ACCESS_DENIED, message))
    }
}

fn unreadable(error: serde_json::Error) -> InsertError {
    let message = format!("cannot read what ClickHouse says of its tables: {error}");
    InsertError::Retry(Refusal::without_code(message))
}
