//! The core NATS source against a real nats-server.

pub(crate) mod auth;
mod bridge;
pub(crate) mod server;
mod stop;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use data_bridge::source::Stage;
use futures_util::StreamExt as _;

use self::bridge::{Setup, publisher, routed};
use self::server::{Server, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_the_records_of_a_wildcard() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut one = Setup::new(&server, &["market.>"]).start().await;
    let mut other = Setup::new(&server, &["market.>"]).start().await;
    // the group shares the probes too
    one.until_subscribed(&to, "market.probe").await;
    other.until_subscribed(&to, "market.probe").await;
    for n in 0..1_000 {
        to.publish(format!("market.{n}.tick"), n.to_string().into()).await.unwrap();
    }
    to.publish("else.where", "not ours".into()).await.unwrap();
    routed(&to).await;
    one.drain().await;
    other.drain().await;
    assert!(!one.got.is_empty() && !other.got.is_empty());
    let mut all: Vec<_> = one.subjects().into_iter().chain(other.subjects()).collect();
    all.sort_unstable();
    let mut expected: Vec<_> = (0..1_000).map(|n| format!("market.{n}.tick")).collect();
    expected.sort_unstable();
    assert_eq!(all, expected, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_several_patterns_match_is_delivered_once() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let subjects =
        ["market.*.tick", "market.external.*", "market.*.*", "market.external.>", "*.health.*"];
    let setup = || {
        let mut setup = Setup::new(&server, &subjects);
        setup.subjects.push("system.>");
        setup.system = vec!["system.>"];
        setup
    };
    let (mut one, mut other) = (setup().start().await, setup().start().await);
    for subject in ["system.probe", "market.probe.x"] {
        one.until_subscribed(&to, subject).await;
        other.until_subscribed(&to, subject).await;
    }
    let published = [
        "market.external.tick",
        "market.external.gdp",
        "market.external.a.b",
        "market.EURUSD.tick",
        "market.EURUSD.5m",
        "system.health.bridge",
        "other.health.bridge",
    ];
    for subject in published {
        for _ in 0..50 {
            to.publish(subject, Bytes::new()).await.unwrap();
        }
    }
    routed(&to).await;
    one.drain().await;
    other.drain().await;
    for subject in published {
        let count =
            one.subjects().into_iter().chain(other.subjects()).filter(|s| *s == subject).count();
        assert_eq!(count, 50, "{subject}");
    }
    assert_eq!(one.dropped + other.dropped, 0);
}

/// One member of a group gets a record, across servers too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_from_another_server_of_the_cluster_is_delivered_once() {
    let (mut here, mut there) = (Server::down(), Server::down());
    let (here_route, there_route) = (Server::down().port, Server::down().port);
    let config = |name, own, other| {
        format!(
            "server_name: {name}\ncluster {{ name: c, listen: \"127.0.0.1:{own}\", \
             routes: [\"nats://127.0.0.1:{other}\"] }}"
        )
    };
    here.restart(&config("here", here_route, there_route)).await;
    there.restart(&config("there", there_route, here_route)).await;
    let subjects = ["market.*.tick", "market.external.*", "market.external.>"];
    let mut one = Setup::new(&there, &subjects).start().await;
    let mut other = Setup::new(&there, &subjects).start().await;
    let (to, observer) = (publisher(&here).await, publisher(&there).await);
    one.until_subscribed(&to, "market.external.a.probe").await;
    other.until_subscribed(&to, "market.external.a.probe").await;
    let mut plain = observer.subscribe("market.external.tick").await.unwrap();
    routed(&observer).await;
    // what the observer has, the instances' server has given to them too
    for n in 0..500 {
        to.publish("market.external.tick", n.to_string().into()).await.unwrap();
    }
    within("all crossed over", async {
        while plain.next().await.is_some_and(|message| &message.payload[..] != b"499") {}
    })
    .await;
    one.drain().await;
    other.drain().await;
    assert_eq!(one.got.len() + other.got.len(), 500);
    assert_eq!(one.dropped + other.dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_empty_payloads_come_through() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut bridge = Setup::new(&server, &["a.*"]).start().await;
    bridge.until_subscribed(&to, "a.probe").await;
    let mut headers = async_nats::HeaderMap::new();
    headers.append("trace", "1");
    headers.append("trace", "2");
    headers.insert("kind", "");
    to.publish_with_headers("a.b", headers, Bytes::new()).await.unwrap();
    to.publish("a.c", Bytes::from_static(&[0, 255, 10])).await.unwrap();
    bridge.until("both", |b| b.got.len() == 2).await;
    assert_eq!(
        (bridge.got[0].subject.as_str(), bridge.got[0].payload.as_slice()),
        ("a.b", &b""[..])
    );
    assert_eq!(bridge.got[0].headers["trace"], [b"1", b"2"]);
    assert_eq!(bridge.got[0].headers["kind"], [b""]);
    assert_eq!(
        (bridge.got[1].payload.as_slice(), bridge.got[1].headers.len()),
        (&[0, 255, 10][..], 0)
    );
    assert!(bridge.close().await.closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_reconnects_after_the_server_was_killed() {
    let mut server = Server::start("").await;
    let to = publisher(&server).await;
    let mut bridge = Setup::new(&server, &["a.>"]).start().await;
    bridge.until_subscribed(&to, "a.probe").await;
    server.kill().await;
    bridge.until_error("127.0.0.1").await;
    assert!(!bridge.handle.observed.connected.load(Ordering::Relaxed));
    server.restart("").await;
    let to = publisher(&server).await;
    bridge.until_subscribed(&to, "a.probe").await;
    assert!(bridge.handle.observed.connected.load(Ordering::Relaxed));
    assert_eq!(bridge.handle.observed.reconnects.load(Ordering::Relaxed), 1);
    bridge.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_while_the_server_is_down() {
    let mut server = Server::down();
    let mut setup = Setup::new(&server, &["a.>", "system.>"]);
    setup.system = vec!["system.>"];
    let mut bridge = setup.start().await;
    bridge.until_error("127.0.0.1").await;
    assert!(!bridge.handle.observed.connected.load(Ordering::Relaxed));
    server.restart("").await;
    let to = publisher(&server).await;
    bridge.until_subscribed(&to, "a.probe").await;
    bridge.until_subscribed(&to, "system.probe").await;
    assert_eq!(bridge.handle.observed.reconnects.load(Ordering::Relaxed), 0);
    bridge.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_closes_while_the_server_is_down() {
    let server = Server::down();
    let bridge = Setup::new(&server, &["a.>"]).start().await;
    bridge.want(Stage::Draining);
    let bridge = bridge.close().await;
    assert_eq!(bridge.dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_the_server_refuses_is_visible() {
    let config = r#"authorization { users = [
        { user: "a", password: "b", permissions: { subscribe: { deny: "secret.>" } } } ] }"#;
    let server = Server::start(config).await;
    let mut bridge =
        Setup::new(&server, &["secret.>", "open.>"]).auth(auth::user("a", "b")).start().await;
    bridge.until_error("secret.>").await;
    assert!(bridge.handle.observed.connected.load(Ordering::Relaxed));
    bridge.close().await;
}

/// received + dropped = published, whatever the client threw away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_drops_is_counted_exactly() {
    const PUBLISHED: u64 = 20_000;
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut setup = Setup::new(&server, &["a.*", "b.*"]);
    (setup.limits.capacity, setup.events) = (8, 1);
    let mut bridge = setup.start().await;
    let probes = bridge.until_subscribed(&to, "b.probe").await;
    // nobody reads the events: the reader stalls
    for n in 0..PUBLISHED {
        to.publish(if n % 3 == 0 { "a.x" } else { "b.x" }, "x".into()).await.unwrap();
    }
    routed(&to).await;
    let total = PUBLISHED + probes;
    bridge
        .until("all accounted for while running", |b| {
            b.got.len() as u64 + b.probes + b.dropped >= total
        })
        .await;
    assert!(bridge.dropped > PUBLISHED / 2, "most were dropped");
    // after a loss it still counts what comes, and never too much
    for _ in 0..100 {
        to.publish("a.x", "x".into()).await.unwrap();
    }
    routed(&to).await;
    bridge.drain().await;
    assert_eq!(bridge.got.len() as u64 + bridge.probes + bridge.dropped, total + 100);
    assert!(bridge.handle.observed.slow_consumer_events.load(Ordering::Relaxed) > 0);
    let dropped = bridge.dropped;
    assert_eq!(bridge.close().await.dropped, dropped, "nothing is left to count");
}
