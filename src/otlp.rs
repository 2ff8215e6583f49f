//! Traces and metrics to an OpenTelemetry collector, over OTLP: HTTP, protobuf.
//!
//! ```text
//! batches --Spans (bounded)--> waiting --512, or a second--> /v1/traces
//! collectors --a scrape, taken apart, each interval---------> /v1/metrics
//! ```
//!
//! One task, for which nobody waits. What a collector that is away would have been told is dropped and
//! counted: of spans the newest, once there is no room; metrics are told anew with the next. It is
//! one line in the log when it goes away, and one when it is back; of each signal by itself, because many a
//! collector takes one and not the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Retry};
use crate::metrics::Exposition;
use crate::post::{Failure, Post, To};
use crate::retry;
use crate::status::Identity;
use crate::tls;
use crate::trace::{self, Span, Spans, Tracer};

mod metrics;
mod traces;
mod words;

/// Spans of one request: some hundred KiB.
const SPANS: usize = 512;

/// What else is settled so soon after the first is told with it.
const GATHER: Duration = Duration::from_secs(1);

/// A collector that is down is a nuisance, no outage.
const RETRY: Retry =
    Retry { base_delay: Duration::from_secs(1), max_delay: Duration::from_secs(60) };

/// For a last word when the bridge stops.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What became of what was to be told.
#[derive(Debug, Default)]
pub struct Tally {
    pub traces: Requests,
    pub metrics: Requests,
    /// Spans for which there was no room.
    pub spans_full: Arc<AtomicU64>,
    /// Spans that the collector refused for good.
    pub spans_refused: AtomicU64,
}

/// Of one signal.
#[derive(Debug, Default)]
pub struct Requests {
    pub sent: AtomicU64,
    pub failed: AtomicU64,
}

/// What goes to the collector, before it runs.
#[derive(Debug)]
pub struct Otlp {
    traces: Way,
    /// None: a scraper fetches them.
    metrics: Option<Way>,
    interval: Duration,
    resource: Resource,
    identity: Identity,
    tally: Arc<Tally>,
    spans: Spans,
    /// Taken out of the channel, and not told yet.
    waiting: Vec<Span>,
    /// Requests for spans that failed, one behind the other.
    failures: u32,
    /// When the spans that wait are told; None while there are none.
    due: Option<Instant>,
}

impl Otlp {
    /// Who tells of batches, and what takes it to the collector; without one, a tracer that is off.
    ///
    /// # Errors
    /// When the files of its TLS cannot be used any more.
    pub fn new(
        config: Option<&config::Otlp>,
        identity: &Identity,
    ) -> anyhow::Result<(Tracer, Option<Self>)> {
        let Some(config) = config else { return Ok((Tracer::off(), None)) };
        let (tracer, spans) = trace::channel(config.sample_percent);
        let spans_full = Arc::clone(&spans.dropped);
        let tally = Arc::new(Tally { spans_full, ..Tally::default() });
        let metrics = config.metrics.then(|| Way::new(config, "metrics")).transpose()?;
        let otlp = Self {
            traces: Way::new(config, "traces")?,
            metrics,
            interval: config.interval,
            resource: words::resource(config, &identity.instance),
            identity: identity.clone(),
            tally,
            spans,
            waiting: Vec::new(),
            failures: 0,
            due: None,
        };
        Ok((tracer, Some(otlp)))
    }

    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Until `end`, and a last word after it, which takes at most 2 s.
    pub async fn run(mut self, exposition: Arc<Exposition>, end: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let turns = async {
            loop {
                tokio::select! {
                    _ = ticks.tick() => self.tell_metrics(&exposition).await,
                    () = self.gather() => self.tell_spans().await,
                }
            }
        };
        end.run_until_cancelled(turns).await;
        if timeout(LAST_WORD, self.last_word(&exposition)).await.is_err() {
            tracing::warn!(
                event = "otlp_not_told",
                "stopped before the last was told to the OpenTelemetry collector"
            );
        }
    }

    /// Waits until spans are to be told. Dropped while it waits, it loses none. Those that were not told
    /// wait for their time, and nothing is taken to them: the channel is the bound.
    async fn gather(&mut self) {
        let due = match self.due {
            Some(due) => due,
            None => {
                if self.spans.told.recv_many(&mut self.waiting, SPANS).await == 0 {
                    // Nobody will ever tell anything any more.
                    std::future::pending::<()>().await;
                }
                *self.due.insert(Instant::now() + GATHER)
            }
        };
        if self.failures > 0 {
            return sleep_until(due).await;
        }
        while let room @ 1.. = SPANS - self.waiting.len()
            && let more = self.spans.told.recv_many(&mut self.waiting, room)
            && let Ok(1..) = timeout_at(due, more).await
        {}
    }

    async fn tell_spans(&mut self) {
        let body = traces::request(&self.waiting, &self.resource).encode_to_vec();
        match self.traces.tell(body, &self.tally.traces).await {
            Err(failure) if failure.passes => {
                self.failures += 1;
                self.due = Some(Instant::now() + retry::delay(&RETRY, self.failures));
            }
            told => {
                if told.is_err() {
                    let refused = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
                    self.tally.spans_refused.fetch_add(refused, Ordering::Relaxed);
                }
                self.waiting.clear();
                (self.failures, self.due) = (0, None);
            }
        }
    }

    async fn tell_metrics(&mut self, exposition: &Exposition) {
        let Some(way) = &mut self.metrics else { return };
        let now = jiff::Timestamp::now().as_nanosecond();
        let times = metrics::Times {
            start: self.identity.started_at.unsigned_abs() * 1_000_000,
            now: u64::try_from(now).unwrap_or_default(),
        };
        let text = exposition.text(crate::metrics::Format::OpenMetrics);
        let families = crate::metrics::families(&text);
        let body = metrics::request(&families, times, &self.resource).encode_to_vec();
        // what does not arrive is told anew with the next
        drop(way.tell(body, &self.tally.metrics).await);
    }

    /// What was settled in the last moments, and how things stand.
    async fn last_word(&mut self, exposition: &Exposition) {
        self.spans.told.close();
        loop {
            let room = SPANS - self.waiting.len();
            if room > 0 {
                self.spans.told.recv_many(&mut self.waiting, room).await;
            }
            if self.waiting.is_empty() {
                break;
            }
            self.tell_spans().await;
            if self.failures > 0 {
                return;
            }
        }
        self.tell_metrics(exposition).await;
    }
}

/// One signal's way to the collector.
#[derive(Debug)]
struct Way {
    signal: &'static str,
    post: Post,
    away: bool,
}

impl Way {
    fn new(config: &config::Otlp, signal: &'static str) -> anyhow::Result<Self> {
        let headers = config.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let post = Post::new(To {
            url: &format!("{}/v1/{signal}", config.endpoint).into(),
            headers: headers.collect(),
            content_type: "application/x-protobuf",
            tls: config.tls.as_ref(),
            timeout: config.timeout,
            keys: &tls::Keys::OTLP,
            see: ["otlp.headers", "otlp.endpoint"],
        });
        Ok(Self { signal, post: post.context("otlp")?, away: false })
    }

    /// One request, counted; with a line in the log when it goes away, and one when it is back.
    async fn tell(&mut self, body: Vec<u8>, requests: &Requests) -> Result<(), Failure> {
        let result = self.post.send(body).await;
        let counter = if result.is_ok() { &requests.sent } else { &requests.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let (was_away, signal) = (std::mem::replace(&mut self.away, result.is_err()), self.signal);
        match &result {
            Err(Failure { what, .. }) if !was_away => tracing::warn!(
                event = "otlp_failed",
                signal,
                "the OpenTelemetry collector does not get {signal}: {what}"
            ),
            Ok(()) if was_away => tracing::info!(
                event = "otlp_works",
                signal,
                "the OpenTelemetry collector gets {signal} again"
            ),
            _ => {}
        }
        result
    }
}
