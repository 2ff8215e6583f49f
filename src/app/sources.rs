//! The sources as they are configured: each with its end for the pipeline, and what is to be joined.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{Config, Route, Takes};
use crate::credits::{Credits, Gate};
use crate::reload::Outcome;
use crate::source::{self, Delivery, SourceEvent, SourceHandle, SourceId, kafka, nats};

/// How long the clients may take to close after they said that they are done.
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// The sources that are configured: the pipeline's ends, and what is to be joined.
pub(super) struct Sources {
    pub(super) handles: Vec<SourceHandle>,
    pub(super) running: Running,
}

#[derive(Default)]
pub(super) struct Running {
    kafka: Option<kafka::Running>,
    nats: Option<source::Running>,
    jetstream: Option<source::Running>,
    live: Option<source::Running>,
}

impl Sources {
    pub(super) async fn start(
        config: &Config,
        events: &mpsc::Sender<(SourceId, SourceEvent)>,
        credits: &Arc<Credits>,
        hall: source::live::Hall,
    ) -> anyhow::Result<Self> {
        let mut sources = Self { handles: Vec::new(), running: Running::default() };
        // Without topics (or subjects) the section says only where dead letters go.
        let topics = config.kafka_topics();
        if let Some(kafka) = config.kafka.as_ref().filter(|_| !topics.is_empty()) {
            let id = SourceId(sources.handles.len());
            let (mut handle, port) = source::connect(id, "kafka", Delivery::Pulled, events.clone());
            let credits = Gate::from(Arc::clone(credits));
            credits.set_limit(kafka.rate_limit);
            handle.gate = Some(credits.clone());
            sources.handles.push(handle);
            let of_kafka =
                |route: &Route| route.is_exactly_once() && !route.kafka_topics.is_empty();
            let exactly_once = config.routes.iter().any(of_kafka);
            let options = kafka::Options { exactly_once, ..kafka::Options::default() };
            let running = kafka::start(kafka, &config.instance, &topics, port, credits, options)?;
            sources.running.kafka = Some(running);
        }
        if let Some(nats) = config.nats.as_ref().filter(|_| config.has_core_nats()) {
            let id = SourceId(sources.handles.len());
            let (handle, port) = source::connect(id, "nats", Delivery::Pushed, events.clone());
            sources.handles.push(handle);
            let Takes { subjects, system, .. } = config.takes();
            let limits = nats::Limits::default();
            let running =
                nats::start(nats, &config.instance, &subjects, &system, port, limits).await?;
            sources.running.nats = Some(running);
        }
        if let Some(nats) = &config.nats
            && let Some(settings) = &nats.jetstream
        {
            let id = SourceId(sources.handles.len());
            let (mut handle, port) =
                source::connect(id, "jetstream", Delivery::Pulled, events.clone());
            let credits = Gate::from(Arc::clone(credits));
            credits.set_limit(settings.rate_limit);
            handle.gate = Some(credits.clone());
            sources.handles.push(handle);
            let Takes { streams, .. } = config.takes();
            let running =
                nats::jetstream::start(nats, settings, &config.instance, &streams, port, credits)
                    .await?;
            sources.running.jetstream = Some(running);
        }
        sources.start_live(config, events, credits, hall);
        Ok(sources)
    }

    /// What is published needs nobody to connect to.
    fn start_live(
        &mut self,
        config: &Config,
        events: &mpsc::Sender<(SourceId, SourceEvent)>,
        credits: &Arc<Credits>,
        hall: source::live::Hall,
    ) {
        if !config.has_live() {
            return hall.stay_empty();
        }
        let id = SourceId(self.handles.len());
        let (mut handle, port) = source::connect(id, "live", Delivery::Offered, events.clone());
        let credits = Gate::from(Arc::clone(credits));
        credits.set_limit(config.live.publish.rate_limit);
        handle.gate = Some(credits.clone());
        self.handles.push(handle);
        let routes = config.takes().published;
        self.running.live = Some(source::live::start(hall, &routes, port, credits));
    }
}

impl Running {
    /// Waits for the clients to close; says whether all did, in time.
    pub(super) async fn join(self) -> bool {
        let deadline = Instant::now() + JOIN_WITHIN;
        let mut closed = true;
        if let Some(kafka) = self.kafka
            && let Err(error) = kafka.join(deadline).await
        {
            tracing::error!(event = "source_failed", "Kafka: {error:#}");
            closed = false;
        }
        let nats = [("NATS", self.nats), ("JetStream", self.jetstream)];
        let nats = nats.map(|(label, nats)| (label, nats.map(|nats| nats.join().boxed())));
        let live = ("Live", self.live.map(|live| live.join().boxed()));
        for (label, joining) in nats.into_iter().chain([live]) {
            let Some(joining) = joining else { continue };
            let joined = tokio::time::timeout_at(deadline, joining).await;
            if let Err(error) = joined.context("the client did not close in time").flatten() {
                tracing::error!(event = "source_failed", "{label}: {error:#}");
                closed = false;
            }
        }
        closed
    }
}

/// What only the sources know of a configuration that may take the place of another.
pub(super) fn can_go_over(from: &Config, to: &Config) -> Result<(), Outcome> {
    let wrong = |error: anyhow::Error| Outcome::Invalid(format!("{error:#}"));
    kafka::settings::check_topics(&to.kafka_topics()).map_err(wrong)?;
    let unfit = |error: anyhow::Error| Outcome::NeedsRestart(vec![format!("{error:#}")]);
    nats::can_go_over(&from.takes(), &to.takes()).map_err(unfit)
}
