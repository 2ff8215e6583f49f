//! What is pushed to an OpenTelemetry collector, read off at each scrape. Without one there are no
//! series.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::out::{NONE, Out};
use crate::otlp::Tally;

#[derive(Debug)]
pub(super) struct OtlpCollector(pub(super) Option<Arc<Tally>>);

impl Collector for OtlpCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out::new(encoder);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let requests = self.0.iter().flat_map(|tally| {
            let of = |signal, result, n: &AtomicU64| {
                ([("signal", signal), ("result", result)], count(n))
            };
            [
                of("traces", "sent", &tally.traces.sent),
                of("traces", "failed", &tally.traces.failed),
                of("metrics", "sent", &tally.metrics.sent),
                of("metrics", "failed", &tally.metrics.failed),
            ]
        });
        let help = "Requests to the OpenTelemetry collector, by what became of them";
        out.counters("otlp_requests", help, NONE, requests)?;
        let dropped = self.0.iter().flat_map(|tally| {
            [("full", &*tally.spans_full), ("refused", &tally.spans_refused)]
                .map(|(reason, n)| ([("reason", reason)], count(n)))
        });
        let help = "Spans of batches that nobody was told of: there was no room for them while the \
                    collector was away, or it refused them";
        out.counters("otlp_spans_dropped", help, NONE, dropped)
    }
}
