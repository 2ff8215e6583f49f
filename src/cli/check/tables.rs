//! Judges the tables: do they fit their routes, and what becomes of a row that comes twice? Pure.

use std::collections::BTreeMap;

use super::ask::{Table, Warehouse, table_of, words};
use super::exact;
use super::report::{Grade, Report, Severity, TableLine};
use crate::config::{Action, Config, DeadLetters, RouteFormat};
use crate::encode::Program;
use crate::schema::TableSchema;
use crate::schema::exactly_once::{Problem, exactly_once_problems};
use crate::schema::facts::TableFacts;
use crate::sink::InsertError;
use crate::sink::clickhouse::UNKNOWN_TABLE;

/// ClickHouse's code for a database that is not there.
const UNKNOWN_DATABASE: u32 = 81;

pub(super) fn compare(config: &Config, warehouse: &Warehouse, report: &mut Report) {
    let tables = &warehouse.tables;
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
                        let text = format!(
                            "table {name} for dead letters is missing: the bridge makes it at start"
                        );
                        report.info("table_missing_made_at_start", text);
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
    for (name, table) in tables {
        match &table.facts {
            Some(Ok(facts)) => known(config, warehouse, name, facts, report),
            Some(Err(error)) => unreadable(config, name, error, report),
            None => {}
        }
    }
    replays(config, tables, report);
}

/// The routes that fill a table, by their index.
pub(super) fn routes_of<'a>(
    config: &'a Config,
    table: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    let routes = config.routes.iter().enumerate();
    routes.filter(move |(_, route)| table_of(route) == Some(table)).map(|(index, _)| index)
}

/// Blames every route of the table, if it has any.
pub(super) fn blame(
    config: &Config,
    table: &str,
    report: &mut Report,
    grade: Grade,
    finding: usize,
) {
    for index in routes_of(config, table) {
        report.blame(index, grade, finding);
    }
}

/// Whether each route can fill its table.
fn fit(config: &Config, schema: &TableSchema, report: &mut Report) {
    for index in routes_of(config, &schema.table) {
        let Action::Insert(insert) = &config.routes[index].action else { continue };
        for problem in problems(schema, &insert.format) {
            let name = &config.routes[index].name;
            let finding = report.error("mapping_mismatch", format!("route {name}: {problem}"));
            report.blame(index, Grade::Wrong, finding);
        }
    }
    if config.dead_letters.table() == Some(&schema.table) {
        for problem in problems(schema, &config.dead_letters.format()) {
            report.error("mapping_mismatch", format!("dead letters: {problem}"));
        }
    }
}

fn problems(schema: &TableSchema, format: &RouteFormat) -> Vec<String> {
    Program::new(schema, format).err().unwrap_or_default()
}

fn permitted(config: &Config, name: &str, table: &Table, report: &mut Report) {
    if table.may_insert == Some(false) {
        let user = &config.clickhouse.user;
        let text = format!("ClickHouse: user {user} may not insert into {name}");
        let sql = format!("GRANT SELECT, INSERT ON {}.* TO {user}", database(config, name));
        let finding = report.find("insert_not_permitted", Severity::Error, text, vec![sql]);
        blame(config, name, report, Grade::Wrong, finding);
    }
}

fn database<'a>(config: &'a Config, table: &'a str) -> &'a str {
    table.split_once('.').map_or(&config.clickhouse.database, |(database, _)| database)
}

fn not_creatable(config: &Config, name: &str, report: &mut Report) {
    let user = &config.clickhouse.user;
    let text = format!(
        "table {name} for dead letters is missing, and user {user} may not create it: `data-bridge \
         schema --apply` as somebody who may, or grant it"
    );
    let sql = format!(
        "GRANT CREATE TABLE ON {}.{} TO {user}",
        database(config, name),
        name.rsplit('.').next().unwrap_or(name),
    );
    report.find("table_missing_not_creatable", Severity::Error, text, vec![sql]);
}

fn absent(config: &Config, missing: &[&str], report: &mut Report) {
    let several = missing.len() > 1;
    let text = format!(
        "ClickHouse has no table {} (database {}): create {} (`data-bridge schema --apply` creates \
         those in schema/ beside the configuration), or correct `table`",
        missing.join(", "),
        config.clickhouse.database,
        if several { "them" } else { "it" },
    );
    let finding = report.error("table_missing", text);
    for table in missing {
        blame(config, table, report, Grade::Wrong, finding);
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
    let finding = report.error("table_refused", text);
    blame(config, name, report, Grade::Wrong, finding);
}

/// What the table is, and what follows from it.
fn known(
    config: &Config,
    warehouse: &Warehouse,
    name: &str,
    facts: &TableFacts,
    report: &mut Report,
) {
    report.tables.push(TableLine {
        name: name.to_owned(),
        engine: facts.engine.clone(),
        remembers: match facts.window {
            Some(window) => exact::window(window),
            None => "no inserts".to_owned(),
        },
        partition_key: facts.partition_key.clone(),
        views: facts.reached().len() - 1,
    });
    if let Some(text) = not_kept(name, facts) {
        let finding = report.warn("rows_not_kept", text, Vec::new());
        blame(config, name, report, Grade::Warned, finding);
    }
    if facts.engine == "Distributed" && !warehouse.session.distributed_foreground {
        let user = &config.clickhouse.user;
        let text = format!(
            "table {name} is Distributed and inserts in the background: rows count as stored when \
             one server has queued them on its disk, before any shard has them. Insert into local \
             tables, or wait for the shards"
        );
        let sql = format!("ALTER USER {user} SETTINGS distributed_foreground_insert = 1");
        let finding = report.warn("distributed_background", text, vec![sql]);
        blame(config, name, report, Grade::Warned, finding);
    }
    let promised = routes_of(config, name).any(|index| report.routes[index].exactly_once);
    let doubles = exactly_once_problems(facts);
    if !promised && facts.engine != "Distributed" && !doubles.is_empty() {
        retries(config, name, doubles, report);
    }
    let expiring =
        facts.reached().into_iter().filter_map(|table| Some((table, table.ttl.as_ref()?)));
    for (table, ttl) in expiring {
        report.info(
            "rows_expire",
            format!(
                "{} deletes rows by TTL {ttl}: what is older when it comes is stored, counted, and \
             deleted soon",
                table.place
            ),
        );
    }
}

/// What cannot be known of a table: the same for all, where it is a matter of rights.
fn unreadable(config: &Config, name: &str, error: &InsertError, report: &mut Report) {
    let text = words(error);
    let (text, sql) = match text.split_once(": GRANT ") {
        Some((text, grants)) => (text.to_owned(), vec![format!("GRANT {grants}")]),
        None => (format!("table {name}: {text}"), Vec::new()),
    };
    let finding = report.warn("facts_unreadable", text, sql);
    blame(config, name, report, Grade::Warned, finding);
    // A promise that cannot be looked into is none.
    for index in routes_of(config, name) {
        if !report.routes[index].exactly_once {
            continue;
        }
        let route = &config.routes[index].name;
        let text = format!(
            "route {route}: delivery = \"exactly_once\" cannot be promised for a table of which \
             nobody can tell what it remembers"
        );
        let finding = report.error("exactly_once_refused", text);
        report.blame(index, Grade::Wrong, finding);
    }
}

/// An insert that is tried again, because its answer was lost, doubles its rows.
fn retries(config: &Config, name: &str, problems: Vec<Problem>, report: &mut Report) {
    for problem in problems {
        let text = format!("an insert that is tried again may double its rows: {}", problem.what);
        let sql = problem.remedy_sql.into_iter().collect();
        let finding = report.warn("retry_may_double", text, sql);
        blame(config, name, report, Grade::Warned, finding);
    }
}

fn not_kept(name: &str, facts: &TableFacts) -> Option<String> {
    match facts.engine.as_str() {
        "Null" if facts.views.is_empty() => {
            Some(format!("table {name} has the engine Null, which keeps nothing"))
        }
        engine @ ("Memory" | "Buffer") => Some(format!(
            "table {name} has the engine {engine}: its rows are lost when ClickHouse stops, after \
             they counted as stored"
        )),
        _ => None,
    }
}

/// After a crash Kafka's uncommitted records come again, in other batches.
fn replays(config: &Config, tables: &BTreeMap<String, Table>, report: &mut Report) {
    let (mut doubled, mut collapsing) = (Vec::new(), Vec::new());
    for (name, table) in tables {
        let Some(Ok(facts)) = &table.facts else { continue };
        let replayed = config.kafka.is_some()
            && routes_of(config, name).any(|index| {
                !config.routes[index].kafka_topics.is_empty() && !report.routes[index].exactly_once
            });
        match (replayed && facts.is_merge_tree(), facts.collapses()) {
            (true, false) => doubled.push(format!("{name} ({})", facts.engine)),
            (true, true) => collapsing.push(name.as_str()),
            (false, _) => {}
        }
    }
    if !doubled.is_empty() {
        report.info(
            "replay_doubles",
            format!(
                "records that Kafka brings again after a crash stay twice in {}: delivery = \
             \"exactly_once\" prevents it, a ReplacingMergeTree keeps one of them",
                doubled.join(", ")
            ),
        );
    }
    if !collapsing.is_empty() {
        report.info("replay_doubles", format!(
            "records that Kafka brings again after a crash are twice in {} until ClickHouse merges \
             them: SELECT … FINAL shows one",
            collapsing.join(", ")
        ));
    }
}
