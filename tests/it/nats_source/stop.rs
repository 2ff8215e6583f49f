//! Stopping: everything that the server had delivered is handed over.

use std::collections::BTreeSet;
use std::time::Duration;

use data_bridge::source::Stage;
use data_bridge::source::nats::Limits;
use tokio::task::JoinSet;

use super::auth::user;
use super::bridge::{DRAIN_FOR, Setup, publisher, routed};
use super::server::{PATIENCE, Server, within};

/// Less than the time after which a drain of these tests gives up, so that it shows when one waits for
/// what never comes; much more than a machine that stalls needs.
const PROMPT: Duration = Duration::from_secs(40);
const _: () = assert!(PROMPT.as_secs() < DRAIN_FOR.as_secs());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_hands_over_everything_delivered() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut setup = Setup::new(&server, &["a.>", "system.>"]);
    setup.system = vec!["system.>"];
    setup.events = 1;
    let mut bridge = setup.start().await;
    bridge.until_subscribed(&to, "a.probe").await;
    bridge.until_subscribed(&to, "system.probe").await;
    for n in 0..30_000 {
        let subject = if n % 10 == 0 { "system.x" } else { "a.x" };
        to.publish(subject, "x".into()).await.unwrap();
    }
    routed(&to).await;
    tokio::time::timeout(PROMPT, bridge.drain()).await.expect("a prompt drain");
    assert_eq!((bridge.got.len(), bridge.dropped), (30_000, 0));
    // nothing comes any more
    to.publish("a.x", "late".into()).await.unwrap();
    routed(&to).await;
    assert_eq!(bridge.close().await.got.len(), 30_000);
}

/// The client's own drain loses here what the server sends before it reads the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_leaves_under_load_loses_nothing() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut stays = Setup::new(&server, &["a.*"]).start().await;
    stays.until_subscribed(&to, "a.probe").await;
    for round in 0..20 {
        let mut leaves = Setup::new(&server, &["a.*"]).start().await;
        leaves.until_subscribed(&to, "a.probe").await;
        stays.got.clear();
        let mut load = JoinSet::new();
        let from = to.clone();
        load.spawn(async move {
            for n in 0..40_000_u32 {
                from.publish("a.x", n.to_string().into()).await.unwrap();
            }
            routed(&from).await;
        });
        leaves.until("under load", |b| b.got.len() > 2_000).await;
        leaves.drain().await;
        let leaves = leaves.close().await;
        within("published", load.join_next()).await.unwrap().unwrap();
        stays.until("the rest", |b| b.got.len() + leaves.got.len() >= 40_000).await;
        let all: BTreeSet<_> =
            stays.got.iter().chain(&leaves.got).map(|got| got.payload.clone()).collect();
        assert!(leaves.got.len() < 39_000, "round {round}: it left before the end");
        assert_eq!((all.len(), leaves.dropped), (40_000, 0), "round {round}");
        assert_eq!(stays.got.len() + leaves.got.len(), 40_000, "round {round}: none twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_prompt_when_the_server_forbids_the_fence() {
    let config = r#"authorization { users = [
        { user: "a", password: "b", permissions: { publish: { deny: ">" } } },
        { user: "p", password: "p" } ] }"#;
    let server = Server::start(config).await;
    let options = async_nats::ConnectOptions::with_user_and_password("p".into(), "p".into());
    let to = within("connects", options.connect(server.url())).await.unwrap();
    let mut bridge = Setup::new(&server, &["a.>"]).auth(user("a", "b")).start().await;
    bridge.until_subscribed(&to, "a.probe").await;
    for _ in 0..5_000 {
        to.publish("a.x", "x".into()).await.unwrap();
    }
    routed(&to).await;
    tokio::time::timeout(PROMPT, bridge.drain()).await.expect("a prompt drain");
    assert_eq!((bridge.got.len(), bridge.dropped), (5_000, 0));
    assert!(bridge.connections.iter().flatten().all(|e| !e.contains("_INBOX")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_a_server_hands_over_what_is_here() {
    let mut server = Server::start("").await;
    let to = publisher(&server).await;
    let mut setup = Setup::new(&server, &["a.>"]);
    setup.events = 1;
    let mut bridge = setup.start().await;
    let probes = bridge.until_subscribed(&to, "a.probe").await;
    for _ in 0..5_000 {
        to.publish("a.x", "x".into()).await.unwrap();
    }
    routed(&to).await;
    server.kill().await;
    tokio::time::timeout(PROMPT, bridge.drain()).await.expect("a prompt drain");
    // what the server had not yet written when it was killed is lost to everybody
    assert!(bridge.got.len() <= 5_000 && bridge.probes <= probes);
    assert_eq!(bridge.dropped, 0);
    bridge.close().await;
}

/// The pipeline reads nothing for longer than a drain of the bridge may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_handed_over_in_time_is_counted() {
    let server = Server::start("").await;
    let to = publisher(&server).await;
    let mut setup = Setup::new(&server, &["a.>"]);
    (setup.limits, setup.events) = (Limits::default(), 1);
    let mut bridge = setup.start().await;
    let probes = bridge.until_subscribed(&to, "a.probe").await;
    for _ in 0..20_000 {
        to.publish("a.x", "x".into()).await.unwrap();
    }
    routed(&to).await;
    bridge.want(Stage::Draining);
    // the drain's own time has to pass: this is about time
    tokio::time::sleep(Limits::default().drain_for + Duration::from_secs(1)).await;
    tokio::time::timeout(PATIENCE, bridge.until("drained", |b| b.drained)).await.unwrap();
    // time for what must not come any more
    for _ in 0..10 {
        routed(&to).await;
    }
    let bridge = bridge.close().await;
    assert!(bridge.dropped > 0);
    assert_eq!(bridge.got.len() as u64 + bridge.probes + bridge.dropped, 20_000 + probes);
}
