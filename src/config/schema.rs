//! The shape of a configuration, as a JSON Schema made from the raw structs: editors read it, and
//! so does the loader, to know what an environment variable's text means and which keys exist.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::Raw;

/// The JSON Schema of a configuration file.
#[must_use]
pub fn json_schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Raw>().to_value();
    without_null(&mut schema);
    schema
}

/// Optional keys are left out, never null: TOML has no null.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            unwrap_single(object);
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// `anyOf [X, null]` becomes X, which keeps the description of the key.
fn unwrap_single(object: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
    let [Value::Object(only)] = branches.as_slice() else { return };
    let only = only.clone();
    object.remove("anyOf");
    for (key, value) in only {
        object.entry(key).or_insert(value);
    }
}

/// What the schema says of a key of a table; None if the table has no such key.
pub(super) fn property<'a>(table: &'a Value, key: &str) -> Option<&'a Value> {
    let any = || table.get("additionalProperties").filter(|schema| schema.is_object());
    table.get("properties").and_then(|properties| properties.get(key)).or_else(any)
}

/// The keys that a table names.
pub(super) fn keys(table: &Value) -> impl Iterator<Item = &str> {
    table.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| &**key)
}

/// Whether the keys of this table are free, such as the names of writers.
pub(super) fn has_free_keys(table: &Value) -> bool {
    table.get("additionalProperties").is_some_and(Value::is_object)
}

/// The branches of a schema: itself, unless it says `anyOf`.
pub(super) fn branches(schema: &Value) -> &[Value] {
    match schema.get("anyOf") {
        Some(Value::Array(branches)) => branches,
        _ => std::slice::from_ref(schema),
    }
}

/// The branch for values of the type of this name.
pub(super) fn branch<'a>(schema: &'a Value, type_name: &str) -> Option<&'a Value> {
    branches(schema).iter().find(|branch| match branch.get("type") {
        Some(Value::String(name)) => name == type_name,
        Some(Value::Array(names)) => names.iter().any(|name| name == type_name),
        // no type: a `const` list is of strings, everything else takes anything
        _ => branch.get("oneOf").is_none() || type_name == "string",
    })
}

/// The texts that are allowed, where only some are.
pub(super) fn allowed(schema: &Value) -> Option<Vec<&str>> {
    if let Some(Value::Array(values)) = schema.get("enum") {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let Some(Value::Array(variants)) = schema.get("oneOf") else { return None };
    // those that have something to say of themselves stand alone, the others in a list
    Some(variants.iter().flat_map(texts_of).collect())
}

fn texts_of(variant: &Value) -> Vec<&str> {
    match (variant.get("const"), variant.get("enum")) {
        (Some(text), _) => text.as_str().into_iter().collect(),
        (None, Some(Value::Array(values))) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether the value must never be shown.
pub(super) fn is_secret(schema: &Value) -> bool {
    format(schema) == Some(super::units::SECRET)
}

pub(super) fn format(schema: &Value) -> Option<&str> {
    schema.get("format").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_that_say_nothing_of_themselves_are_allowed_too() {
        let told = json!({ "const": "a", "type": "string", "description": "is told" });
        let mixed = json!({ "oneOf": [told, { "enum": ["b", "c"], "type": "string" }] });
        assert_eq!(allowed(&mixed), Some(vec!["a", "b", "c"]));
    }
}
