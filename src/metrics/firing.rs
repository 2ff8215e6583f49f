//! What fires, read off at each scrape. Every alert is there from the start, at 0: a rule of
//! Prometheus may rest on it.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::out::{NONE, Out};
use crate::alert::{AlertId, Alerts};

#[derive(Debug)]
pub(super) struct FiringCollector(Alerts);

impl FiringCollector {
    pub(super) fn new(alerts: Alerts) -> Self {
        Self(alerts)
    }
}

impl Collector for FiringCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let firing = Arc::clone(&self.0.borrow());
        let counts = AlertId::ALL.map(|id| {
            let labels = [("alert", id.name()), ("severity", id.severity().name())];
            (labels, firing.iter().filter(|alert| alert.id == id).count())
        });
        let help = "Alerts of the bridge that fire now, by id; /health has them in words";
        Out::new(encoder).gauges("alert_firing", help, NONE, counts)
    }
}
