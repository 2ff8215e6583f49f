//! Every metric by name, with help and unit: `data_bridge_…`, base units, few labels.
//!
//! Counters and gauges are read off the snapshot at each scrape (`metrics/snapshot.rs`), so that `/metrics`
//! and `/health` cannot disagree. What a snapshot cannot carry are distributions: those are the
//! histograms of [`Metrics`], made once and observed by the pipeline at its event seam, once a
//! batch and never once a record.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::{Registry, Unit};

use crate::alert::Alerts;
use crate::live::Live;
use crate::otlp::Tally;
use crate::status::{Identity, Snapshots};
use crate::webhook::Tallies;
use crate::writer::CutReason;
use alerts::AlertCollector;
use histogram::Histogram;
use live::LiveCollector;
use otlp::OtlpCollector;
use snapshot::SnapshotCollector;

mod alerts;
mod classic;
pub mod families;
mod fleet;
mod histogram;
mod live;
mod otlp;
mod out;
#[cfg(test)]
pub(crate) mod samples;
mod snapshot;

/// From a quick insert on a quiet server to `insert_timeout`, 30 s, and beyond.
const INSERT_SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// From a lingering trickle to what ClickHouse likes best.
const BATCH_ROWS: &[f64] =
    &[1.0, 10.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0];

/// From below a linger to an outage that was ridden out.
const LATENCY_SECONDS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 86_400.0];

/// Points that stand for the records of a batch in the latency histogram: enough that no bucket
/// between the oldest and the newest record stays empty, few enough to cost nothing.
const LATENCY_POINTS: u64 = 16;

/// The distributions. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    histograms: Arc<Histograms>,
}

#[derive(Debug)]
struct Histograms {
    insert_duration: Histogram<2>,
    batch_rows: Histogram<2>,
    latency: Histogram<1>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let histograms = Histograms {
            insert_duration: Histogram::new(["writer", "result"], INSERT_SECONDS),
            batch_rows: Histogram::new(["writer", "reason"], BATCH_ROWS),
            latency: Histogram::new(["writer"], LATENCY_SECONDS),
        };
        Self { histograms: Arc::new(histograms) }
    }

    /// An attempt to insert has ended, well or not.
    pub fn insert_finished(&self, writer: &str, duration: Duration, ok: bool) {
        let labels = [writer, result_name(ok)];
        self.histograms.insert_duration.observe(labels, duration.as_secs_f64(), 1);
    }

    /// A batch was cut.
    pub fn batch_cut(&self, writer: &str, reason: CutReason, rows: usize) {
        self.histograms.batch_rows.observe(
            [writer, reason.as_str()],
            crate::status::float_of(rows),
            1,
        );
    }

    /// `rows` records became durable; the newest and the oldest of them are this old now, in
    /// seconds since their record time. The others are counted as spread evenly between: that is
    /// near the truth for a batch, and saves a clock and a bucket per record. A record from the
    /// future (a producer's clock) counts as 0 s old.
    pub fn durable(&self, writer: &str, newest_seconds: f64, oldest_seconds: f64, rows: usize) {
        let (newest, oldest) = (newest_seconds.max(0.0), oldest_seconds.max(0.0));
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        let points = rows.min(LATENCY_POINTS);
        for point in 0..points {
            // The middle of this point's share of the rows.
            let along = (crate::status::float(point) + 0.5) / crate::status::float(points);
            let weight = rows / points + u64::from(point < rows % points);
            let latency = newest + (oldest - newest) * along;
            self.histograms.latency.observe([writer], latency, weight);
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Histograms { insert_duration, batch_rows, latency } = &*self.histograms;
        let seconds = Some(&Unit::Seconds);
        let help = "How long an insert took, one observation an attempt";
        insert_duration.encode(&mut encoder, "insert_duration", help, seconds)?;
        let help = "Rows of a batch, by what made it be cut";
        batch_rows.encode(&mut encoder, "batch_rows", help, None)?;
        let help = "From the record's own time until it was durable in ClickHouse, in a batch \
                    spread evenly from the newest to the oldest record";
        latency.encode(&mut encoder, "end_to_end_latency", help, seconds)
    }
}

/// The value of the label `result`.
fn result_name(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

/// The format in which a scraper wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics, ready to be scraped.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    #[must_use]
    pub fn new(
        metrics: Metrics,
        snapshots: Snapshots,
        alerts: Alerts,
        told: Tallies,
        identity: Identity,
        live: Arc<Live>,
        pushed: Option<Arc<Tally>>,
    ) -> Self {
        let mut registry = Registry::with_prefix("data_bridge");
        registry.register_collector(Box::new(SnapshotCollector::new(snapshots, identity)));
        registry.register_collector(Box::new(AlertCollector::new(alerts, told)));
        registry.register_collector(Box::new(metrics));
        registry.register_collector(Box::new(LiveCollector::new(live)));
        registry.register_collector(Box::new(OtlpCollector(pushed)));
        Self { registry }
    }

    /// The text of a scrape.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        let mut open_metrics = String::with_capacity(32 * 1024);
        text::encode(&mut open_metrics, &self.registry).expect("writing to a String cannot fail");
        match format {
            Format::OpenMetrics => open_metrics,
            Format::Classic => classic::from_open_metrics(&open_metrics),
        }
    }
}

/// The metrics of [`Exposition::text`] in OpenMetrics' format, one by one.
#[must_use]
pub fn families(open_metrics: &str) -> Vec<families::Family<'_>> {
    families::read(open_metrics)
}

#[cfg(test)]
mod tests;
