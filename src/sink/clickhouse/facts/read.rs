//! What `system.tables` and its neighbours say, read into facts. Pure.
//!
//! Engine, settings and a view's target stand in texts that ClickHouse wrote itself, so that their
//! spelling is known; names and comments in them may hold anything, so nothing is looked for inside
//! quotes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::schema::facts::{
    Place, PositionColumns, TableFacts, Target, View, Window, is_replicated,
};

/// One line of `system.tables`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    database: String,
    name: String,
    uuid: String,
    engine: String,
    engine_full: String,
    partition_key: String,
    sorting_key: String,
    create_table_query: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
}

/// All that was asked for one table.
#[derive(Debug, Default)]
pub(super) struct Answers {
    defaults: Defaults,
    pub(super) columns: Vec<String>,
    rows: BTreeMap<Place, Row>,
}

/// Settings of the server, by their names.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    single: BTreeMap<String, u64>,
    replicated: BTreeMap<String, u64>,
}

pub(super) fn row(line: &str) -> Result<Row, serde_json::Error> {
    serde_json::from_str(line)
}

pub(super) fn defaults(lines: &str) -> Result<Defaults, serde_json::Error> {
    #[derive(Deserialize)]
    struct Setting {
        kind: String,
        name: String,
        value: String,
    }
    let mut defaults = Defaults::default();
    for line in lines.lines() {
        let Setting { kind, name, value } = serde_json::from_str(line)?;
        if let Ok(value) = value.parse() {
            let of = if kind == "single" { &mut defaults.single } else { &mut defaults.replicated };
            of.insert(name, value);
        }
    }
    Ok(defaults)
}

pub(super) fn block_number(line: &str) -> Result<Option<u64>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Blocks {
        single: String,
        replicated: String,
        engine: String,
    }
    let Blocks { single, replicated, engine } = serde_json::from_str(line)?;
    let number = if is_replicated(&engine) { replicated } else { single };
    Ok(number.parse().ok().filter(|_| !engine.is_empty()))
}

impl Row {
    pub(super) fn place(&self) -> Place {
        Place { database: self.database.clone(), name: self.name.clone() }
    }

    /// Where else an insert goes: from a table to its views, from a view to its target.
    pub(super) fn leads_to(&self) -> Vec<Place> {
        let mut places = self.views();
        places.extend(self.target());
        places
    }

    fn views(&self) -> Vec<Place> {
        let pairs = self.dependencies_database.iter().zip(&self.dependencies_table);
        pairs.map(|(d, n)| Place { database: d.clone(), name: n.clone() }).collect()
    }

    /// The table that a materialized view writes to.
    fn target(&self) -> Option<Place> {
        if self.engine != "MaterializedView" {
            return None;
        }
        let query = &self.create_table_query;
        let columns = outside_quotes(query, "(").next().unwrap_or(query.len());
        let named = outside_quotes(query, " TO ").find(|at| *at < columns);
        let named = named.and_then(|at| place(&query[at + " TO ".len()..], &self.database));
        Some(named.unwrap_or_else(|| Place {
            database: self.database.clone(),
            name: match self.uuid.chars().all(|c| matches!(c, '0' | '-')) {
                true => format!(".inner.{}", self.name),
                false => format!(".inner_id.{}", self.uuid),
            },
        }))
    }
}

impl Answers {
    pub(super) fn with(defaults: Defaults) -> Self {
        Self { defaults, ..Self::default() }
    }

    pub(super) fn keep(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.rows.insert(row.place(), row);
        }
    }

    pub(super) fn knows(&self, place: &Place) -> bool {
        self.rows.contains_key(place)
    }

    fn row(&self, place: &Place) -> Option<&Row> {
        self.rows.get(place)
    }
}

/// None: the table is not there.
pub(super) fn facts(root: &Place, answers: &Answers) -> Option<TableFacts> {
    let mut facts = table(root, answers, &[])?;
    let has = |name: &str| answers.columns.iter().any(|column| column == name);
    facts.positions = PositionColumns {
        topic: has("_topic"),
        partition: has("_partition"),
        offset: has("_offset"),
        seq: has("_seq"),
    };
    Some(facts)
}

/// `above`: the tables on the way here, which are not descended into again.
fn table(place: &Place, answers: &Answers, above: &[&Place]) -> Option<TableFacts> {
    let row = answers.row(place)?;
    let above = [above, &[place]].concat();
    let target = |view: &Place| match answers.row(view).and_then(Row::target) {
        None => Target::Unknown,
        Some(target) if above.contains(&&target) => Target::Hidden(target),
        Some(target) => match table(&target, answers, &above) {
            Some(facts) => Target::Table(Box::new(facts)),
            None => Target::Hidden(target),
        },
    };
    let views = row.views().into_iter();
    Some(TableFacts {
        place: place.clone(),
        engine: row.engine.clone(),
        window: window(row, &answers.defaults),
        partition_key: row.partition_key.clone(),
        sorting_key: row.sorting_key.clone(),
        version: version(&row.engine_full),
        ttl: ttl(&row.engine_full),
        views: views.map(|place| View { target: target(&place), place }).collect(),
        positions: PositionColumns::default(),
    })
}

fn window(row: &Row, defaults: &Defaults) -> Option<Window> {
    if !row.engine.ends_with("MergeTree") {
        return None;
    }
    let of = |name: &str, defaults: &BTreeMap<String, u64>| {
        setting(&row.engine_full, name).or_else(|| defaults.get(name).copied())
    };
    if is_replicated(&row.engine) {
        let entries = of("replicated_deduplication_window", &defaults.replicated)?;
        let seconds = of("replicated_deduplication_window_seconds", &defaults.replicated);
        return Some(Window { entries, seconds });
    }
    let entries = of("non_replicated_deduplication_window", &defaults.single)?;
    Some(Window { entries, seconds: None })
}

/// The column behind the path and the replica of `ReplacingMergeTree('/path', 'replica', version)`.
fn version(engine_full: &str) -> Option<String> {
    let (_, rest) = engine_full.split_once("ReplacingMergeTree(")?;
    let (arguments, _) = rest.split_once(')')?;
    let columns = arguments.split(',').map(str::trim);
    columns
        .filter(|argument| !argument.is_empty() && !argument.starts_with('\''))
        .map(str::to_owned)
        .next()
}

/// A number from `… SETTINGS a = 1, b = 2`.
fn setting(engine_full: &str, name: &str) -> Option<u64> {
    let start = outside_quotes(engine_full, " SETTINGS ").last()?;
    let settings = &engine_full[start + " SETTINGS ".len()..];
    let wanted = format!("{name} = ");
    let value = settings.split(", ").find_map(|pair| pair.strip_prefix(&wanted))?;
    value.trim().parse().ok()
}

/// What of `… TTL a + toIntervalDay(1), b TO VOLUME 'cold' SETTINGS …` deletes rows.
fn ttl(engine_full: &str) -> Option<String> {
    let start = outside_quotes(engine_full, " TTL ").last()? + " TTL ".len();
    let rest = &engine_full[start..];
    let end = outside_quotes(rest, " SETTINGS ").last().unwrap_or(rest.len());
    let moves = [" TO DISK ", " TO VOLUME ", " RECOMPRESS ", " GROUP BY "];
    let deletes = elements(&rest[..end])
        .into_iter()
        .filter(|element| moves.iter().all(|keep| outside_quotes(element, keep).next().is_none()))
        .map(|element| element.trim().trim_end_matches(" DELETE"));
    let deletes: Vec<&str> = deletes.collect();
    (!deletes.is_empty()).then(|| deletes.join(", "))
}

/// Split by the commas that are in no quotes and no parentheses.
fn elements(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut all) = (0_usize, 0, Vec::new());
    for (at, character) in unquoted(list) {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                all.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(&list[start..]);
    all
}

/// `name` or `database.name` at the beginning of a text, each plain or in backquotes.
fn place(text: &str, database: &str) -> Option<Place> {
    let (first, rest) = identifier(text)?;
    match rest.strip_prefix('.').map(identifier) {
        Some(second) => Some(Place { database: first, name: second?.0 }),
        None => Some(Place { database: database.to_owned(), name: first }),
    }
}

/// An identifier, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let (mut name, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            '`' if !escaped => return Some((name, &quoted[at + 1..])),
            other => {
                name.push(other);
                escaped = false;
            }
        }
    }
    None
}

/// Where `wanted` begins outside of quotes.
fn outside_quotes<'a>(text: &'a str, wanted: &'a str) -> impl Iterator<Item = usize> + 'a {
    unquoted(text).filter(move |(at, _)| text[*at..].starts_with(wanted)).map(|(at, _)| at)
}

/// The characters that stand in no quotes, with their places.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quote, mut escaped) = (None, false);
    text.char_indices().filter(move |(_, character)| match quote {
        Some(open) => {
            if escaped {
                escaped = false;
            } else if *character == '\\' {
                escaped = true;
            } else if *character == open {
                quote = None;
            }
            false
        }
        None => {
            quote = matches!(character, '\'' | '`' | '"').then_some(*character);
            quote.is_none()
        }
    })
}

#[cfg(test)]
mod tests;
