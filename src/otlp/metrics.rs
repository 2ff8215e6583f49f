//! The metrics of a scrape in OpenTelemetry's words. Nothing is measured here, and nothing named.
//!
//! Names, labels and values are those of `/metrics`; all sums are cumulative since the process began.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::words::{scope, text};
use crate::metrics::families::{Family, Kind, Sample};

/// When the counting began, and now: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

pub(super) fn request(
    families: &[Family<'_>],
    times: Times,
    resource: &Resource,
) -> ExportMetricsServiceRequest {
    let known = families.iter().filter(|family| !family.samples.is_empty());
    let metrics = known.map(|family| metric(family, times)).collect();
    let metrics = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
    let resource = Some(resource.clone());
    let metrics =
        ResourceMetrics { resource, scope_metrics: vec![metrics], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
}

fn metric(family: &Family<'_>, times: Times) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || family.samples.iter().filter_map(|sample| point(sample, times)).collect();
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: histograms(&family.samples, times),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family.unit).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// OpenTelemetry writes units as UCUM does.
fn unit(unit: &str) -> &str {
    match unit {
        "seconds" => "s",
        "bytes" => "By",
        other => other,
    }
}

fn point(sample: &Sample<'_>, times: Times) -> Option<NumberDataPoint> {
    let value = match sample.value.parse() {
        Ok(whole) => Value::AsInt(whole),
        Err(_) => Value::AsDouble(sample.value.parse().ok()?),
    };
    Some(NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn attributes(labels: &[(&str, Cow<'_, str>)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

/// A series is several lines, one behind the other: its buckets, which are counted from below, its sum
/// and its count.
fn histograms(samples: &[Sample<'_>], times: Times) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    for sample in samples {
        let is_bound = |label: &(&str, Cow<'_, str>)| label.0 == "le";
        let bound = sample.labels.iter().find(|label| is_bound(label));
        let mut labels = sample.labels.clone();
        labels.retain(|label| !is_bound(label));
        let attributes = attributes(&labels);
        if points.last().is_none_or(|last| last.attributes != attributes) {
            points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
        }
        let Some(point) = points.last_mut() else { continue };
        let count = || sample.value.parse().unwrap_or_default();
        match (sample.suffix, bound) {
            ("_sum", _) => point.sum = sample.value.parse().ok(),
            ("_count", _) => point.count = count(),
            (_, Some((_, bound))) => {
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(count().saturating_sub(below));
                point.explicit_bounds.extend(bound.parse().ok().filter(|b: &f64| b.is_finite()));
            }
            _ => {}
        }
    }
    points
}

#[cfg(test)]
mod tests;
