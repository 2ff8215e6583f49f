//! The text of a scrape, read back by a small strict parser, and compared with `/health`.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::live::samples::live_with;
use crate::status::samples::busy;
use crate::status::{RouteState, Snapshot};

mod named;

/// Samples by name and labels as written, and the type of each family.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads either format and panics at whatever a strict reader would refuse.
    fn read(text: &str, format: Format) -> Self {
        let mut scrape = Self::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        let mut lines = text.strip_suffix('\n').expect("ends with a line feed").lines().peekable();
        while let Some(line) = lines.next() {
            if line == "# EOF" {
                assert_eq!(format, Format::OpenMetrics);
                assert!(lines.peek().is_none(), "nothing follows EOF");
                return scrape;
            }
            let Some(comment) = line.strip_prefix("# ") else {
                scrape.sample(line, &family, format);
                continue;
            };
            let parts: Vec<_> = comment.splitn(3, ' ').collect();
            let [keyword, name, rest] = parts[..] else { panic!("odd comment {line:?}") };
            match keyword {
                "HELP" => {
                    assert!(rest.len() > 10, "{name} has no help");
                    assert!(helped.insert(name.to_owned()), "{name} is described twice");
                    name.clone_into(&mut family);
                }
                "TYPE" => {
                    assert_eq!(name, family, "TYPE follows its HELP");
                    scrape.types.insert(name.to_owned(), rest.to_owned());
                }
                "UNIT" => {
                    assert_eq!(format, Format::OpenMetrics);
                    assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}");
                }
                _ => panic!("odd comment {line:?}"),
            }
        }
        assert_eq!(format, Format::Classic, "OpenMetrics ends with EOF");
        scrape
    }

    fn sample(&mut self, line: &str, family: &str, format: Format) {
        let (series, value) = line.rsplit_once(' ').expect("name and value");
        let value: f64 = value.parse().expect("a number");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with("data_bridge_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(labels.ends_with('}'), "{line}");
        let suffix = name.strip_prefix(family).expect("a sample follows its description");
        let suffixes: &[&str] = match (self.types[family].as_str(), format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("counter", Format::Classic) if family.ends_with("_total") => &[""],
            ("gauge", _) => &[""],
            ("histogram", _) => &["_sum", "_count", "_bucket"],
            other => panic!("odd type {other:?} of {family}"),
        };
        assert!(suffixes.contains(&suffix), "{line} in {family}");
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "{series} twice");
    }

    fn value(&self, series: &str) -> f64 {
        let series = format!("data_bridge_{series}");
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }
}

fn exposition(snapshot: Snapshot, metrics: Metrics) -> Exposition {
    // The receiver keeps the last value when the sender is gone.
    let (_, snapshots) = watch::channel(Arc::new(snapshot));
    samples::exposition(metrics, snapshots, Identity::new("bridge-1"), live_with(""))
}

fn scrape(snapshot: Snapshot, metrics: Metrics) -> Scrape {
    Scrape::read(&exposition(snapshot, metrics).text(Format::OpenMetrics), Format::OpenMetrics)
}

/// Every metric that the bridge promises: dashboards and alerts are written against these.
const PROMISED: &[(&str, &str)] = &[
    ("build_info", "gauge"),
    ("start_time_seconds", "gauge"),
    ("uptime_seconds", "gauge"),
    ("snapshot_age_seconds", "gauge"),
    ("live_connections", "gauge"),
    ("live_subscribers", "gauge"),
    ("live_messages_total", "counter"),
    ("live_keyless_total", "counter"),
    ("live_overrun_total", "counter"),
    ("subscriber_drops_total", "counter"),
    ("subscriber_queue_messages", "gauge"),
    ("subscriber_messages_dropped_total", "counter"),
    ("source_current_rate_limit", "gauge"),
    ("route_current_rate_limit", "gauge"),
    ("config_info", "gauge"),
    ("config_applied_time_seconds", "gauge"),
    ("config_reloads_total", "counter"),
    ("wedged", "gauge"),
    ("status", "gauge"),
    ("needs_person", "gauge"),
    ("buffer_records", "gauge"),
    ("buffer_peak_records", "gauge"),
    ("buffer_bytes", "gauge"),
    ("buffer_utilization_ratio", "gauge"),
    ("pause_threshold_records", "gauge"),
    ("resume_threshold_records", "gauge"),
    ("max_buffer_records", "gauge"),
    ("max_buffer_bytes", "gauge"),
    ("pull_limit_records", "gauge"),
    ("backpressure_active", "gauge"),
    ("pauses_total", "counter"),
    ("paused_seconds_total", "counter"),
    ("record_ahead_seconds", "gauge"),
    ("alert_firing", "gauge"),
    ("alert_notices_total", "counter"),
    ("otlp_requests_total", "counter"),
    ("otlp_spans_dropped_total", "counter"),
    ("breaker_state", "gauge"),
    ("breaker_failures", "gauge"),
    ("breaker_openings_total", "counter"),
    ("breaker_rejects_total", "counter"),
    ("clickhouse_healthy", "gauge"),
    ("clickhouse_unclear_inserts", "gauge"),
    ("input_records_per_second", "gauge"),
    ("output_records_per_second", "gauge"),
    ("overload_tier_in_force", "gauge"),
    ("overload_tier_entries_total", "counter"),
    ("overload_records_dropped_total", "counter"),
    ("full_in_seconds", "gauge"),
    ("drained_in_seconds", "gauge"),
    ("memory_budget_bytes", "gauge"),
    ("record_bytes", "gauge"),
    ("insert_limit", "gauge"),
    ("batch_limit_rows", "gauge"),
    ("fleet_instances", "gauge"),
    ("fleet_connected", "gauge"),
    ("fleet_utilization_ratio", "gauge"),
    ("fleet_slowed", "gauge"),
    ("fleet_slowdowns_total", "counter"),
    ("fleet_ignored_entries", "gauge"),
    ("fleet_peer_utilization_ratio", "gauge"),
    ("fleet_peer_paused", "gauge"),
    ("fleet_peer_lag_records", "gauge"),
    ("records_received_total", "counter"),
    ("records_inserted_total", "counter"),
    ("records_dead_lettered_total", "counter"),
    ("records_filtered_total", "counter"),
    ("records_released_total", "counter"),
    ("records_dropped_total", "counter"),
    ("reconnects_total", "counter"),
    ("slow_consumer_events_total", "counter"),
    ("publish_refused_requests_total", "counter"),
    ("held_records", "gauge"),
    ("uncommitted_records", "gauge"),
    ("source_paused", "gauge"),
    ("source_held_topics", "gauge"),
    ("source_connected", "gauge"),
    ("source_ended", "gauge"),
    ("source_natively_paused", "gauge"),
    ("accounting_gap", "gauge"),
    ("assigned_partitions", "gauge"),
    ("kafka_lag_records", "gauge"),
    ("kafka_committed_offset", "gauge"),
    ("jetstream_lag_records", "gauge"),
    ("jetstream_ack_floor_sequence", "gauge"),
    ("rows_inserted_total", "counter"),
    ("inserts_total", "counter"),
    ("writer_rows", "gauge"),
    ("dead_letters_total", "counter"),
    ("dead_letters_pending", "gauge"),
    ("route_records_received_total", "counter"),
    ("route_records_inserted_total", "counter"),
    ("route_records_dead_lettered_total", "counter"),
    ("route_records_filtered_total", "counter"),
    ("route_records_dropped_total", "counter"),
    ("route_records_released_total", "counter"),
    ("route_held_records", "gauge"),
    ("route_accounting_gap", "gauge"),
    ("deduplication_window_entries", "gauge"),
    ("deduplication_window_seconds", "gauge"),
    ("rounded_values_total", "counter"),
    ("route_state", "gauge"),
    ("route_held_back", "gauge"),
    ("insert_duration_seconds", "histogram"),
    ("batch_rows", "histogram"),
    ("end_to_end_latency_seconds", "histogram"),
];

#[test]
fn every_promised_metric_is_described_before_anything_has_happened() {
    let text = exposition(Snapshot::default(), Metrics::new()).text(Format::Classic);
    let types = Scrape::read(&text, Format::Classic).types;
    let promised: BTreeMap<String, String> = PROMISED
        .iter()
        .map(|(name, kind)| (format!("data_bridge_{name}"), (*kind).to_owned()))
        .collect();
    assert_eq!(types, promised);
}

#[test]
fn both_formats_carry_the_same_samples() {
    let metrics = Metrics::new();
    metrics.insert_finished("aggregate", Duration::from_millis(70), true);
    let exposition = exposition(busy(), metrics);
    let open = exposition.text(Format::OpenMetrics);
    let classic = exposition.text(Format::Classic);
    let series =
        |text: &str, format| Scrape::read(text, format).samples.into_keys().collect::<Vec<_>>();
    assert_eq!(series(&open, Format::OpenMetrics), series(&classic, Format::Classic));
    assert!(open.contains("# TYPE data_bridge_records_received counter\n"));
    assert!(classic.contains("# TYPE data_bridge_records_received_total counter\n"));
    assert!(classic.contains("# HELP data_bridge_records_received_total Records"));
}

#[test]
fn metrics_and_health_cannot_disagree() {
    let snapshot = busy();
    let health = snapshot.health(&Identity::new("bridge-1"), &[], Instant::now()).metrics;
    let scrape = scrape(snapshot, Metrics::new());
    let health = serde_json::to_value(health).unwrap();
    let pairs = [
        ("buffer_records", "/backpressure/current_buffer"),
        ("buffer_peak_records", "/backpressure/peak_buffer"),
        ("buffer_bytes", "/backpressure/current_bytes"),
        ("pause_threshold_records", "/backpressure/pause_threshold"),
        ("resume_threshold_records", "/backpressure/resume_threshold"),
        ("max_buffer_records", "/backpressure/max_buffer_size"),
        ("max_buffer_bytes", "/backpressure/max_buffer_bytes"),
        ("pull_limit_records", "/backpressure/pull_limit"),
        ("pauses_total", "/backpressure/pause_count"),
        ("paused_seconds_total", "/backpressure/paused_seconds_total"),
        ("records_received_total{source=\"kafka\"}", "/sources/kafka/received"),
        ("records_inserted_total{source=\"kafka\"}", "/sources/kafka/inserted"),
        ("records_dead_lettered_total{source=\"kafka\"}", "/sources/kafka/dead_lettered"),
        ("records_filtered_total{source=\"nats\"}", "/sources/nats/filtered"),
        ("records_released_total{source=\"kafka\"}", "/sources/kafka/released"),
        ("reconnects_total{source=\"kafka\"}", "/sources/kafka/reconnects"),
        ("slow_consumer_events_total{source=\"nats\"}", "/sources/nats/slow_consumer_events"),
        ("held_records{source=\"kafka\"}", "/sources/kafka/held"),
        ("uncommitted_records{source=\"kafka\"}", "/sources/kafka/uncommitted"),
        ("assigned_partitions{source=\"kafka\"}", "/sources/kafka/assigned"),
        ("rows_inserted_total{writer=\"aggregate\"}", "/writers/aggregate/inserted"),
        ("inserts_total{writer=\"aggregate\",result=\"ok\"}", "/writers/aggregate/inserts"),
        (
            "inserts_total{writer=\"aggregate\",result=\"failed\"}",
            "/writers/aggregate/failed_inserts",
        ),
        ("writer_rows{writer=\"aggregate\",state=\"open\"}", "/writers/aggregate/buffered"),
        ("writer_rows{writer=\"aggregate\",state=\"in_flight\"}", "/writers/aggregate/in_flight"),
        ("dead_letters_total{route=\"candles\",reason=\"bad_json\"}", "/dead_letters"),
        ("dead_letters_pending", "/dead_letters_pending"),
        ("route_records_received_total{route=\"candles\"}", "/routes/candles/received"),
        ("accounting_gap{source=\"kafka\"}", "/sources/kafka/accounting_gap"),
        ("route_records_inserted_total{route=\"candles\"}", "/routes/candles/inserted"),
        ("route_records_dead_lettered_total{route=\"candles\"}", "/routes/candles/dead_lettered"),
        ("route_records_filtered_total{route=\"candles\"}", "/routes/candles/filtered"),
        ("route_records_dropped_total{route=\"candles\"}", "/routes/candles/dropped"),
        ("route_records_released_total{route=\"candles\"}", "/routes/candles/released"),
        ("route_held_records{route=\"candles\"}", "/routes/candles/held"),
        ("route_accounting_gap{route=\"candles\"}", "/routes/candles/accounting_gap"),
        ("rounded_values_total{route=\"candles\"}", "/routes/candles/rounded"),
    ];
    for (series, pointer) in pairs {
        let told = health.pointer(pointer).and_then(serde_json::Value::as_f64);
        assert_eq!(Some(scrape.value(series)), told, "{series} {pointer}");
    }
    let dropped = |reason| {
        let labels = format!("source=\"nats\",class=\"market\",reason=\"{reason}\"");
        scrape.value(&format!("records_dropped_total{{{labels}}}"))
    };
    assert_eq!(dropped("paused") + dropped("cap"), 15.0);
}

#[test]
fn what_is_unknown_has_no_sample_and_states_are_zero_or_one() {
    let mut snapshot = busy();
    snapshot.routes.get_mut("candles").unwrap().state = RouteState::Retrying("503".into());
    let scrape = scrape(snapshot, Metrics::new());
    let place = "{topic=\"aggregate_archive\",partition=\"0\"}";
    assert_eq!(scrape.value(&format!("kafka_lag_records{place}")), 1_200.0);
    assert_eq!(scrape.value(&format!("kafka_committed_offset{place}")), 62_000.0);
    assert!(!scrape.samples.keys().any(|series| series.contains("partition=\"1\"")));
    assert!(!scrape.samples.contains_key("data_bridge_source_natively_paused{source=\"nats\"}"));
    let state = |name| scrape.value(&format!("route_state{{route=\"candles\",state=\"{name}\"}}"));
    assert_eq!(RouteState::NAMES.map(state), [0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(scrape.value("status{status=\"degraded\"}"), 1.0);
    assert_eq!(scrape.value("status{status=\"healthy\"}"), 0.0);
    assert_eq!(scrape.value("input_records_per_second"), 5_012.25);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(scrape.value(&format!("build_info{{version=\"{version}\"}}")), 1.0);
}

#[test]
fn histograms_are_cumulative_and_end_at_infinity() {
    let metrics = Metrics::new();
    for (milliseconds, ok) in [(5, true), (10, true), (70, true), (90_000, true), (30_000, false)] {
        metrics.insert_finished("aggregate", Duration::from_millis(milliseconds), ok);
    }
    metrics.batch_cut("external", CutReason::Linger, 37);
    let scrape = scrape(Snapshot::default(), metrics);
    let ok = |le| {
        let labels = format!("le=\"{le}\",writer=\"aggregate\",result=\"ok\"");
        scrape.value(&format!("insert_duration_seconds_bucket{{{labels}}}"))
    };
    // A bound belongs to its own bucket.
    assert_eq!(
        [ok("0.01"), ok("0.05"), ok("0.1"), ok("60.0"), ok("+Inf")],
        [2.0, 2.0, 3.0, 3.0, 4.0]
    );
    let of = |part, result| {
        let labels = format!("writer=\"aggregate\",result=\"{result}\"");
        scrape.value(&format!("insert_duration_seconds_{part}{{{labels}}}"))
    };
    assert_eq!(of("count", "ok"), 4.0);
    assert!((of("sum", "ok") - 90.085).abs() < 1e-9);
    assert_eq!(of("count", "failed"), 1.0);
    assert_eq!(scrape.value("batch_rows_sum{writer=\"external\",reason=\"linger\"}"), 37.0);
}

#[test]
fn a_batch_counts_all_its_rows_between_its_newest_and_its_oldest() {
    let metrics = Metrics::new();
    metrics.durable("aggregate", 1.0, 3.0, 10_001);
    metrics.durable("aggregate", -5.0, -5.0, 1);
    metrics.durable("aggregate", 1.0, 1.0, 0);
    let scrape = scrape(Snapshot::default(), metrics);
    let bucket = |le| {
        let labels = format!("le=\"{le}\",writer=\"aggregate\"");
        scrape.value(&format!("end_to_end_latency_seconds_bucket{{{labels}}}"))
    };
    assert_eq!(bucket("0.1"), 1.0, "a record from the future is 0 s old");
    assert_eq!(bucket("1.0"), 1.0);
    let at_two_and_a_half = bucket("2.5") / 10_002.0;
    assert!((0.7..0.8).contains(&at_two_and_a_half), "three quarters, was {at_two_and_a_half}");
    assert_eq!(bucket("5.0"), 10_002.0);
    let sum = scrape.value("end_to_end_latency_seconds_sum{writer=\"aggregate\"}");
    assert!((sum / 10_001.0 - 2.0).abs() < 0.001, "the mean is the middle, was {sum}");
}

#[test]
fn a_name_with_quotes_is_escaped() {
    let mut snapshot = busy();
    let route = snapshot.routes.remove("candles").unwrap();
    snapshot.routes.insert("a\"b\\c\nd".into(), route);
    let scrape = scrape(snapshot, Metrics::new());
    assert_eq!(scrape.value("rounded_values_total{route=\"a\\\"b\\\\c\\nd\"}"), 17.0);
}
