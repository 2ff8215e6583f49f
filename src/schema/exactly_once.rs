//! Whether a repeated insert would be recognised by a table and by all that stands behind it.
//!
//! Pure. `check` prints what is found, and a route that promises exactly once waits for it to be
//! mended: it must never promise what the table does not keep.

use super::facts::{Place, TableFacts, Target};

/// As many inserts as the shipped tables remember: ClickHouse's own default for replicated tables.
/// At one insert a second into one partition it covers an outage of almost three hours.
pub const SUGGESTED_WINDOW: u64 = 10_000;

/// Why exactly once would be a lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable: machines compare it.
    pub code: &'static str,
    /// A sentence, with what to do where no statement does it.
    pub what: String,
    /// A statement that mends it, to be pasted.
    pub remedy_sql: Option<String>,
}

/// Everything that keeps this table from storing each record once; empty: nothing does.
///
/// A window that is long enough today may be too short for a long outage: that is the gauge's
/// matter, not this one's.
#[must_use]
pub fn exactly_once_problems(facts: &TableFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for table in facts.reached() {
        let role = if table.place == facts.place { Role::Table } else { Role::Target };
        problems.extend(of_table(table, role));
        for view in &table.views {
            problems.extend(hidden(&view.place, &view.target));
        }
    }
    problems
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Table,
    /// Of a view.
    Target,
}

fn of_table(facts: &TableFacts, role: Role) -> Option<Problem> {
    match facts.window {
        Some(window) if window.entries == 0 => Some(no_window(facts, role)),
        Some(window) if window.seconds == Some(0) => Some(no_time(facts)),
        Some(_) => None,
        // It stores nothing itself: what counts are the targets, and the token reaches them.
        None if facts.engine == "Null" && !facts.views.is_empty() => None,
        None => Some(Problem {
            code: "engine_ignores_tokens",
            what: foreign(facts, role),
            remedy_sql: None,
        }),
    }
}

fn no_window(facts: &TableFacts, role: Role) -> Problem {
    let place = &facts.place;
    let setting = if facts.is_replicated() {
        "replicated_deduplication_window"
    } else {
        "non_replicated_deduplication_window"
    };
    let what = match role {
        Role::Table => format!("{place} remembers no inserts: a repeated one is stored twice"),
        Role::Target => format!(
            "{place} is written by a view and remembers no inserts: a repeated one is stored twice \
             there, although the route's table would recognise it"
        ),
    };
    let remedy = format!("ALTER TABLE {place} MODIFY SETTING {setting} = {SUGGESTED_WINDOW}");
    let code = match role {
        Role::Table => "no_window",
        Role::Target => "view_target_no_window",
    };
    Problem { code, what, remedy_sql: Some(remedy) }
}

fn no_time(facts: &TableFacts) -> Problem {
    let place = &facts.place;
    Problem {
        code: "no_window",
        what: format!("{place} forgets inserts at once (a window of 0 s)"),
        remedy_sql: Some(format!(
            "ALTER TABLE {place} MODIFY SETTING replicated_deduplication_window_seconds = 604800"
        )),
    }
}

fn foreign(facts: &TableFacts, role: Role) -> String {
    let TableFacts { place, engine, .. } = facts;
    let into = match role {
        Role::Table => "insert into",
        Role::Target => "let the view write to",
    };
    match engine.as_str() {
        "Distributed" => format!(
            "{place} is Distributed: it passes rows on later, in other blocks, and drops the token; \
             {into} the local table of each shard"
        ),
        "Buffer" => format!(
            "{place} is a Buffer: its rows are lost in a crash after they counted as stored, and \
             tokens are ignored; {into} the table behind it"
        ),
        "Null" => format!("{place} is Null and no view reads it: nothing is stored"),
        "MaterializedView" | "View" => {
            format!("{place} is a view: {into} a MergeTree table with a deduplication window")
        }
        _ => format!(
            "{place} has the engine {engine}, which ignores tokens: a repeated insert is stored \
             twice; {into} a MergeTree table with a deduplication window"
        ),
    }
}

fn hidden(view: &Place, target: &Target) -> Option<Problem> {
    let (what, grant) = match target {
        Target::Table(_) => return None,
        Target::Hidden(place) => (format!("the view {view} writes to {place}"), place),
        Target::Unknown => (format!("the view {view} reads this table"), view),
    };
    Some(Problem {
        code: "view_hidden",
        what: format!(
            "{what}, and the bridge's user may not see whether what stands behind it remembers \
             inserts: GRANT SHOW TABLES ON {grant} to it"
        ),
        remedy_sql: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::facts::{View, Window};

    fn table(name: &str, engine: &str, entries: Option<u64>) -> TableFacts {
        TableFacts {
            place: Place { database: "m".to_owned(), name: name.to_owned() },
            engine: engine.to_owned(),
            window: entries.map(|entries| Window { entries, seconds: None }),
            partition_key: String::new(),
            sorting_key: String::new(),
            version: None,
            ttl: None,
            views: Vec::new(),
            positions: crate::schema::facts::PositionColumns::default(),
        }
    }

    fn viewed(mut table: TableFacts, target: Target) -> TableFacts {
        let place = Place { database: "m".to_owned(), name: format!("of_{}", table.place.name) };
        table.views.push(View { place, target });
        table
    }

    fn codes(facts: &TableFacts) -> Vec<&'static str> {
        exactly_once_problems(facts).iter().map(|problem| problem.code).collect()
    }

    #[test]
    fn a_table_with_a_window_promises_exactly_once() {
        assert_eq!(codes(&table("t", "ReplacingMergeTree", Some(1))), [""; 0]);
        let target = Target::Table(Box::new(table("u", "SummingMergeTree", Some(1))));
        assert_eq!(codes(&viewed(table("t", "MergeTree", Some(1)), target.clone())), [""; 0]);
        assert_eq!(codes(&viewed(table("t", "Null", None), target)), [""; 0]);
    }

    #[test]
    fn a_table_without_a_window_gets_the_statement_that_gives_it_one() {
        let [problem] = &exactly_once_problems(&table("t", "MergeTree", Some(0)))[..] else {
            panic!("one problem");
        };
        assert_eq!(
            problem.remedy_sql.as_deref(),
            Some("ALTER TABLE m.t MODIFY SETTING non_replicated_deduplication_window = 10000")
        );
        let replicated = exactly_once_problems(&table("t", "ReplicatedMergeTree", Some(0)));
        let sql = replicated[0].remedy_sql.as_deref().unwrap();
        assert!(sql.contains(" replicated_deduplication_window = 10000"), "{sql}");
        let mut forgets = table("t", "ReplicatedMergeTree", Some(9));
        forgets.window = Some(Window { entries: 9, seconds: Some(0) });
        assert_eq!(codes(&forgets), ["no_window"]);
    }

    #[test]
    fn a_target_is_found_through_two_views() {
        let last = table(".inner_id.7", "MergeTree", Some(0));
        let middle = viewed(table("u", "MergeTree", Some(5)), Target::Table(Box::new(last)));
        let first = viewed(table("t", "MergeTree", Some(5)), Target::Table(Box::new(middle)));
        let problems = exactly_once_problems(&first);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].code, "view_target_no_window");
        let sql = problems[0].remedy_sql.as_deref().unwrap();
        assert!(sql.starts_with("ALTER TABLE m.`.inner_id.7` MODIFY SETTING"), "{sql}");
    }

    #[test]
    fn engines_that_ignore_tokens_are_refused_each_with_its_reason() {
        for (engine, reason) in [
            ("Distributed", "local table of each shard"),
            ("Buffer", "lost in a crash"),
            ("Null", "nothing is stored"),
            ("Memory", "the engine Memory"),
            ("MaterializedView", "is a view"),
        ] {
            let problems = exactly_once_problems(&table("t", engine, None));
            assert_eq!(problems.len(), 1, "{engine}");
            assert_eq!(problems[0].code, "engine_ignores_tokens");
            assert!(problems[0].what.contains(reason), "{problems:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_no_promise() {
        let place = Place { database: "x".to_owned(), name: "y".to_owned() };
        let facts = viewed(table("t", "MergeTree", Some(1)), Target::Hidden(place));
        assert_eq!(codes(&facts), ["view_hidden"]);
        let facts = viewed(table("t", "MergeTree", Some(1)), Target::Unknown);
        assert_eq!(codes(&facts), ["view_hidden"]);
    }
}
