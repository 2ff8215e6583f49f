//! The pipeline's end of a source, in a test: what came, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use data_bridge::config::{Nats, NatsAuth};
use data_bridge::source::Running;
use data_bridge::source::nats::{Limits, start};
use data_bridge::source::{Delivery, SourceEvent, SourceHandle, SourceId, Stage, Wanted, connect};
use data_bridge::subject::SubjectPattern;
use tokio::sync::mpsc;

use super::server::{Server, within};

/// For a drain. An unoptimised build on a machine that has more to do may need longer than the bridge
/// takes at most; only who tests that limit keeps to it.
pub(crate) const DRAIN_FOR: Duration = Duration::from_secs(60);

/// The payload of what a test publishes to find out whether it arrives.
pub(crate) const PROBE: &[u8] = b"probe";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: BTreeMap<String, Vec<Vec<u8>>>,
}

pub(crate) struct Bridge {
    pub(crate) handle: SourceHandle,
    running: Option<Running>,
    events: mpsc::Receiver<(SourceId, SourceEvent)>,
    /// Without the probes.
    pub(crate) got: Vec<Got>,
    pub(crate) probes: u64,
    pub(crate) dropped: u64,
    pub(crate) connections: Vec<Option<String>>,
    pub(crate) drained: bool,
    pub(crate) closed: bool,
}

pub(crate) struct Setup {
    pub(crate) nats: Nats,
    pub(crate) subjects: Vec<&'static str>,
    pub(crate) system: Vec<&'static str>,
    pub(crate) limits: Limits,
    pub(crate) events: usize,
}

impl Setup {
    pub(crate) fn new(server: &Server, subjects: &[&'static str]) -> Self {
        let nats = Nats {
            servers: vec![server.url()],
            queue_group: "data-bridge".to_owned(),
            auth: NatsAuth::None,
            tls: None,
            rate_limit: None,
            jetstream: None,
        };
        let (subjects, system) = (subjects.to_vec(), Vec::new());
        let limits = Limits { drain_for: DRAIN_FOR, ..Limits::default() };
        Self { nats, subjects, system, limits, events: 64 }
    }

    pub(crate) fn auth(mut self, auth: NatsAuth) -> Self {
        self.nats.auth = auth;
        self
    }

    pub(crate) async fn try_start(self) -> anyhow::Result<Bridge> {
        let (sender, events) = mpsc::channel(self.events);
        let (handle, port) = connect(SourceId(0), "nats", Delivery::Pushed, sender);
        let (subjects, system) = (patterns(&self.subjects), patterns(&self.system));
        let start = start(&self.nats, "test", &subjects, &system, port, self.limits);
        let running = within("the source starts", start).await?;
        Ok(Bridge {
            handle,
            running: Some(running),
            events,
            got: Vec::new(),
            probes: 0,
            dropped: 0,
            connections: Vec::new(),
            drained: false,
            closed: false,
        })
    }

    pub(crate) async fn start(self) -> Bridge {
        self.try_start().await.unwrap()
    }
}

fn patterns(texts: &[&str]) -> Vec<SubjectPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Bridge {
    async fn step(&mut self) {
        let (_, event) = self.events.recv().await.expect("the source is there");
        match event {
            SourceEvent::Records(chunk) => {
                for record in chunk.records() {
                    assert!(record.place().is_none() && record.timestamp().is_none());
                    let payload = record.payload().expect("core NATS has no tombstones");
                    if payload == PROBE {
                        self.probes += 1;
                        continue;
                    }
                    let mut headers = BTreeMap::<String, Vec<Vec<u8>>>::new();
                    for (name, value) in record.headers() {
                        headers.entry(name.to_owned()).or_default().push(value.to_vec());
                    }
                    let subject = record.subject().unwrap().to_owned();
                    self.got.push(Got { subject, payload: payload.to_vec(), headers });
                }
            }
            SourceEvent::DroppedByClient(n) => self.dropped += n,
            SourceEvent::Connection { error } => self.connections.push(error),
            SourceEvent::Drained => self.drained = true,
            SourceEvent::Closed { error } => {
                assert_eq!(error, None);
                self.closed = true;
            }
            event => panic!("not an event of core NATS: {event:?}"),
        }
    }

    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        within(what, async {
            while !done(self) {
                self.step().await;
            }
        })
        .await;
    }

    pub(crate) async fn until_connected(&mut self) {
        self.until("connected", |b| b.connections.last() == Some(&None)).await;
    }

    /// Until the last that was said of the connection contains `text`.
    pub(crate) async fn until_error(&mut self, text: &str) {
        self.until(text, |b| {
            b.connections.last().is_some_and(|e| e.as_ref().is_some_and(|e| e.contains(text)))
        })
        .await;
    }

    /// Publishes until something arrives: connecting is not yet being subscribed. Returns how many
    /// probes were sent.
    pub(crate) async fn until_subscribed(&mut self, to: &async_nats::Client, subject: &str) -> u64 {
        self.until_connected().await;
        let before = self.probes;
        let mut sent = 0;
        within("subscribed", async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while self.probes == before {
                tokio::select! {
                    () = self.step() => {}
                    _ = tick.tick() => {
                        to.publish(subject.to_owned(), PROBE.into()).await.unwrap();
                        sent += 1;
                    }
                }
            }
        })
        .await;
        sent
    }

    pub(crate) fn want(&self, stage: Stage) {
        self.handle.wanted.send(Wanted { stage, ..Wanted::default() }).unwrap();
    }

    pub(crate) async fn drain(&mut self) {
        self.want(Stage::Draining);
        self.until("drained", |b| b.drained).await;
    }

    pub(crate) async fn close(mut self) -> Self {
        self.want(Stage::Closing);
        self.until("closed", |b| b.closed).await;
        let running = self.running.take().expect("closed once");
        within("joined", running.join()).await.unwrap();
        self
    }

    pub(crate) fn subjects(&self) -> Vec<&str> {
        self.got.iter().map(|got| got.subject.as_str()).collect()
    }
}

/// A client that publishes.
pub(crate) async fn publisher(server: &Server) -> async_nats::Client {
    within("the publisher connects", async_nats::connect(server.url())).await.unwrap()
}

/// Returns when the server has read and routed all that was published.
pub(crate) async fn routed(publisher: &async_nats::Client) {
    let refused = within("a round trip", publisher.request("nobody.listens", "".into())).await;
    assert!(refused.is_err(), "nobody answers");
}
