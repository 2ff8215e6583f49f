//! Executes the statements of `schema --apply`, each to its end, and says what became of it.

use super::super::{Failure, print};
use crate::config;
use crate::sink::clickhouse::ClickHouse;
use crate::sink::{InsertError, Refusal};

/// ClickHouse's code for a grant that is missing.
const ACCESS_DENIED: u32 = 497;

pub(super) fn apply<'a>(
    config: &config::ClickHouse,
    statements: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        create_database(config).await?;
        let server = connect(config)?;
        for statement in statements {
            let state =
                create(&server, statement).await.map_err(|error| failure(config, &error))?;
            let what = table_of(statement).unwrap_or_else(|| first_line(statement));
            print(&format!("{}.{what}: {state}\n", config.database))?;
        }
        Ok(())
    })
}

fn connect(config: &config::ClickHouse) -> Result<ClickHouse, Failure> {
    ClickHouse::new(config, None).map_err(|error| Failure::usage(format!("{error:#}")))
}

async fn create_database(config: &config::ClickHouse) -> Result<(), Failure> {
    // a session in a database that does not exist is refused; this one always does
    let elsewhere = config::ClickHouse { database: "system".to_owned(), ..config.clone() };
    let statement = format!("CREATE DATABASE IF NOT EXISTS `{}`", config.database);
    match connect(&elsewhere)?.execute(&statement).await {
        Ok(()) => Ok(()),
        // not permitted: fine if it is there, and the first table tells if it is not
        Err(error) if error.refusal().code == Some(ACCESS_DENIED) => Ok(()),
        Err(error) => Err(failure(config, &error)),
    }
}

async fn create(server: &ClickHouse, statement: &str) -> Result<&'static str, InsertError> {
    let existed = match table_of(statement) {
        None => false,
        Some(table) => {
            let answer = server.text(&format!("EXISTS TABLE {table}"), "TabSeparated").await?;
            answer.trim() == "1"
        }
    };
    server.execute(statement).await?;
    Ok(if existed { "exists" } else { "created" })
}

/// What happened; the sink's messages say what to do about it.
fn failure(config: &config::ClickHouse, error: &InsertError) -> Failure {
    let url = config.addresses();
    match error.refusal() {
        Refusal { code: None, message, .. } => Failure::unavailable(format!(
            "{url}: {message}; is ClickHouse running, and is clickhouse.url its HTTP interface?"
        )),
        Refusal { message, .. } => Failure::other(format!("{url}: {message}")),
    }
}

/// The table that a statement creates.
pub(super) fn table_of(statement: &str) -> Option<&str> {
    let code = statement.lines().find(|line| !line.trim_start().starts_with("--"))?.trim();
    let rest = code.strip_prefix("CREATE TABLE ")?;
    rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest).split([' ', '(']).next()
}

fn first_line(statement: &str) -> &str {
    statement.lines().next().unwrap_or_default()
}
