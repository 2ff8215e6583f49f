//! The effective configuration as TOML, secrets hidden.

use serde_json::Value as Json;

use super::Config;
use super::raw::{Raw, Writer};
use super::units::{Size, Span};
use crate::backpressure::auto::Auto;

/// What a file would have to say to mean just this configuration.
pub(super) fn effective(mut raw: Raw, config: &Config) -> String {
    raw.instance = Some(config.instance.clone());
    let limits = &config.backpressure;
    let auto = limits.auto.clone().map(Auto::new);
    if auto.is_none() {
        raw.backpressure.pull_limit = Some(limits.pull_limit);
        raw.backpressure.max_buffer_bytes = Some(Size(limits.max_buffer_bytes));
    }
    if let (Some(shown), Some(kafka)) = (&mut raw.kafka, &config.kafka) {
        shown.prefetch_bytes = Some(Size(kafka.prefetch_bytes));
    }
    let jetstream = config.nats.as_ref().and_then(|nats| nats.jetstream.as_ref());
    let shown = raw.nats.as_mut().and_then(|nats| nats.jetstream.as_mut());
    if let (Some(shown), Some(jetstream)) = (shown, jetstream) {
        shown.prefetch_bytes = Some(Size(jetstream.prefetch_bytes));
    }
    for (name, writer) in &config.writers {
        let shown = Writer {
            batch_rows: Some(writer.batch_rows),
            batch_bytes: Some(Size(writer.batch_bytes)),
            linger: Some(Span(writer.linger)),
            batch_rows_min: Some(writer.batch_rows_min).filter(|_| config.clickhouse.adaptive),
            batch_rows_max: Some(writer.batch_rows_max).filter(|_| config.clickhouse.adaptive),
        };
        raw.writers.insert(name.clone(), shown);
    }
    let text = toml::to_string(&raw).expect("keys are strings, and null is left out");
    let Some(auto) = auto else { return text };
    format!(
        "# thresholds = \"auto\" begins with max_buffer_size = {}, pause_threshold = {}, \
         resume_threshold = {},\n# pull_limit = {}, max_buffer_bytes = \"{}\", because of \
         {}.\n\n{text}",
        limits.max_buffer_size,
        limits.pause_threshold,
        limits.resume_threshold,
        limits.pull_limit,
        Size(limits.max_buffer_bytes),
        auto.why()
    )
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
