//! Environment variables over the files: `DATA_BRIDGE__SECTION__KEY`, in upper case, two
//! underscores between the parts.
//!
//! The schema says what a text means: an all-digits password stays text, a list is split at its
//! commas. A variable that no key belongs to is an error, an empty one is as if it were not there
//! (compose files write `${NAME:-}`). Librdkafka's properties have dots where a variable has
//! underscores: `DATA_BRIDGE__KAFKA__CLIENT__SASL_MECHANISM` is `sasl.mechanism`.

use std::ffi::OsString;

use config::{Map, Value, ValueKind};
use serde_json::Value as Json;

use super::check::expected;
use super::kafka_client;
use super::problem::{Problems, join};
use super::schema;
use super::suggest;

/// Every variable that starts so is configuration; `DATA_BRIDGE_TEST_…` and others are not.
const PREFIX: &str = "DATA_BRIDGE__";

/// A process's variables, or a test's.
pub(super) type Variables = Vec<(OsString, OsString)>;

/// Lays the variables over the tree.
pub(super) fn apply(tree: &mut Value, schema: &Json, vars: &Variables, problems: &mut Problems) {
    let mut vars: Vec<_> = vars
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value)))
        .filter(|(name, _)| name.starts_with("DATA_BRIDGE_"))
        .collect();
    vars.sort();
    for (name, value) in vars {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            missed_underscore(schema, &name, problems);
            continue;
        };
        match target(schema, tree, rest) {
            Err(remedy) => unknown(&name, &value.to_string_lossy(), remedy, problems),
            Ok(target) if value.is_empty() => drop(target),
            Ok(target) => match value.to_str() {
                None => problems.bare(&name, "the value is not UTF-8"),
                Some(text) => match parse(target.schema, text) {
                    Ok(kind) => set(tree, &target.path, Value::new(Some(&name), kind)),
                    Err(remedy) => refuse(&name, &target, text, remedy, problems),
                },
            },
        }
    }
}

fn unknown(name: &str, value: &str, remedy: String, problems: &mut Problems) {
    if suggest::looks_secret(name) {
        problems.bare(name, remedy);
    } else {
        problems.text(name, value, remedy);
    }
}

/// `DATA_BRIDGE_KAFKA__BROKERS` would be ignored in silence.
fn missed_underscore(schema: &Json, name: &str, problems: &mut Problems) {
    let Some((section, rest)) = name["DATA_BRIDGE_".len()..].split_once("__") else { return };
    if schema::property(schema, &section.to_lowercase()).is_some() {
        problems.bare(name, format!("did you mean {PREFIX}{section}__{rest}?"));
    }
}

fn refuse(name: &str, target: &Target<'_>, text: &str, remedy: String, problems: &mut Problems) {
    let key = format!("{name}: {}", target.path.join("."));
    if schema::branches(target.schema).iter().any(schema::is_secret) {
        problems.bare(&key, remedy);
    } else {
        problems.text(&key, text, remedy);
    }
}

struct Target<'a> {
    path: Vec<String>,
    schema: &'a Json,
}

/// The key that a variable means; else what is wrong with it.
fn target<'a>(root: &'a Json, tree: &Value, rest: &str) -> Result<Target<'a>, String> {
    let mut path: Vec<String> = Vec::new();
    let (mut schema, mut node) = (root, Some(tree));
    for part in rest.split("__") {
        let mut key = part.to_lowercase();
        if path == ["kafka", "client"] {
            key = kafka_client::property_of(&key);
        } else if schema::has_free_keys(schema) {
            key = known_name(node, &key).unwrap_or(key);
        }
        if schema::branch(schema, "object").is_none() {
            return Err(format!(
                "`{}` has no keys of its own; {}",
                path.join("."),
                if path == ["routes"] { "routes are set in a file" } else { "set it as a whole" }
            ));
        }
        let Some(inner) = schema::property(schema, &key).filter(|_| !key.is_empty()) else {
            let written = join(&path.join("."), &key);
            let remedy = remedy(root, schema, &path, &key);
            return Err(format!("there is no key `{written}`; {remedy}"));
        };
        node = node.and_then(|node| super::problem::child(node, &key));
        path.push(key);
        schema = inner;
    }
    Ok(Target { path, schema })
}

fn remedy(root: &Json, table: &Json, path: &[String], key: &str) -> String {
    match suggest::nearest(schema::keys(table), key) {
        None => suggest::key(root, table, key),
        Some(near) => {
            let parts = path.iter().map(String::as_str).chain([near]);
            let name: Vec<_> = parts.map(str::to_uppercase).collect();
            format!("did you mean {PREFIX}{}?", name.join("__"))
        }
    }
}

/// The name that a file gave, whatever its case: variables are in upper case.
fn known_name(node: Option<&Value>, key: &str) -> Option<String> {
    let ValueKind::Table(table) = &node?.kind else { return None };
    table.keys().find(|name| name.to_lowercase().replace(['-', '.'], "_") == key).cloned()
}

fn parse(schema: &Json, text: &str) -> Result<ValueKind, String> {
    let bare = text.trim();
    // What may be one text or several is several if there is a comma in it.
    let is_several = bare.contains(',') && schema::branch(schema, "array").is_some();
    if schema::branch(schema, "string").is_some() && !is_several {
        return Ok(text.into());
    }
    if schema::branch(schema, "integer").is_some() {
        let number: Result<i64, _> = bare.replace('_', "").parse();
        return number.map(Into::into).map_err(|_| expected(schema));
    }
    if schema::branch(schema, "boolean").is_some() {
        let yes: Result<bool, _> = bare.parse();
        return yes.map(Into::into).map_err(|_| expected(schema));
    }
    match schema::branch(schema, "array") {
        Some(list) if list["items"]["type"] == "string" => {
            let items = bare.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.map(str::to_owned).collect::<Vec<_>>().into())
        }
        Some(_) => Err("cannot be given by a variable; set it in a file".to_owned()),
        None => Err("is a table; set its keys, each by a variable of its own".to_owned()),
    }
}

fn set(tree: &mut Value, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !matches!(tree.kind, ValueKind::Table(_)) {
        tree.kind = ValueKind::Table(Map::new());
    }
    if let ValueKind::Table(table) = &mut tree.kind {
        // a table that no file has comes from the variable
        let origin = value.origin().map(str::to_owned);
        let none = || Value::new(origin.as_ref(), Map::<String, Value>::new());
        set(table.entry(key.clone()).or_insert_with(none), rest, value);
    }
}
