//! The ClickHouse sink: the only user of the `clickhouse` crate.
//!
//! Sends a body whole and believes an answer only after ClickHouse said that it is done
//! (`wait_end_of_query`). It tries once: when and how often to try again is the pipeline's matter.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Client;
use clickhouse::insert_formatted::CompressedData;
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::{Insert, InsertError, Refusal, Sink};
use crate::config::{self, Compression};
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};

mod classify;
mod collapse;
mod facts;
mod positions;
mod probe;
mod tls;

pub use self::collapse::{Keeps, Key};
pub use self::positions::{Held, OriginColumns, Wanted};
pub use self::probe::TableKind;

/// Long enough for a loaded server on a slow network, short enough to notice a dead one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For questions that are not inserts; they are small.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed a little before ClickHouse does (3 s by default), so that an
/// insert does not run into a closing one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// What every insert says explicitly, because the bridge relies on it. Blocks are not cut or
/// squashed, so that one insert is one block and its token identifies it.
const INSERT_SETTINGS: [(&str, &str); 10] = [
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
    // The client casts nothing; LowCardinality travels as its inner type.
    ("input_format_native_allow_types_conversion", "1"),
];

/// Only for bodies that are passed through as JSON.
const JSON_SETTINGS: [(&str, &str); 2] =
    [("input_format_skip_unknown_fields", "1"), ("date_time_input_format", "best_effort")];

/// A table that the bridge may create when it is missing.
#[derive(Debug, Clone)]
pub struct CreateIfMissing {
    pub table: String,
    pub statement: String,
}

/// The connection to one ClickHouse.
#[derive(Clone)]
pub struct ClickHouse {
    client: Client,
    /// For messages.
    url: String,
    database: String,
    user: String,
    compression: Compression,
    insert_timeout: Duration,
    create: Option<CreateIfMissing>,
}

// The client holds the password.
impl std::fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { database, user, .. } = self;
        f.debug_struct("ClickHouse").field("database", database).field("user", user).finish()
    }
}

impl ClickHouse {
    /// A client; nothing is connected yet.
    pub fn new(
        config: &config::ClickHouse,
        create: Option<CreateIfMissing>,
    ) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = tls::connector(tcp, config.tls.as_ref()).context("clickhouse.tls")?;
        let http =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .build(connector);
        let mut client = Client::with_http_client(http)
            .with_url(config.url.clone())
            .with_database(config.database.clone())
            .with_user(config.user.clone())
            .with_product_info("data-bridge", env!("CARGO_PKG_VERSION"))
            .with_compression(match config.compression {
                Compression::None => clickhouse::Compression::None,
                Compression::Lz4 => clickhouse::Compression::Lz4,
            });
        if let Some(password) = &config.password {
            client = client.with_password(password.expose_secret());
        }
        Ok(Self {
            client,
            url: config.url.clone(),
            database: config.database.clone(),
            user: config.user.clone(),
            compression: config.compression,
            insert_timeout: config.insert_timeout,
            create,
        })
    }

    /// Whether it answers at all, as whoever we are.
    pub async fn answers(&self) -> Result<(), InsertError> {
        self.text("SELECT 1", "TabSeparated").await.map(|_| ())
    }

    /// Executes one statement that returns nothing.
    pub async fn execute(&self, statement: &str) -> Result<(), InsertError> {
        let query = self.client.query_raw(statement).with_setting("wait_end_of_query", "1");
        let done = tokio::time::timeout(QUERY_TIMEOUT, query.execute()).await;
        done.map_err(|_| self.timed_out(QUERY_TIMEOUT))?.map_err(|error| self.refused(&error, None))
    }

    /// What a query returns, in a format of ClickHouse.
    pub async fn text(&self, query: &str, format: &str) -> Result<String, InsertError> {
        self.answer(self.client.query_raw(query), format, QUERY_TIMEOUT).await
    }

    async fn answer(
        &self,
        query: clickhouse::query::Query,
        format: &str,
        within: Duration,
    ) -> Result<String, InsertError> {
        let fetch = async {
            let mut cursor = query.fetch_bytes(format)?;
            cursor.collect().await
        };
        let bytes = tokio::time::timeout(within, fetch)
            .await
            .map_err(|_| self.timed_out(within))?
            .map_err(|error| self.refused(&error, None))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn describe(&self, table: &str) -> Result<TableSchema, InsertError> {
        let query = format!("DESCRIBE TABLE {}", quoted(table));
        let fetch = self.text(&query, "JSONEachRow").await.map_err(|error| name(error, table))?;
        let columns = fetch.lines().map(column).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| {
            let message = format!("cannot read the description of `{table}`: {error}");
            InsertError::Retry(Refusal { code: None, message })
        })?;
        Ok(TableSchema { table: table.to_owned(), columns })
    }

    async fn send(&self, insert: Insert) -> Result<(), InsertError> {
        let client = INSERT_SETTINGS
            .iter()
            .chain(if insert.format == "JSONEachRow" { &JSON_SETTINGS[..] } else { &[] })
            .fold(self.client.clone(), |client, (name, value)| client.with_setting(*name, *value))
            .with_setting("insert_deduplication_token", insert.token);
        let statement = statement(&insert.table, &insert.columns, insert.format);
        let sending = async {
            let mut request = client.insert_formatted_with(statement);
            match self.compression {
                Compression::None => request.send(insert.body).await?,
                Compression::Lz4 => request.send_compressed(compress(insert.body).await?).await?,
            }
            request.end().await
        };
        // Dropping the request aborts it: a closed body would be a truncated, successful insert.
        match tokio::time::timeout(self.insert_timeout, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.refused(&error, Some(&insert.table))),
            Err(_) => Err(self.timed_out(self.insert_timeout)),
        }
    }

    fn refused(&self, error: &clickhouse::error::Error, table: Option<&str>) -> InsertError {
        classify::classify(
            error,
            &classify::Place { url: &self.url, user: &self.user, database: &self.database, table },
        )
    }

    fn timed_out(&self, after: Duration) -> InsertError {
        let message = format!("no answer from ClickHouse at {} within {after:?}", self.url);
        InsertError::Retry(Refusal { code: None, message })
    }
}

impl Sink for ClickHouse {
    async fn insert(&self, insert: Insert) -> Result<(), InsertError> {
        match self.send(insert).await {
            // The same token was accepted before: an earlier attempt had landed.
            Err(error) if error.refusal().code == Some(classify::INSERT_WAS_DEDUPLICATED) => Ok(()),
            result => result,
        }
    }

    async fn schema(&self, table: &str) -> Result<TableSchema, InsertError> {
        let described = self.describe(table).await;
        let missing = described
            .as_ref()
            .is_err_and(|error| error.refusal().code == Some(classify::UNKNOWN_TABLE));
        match self.create.as_ref().filter(|create| missing && create.table == table) {
            Some(create) => {
                self.execute(&create.statement).await?;
                tracing::info!(table, "created, because it was missing");
                self.describe(table).await
            }
            None => described,
        }
    }
}

/// Compressing takes a millisecond a megabyte: not on the async threads.
async fn compress(body: bytes::Bytes) -> clickhouse::error::Result<CompressedData> {
    let compressing = tokio::task::spawn_blocking(move || {
        CompressedData::new(&body, clickhouse::Compression::Lz4)
    });
    match compressing.await {
        Ok(compressed) => compressed,
        Err(error) => Err(clickhouse::error::Error::Other(Box::new(error))),
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

/// `database.table` or `table`, each name quoted.
#[must_use]
pub fn quoted(table: &str) -> String {
    let mut sql = String::new();
    for (index, part) in table.split('.').enumerate() {
        if index > 0 {
            sql.push('.');
        }
        quote(part, &mut sql);
    }
    sql
}

fn quote(name: &str, sql: &mut String) {
    sql.push('`');
    for character in name.chars() {
        if matches!(character, '`' | '\\') {
            sql.push('\\');
        }
        sql.push(character);
    }
    sql.push('`');
}

/// Puts the table's name in front of what was refused.
fn name(error: InsertError, table: &str) -> InsertError {
    let named = |refusal: Refusal| Refusal {
        message: format!("table `{table}`: {}", refusal.message),
        ..refusal
    };
    match error {
        InsertError::Retry(refusal) => InsertError::Retry(named(refusal)),
        InsertError::AwaitFix(refusal) => InsertError::AwaitFix(named(refusal)),
        InsertError::Reject(refusal) => InsertError::Reject(named(refusal)),
        InsertError::SchemaChanged(refusal) => InsertError::SchemaChanged(named(refusal)),
    }
}

#[derive(Deserialize)]
struct Described {
    name: String,
    r#type: String,
    default_type: String,
}

fn column(line: &str) -> Result<ColumnSchema, serde_json::Error> {
    let Described { name, r#type, default_type } = serde_json::from_str(line)?;
    let default = match default_type.as_str() {
        "" => ColumnDefault::None,
        "MATERIALIZED" => ColumnDefault::Materialized,
        "ALIAS" => ColumnDefault::Alias,
        "EPHEMERAL" => ColumnDefault::Ephemeral,
        _ => ColumnDefault::Default,
    };
    Ok(ColumnSchema { name, type_name: r#type, default })
}
