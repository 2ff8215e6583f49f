//! Holds a tree of values against the schema: unknown keys, wrong types, missing keys, units.
//! What passes can be read into the raw structs; whether it makes sense is for `validate`.

use config::{Value, ValueKind};
use serde_json::Value as Json;

use super::kafka_client;
use super::problem::{Problems, join, shorten};
use super::schema;
use super::suggest;
use super::units::{DURATION, HIDDEN, SIZE, Size, Span};

/// The tree as JSON, for the raw structs; what is wrong with it goes to `problems`.
pub(super) fn check(schema: &Json, tree: &Value, problems: &mut Problems) -> Json {
    Check { root: schema, problems }.value("", schema, tree)
}

struct Check<'a> {
    root: &'a Json,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn value(&mut self, path: &str, schema: &Json, value: &Value) -> Json {
        let Some(branch) = schema::branch(schema, type_name(&value.kind)) else {
            self.wrong_type(path, schema, value);
            return Json::Null;
        };
        match &value.kind {
            ValueKind::Table(table) if branch.get("type").is_some() => {
                self.table(path, branch, table)
            }
            ValueKind::Array(items) if branch.get("items").is_some() => {
                let item =
                    |(index, item)| self.value(&format!("{path}[{index}]"), &branch["items"], item);
                Json::Array(items.iter().enumerate().map(item).collect())
            }
            ValueKind::String(text) => {
                self.text(path, branch, text);
                Json::from(text.as_str())
            }
            ValueKind::I64(number) => {
                self.range(path, branch, i128::from(*number));
                Json::from(*number)
            }
            // larger than any limit: YAML and JSON can say so
            ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_)
                if branch.get("type").is_some() =>
            {
                self.problems.push(path, show(value), expected(branch));
                Json::Null
            }
            kind => json(kind),
        }
    }

    fn table(&mut self, path: &str, schema: &Json, table: &config::Map<String, Value>) -> Json {
        let mut keys: Vec<&String> = table.keys().collect();
        keys.sort(); // a hash map has no order: the same mistakes, the same message
        let mut out = serde_json::Map::new();
        for key in keys {
            let (path, value) = (join(path, key), &table[key]);
            match schema::property(schema, key) {
                Some(property) => {
                    out.insert(key.clone(), self.value(&path, property, value));
                }
                None => self.unknown(&path, key, schema, value),
            }
        }
        for required in schema.get("required").and_then(Json::as_array).into_iter().flatten() {
            let key = required.as_str().unwrap_or_default();
            if !table.contains_key(key) {
                self.problems.bare(
                    &join(path, key),
                    format!("is missing; {}", expected(&schema["properties"][key])),
                );
            }
        }
        Json::Object(out)
    }

    fn unknown(&mut self, path: &str, key: &str, schema: &Json, value: &Value) {
        let remedy = suggest::key(self.root, schema, key);
        let hide = suggest::looks_secret(key);
        let shown = if hide { HIDDEN.to_owned() } else { show(value) };
        self.problems.push(path, shown, format!("unknown key; {remedy}"));
    }

    fn wrong_type(&mut self, path: &str, schema: &Json, value: &Value) {
        let secret = schema::branches(schema).iter().any(schema::is_secret)
            || path.strip_prefix("kafka.client.").is_some_and(kafka_client::is_secret);
        let shown = if secret { HIDDEN.to_owned() } else { show(value) };
        let text = match (&value.kind, schema::format(schema)) {
            (ValueKind::I64(number), Some(DURATION)) => {
                format!("a duration needs a unit, for example \"{number}s\" or \"{number}ms\"")
            }
            (ValueKind::I64(number), Some(SIZE)) => {
                format!("a size needs a unit, for example \"{number}MiB\" or \"{number}B\"")
            }
            (ValueKind::I64(_) | ValueKind::Float(_), _)
                if schema::branch(schema, "string").is_some() =>
            {
                format!("{}; put it in quotes", expected(schema))
            }
            (ValueKind::String(text), _) if schema::branch(schema, "integer").is_some() => {
                match text.replace('_', "").parse::<i64>() {
                    Ok(number) => format!("{}; without quotes: {number}", expected(schema)),
                    Err(_) => expected(schema),
                }
            }
            (ValueKind::String(text), _) if schema::branch(schema, "array").is_some() => {
                format!("{}; in brackets: [\"{}\"]", expected(schema), shorten(text))
            }
            _ => expected(schema),
        };
        self.problems.push(path, shown, text);
    }

    fn text(&mut self, path: &str, schema: &Json, text: &str) {
        let wrong = match schema::format(schema) {
            Some(DURATION) => Span::parse(text).err(),
            Some(SIZE) => Size::parse(text).err(),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.problems.text(path, text, wrong);
        }
        let Some(allowed) = schema::allowed(schema) else { return };
        if !allowed.contains(&text) {
            let wrong = expected(schema);
            self.problems.text(path, text, wrong);
        }
    }

    fn range(&mut self, path: &str, schema: &Json, number: i128) {
        let bound = |name: &str| schema.get(name).and_then(Json::as_i64).map(i128::from);
        let low = bound("minimum").is_some_and(|minimum| number < minimum);
        let high = bound("maximum").is_some_and(|maximum| number > maximum);
        if low || high {
            self.problems.push(path, number, expected(schema));
        }
    }
}

/// What would be right, in words.
pub(super) fn expected(schema: &Json) -> String {
    if let Some(allowed) = schema::allowed(schema) {
        let list: Vec<_> = allowed.iter().map(|text| format!("\"{text}\"")).collect();
        return format!("must be {}", list.join(" or "));
    }
    let kinds: Vec<String> = schema::branches(schema).iter().map(kind).collect();
    format!("must be {}", kinds.join(" or "))
}

fn kind(schema: &Json) -> String {
    match (schema.get("type").and_then(Json::as_str), schema::format(schema)) {
        (_, Some(DURATION)) => "a duration with its unit, such as \"5s\"".to_owned(),
        (_, Some(SIZE)) => "a size with its unit, such as \"64MiB\"".to_owned(),
        (Some("string"), _) => "a text".to_owned(),
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("integer"), _) => whole_number(schema),
        (Some("array"), _) if schema["items"]["type"] == "object" => {
            "a list of tables ([[…]])".to_owned()
        }
        (Some("array"), _) => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
        (Some("object"), _) if !schema::has_free_keys(schema) => {
            format!("a table with the keys {}", schema::keys(schema).collect::<Vec<_>>().join(", "))
        }
        (Some("object"), _) => "a table".to_owned(),
        _ => "a value".to_owned(),
    }
}

fn whole_number(schema: &Json) -> String {
    let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
    match (bound("minimum"), bound("maximum")) {
        (Some(low), Some(high)) => format!("a whole number from {low} to {high}"),
        (Some(low), None) => format!("a whole number, at least {low}"),
        _ => "a whole number".to_owned(),
    }
}

fn type_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "null",
        ValueKind::Boolean(_) => "boolean",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "integer"
        }
        ValueKind::Float(_) => "number",
        ValueKind::String(_) => "string",
        ValueKind::Table(_) => "object",
        ValueKind::Array(_) => "array",
    }
}

/// A value as JSON, whatever it is.
fn json(kind: &ValueKind) -> Json {
    match kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(yes) => Json::from(*yes),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::I128(number) => Json::from(number.to_string()),
        ValueKind::U128(number) => Json::from(number.to_string()),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::from(text.as_str()),
        ValueKind::Array(items) => items.iter().map(|item| json(&item.kind)).collect(),
        ValueKind::Table(table) => Json::Object(
            table.iter().map(|(key, value)| (key.clone(), json(&value.kind))).collect(),
        ),
    }
}

fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) => "{…}".to_owned(), // may hold a secret
        kind => shorten(&json(kind).to_string()),
    }
}
