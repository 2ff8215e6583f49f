//! A whole scrape against what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value;
use tokio::sync::watch;

use super::*;
use crate::live::samples::live_with;
use crate::metrics::{Format, Metrics, families, samples};
use crate::status::Identity;
use crate::status::samples::busy;

const TIMES: Times = Times { start: 1_000_000_000, now: 9_000_000_000 };

fn scrape() -> String {
    let metrics = Metrics::new();
    for millis in [5, 70, 70, 90_000] {
        metrics.insert_finished("aggregate", Duration::from_millis(millis), true);
    }
    metrics.insert_finished("aggregate", Duration::from_millis(300), false);
    let (_, snapshots) = watch::channel(Arc::new(busy()));
    let (identity, live) = (Identity::new("x"), live_with(""));
    samples::exposition(metrics, snapshots, identity, live).text(Format::OpenMetrics)
}

fn converted(text: &str) -> Vec<Metric> {
    let mut request = request(&families(text), TIMES, &Resource::default());
    request.resource_metrics.remove(0).scope_metrics.remove(0).metrics
}

fn labels(attributes: &[KeyValue]) -> String {
    let pair = |pair: &KeyValue| match &pair.value.as_ref().unwrap().value {
        Some(any_value::Value::StringValue(text)) => format!("{}={text:?}", pair.key),
        other => panic!("{other:?}"),
    };
    let pairs: Vec<String> = attributes.iter().map(pair).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// Numbers by series, as a scrape writes them.
fn numbers(metrics: &[Metric]) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    for metric in metrics {
        let (points, suffix) = match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => (&gauge.data_points, ""),
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{}", metric.name);
                (&sum.data_points, "_total")
            }
            _ => continue,
        };
        for point in points {
            let value = match point.value.as_ref().unwrap() {
                #[expect(clippy::cast_precision_loss, reason = "small")]
                Value::AsInt(whole) => *whole as f64,
                Value::AsDouble(value) => *value,
            };
            let series = format!("{}{suffix}{}", metric.name, labels(&point.attributes));
            assert!(numbers.insert(series, value).is_none());
        }
    }
    numbers
}

#[test]
fn every_series_of_a_scrape_is_there_with_its_value_and_no_other() {
    let text = scrape();
    let is_of_a_histogram = |line: &&str| {
        ["insert_duration_seconds_", "batch_rows_", "end_to_end_latency_seconds_"]
            .iter()
            .any(|name| line.starts_with(&format!("data_bridge_{name}")))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let scraped: BTreeMap<String, f64> = lines
        .filter(|line| !is_of_a_histogram(line))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect();
    assert!(scraped.len() > 100);
    assert_eq!(numbers(&converted(&text)), scraped);
}

#[test]
fn units_and_words_are_those_of_opentelemetry_and_ours() {
    let metrics = converted(&scrape());
    let metric = |name: &str| metrics.iter().find(|m| m.name == name).unwrap();
    let paused = metric("data_bridge_paused_seconds");
    assert_eq!(
        (paused.unit.as_str(), paused.description.as_str()),
        ("s", "Time spent in episodes of backpressure")
    );
    assert_eq!(metric("data_bridge_max_buffer_bytes").unit, "By");
    let Some(Data::Sum(sum)) = &paused.data else { panic!("{paused:?}") };
    let point = &sum.data_points[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (TIMES.start, TIMES.now));
}

#[test]
fn a_histogram_keeps_its_buckets_each_counted_by_itself() {
    let metrics = converted(&scrape());
    let name = "data_bridge_insert_duration_seconds";
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    let by_labels: BTreeMap<String, &HistogramDataPoint> =
        histogram.data_points.iter().map(|point| (labels(&point.attributes), point)).collect();
    assert_eq!(by_labels.len(), 2);
    let ok = by_labels["{writer=\"aggregate\",result=\"ok\"}"];
    assert_eq!(ok.explicit_bounds.len() + 1, ok.bucket_counts.len(), "one is to infinity");
    assert_eq!(ok.bucket_counts, [1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((ok.count, ok.sum), (4, Some(90.145)));
    assert_eq!(by_labels["{writer=\"aggregate\",result=\"failed\"}"].count, 1);
}
