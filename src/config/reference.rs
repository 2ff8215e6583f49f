//! The configuration's reference for people, made from the schema: `docs/configuration.md`.
//!
//! Owns how a key is laid out, and no fact about any key: what is said there is said once, in the
//! comments of the raw structs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::{allowed, branch, branches, format, json_schema};
use super::units::{DURATION, SECRET, SIZE};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `data-bridge config --reference`; a test compares it. Change the comments in src/config/raw*.rs instead. -->

TOML, or YAML and JSON by the file's extension. Without `--config` the bridge reads
`./config/data-bridge.toml`; of several `--config PATH` a later file goes over those before it, table
by table, and replaces lists whole. Variables go over all files: `DATA_BRIDGE__SECTION__KEY`, for
example `DATA_BRIDGE__BACKPRESSURE__PAUSE_THRESHOLD=24000`; a list is written with commas. An unknown
key, a value out of range or a missing unit is refused, with what would be right, and exit code 64.
`data-bridge config` prints what all of it amounts to.

| type | is written |
| --- | --- |
| duration | with its unit: `\"500ms\"`, `\"5s\"`, `\"1m 30s\"` |
| size | with its unit: `\"512KiB\"`, `\"64MiB\"`, `\"1GB\"` |
| secret | as text, better as the path of a file in `KEY_file`; never printed |
| integer | `40_000` or `40000` |
";

const BOOLEAN: &str = "true or false";

/// The reference, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut sections = Sections::default();
    section(&mut sections, &Place::default(), &json_schema(), "Keys outside of any table.");
    format!("{INTRODUCTION}\n{}{}", sections.contents(), sections.text)
}

/// What has been written so far, in order.
#[derive(Debug, Default)]
struct Sections {
    text: String,
    /// Where each stands, and what it is for.
    headed: Vec<(Place, String)>,
}

impl Sections {
    fn open(&mut self, place: Place, about: &str) {
        self.add(&format!("\n## {}\n\n{about}\n", place.heading()));
        self.headed.push((place, about.to_owned()));
    }

    fn add(&mut self, more: &str) {
        write(&mut self.text, more);
    }

    /// A row for each table of the top, with what stands inside it behind.
    fn contents(&self) -> String {
        let mut text = "| table | is for | inside |\n| --- | --- | --- |\n".to_owned();
        for group in self.headed.chunk_by(|(one, _), (next, _)| one.first() == next.first()) {
            let Some(((first, about), inside)) = group.split_first() else { continue };
            let sentence = about.split_once(". ").map_or(about.as_str(), |(sentence, _)| sentence);
            let inside = inside.iter().map(|(place, _)| {
                let below = &place.path[first.first().len() + 1..];
                format!("[`{below}`](#{})", place.anchor())
            });
            let cells = [
                format!("[{}](#{})", first.heading(), first.anchor()),
                sentence.trim_end_matches('.').replace('|', "\\|"),
                inside.collect::<Vec<_>>().join(", "),
            ];
            write(&mut text, &format!("| {} |\n", cells.join(" | ")));
        }
        text
    }
}

/// Where a table stands.
#[derive(Debug, Clone, Default)]
struct Place {
    path: String,
    is_list: bool,
}

impl Place {
    fn inside(&self, key: &str, is_list: bool) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{key}", self.path), is_list }
    }

    /// The table of the top that it is, or is in.
    fn first(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }

    /// Of its heading, as GitHub makes it.
    fn anchor(&self) -> String {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
        self.heading().chars().filter(kept).collect::<String>().to_lowercase().replace(' ', "-")
    }

    fn heading(&self) -> String {
        match (self.path.as_str(), self.is_list) {
            ("", _) => "Top level".to_owned(),
            (path, true) => format!("`[[{path}]]`"),
            (path, false) => format!("`[{path}]`"),
        }
    }
}

/// A table: what it is for, its keys, then the tables in it.
fn section(sections: &mut Sections, place: &Place, table: &Value, about: &str) {
    sections.open(place.clone(), about);
    let none = Map::new();
    let keys = table.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let (tables, values): (Vec<_>, Vec<_>) =
        keys.iter().partition(|(_, schema)| inner(schema).is_some());
    if !values.is_empty() {
        sections.add("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    }
    for (key, schema) in values {
        sections.add(&row(table, key, schema));
    }
    for (key, schema) in tables {
        let Some((table, is_list)) = inner(schema) else { continue };
        let place = place.inside(key, is_list);
        let about = description(schema);
        match table.get("additionalProperties").filter(|free| free.is_object()) {
            Some(free) => named(sections, &place, free, &about),
            None => section(sections, &place, table, &about),
        }
    }
}

/// A table whose keys are free: names of writers, columns, properties.
fn named(sections: &mut Sections, place: &Place, value: &Value, about: &str) {
    match branch(value, "object").filter(|table| table.get("properties").is_some()) {
        None => {
            sections.open(place.clone(), about);
            sections.add(&format!("\nEach value: {}.\n", type_of(value)));
        }
        Some(table) => {
            let mut about = about.to_owned();
            let also = description(value);
            if !also.is_empty() {
                about = format!("{about} {also}");
            }
            if let Some(short) = branches(value).iter().find(|b| !std::ptr::eq(*b, table)) {
                let kind = type_of(short);
                about = format!("{about} A {kind} in place of the table stands for its `from`.");
            }
            section(sections, &place.inside("NAME", false), table, about.trim());
        }
    }
}

/// The table that a key holds, or holds a list of.
fn inner(schema: &Value) -> Option<(&Value, bool)> {
    let is_table = |schema: &Value| {
        schema.get("properties").is_some()
            || schema.get("additionalProperties").is_some_and(Value::is_object)
    };
    if is_table(schema) {
        return Some((schema, false));
    }
    schema.get("items").filter(|items| is_table(items)).map(|items| (items, true))
}

fn row(table: &Value, key: &str, schema: &Value) -> String {
    let required = table.get("required").and_then(Value::as_array);
    let is_required = required.into_iter().flatten().any(|name| name == key);
    let whole = description(schema);
    // a default that depends on others is told in words, at the end
    let (meaning, told) = match whole.split_once("Default: ") {
        Some((meaning, told)) => (meaning.trim(), Some(told.trim_end_matches('.'))),
        None => (whole.as_str(), None),
    };
    let default = match (schema.get("default"), told) {
        (_, Some(told)) => told.to_owned(),
        (Some(value), None) => format!("`{value}`"),
        (None, None) if is_required => "required".to_owned(),
        (None, None) if kind_of(schema) == BOOLEAN => "`false`".to_owned(),
        (None, None) => "none".to_owned(),
    };
    let cells = [format!("`{key}`"), type_of(schema), default, meaning.to_owned() + &cases(schema)];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// What each of a few allowed texts means, where that is said.
fn cases(schema: &Value) -> String {
    let mut text = String::new();
    for case in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let about = description(case);
        if let (Some(name), false) = (case.get("const").and_then(Value::as_str), about.is_empty()) {
            write(&mut text, &format!(" `{name}`: {about}"));
        }
    }
    text
}

fn type_of(schema: &Value) -> String {
    if let Some(names) = allowed(schema) {
        return names.iter().map(|name| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", ");
    }
    let kinds: Vec<_> = branches(schema).iter().map(kind_of).collect();
    kinds.join(" or ")
}

fn kind_of(schema: &Value) -> String {
    let name = schema.get("type").and_then(Value::as_str).unwrap_or("any");
    match (name, format(schema)) {
        ("string", Some(kind @ (DURATION | SIZE))) => kind.to_owned(),
        ("string", Some(SECRET)) => "secret".to_owned(),
        ("string", _) => "text".to_owned(),
        ("boolean", _) => BOOLEAN.to_owned(),
        ("array", _) => {
            let each = schema.get("items").map(type_of);
            format!("list of {}", each.unwrap_or_else(|| "any".to_owned()))
        }
        ("integer" | "number", _) => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!("{name}, {least} to {most}"),
            (Some(least), None) => format!("{name} from {least}"),
            _ => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

/// In one line.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn write(text: &mut String, more: &str) {
    text.write_str(more).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_documents_is_that_of_the_code() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == reference(),
            "docs/configuration.md has drifted from the code: make it again with\n  \
             cargo run -- config --reference > docs/configuration.md"
        );
    }

    #[test]
    fn every_key_has_a_type_and_a_meaning() {
        let text = reference();
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let mut count = 0;
        for row in rows {
            count += 1;
            // the ends of a row are cells too, and `\|` is no border
            let cells: Vec<_> = row.replace("\\|", "/").split('|').map(str::to_owned).collect();
            assert_eq!(cells.len(), 6, "{row}");
            assert!(cells[1..5].iter().all(|cell| !cell.trim().is_empty()), "{row}");
        }
        assert!(count > 60, "{count}");
    }

    #[test]
    fn the_contents_lead_to_every_table() {
        let text = reference();
        let (contents, tables) = text.split_once("\n## ").unwrap();
        let (_, contents) = contents.split_once("| table | is for | inside |").unwrap();
        assert_eq!(contents.matches("](#").count(), tables.matches("\n## ").count() + 1);
        let webhooks = "| [`[webhooks.NAME]`](#webhooksname) | ";
        assert!(contents.contains(webhooks), "{contents}");
        let inside = "| [`columns.NAME`](#routescolumnsname), [`overload`](#routesoverload), ";
        assert!(contents.contains(inside), "{contents}");
    }

    #[test]
    fn every_table_says_what_it_is_for() {
        let text = reference();
        for section in text.split("\n## ").skip(1) {
            let (heading, rest) = section.split_once("\n\n").unwrap();
            assert!(rest.starts_with(char::is_alphabetic), "{heading}");
        }
    }

    #[test]
    fn a_table_a_list_of_tables_and_free_names_are_headed_as_they_are_written() {
        let text = reference();
        for heading in ["[http.tls]", "[[routes]]", "[writers.NAME]", "[routes.columns.NAME]"] {
            assert!(text.contains(&format!("\n## `{heading}`\n")), "{heading}");
        }
        assert!(
            text.contains("\n| `linger` | duration | 1s | Age of its oldest row. |\n"),
            "{text}"
        );
    }
}
