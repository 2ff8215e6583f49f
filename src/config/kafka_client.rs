//! `[kafka.client]`: librdkafka's own properties, passed through, but for those that the bridge
//! relies on.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Map, Value, ValueKind};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::problem::Problems;
use super::secret;
use super::suggest;
use super::units::HIDDEN;

/// Set by the bridge, and where to say it instead. Without them it would lose or repeat records.
const OURS: [(&str, &str); 7] = [
    ("bootstrap.servers", "use kafka.brokers"),
    ("group.id", "use kafka.group_id"),
    ("enable.auto.commit", "the bridge commits what is durable"),
    ("enable.auto.offset.store", "the bridge commits what is durable"),
    ("auto.offset.reset", "use kafka.auto_offset_reset"),
    ("enable.partition.eof", "the bridge does not read it"),
    ("queued.max.messages.kbytes", "use kafka.prefetch_bytes"),
];

/// Other names that librdkafka has for them.
const ALIASES: [(&str, &str); 1] = [("metadata.broker.list", "bootstrap.servers")];

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "boolean" }]
        }
    })
}

/// Nested tables become dotted keys: `security.protocol` without quotes is a table in TOML.
pub(super) fn flatten(tree: &mut Value) {
    let ValueKind::Table(root) = &mut tree.kind else { return };
    let Some(kafka) = root.get_mut("kafka") else { return };
    let ValueKind::Table(kafka) = &mut kafka.kind else { return };
    let Some(client) = kafka.get_mut("client") else { return };
    if let ValueKind::Table(nested) = &mut client.kind {
        let mut flat = Map::new();
        flatten_into(&mut flat, "", std::mem::take(nested));
        *nested = flat;
    }
}

fn flatten_into(flat: &mut Map<String, Value>, prefix: &str, table: Map<String, Value>) {
    for (key, value) in table {
        let key = super::problem::join(prefix, &key);
        match value.kind {
            ValueKind::Table(inner) => flatten_into(flat, &key, inner),
            _ => {
                flat.insert(key, value);
            }
        }
    }
}

/// `sasl_mechanism`, from a variable's name, is `sasl.mechanism`: no property has an underscore.
pub(super) fn property_of(variable: &str) -> String {
    let property = variable.replace('_', ".");
    match property.strip_suffix(".file") {
        Some(secret) if is_secret(secret) => format!("{secret}_file"),
        _ => property,
    }
}

/// Whether a property's value must never be shown. Rather one too many: all that librdkafka itself
/// calls sensitive, but for names of users and files.
#[must_use]
pub fn is_secret(property: &str) -> bool {
    let secret = ["password", "passphrase", "secret", "pem", "jaas", "oauthbearer.config"];
    secret.iter().any(|word| property.contains(word))
}

/// For printing: secrets hidden.
pub(super) fn hidden<S: Serializer>(
    client: &BTreeMap<String, Json>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown: BTreeMap<_, _> = client
        .iter()
        .map(|(name, value)| {
            let hide = is_secret(name) && !name.ends_with("_file");
            (name, if hide { HIDDEN.into() } else { super::print::plain(value) })
        })
        .collect();
    shown.serialize(serializer)
}

/// The properties as librdkafka takes them; secrets read from their files.
pub(super) fn properties(
    client: &BTreeMap<String, Json>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (name, value) in client {
        let path = format!("kafka.client.{name}");
        let text = match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        if refused(name, &path, &text, problems) {
            continue;
        }
        match name.strip_suffix("_file").filter(|secret| is_secret(secret)) {
            None => {
                out.insert(name.clone(), text);
            }
            Some(property) if client.contains_key(property) => {
                problems.text(&path, &text, format!("give {property} or {name}, not both"));
            }
            Some(property) => {
                if let Some(secret) = secret::read(&path, Path::new(&text), problems) {
                    out.insert(property.to_owned(), secret);
                }
            }
        }
    }
    out
}

fn refused(name: &str, path: &str, text: &str, problems: &mut Problems) -> bool {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let property = alias.map_or(name, |(_, property)| property);
    if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == property) {
        let all: Vec<_> = OURS.iter().map(|(ours, _)| *ours).collect();
        let all = all.join(", ");
        problems.text(path, text, format!("the bridge sets it: {instead} (it sets {all})"));
        return true;
    }
    let slip = name.contains('_') && !name.ends_with("_file");
    if slip || name != name.trim() || name.is_empty() {
        let dotted = name.trim().replace('_', ".");
        let shown = if suggest::looks_secret(name) { HIDDEN } else { text };
        problems.text(path, shown, format!("not a librdkafka property; did you mean `{dotted}`?"));
        return true;
    }
    false
}
