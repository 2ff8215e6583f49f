//! What fires and who was told, read off at each scrape. Every alert is there from the start, at 0: a rule of
//! Prometheus may rest on it.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::out::{NONE, Out};
use crate::alert::{AlertId, Alerts};
use crate::webhook::Tallies;

#[derive(Debug)]
pub(super) struct AlertCollector {
    alerts: Alerts,
    told: Tallies,
}

impl AlertCollector {
    pub(super) fn new(alerts: Alerts, told: Tallies) -> Self {
        Self { alerts, told }
    }
}

impl Collector for AlertCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let firing = Arc::clone(&self.alerts.borrow());
        let counts = AlertId::ALL.map(|id| {
            let labels = [("alert", id.name()), ("severity", id.severity().name())];
            (labels, firing.iter().filter(|alert| alert.id == id).count())
        });
        let help = "Alerts of the bridge that fire now, by id; /health has them in words";
        let mut out = Out::new(encoder);
        out.gauges("alert_firing", help, NONE, counts)?;
        let notices = self.told.iter().flat_map(|tally| {
            [("sent", tally.sent()), ("failed", tally.failed())].map(|(result, count)| {
                let labels = [("webhook", tally.name.as_str()), ("result", result)];
                (labels, count)
            })
        });
        let help = "Messages about alerts to a receiver, by what became of them";
        out.counters("alert_notices", help, NONE, notices)
    }
}
