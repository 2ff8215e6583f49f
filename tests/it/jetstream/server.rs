//! The server goes and comes; so does what it knows of us.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{ClusterInfo, ConsumerErrorKind};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{Numbers, received, source, until_acked, until_under_load};
use crate::bridge::{Bridge, PATIENCE};
use crate::lab::number;
use crate::nats_source::server::Server;

/// From the moment when the server is back, records flow again within this.
const RESUMES_WITHIN: Duration = Duration::from_secs(30);

/// The server may be killed: it writes before it acknowledges a publish, and what is written outlives
/// a process. That it is on the disk too, `sync_interval: always`, is for a loss of power; with it, a
/// disk that has more to do would set the pace of these tests.
pub(crate) fn with_jetstream(server: &Server) -> String {
    format!("jetstream {{ store_dir: \"{}\" }}", server.path("data").display())
}

pub(super) async fn flows(bridge: &Bridge, received_before: u64, since: Instant) {
    bridge
        .wait_until_within(RESUMES_WITHIN, "records flow again", |health| {
            received(health) > received_before
        })
        .await;
    assert!(since.elapsed() < RESUMES_WITHIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_may_be_down_at_the_start() {
    let mut server = Server::down();
    let numbers = Numbers::at(&server.url()).await;
    let bridge = numbers.lab.spawn(&numbers.config(""), "").ready().await;
    let health = bridge.health().await;
    assert_eq!(source(&health)["connected"], false);
    let config = with_jetstream(&server);
    server.restart(&config).await;
    let up = Instant::now();
    numbers.create_stream(1).await;
    numbers.publish(0..1_000, 1_000_000).await;
    flows(&bridge, 0, up).await;
    numbers.assert_each_once(0..1_000).await;
    bridge.stop().await;
}

/// Its server is killed three times under load; it resumes, and what comes again is not admitted
/// again. Gives the health at the end, and what it happened in.
pub(super) async fn killed_three_times(
    config: impl Fn(&Numbers) -> String,
) -> (Numbers, Bridge, Json, Server) {
    let mut server = Server::down();
    let with = with_jetstream(&server);
    server.restart(&with).await;
    let numbers = Numbers::at(&server.url()).await;
    numbers.create_stream(1).await;
    let bridge = numbers.lab.start(&config(&numbers), "").await;
    let kills = async {
        for _ in 0..3 {
            until_under_load(&bridge).await;
            server.kill().await;
            server.restart(&with).await;
            flows(&bridge, received(&bridge.health().await), Instant::now()).await;
        }
    };
    let all = numbers.publish_during(2_000, kills).await;
    numbers.assert_each_once(0..all).await;
    let health = until_acked(&bridge, all).await;
    assert_eq!(received(&health), all, "what came again was not admitted again");
    (numbers, bridge, health, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nothing_and_resumes() {
    let (numbers, bridge, health, _server) =
        killed_three_times(|numbers| numbers.config("ack_wait = \"5s\"")).await;
    assert_eq!(number(&source(&health)["reconnects"]), 6, "three times, two connections");
    bridge.stop().await;
    numbers.until_all_acked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_deleted_under_way_goes_on_where_it_was() {
    let numbers = Numbers::new().await;
    let bridge = numbers.lab.start(&numbers.config(""), "").await;
    let deletions = async {
        for _ in 0..3 {
            until_under_load(&bridge).await;
            numbers.delete_consumer(&numbers.consumer()).await;
            flows(&bridge, received(&bridge.health().await), Instant::now()).await;
        }
    };
    let all = numbers.publish_during(4_000, deletions).await;
    numbers.assert_each_once(0..all).await;
    let health = until_acked(&bridge, all).await;
    assert_eq!(received(&health), all, "what came again was not admitted again");
    bridge.stop().await;
    numbers.until_all_acked().await;
}

/// Its numbers begin anew: they have nothing to do with those of the stream before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_anew_is_read_from_its_start() {
    let numbers = Numbers::new().await;
    let bridge = numbers.lab.start(&numbers.config(""), "").await;
    numbers.publish(0..5_000, 1_000_000).await;
    numbers.assert_each_once(0..5_000).await;
    numbers.jetstream.delete_stream(numbers.stream()).await.unwrap();
    numbers.create_stream(1).await;
    numbers.publish(5_000..8_000, 1_000_000).await;
    numbers.assert_each_once(0..8_000).await;
    until_acked(&bridge, 8_000).await;
    bridge.stop().await;
    numbers.until_all_acked().await;
}

/// Three servers, each of which may go.
pub(super) struct Cluster {
    pub(super) servers: Vec<Server>,
    pub(super) configs: Vec<String>,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let mut servers: Vec<Server> = (0..3).map(|_| Server::down()).collect();
        let routes: Vec<u16> = (0..3).map(|_| Server::down().port).collect();
        let all: Vec<String> =
            routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let configs: Vec<String> = servers
            .iter()
            .zip(&routes)
            .enumerate()
            .map(|(n, (server, route))| {
                format!(
                    "server_name: n{n}\n{}\ncluster {{ name: c, listen: \"127.0.0.1:{route}\", \
                     routes: [{}] }}",
                    with_jetstream(server),
                    all.join(", ")
                )
            })
            .collect();
        for (server, config) in servers.iter_mut().zip(&configs) {
            server.restart(config).await;
        }
        Self { servers, configs }
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// Every replica of the stream has caught up: the next server may go.
    pub(super) async fn is_whole(&self, numbers: &Numbers) {
        known("a stream that is whole", async || {
            let stream = numbers.jetstream.get_stream(numbers.stream()).await.ok()?;
            let cluster = stream.cached_info().cluster.as_ref()?;
            let current = cluster.replicas.iter().filter(|replica| replica.current).count();
            (cluster.leader.is_some() && current == self.servers.len() - 1).then_some(())
        })
        .await;
    }
}

/// Who leads, by its place in the cluster. While one is elected, nobody does, and requests fail.
impl Numbers {
    pub(super) async fn leader_of(&self, stream: &str) -> usize {
        known("the leader of a stream", async || {
            let stream = self.jetstream.get_stream(stream).await.ok()?;
            place(stream.cached_info().cluster.as_ref()?)
        })
        .await
    }

    /// The consumer's name may be another one the next moment.
    pub(super) async fn leader_of_consumer(&self, name: impl AsyncFn() -> String) -> usize {
        known("the leader of a consumer", async || {
            let of = self.jetstream.get_consumer_from_stream(name().await, self.stream());
            let consumer: PullConsumer = of.await.ok()?;
            place(consumer.cached_info().cluster.as_ref()?)
        })
        .await
    }
}

impl Numbers {
    /// It is gone then, whoever deleted it: a bridge that replaces its reader does so too.
    pub(super) async fn delete_consumer(&self, name: &str) {
        known("a consumer's deletion", async || {
            match self.jetstream.delete_consumer_from_stream(name, self.stream()).await {
                Ok(_) => Some(()),
                Err(error) => match error.kind() {
                    ConsumerErrorKind::JetStream(error) => {
                        assert_eq!(error.error_code(), ErrorCode::CONSUMER_NOT_FOUND, "{error}");
                        Some(())
                    }
                    _ => None,
                },
            }
        })
        .await;
    }
}

fn place(cluster: &ClusterInfo) -> Option<usize> {
    Some(cluster.leader.as_ref()?.trim_start_matches('n').parse().unwrap())
}

/// Asks until there is an answer.
pub(super) async fn known<T>(what: &str, mut answer: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = answer().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "not known: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leader_resumes_and_costs_nothing() {
    let mut cluster = Cluster::start().await;
    let numbers = Numbers::at(&cluster.urls().join(",")).await;
    numbers.create_stream_when_it_can(3).await;
    let over = format!("nats.servers = {:?}", cluster.urls());
    let config = numbers.config("ack_wait = \"5s\"");
    let bridge = numbers.lab.start(&config, &over).await;
    let changes = async {
        for round in 1..=3 {
            until_under_load(&bridge).await;
            let leader = numbers.leader_of_consumer(async || numbers.consumer()).await;
            let before = received(&bridge.health().await);
            if round == 2 {
                let (stream, consumer) = (numbers.stream(), numbers.consumer());
                let subject = format!("CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}");
                let _answer: serde_json::Value =
                    numbers.jetstream.request(subject, &()).await.unwrap();
            } else {
                cluster.servers[leader].kill().await;
            }
            flows(&bridge, before, Instant::now()).await;
            cluster.servers[leader].restart(&cluster.configs[leader]).await;
            cluster.is_whole(&numbers).await;
        }
    };
    let all = numbers.publish_during(1_000, changes).await;
    numbers.assert_each_once(0..all).await;
    let health = until_acked(&bridge, all).await;
    assert_eq!(received(&health), all, "what came again was not admitted again");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generator_waits_until_a_stream_has_each_record() {
    let mut server = Server::down();
    let config = with_jetstream(&server);
    server.restart(&config).await;
    let generate = async || {
        let nats = format!("--nats={}", server.url());
        let args = ["generate", &nats, "--jetstream", "--kinds", "ticks=1000", "--json"];
        crate::bridge::program().args(args).output().await.unwrap()
    };
    let refused = generate().await;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nats stream add"), "{said}");
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = async_nats::jetstream::stream::Config {
        name: "MARKET".to_owned(),
        subjects: vec!["market.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let sent = generate().await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let stream = jetstream.get_stream("MARKET").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1_000);
}
