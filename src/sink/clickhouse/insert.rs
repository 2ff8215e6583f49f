//! One attempt at an insert: where it goes, how it is sent, whom it binds.
//!
//! Sends a body whole and believes an answer only after ClickHouse said that it is done
//! (`wait_end_of_query`). Of what is refused it repeats at once, with the same token, only what
//! would otherwise be blamed on rows: a body that may have been cut on its way, and one that holds
//! rows of more partitions than ClickHouse takes by default.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::error::Error;
use clickhouse::insert_formatted::CompressedData;
use clickhouse::{Client, Compression};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClickHouse, QUERY_TIMEOUT, classify, quote, quoted};
use crate::sink::{AfterRestart, Insert, InsertError};

/// What every insert says explicitly, because the bridge relies on it. Blocks are not cut or
/// squashed, so that one insert is one block and its token identifies it.
pub(super) const INSERT_SETTINGS: [(&str, &str); 10] = [
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("max_insert_block_size", "10000000"),
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_threads", "1"),
    // A null for a column with a DEFAULT means: compute the default.
    ("input_format_null_as_default", "1"),
    // The client casts nothing; LowCardinality of anything but Strings travels as its inner type.
    ("input_format_native_allow_types_conversion", "1"),
];

/// Only for bodies that are passed through as JSON.
const JSON_SETTINGS: [(&str, &str); 2] =
    [("input_format_skip_unknown_fields", "1"), ("date_time_input_format", "best_effort")];

/// For an insert that was refused because its rows are of more partitions than 100. Cut up by
/// partition it would make exactly as many parts, in many inserts instead of one. Ten times the
/// default, so that it stays a bound for what is wider still: that is bisected.
const WIDE: (&str, &str) = ("max_partitions_per_insert_block", "1000");

/// An attempt that was not acknowledged.
struct Failed {
    error: InsertError,
    /// The connection was not even made.
    unsent: bool,
}

impl ClickHouse {
    pub(super) async fn insert_somewhere(&self, insert: &Insert) -> Result<(), InsertError> {
        let endpoint = self.choose(Some(&insert.token)).await;
        let began = Instant::now();
        let result = match self.token_at(endpoint, insert).await {
            Ok(Some(token)) => self.insert_at(endpoint, insert, &token).await,
            Ok(None) => Ok(()),
            Err(error) => Err(Failed { error, unsent: true }),
        };
        match &result {
            Ok(()) => self.known().settled(&insert.token),
            Err(Failed { error, unsent }) if error.may_have_landed() && !unsent => {
                self.known().unclear(&insert.token, endpoint, began);
            }
            // It tells only of itself: what an earlier one left unclear stays so.
            Err(_) => {}
        }
        let result = result.map_err(|failed| failed.error);
        self.note(endpoint, &result);
        result
    }

    /// Under which token it goes to this server: see `endpoints`. None: its rows are there.
    async fn token_at(
        &self,
        endpoint: usize,
        insert: &Insert,
    ) -> Result<Option<String>, InsertError> {
        let token = &insert.token;
        let stays = insert.after_restart == AfterRestart::SameToken;
        if stays || self.known().unclear_since(token).is_none() {
            return Ok(Some(token.clone()));
        }
        let query = self.clients[endpoint].query_raw("SELECT uptime()");
        let answer = self.answer_from(endpoint, query, "TabSeparated", QUERY_TIMEOUT).await?;
        // What cannot be read is as if it had just started: a row too many, rather than one too few.
        let up = Duration::from_secs(answer.trim().parse().unwrap_or_default());
        let now = self.known().token(token, up, Instant::now());
        if now != *token {
            let Insert { table, rows, after_restart, .. } = insert;
            if let AfterRestart::UnlessThere(first, last) = *after_restart
                && self.has_ids(endpoint, table, [first, last]).await?
            {
                return Ok(None);
            }
            tracing::info!(
                event = "clickhouse_restarted",
                table,
                rows,
                "ClickHouse was started again: sent under another token"
            );
        }
        Ok(Some(now))
    }

    /// Whether this server has both. A table that cannot be asked for ids is one that has them not.
    async fn has_ids(
        &self,
        endpoint: usize,
        table: &str,
        [first, last]: [Uuid; 2],
    ) -> Result<bool, InsertError> {
        let query = format!(
            "SELECT uniqExact(id) FROM {} WHERE id IN ('{first}', '{last}')",
            quoted(table),
        );
        let query = self.clients[endpoint].query_raw(&query);
        match self.answer_from(endpoint, query, "TabSeparated", QUERY_TIMEOUT).await {
            Ok(answer) => Ok(answer.trim() == if first == last { "1" } else { "2" }),
            Err(error @ InsertError::Retry(_)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    async fn insert_at(&self, endpoint: usize, insert: &Insert, token: &str) -> Result<(), Failed> {
        let first = self.send(endpoint, insert, token, None).await;
        let Err(Failed { error, .. }) = &first else { return first };
        if classify::may_be_a_cut_body(error) {
            return self.send(endpoint, insert, token, None).await;
        }
        if matches!(error, InsertError::Reject(refusal) if classify::is_too_wide(&refusal.message))
        {
            return match self.send(endpoint, insert, token, Some(WIDE)).await {
                // Our user may not set it: then it is what it was.
                Err(Failed { error: InsertError::AwaitFix(refusal), .. })
                    if refusal.code == Some(classify::SETTING_CONSTRAINT_VIOLATION) =>
                {
                    first
                }
                second => second,
            };
        }
        first
    }

    async fn send(
        &self,
        endpoint: usize,
        insert: &Insert,
        token: &str,
        more: Option<(&str, &str)>,
    ) -> Result<(), Failed> {
        let json = if insert.format == "JSONEachRow" { &JSON_SETTINGS[..] } else { &[] };
        let client = INSERT_SETTINGS
            .iter()
            .chain(json)
            .copied()
            .chain(more)
            .fold(self.clients[endpoint].clone(), |client, (name, value)| {
                client.with_setting(name, value)
            })
            .with_setting("insert_deduplication_token", token);
        let statement = statement(&insert.table, &insert.columns, insert.format);
        let error = match self.sent(&client, statement, insert.body.clone()).await {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) => {
                Failed { error: self.timed_out(endpoint, self.insert_timeout), unsent: false }
            }
            Err(error) => {
                let unsent = classify::is_unsent(&error);
                Failed { error: self.refused(endpoint, &error, Some(&insert.table)), unsent }
            }
        };
        match error.error.refusal().code {
            // The same token was accepted before: an earlier attempt had landed.
            Some(classify::INSERT_WAS_DEDUPLICATED) => Ok(()),
            _ => Err(error),
        }
    }

    /// Sends a statement and the rows for it, and waits until ClickHouse is done with them.
    async fn sent(
        &self,
        client: &Client,
        statement: String,
        body: Bytes,
    ) -> clickhouse::error::Result<()> {
        let give_up_at = Instant::now() + self.insert_timeout;
        let sending = async {
            let mut request = client.insert_formatted_with(statement);
            match self.compression {
                Compression::None => request.send(body).await?,
                by => request.send_compressed(compress(body, by).await?).await?,
            }
            Ok(request)
        };
        // Dropping the request aborts it: a closed body would be a truncated, successful insert.
        match tokio::time::timeout_at(give_up_at, sending).await {
            // The answer is waited for in a task of the crate's own, which only the crate's own
            // time limit ends: given up from here, it would keep its connection for ever.
            Ok(Ok(request)) => {
                let left = give_up_at.saturating_duration_since(Instant::now());
                request.with_timeouts(None, Some(left)).end().await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Executes a statement that reads its rows from `body`, once. The rows replace what they
    /// repeat, so that it needs no token.
    pub(super) async fn write(
        &self,
        statement: String,
        settings: &[(&str, &str)],
        body: Bytes,
        table: &str,
    ) -> Result<(), InsertError> {
        let endpoint = self.choose(None).await;
        let client = JSON_SETTINGS
            .iter()
            .chain(settings)
            .fold(self.clients[endpoint].clone(), |client, (name, value)| {
                client.with_setting(*name, *value)
            });
        let result = match self.sent(&client, statement, body).await {
            Ok(()) => Ok(()),
            Err(Error::TimedOut) => Err(self.timed_out(endpoint, self.insert_timeout)),
            Err(error) => Err(self.refused(endpoint, &error, Some(table))),
        };
        self.note(endpoint, &result);
        result
    }
}

/// Compressing takes milliseconds a megabyte: not on the async threads.
async fn compress(body: Bytes, by: Compression) -> clickhouse::error::Result<CompressedData> {
    let compressing = tokio::task::spawn_blocking(move || CompressedData::new(&body, by));
    match compressing.await {
        Ok(compressed) => compressed,
        Err(error) => Err(Error::Other(Box::new(error))),
    }
}

/// `INSERT INTO` with names from the schema and the configuration only.
fn statement(table: &str, columns: &[String], format: &str) -> String {
    let mut sql = format!("INSERT INTO {}", quoted(table));
    for (index, column) in columns.iter().enumerate() {
        sql.push_str(if index == 0 { " (" } else { ", " });
        quote(column, &mut sql);
    }
    if !columns.is_empty() {
        sql.push(')');
    }
    write!(sql, " FORMAT {format}").expect("a String takes everything");
    sql
}
