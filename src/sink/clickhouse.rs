//! The ClickHouse sink: the only user of the `clickhouse` crate.
//!
//! Talks to one server or several: which of them is decided in `endpoints`, how an insert is sent
//! in `insert`, what an error means in `classify`. When and how often to try again is the
//! pipeline's matter.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::query::Query;
use clickhouse::{Client, Compression};
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Insert, InsertError, Landed, LandedQuestion, Refusal, Sink, Window};
use crate::config;
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};
use crate::status::EndpointStatus;
use crate::tls;

mod classify;
mod collapse;
mod endpoints;
mod facts;
mod insert;
mod landed;
pub mod letters;
mod positions;
mod probe;

pub use self::classify::UNKNOWN_TABLE;
pub use self::collapse::{Keeps, Key};
use self::endpoints::{Change, Choice, Endpoints};
pub use self::positions::{DeadLetters, Held, LettersOf, Origin, OriginColumns, Wanted};
pub use self::probe::Session;

/// Long enough for a loaded server on a slow network, short enough to notice a dead one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For questions that are not inserts; they are small.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// For asking a server whether it works again, while others do: an insert waits for the answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle connections are closed a little before ClickHouse does (3 s by default), so that an
/// insert does not run into a closing one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The fastest: higher ones take several times the CPU for a tenth less.
const ZSTD_LEVEL: i32 = 1;

/// A table that the bridge may create when it is missing.
#[derive(Debug, Clone)]
pub struct CreateIfMissing {
    pub table: String,
    pub statement: String,
}

/// The connection to ClickHouse.
#[derive(Clone)]
pub struct ClickHouse {
    /// One for each endpoint.
    clients: Vec<Client>,
    /// For messages.
    urls: Vec<String>,
    endpoints: Arc<Mutex<Endpoints>>,
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
        let compression = match config.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd(ZSTD_LEVEL),
        };
        let mut client = Client::with_http_client(http)
            .with_database(config.database.clone())
            .with_user(config.user.clone())
            .with_product_info("data-bridge", env!("CARGO_PKG_VERSION"))
            .with_compression(compression);
        if let Some(password) = &config.password {
            client = client.with_password(password.expose_secret());
        }
        let replicas = config.endpoints == config::Endpoints::Replicas;
        Ok(Self {
            clients: config.urls.iter().map(|url| client.clone().with_url(url)).collect(),
            urls: config.urls.clone(),
            endpoints: Arc::new(Mutex::new(Endpoints::new(&config.urls, replicas))),
            database: config.database.clone(),
            user: config.user.clone(),
            compression,
            insert_timeout: config.insert_timeout,
            create,
        })
    }

    /// Whether any server answers at all, as whoever we are.
    pub async fn answers(&self) -> Result<(), InsertError> {
        let mut result = Ok(());
        for endpoint in 0..self.clients.len() {
            result = self.ask(endpoint, QUERY_TIMEOUT).await;
            if result.as_ref().is_ok() {
                break;
            }
        }
        result
    }

    async fn ask(&self, endpoint: usize, within: Duration) -> Result<(), InsertError> {
        let query = self.clients[endpoint].query_raw("SELECT 1");
        let result = self.answer_from(endpoint, query, "TabSeparated", within).await;
        self.note(endpoint, &result);
        result.map(|_| ())
    }

    /// Executes one statement that returns nothing, on every server.
    ///
    /// # Errors
    /// The first one; the others were told all the same.
    pub async fn execute(&self, statement: &str) -> Result<(), InsertError> {
        let mut result = Ok(());
        for (endpoint, client) in self.clients.iter().enumerate() {
            let query = client.query_raw(statement).with_setting("wait_end_of_query", "1");
            let done = tokio::time::timeout(QUERY_TIMEOUT, query.execute()).await;
            let done = match done {
                Ok(done) => done.map_err(|error| self.refused(endpoint, &error, None)),
                Err(_) => Err(self.timed_out(endpoint, QUERY_TIMEOUT)),
            };
            self.note(endpoint, &done);
            result = result.and(done);
        }
        result
    }

    /// What a query returns, in a format of ClickHouse; from a server that works.
    pub async fn text(&self, query: &str, format: &str) -> Result<String, InsertError> {
        self.answer(|client| client.query_raw(query), format, QUERY_TIMEOUT).await
    }

    /// The answer to a query that is made for the client of a server that works.
    async fn answer(
        &self,
        query: impl FnOnce(&Client) -> Query,
        format: &str,
        within: Duration,
    ) -> Result<String, InsertError> {
        let endpoint = self.choose(None).await;
        let query = query(&self.clients[endpoint]);
        let result = self.answer_from(endpoint, query, format, within).await;
        self.note(endpoint, &result);
        result
    }

    async fn answer_from(
        &self,
        endpoint: usize,
        query: Query,
        format: &str,
        within: Duration,
    ) -> Result<String, InsertError> {
        let fetch = async {
            let mut cursor = query.fetch_bytes(format)?;
            cursor.collect().await
        };
        let bytes = tokio::time::timeout(within, fetch)
            .await
            .map_err(|_| self.timed_out(endpoint, within))?
            .map_err(|error| self.refused(endpoint, &error, None))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The server for a question, or for an insert of this token. One that failed and may work
    /// again is asked first, so that no insert is risked on it.
    async fn choose(&self, token: Option<&str>) -> usize {
        loop {
            let choice = self.known().choose(token, Instant::now());
            match choice {
                Choice::Use(endpoint) => return endpoint,
                // What it says is noted; asked once, it is not due for a while.
                Choice::AskFirst(endpoint) => drop(self.ask(endpoint, ASK_TIMEOUT).await),
            }
        }
    }

    /// Takes down whether a server works; says so where there are several.
    fn note<T>(&self, endpoint: usize, result: &Result<T, InsertError>) {
        let failed = result.as_ref().err().filter(|error| classify::is_about_the_server(error));
        let change = match failed {
            Some(error) => {
                self.known().failed(endpoint, &error.refusal().to_string(), Instant::now())
            }
            None => self.known().works(endpoint),
        };
        if self.clients.len() == 1 {
            return;
        }
        let url = &self.urls[endpoint];
        match (change, failed) {
            (Change::Left, Some(error)) => {
                let why = error.refusal();
                tracing::warn!(
                    event = "clickhouse_endpoint_failed",
                    url,
                    "ClickHouse at {url} fails, and is left for the others: {why}"
                );
            }
            (Change::Back, _) => tracing::info!(
                event = "clickhouse_endpoint_works",
                url,
                "ClickHouse at {url} works again"
            ),
            _ => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().expect("no panic while held")
    }

    async fn describe(&self, table: &str) -> Result<TableSchema, InsertError> {
        let query = format!("DESCRIBE TABLE {}", quoted(table));
        let fetch = self.text(&query, "JSONEachRow").await.map_err(|error| name(error, table))?;
        let columns = fetch.lines().map(column).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| {
            let message = format!("cannot read the description of `{table}`: {error}");
            InsertError::Retry(Refusal::without_code(message))
        })?;
        Ok(TableSchema { table: table.to_owned(), columns })
    }

    fn refused(
        &self,
        endpoint: usize,
        error: &clickhouse::error::Error,
        table: Option<&str>,
    ) -> InsertError {
        let (url, user, database) = (&self.urls[endpoint], &self.user, &self.database);
        classify::classify(error, &classify::Place { url, user, database, table })
    }

    fn timed_out(&self, endpoint: usize, after: Duration) -> InsertError {
        let url = &self.urls[endpoint];
        let message = format!("no answer from ClickHouse at {url} within {after:?}");
        InsertError::Retry(Refusal { timed_out: true, ..Refusal::without_code(message) })
    }
}

impl Sink for ClickHouse {
    async fn insert(&self, insert: Insert) -> Result<(), InsertError> {
        self.insert_somewhere(&insert).await
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        self.known().statuses()
    }

    async fn ask_failed_endpoints(&self) {
        let due = self.known().due(Instant::now());
        if let Some(endpoint) = due {
            // What it says is noted.
            drop(self.ask(endpoint, ASK_TIMEOUT).await);
        }
    }

    fn is_for_others_to_do(&self, error: &InsertError) -> bool {
        classify::is_about_the_server(error) && self.known().any_works()
    }

    async fn schema(&self, table: &str) -> Result<TableSchema, InsertError> {
        let described = self.describe(table).await;
        let missing =
            described.as_ref().is_err_and(|error| error.refusal().code == Some(UNKNOWN_TABLE));
        match self.create.as_ref().filter(|create| missing && create.table == table) {
            Some(create) => {
                self.execute(&create.statement).await?;
                tracing::info!(event = "table_created", table, "created, because it was missing");
                self.describe(table).await
            }
            None => described,
        }
    }

    async fn window(&self, table: &str) -> Result<Window, InsertError> {
        self.window_of(table).await
    }

    async fn landed(&self, question: LandedQuestion) -> Result<Landed, InsertError> {
        self.look_for(&question).await
    }
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
