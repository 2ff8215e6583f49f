//! Judges the tables: do they fit their routes, and what becomes of a row that comes twice? Pure.

use std::collections::BTreeMap;

use super::ask::{Table, table_of, words};
use super::compare::{Grade, Report};
use crate::config::{Action, Config, DeadLetters, RouteFormat};
use crate::encode::Program;
use crate::schema::TableSchema;
use crate::sink::InsertError;

/// ClickHouse's codes for what is not there.
const UNKNOWN_TABLE: u32 = 60;
const UNKNOWN_DATABASE: u32 = 81;

/// As many inserts as the shipped tables remember.
const WINDOW: u32 = 10_000;

pub(super) fn compare(config: &Config, tables: &BTreeMap<String, Table>, report: &mut Report) {
    let mut missing = Vec::new();
    for (name, table) in tables {
        match &table.schema {
            Ok(schema) => {
                fit(config, schema, report);
                permitted(config, name, table, report);
            }
            Err(error) if error.refusal().code == Some(UNKNOWN_TABLE) => {
                let letters = &config.dead_letters;
                let made = matches!(letters, DeadLetters::ClickHouse { table, create: true }
                    if table == name);
                match (made, table.may_create) {
                    (true, Some(false)) => not_creatable(config, name, report),
                    (true, _) if routes_of(config, name).next().is_none() => {
                        report.notes.push(format!(
                            "table {name} for dead letters is missing: the bridge makes it at start"
                        ));
                    }
                    _ => missing.push(name.as_str()),
                }
            }
            Err(error) => refused(config, name, error, report),
        }
    }
    if !missing.is_empty() {
        absent(config, &missing, report);
    }
    repeats(config, tables, report);
}

/// The routes that fill a table, by their index.
fn routes_of<'a>(config: &'a Config, table: &'a str) -> impl Iterator<Item = usize> + 'a {
    let routes = config.routes.iter().enumerate();
    routes.filter(move |(_, route)| table_of(route) == Some(table)).map(|(index, _)| index)
}

/// Blames every route of the table, if it has any.
fn blame(config: &Config, table: &str, report: &mut Report, number: usize) {
    for index in routes_of(config, table) {
        report.blame(index, Grade::Wrong, number);
    }
}

/// Whether each route can fill its table.
fn fit(config: &Config, schema: &TableSchema, report: &mut Report) {
    for index in routes_of(config, &schema.table) {
        let Action::Insert(insert) = &config.routes[index].action else { continue };
        for problem in problems(schema, &insert.format) {
            let name = &config.routes[index].name;
            let number = report.problem(format!("route {name}: {problem}"));
            report.blame(index, Grade::Wrong, number);
        }
    }
    if config.dead_letters.table() == Some(&schema.table) {
        for problem in problems(schema, &config.dead_letters.format()) {
            report.problem(format!("dead letters: {problem}"));
        }
    }
}

fn problems(schema: &TableSchema, format: &RouteFormat) -> Vec<String> {
    Program::new(schema, format).err().unwrap_or_default()
}

fn permitted(config: &Config, name: &str, table: &Table, report: &mut Report) {
    if table.may_insert == Some(false) {
        let user = &config.clickhouse.user;
        let number = report.problem(format!(
            "ClickHouse: user {user} may not insert: GRANT SELECT, INSERT ON {}.* TO {user}",
            database(config, name)
        ));
        blame(config, name, report, number);
    }
}

fn database<'a>(config: &'a Config, table: &'a str) -> &'a str {
    table.split_once('.').map_or(&config.clickhouse.database, |(database, _)| database)
}

fn not_creatable(config: &Config, name: &str, report: &mut Report) {
    let user = &config.clickhouse.user;
    report.problem(format!(
        "table {name} for dead letters is missing, and user {user} may not create it: \
         `data-bridge schema --apply` as somebody who may, or GRANT CREATE TABLE ON {}.{} TO {user}",
        database(config, name),
        name.rsplit('.').next().unwrap_or(name),
    ));
}

fn absent(config: &Config, missing: &[&str], report: &mut Report) {
    let several = missing.len() > 1;
    let number = report.problem(format!(
        "ClickHouse has no table {} (database {}): create {} (`data-bridge schema --apply` creates \
         those of the profile), or correct `table`",
        missing.join(", "),
        config.clickhouse.database,
        if several { "them" } else { "it" },
    ));
    for table in missing {
        blame(config, table, report, number);
    }
}

fn refused(config: &Config, name: &str, error: &InsertError, report: &mut Report) {
    let text = if error.refusal().code == Some(UNKNOWN_DATABASE) {
        format!(
            "ClickHouse has no database {}: create it, or correct the route's `table`",
            database(config, name)
        )
    } else {
        format!("ClickHouse: {}", words(error))
    };
    let number = report.problem(text);
    blame(config, name, report, number);
}

/// Notes on what becomes of rows that are sent, or come, a second time.
fn repeats(config: &Config, tables: &BTreeMap<String, Table>, report: &mut Report) {
    let (mut windowless, mut doubled) = (Vec::new(), Vec::new());
    for (name, table) in tables {
        let Some(kind) = &table.kind else { continue };
        match kind.deduplication_window {
            Some(0) => windowless.push(name.as_str()),
            Some(_) => {}
            None => report.notes.push(foreign(name, &kind.engine)),
        }
        let replayed = config.kafka.is_some()
            && routes_of(config, name).any(|i| !config.routes[i].kafka_topics.is_empty());
        let collapses = kind.engine.contains("Replacing");
        if replayed && kind.deduplication_window.is_some() && !collapses {
            doubled.push(format!("{name} ({})", kind.engine));
        }
    }
    if let [first, ..] = windowless[..] {
        report.notes.push(format!(
            "an insert that is tried again may store its rows twice in {}, which forgets inserts at \
             once: ALTER TABLE {}.{} MODIFY SETTING non_replicated_deduplication_window = {WINDOW}",
            windowless.join(", "),
            database(config, first),
            first.rsplit('.').next().unwrap_or(first),
        ));
    }
    if !doubled.is_empty() {
        report.notes.push(format!(
            "records that Kafka brings again after a crash stay twice in {}; a ReplacingMergeTree \
             keeps one of them",
            doubled.join(", ")
        ));
    }
}

fn foreign(name: &str, engine: &str) -> String {
    match engine {
        "Null" => format!("table {name} has the engine Null, which keeps nothing"),
        "Memory" | "Buffer" => format!(
            "table {name} has the engine {engine}: its rows are lost when ClickHouse stops, after \
             they counted as stored"
        ),
        _ => format!(
            "table {name} has the engine {engine}: `check` cannot tell whether an insert that is \
             tried again stores its rows twice"
        ),
    }
}
