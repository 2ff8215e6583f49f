//! A histogram family that takes many equal observations at once.
//!
//! The client library's histogram takes one at a time: a batch of 10,000 rows would lock it
//! 10,000 times. A lock here is held for one bucket's addition and never across an await.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::status::float;

/// Series by the values of `N` labels.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    labels: [&'static str; N],
    /// Upper bounds, rising; the bucket to infinity is implied.
    bounds: &'static [f64],
    series: Mutex<BTreeMap<[String; N], Series>>,
}

#[derive(Debug, Clone)]
struct Series {
    sum: f64,
    count: u64,
    /// One more than there are bounds; not cumulative.
    buckets: Vec<u64>,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(labels: [&'static str; N], bounds: &'static [f64]) -> Self {
        Self { labels, bounds, series: Mutex::default() }
    }

    /// `count` observations of the same value.
    pub(super) fn observe(&self, labels: [&str; N], value: f64, count: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        // A panic elsewhere cannot leave numbers half-written: poison means nothing here.
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry(labels.map(str::to_owned)).or_insert_with(|| Series {
            sum: 0.0,
            count: 0,
            buckets: vec![0; self.bounds.len() + 1],
        });
        series.sum += value * float(count);
        series.count += count;
        series.buckets[bucket] += count;
    }

    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> Result<(), std::fmt::Error> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let bounds = || self.bounds.iter().copied().chain([f64::INFINITY]);
        for (values, series) in &all {
            let labels: Vec<_> =
                self.labels.into_iter().zip(values.iter().map(String::as_str)).collect();
            let buckets: Vec<_> = bounds().zip(series.buckets.iter().copied()).collect();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                series.sum,
                series.count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
