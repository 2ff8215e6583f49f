//! What both signals write.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::config;
use crate::status::Identity;

/// Who says it.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: Identity::SERVICE.to_owned(),
        version: Identity::VERSION.to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Which process it is about. What the configuration says counts.
pub(super) fn resource(config: &config::Otlp, instance: &str) -> Resource {
    let ours = [
        ("service.name", Identity::SERVICE),
        ("service.version", Identity::VERSION),
        ("service.instance.id", instance),
    ];
    let ours = ours.into_iter().filter(|(name, _)| !config.resource.contains_key(*name));
    let theirs = config.resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let attributes = ours.chain(theirs).map(|(name, value)| text(name, value)).collect();
    Resource { attributes, ..Resource::default() }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

pub(super) fn number(key: &str, value: usize) -> KeyValue {
    pair(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Nanoseconds; some centuries at most.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
