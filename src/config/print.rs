//! The effective configuration as TOML, secrets hidden.

use serde_json::Value as Json;

use super::Config;
use super::raw::{Raw, Writer};
use super::units::{Size, Span};

/// What a file would have to say to mean just this configuration.
pub(super) fn effective(mut raw: Raw, config: &Config) -> String {
    raw.instance = Some(config.instance.clone());
    raw.backpressure.pull_limit = Some(config.backpressure.pull_limit);
    for (name, writer) in &config.writers {
        let shown = Writer {
            batch_rows: Some(writer.batch_rows),
            batch_bytes: Some(Size(writer.batch_bytes)),
            linger: Some(Span(writer.linger)),
        };
        raw.writers.insert(name.clone(), shown);
    }
    toml::to_string(&raw).expect("keys are strings, and null is left out")
}

/// A JSON value as TOML has it. TOML has no null: a null within is left out.
pub(super) fn plain(value: &Json) -> toml::Value {
    match value {
        Json::Null => toml::Value::String(String::new()),
        Json::Bool(yes) => (*yes).into(),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => number.as_f64().map_or_else(|| number.to_string().into(), Into::into),
        },
        Json::Array(items) => {
            toml::Value::Array(items.iter().filter(|item| !item.is_null()).map(plain).collect())
        }
        Json::Object(table) => toml::Value::Table(
            table
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), plain(value)))
                .collect(),
        ),
    }
}
