//! JetStream, with the real binary, a real nats-server and a real ClickHouse.

mod lane;
mod once;
mod server;

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::context::CreateStreamError;
use async_nats::jetstream::{self, Context, stream};
use futures_util::StreamExt as _;
use serde_json::Value as Json;
use tokio::time::Instant;

pub(crate) use self::server::with_jetstream;
use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, Paced, number};
use crate::stack::Addresses;

/// Publishing waits for the stream to have it; so many are on their way at a time.
const ON_THEIR_WAY: usize = 512;

/// What one test works in: a stream of bare numbers, a table, a route.
pub(crate) struct Numbers {
    pub(crate) lab: Lab,
    pub(crate) jetstream: Context,
}

impl Numbers {
    /// On the servers that all share.
    pub(crate) async fn new() -> Self {
        let numbers = Self::without_stream(Lab::new().await).await;
        numbers.create_stream(1).await;
        numbers
    }

    /// On a NATS of the test's own.
    pub(crate) async fn at(nats: &str) -> Self {
        let addresses = Addresses { nats: nats.to_owned(), ..Addresses::shared() };
        Self::without_stream(Lab::at(addresses, None).await).await
    }

    pub(crate) async fn without_stream(lab: Lab) -> Self {
        let sql = "CREATE TABLE numbers (n UInt64, _offset Int64, _subject String) \
                   ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000";
        lab.clickhouse.query(sql).await;
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let servers: Vec<&str> = lab.at.nats.split(',').collect();
        let client = options.connect(servers).await.unwrap();
        Self { lab, jetstream: jetstream::new(client) }
    }

    pub(crate) fn stream(&self) -> String {
        self.lab.name.to_uppercase()
    }

    pub(crate) fn consumer(&self) -> String {
        format!("{}-numbers", self.lab.name)
    }

    pub(crate) async fn create_stream(&self, replicas: usize) {
        self.try_create_stream(replicas).await.unwrap();
    }

    /// A cluster has to elect its leader first.
    pub(crate) async fn create_stream_when_it_can(&self, replicas: usize) {
        let started = Instant::now();
        while let Err(error) = self.try_create_stream(replicas).await {
            assert!(started.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn try_create_stream(&self, replicas: usize) -> Result<(), CreateStreamError> {
        let config = stream::Config {
            name: self.stream(),
            subjects: vec![self.lab.subject("numbers.>")],
            num_replicas: replicas,
            ..stream::Config::default()
        };
        self.jetstream.create_stream(config).await.map(drop)
    }

    /// One route by JetStream; `more` are keys of `[nats.jetstream]`.
    pub(crate) fn config(&self, more: &str) -> String {
        let subject = self.lab.subject("numbers.>");
        self.lab.sections("nats")
            + &format!(
                "[nats.jetstream]\n{more}\n[[routes]]\nname = \"numbers\"\n\
                 jetstream_subjects = [\"{subject}\"]\nwriter = \"aggregate\"\n\
                 table = \"numbers\"\n[routes.columns]\n_offset = \"@offset\"\n\
                 _subject = \"@subject\"\n"
            )
    }

    pub(crate) async fn publish(&self, numbers: Range<u64>, rate: u64) {
        let subject = |n| self.lab.subject(&format!("numbers.{}", n % 10));
        self.publish_to(subject, numbers, rate).await;
    }

    pub(crate) async fn publish_to(
        &self,
        subject: impl Fn(u64) -> String,
        numbers: Range<u64>,
        rate: u64,
    ) {
        let mut pace = Paced::new(rate);
        let mut acks = futures_util::stream::FuturesUnordered::new();
        for n in numbers {
            let payload = format!("{{\"n\":{n}}}");
            let sent = self.jetstream.publish(subject(n), payload.into()).await;
            acks.push(sent.unwrap().into_future());
            if acks.len() >= ON_THEIR_WAY {
                acks.next().await.unwrap().unwrap();
            }
            pace.next().await;
        }
        while let Some(ack) = acks.next().await {
            ack.unwrap();
        }
    }

    /// Publishes for as long as something is done, whatever the server does meanwhile: until each is
    /// in the stream. Many are on their way at a time: one by one, a busy disk would set the pace.
    /// Gives how many.
    pub(crate) async fn publish_during(&self, rate: u64, doing: impl Future<Output = ()>) -> u64 {
        let (done, published) = (Cell::new(false), Cell::new(0));
        let paced = futures_util::stream::unfold(Paced::new(rate), async |mut pace| {
            pace.next().await;
            (!done.get()).then(|| (published.replace(published.get() + 1), pace))
        });
        let publish = paced.for_each_concurrent(ON_THEIR_WAY, |n| self.publish_until_taken(n));
        let until_done = async {
            doing.await;
            done.set(true);
        };
        tokio::join!(publish, until_done);
        published.get()
    }

    /// Publishes while bridges are killed one after the other, each after `more` records more than the
    /// one before it. Gives how many were published.
    pub(crate) async fn killed_under_load(
        &self,
        config: &str,
        bridges: u64,
        more: u64,
        rate: u64,
    ) -> u64 {
        let kills = async {
            for round in 1..=bridges {
                let mut bridge = self.lab.start(config, "").await;
                bridge.wait_until("it reads", |health| received(health) > more * round).await;
                bridge.kill().await;
            }
        };
        self.publish_during(rate, kills).await
    }

    async fn publish_until_taken(&self, n: u64) {
        let subject = self.lab.subject(&format!("numbers.{}", n % 10));
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "the stream never takes {n}");
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", n.to_string());
            let payload = format!("{{\"n\":{n}}}").into();
            let sent = self.jetstream.publish_with_headers(subject.clone(), headers, payload).await;
            if let Ok(ack) = sent
                && ack.await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn info(&self) -> jetstream::consumer::Info {
        let consumer: Consumer<pull::Config> =
            self.jetstream.get_consumer_from_stream(self.consumer(), self.stream()).await.unwrap();
        consumer.cached_info().clone()
    }

    /// The server has worked through every acknowledgement: it does so after it has read them.
    pub(crate) async fn until_all_acked(&self) -> jetstream::consumer::Info {
        let started = Instant::now();
        loop {
            let info = self.info().await;
            if info.num_ack_pending == 0 {
                return info;
            }
            assert!(started.elapsed() < PATIENCE, "{} never acknowledged", info.num_ack_pending);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All of them are in the table, each once.
    pub(crate) async fn assert_each_once(&self, numbers: Range<u64>) {
        let all = numbers.end - numbers.start;
        self.lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", all).await;
        assert_eq!(self.lab.stored_numbers(&numbers).await, (all, all));
    }
}

pub(crate) fn source(health: &Json) -> &Json {
    &health["metrics"]["sources"]["jetstream"]
}

/// What is done next is done under load.
pub(crate) async fn until_under_load(bridge: &Bridge) {
    const RECORDS: u64 = 2_000;
    let before = received(&bridge.health().await);
    bridge.wait_until("under load", |health| received(health) > before + RECORDS).await;
}

pub(crate) fn received(health: &Json) -> u64 {
    number(&source(health)["received"])
}

/// Nothing that came was dropped by the client: its channel never overflowed.
pub(crate) fn assert_never_overflowed(health: &Json) {
    assert_eq!(number(&source(health)["slow_consumer_events"]), 0, "{health:#}");
    assert_eq!(number(&source(health)["released"]), 0, "{health:#}");
}

/// Waits until everything that came is durable and the server has been told.
pub(crate) async fn until_acked(bridge: &Bridge, records: u64) -> Json {
    bridge
        .wait_until("all is durable and acknowledged", |health| {
            let of = |key: &str| number(&source(health)[key]);
            of("received") >= records && of("held") == 0 && of("uncommitted") == 0
        })
        .await
}
