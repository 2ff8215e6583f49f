//! Executes the statements of `schema --apply`, each to its end, and says what became of it.

use std::time::Duration;

use clickhouse::Client;
use clickhouse::error::Error;
use secrecy::ExposeSecret as _;

use super::super::{Failure, print};
use crate::config::ClickHouse;

/// Creating an empty table takes milliseconds; a server that takes this long is not there.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn apply<'a>(
    config: &ClickHouse,
    statements: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let server = Server::new(config);
        server.create_database().await?;
        for statement in statements {
            server.create(statement).await?;
        }
        Ok(())
    })
}

struct Server<'a> {
    config: &'a ClickHouse,
    client: Client,
}

impl<'a> Server<'a> {
    fn new(config: &'a ClickHouse) -> Self {
        let mut client =
            Client::default().with_url(config.url.as_str()).with_user(config.user.as_str());
        if let Some(password) = &config.password {
            client = client.with_password(password.expose_secret());
        }
        Self { config, client }
    }

    async fn create_database(&self) -> Result<(), Failure> {
        let database = &self.config.database;
        let statement = format!("CREATE DATABASE IF NOT EXISTS `{database}`");
        match self.execute(&self.client, &statement).await {
            // not permitted: fine if it is there, and the first table tells if it is not
            Err(Refused { code: Some(497), .. }) | Ok(()) => Ok(()),
            Err(refused) => Err(self.failure(&refused)),
        }
    }

    async fn create(&self, statement: &str) -> Result<(), Failure> {
        let client = self.client.clone().with_database(self.config.database.as_str());
        let table = table_of(statement);
        let existed = match table {
            None => false,
            Some(table) => {
                let question = client.query_raw(&format!("EXISTS TABLE {table}"));
                let answer = self.patiently(question.fetch_one::<u8>()).await;
                answer.map_err(|refused| self.failure(&refused))? == 1
            }
        };
        self.execute(&client, statement).await.map_err(|refused| self.failure(&refused))?;
        let what = table.map_or_else(|| first_line(statement), str::to_owned);
        let state = if existed { "exists" } else { "created" };
        print(&format!("{}.{what}: {state}\n", self.config.database))
    }

    async fn execute(&self, client: &Client, statement: &str) -> Result<(), Refused> {
        let query = client.query_raw(statement).with_setting("wait_end_of_query", "1");
        self.patiently(query.execute()).await
    }

    async fn patiently<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refused> {
        match tokio::time::timeout(PATIENCE, work).await {
            Err(_) => Err(Refused::network(format!("no answer within {} s", PATIENCE.as_secs()))),
            Ok(result) => result.map_err(|error| Refused::new(&error)),
        }
    }

    /// What happened, and what to do.
    fn failure(&self, refused: &Refused) -> Failure {
        let ClickHouse { url, database, user, .. } = self.config;
        let text = &refused.text;
        match refused.code {
            None if refused.network => Failure::unavailable(format!(
                "ClickHouse at {url} cannot be reached: {text}; is it running, and is \
                 clickhouse.url its HTTP interface?"
            )),
            Some(192..=194 | 516) => Failure::other(format!(
                "ClickHouse at {url} refuses the user {user:?}: check clickhouse.user and \
                 clickhouse.password (or password_file)"
            )),
            Some(497) => Failure::other(format!(
                "the user {user:?} may not do this: {text}; grant it, or run `data-bridge schema` \
                 and let somebody who may execute the SQL"
            )),
            Some(81) => Failure::other(format!(
                "the database {database:?} does not exist and the user {user:?} may not create \
                 it: create it, or grant CREATE DATABASE"
            )),
            _ => Failure::other(format!("ClickHouse at {url}: {text}")),
        }
    }
}

/// Why ClickHouse did not do it.
struct Refused {
    /// Its exception code.
    code: Option<u32>,
    network: bool,
    text: String,
}

impl Refused {
    fn network(text: String) -> Self {
        Self { code: None, network: true, text }
    }

    fn new(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        let digits = text.split_once("Code: ").map(|(_, rest)| rest.split('.').next());
        let code = digits.flatten().and_then(|digits| digits.trim().parse().ok());
        Self { code, network: matches!(error, Error::Network(_) | Error::TimedOut), text }
    }
}

/// The table that a statement creates.
pub(super) fn table_of(statement: &str) -> Option<&str> {
    let code = statement.lines().find(|line| !line.trim_start().starts_with("--"))?.trim();
    let rest = code.strip_prefix("CREATE TABLE ")?;
    rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest).split([' ', '(']).next()
}

fn first_line(statement: &str) -> String {
    statement.lines().next().unwrap_or_default().chars().take(60).collect()
}
