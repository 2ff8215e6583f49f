//! Two ClickHouse servers side by side, of which one is killed, or loses its answers.

use serde_json::Value as Json;

use crate::faults::proxy::{Proxy, Wire};
use crate::lab::{ClickHouse, Lab, assert_accounts, number, settled};
use crate::stack::Stack;

/// The lab's own server, and a second one with the same table.
async fn two_servers() -> (Lab, ClickHouse, Stack) {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let stack = tokio::task::spawn_blocking(|| Stack::up(&["clickhouse"])).await.unwrap();
    let url = stack.address("CLICKHOUSE");
    let database = lab.name.clone();
    let default = ClickHouse { url: url.clone(), database: "default".to_owned() };
    default.query(&format!("CREATE DATABASE {database}")).await;
    let second = ClickHouse { url, database };
    let create = lab.clickhouse.query("SHOW CREATE TABLE numbers FORMAT TSVRaw").await;
    second.query(&create).await;
    (lab, second, stack)
}

async fn rows(server: &ClickHouse) -> u64 {
    server.number("SELECT count() FROM numbers").await
}

/// Each number is at one of them, once.
async fn assert_once(one: &ClickHouse, other: &ClickHouse, sent: u64) {
    let all = "SELECT toString(groupArray(n)) FROM numbers FORMAT TSVRaw";
    let mut numbers: Vec<u64> = Vec::new();
    for server in [one, other] {
        let text = server.query(all).await;
        let listed: Vec<u64> = serde_json::from_str(text.trim()).unwrap();
        numbers.extend(listed);
    }
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..sent).collect();
    assert!(numbers == expected, "{} of {sent} are there", numbers.len());
}

fn endpoint(health: &Json, number: usize) -> &Json {
    &health["metrics"]["endpoints"][number]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_at_the_other_server_while_one_is_killed() {
    let (lab, second, _stack) = two_servers().await;
    let over = format!(
        "clickhouse.url = [\"{}\", \"{}\"]\nclickhouse.insert_timeout = \"30s\"\n\
         writers.aggregate = {{ batch_rows = 500, linger = \"200ms\" }}",
        lab.clickhouse.url, second.url
    );
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    lab.numbers_to_kafka(0..10_000, 5_000).await;
    bridge.wait_until("they take turns", |h| settled(h, "kafka", 10_000)).await;
    assert!(rows(&lab.clickhouse).await > 0 && rows(&second).await > 0);
    let sending = lab.numbers_to_kafka(10_000..40_000, 5_000);
    let killing = async {
        lab.kill_clickhouse().await;
        bridge.wait_until("it is missed", |h| endpoint(h, 0)["healthy"] == false).await
    };
    let ((), health) = tokio::join!(sending, killing);
    assert_eq!(endpoint(&health, 1)["healthy"], true, "{health:#}");
    assert_eq!(health["status"], "degraded", "{health:#}");
    let metrics = bridge.metrics().await;
    let line = format!("data_bridge_clickhouse_healthy{{url=\"{}\"}} 0", lab.clickhouse.url);
    assert!(metrics.contains(&line), "{metrics}");
    // all that the first one cannot have is at the second before it comes back
    let waits = |h: &Json| {
        let unclear = number(&endpoint(h, 0)["unclear_inserts"]);
        number(&h["metrics"]["backpressure"]["current_buffer"]) <= 500 * unclear
            && number(&h["metrics"]["sources"]["kafka"]["received"]) == 40_000
    };
    bridge.wait_until("the second has the rest", waits).await;
    lab.start_clickhouse().await;
    let back = |h: &Json| h["status"] == "healthy" && settled(h, "kafka", 40_000);
    let health = bridge.wait_until("the first is back", back).await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["breaker"]["openings"], 0, "{health:#}");
    assert_once(&lab.clickhouse, &second, 40_000).await;
    for part in ["fails, and is left for the others", "works again"] {
        let of_first = format!("{} {part}", lab.clickhouse.url);
        assert_eq!(bridge.logged(&of_first).len(), 1, "{part}\n{}", bridge.log_tail());
    }
    bridge.stop().await;
}

/// Both lose their first answer to an insert; says how many rows are where in the end, and how many
/// inserts each has seen.
async fn with_lost_answers(endpoints: &str) -> [(u64, u64); 2] {
    const SENT: u64 = 1_000;
    let (lab, second, _stack) = two_servers().await;
    let proxies = [Proxy::before(&lab.clickhouse.url).await, Proxy::before(&second.url).await];
    let [one, other] = [proxies[0].url(), proxies[1].url()];
    let over = format!(
        "clickhouse = {{ url = [\"{one}\", \"{other}\"], endpoints = \"{endpoints}\", \
         insert_timeout = \"10s\" }}\n\
         writers.aggregate = {{ batch_rows = 1000, linger = \"60s\" }}"
    );
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    proxies.iter().for_each(|proxy| proxy.inject(Wire::SwallowAnswer, 1));
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    let health = bridge.wait_until("all is stored", |h| settled(h, "kafka", SENT)).await;
    assert_accounts(&health);
    bridge.stop().await;
    let seen = proxies.map(|proxy| proxy.counts().inserts);
    [(rows(&lab.clickhouse).await, seen[0]), (rows(&second).await, seen[1])]
}

/// The other one would store them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_landed_at_an_independent_server_is_asked_of_no_other() {
    let mut found = with_lost_answers("independent").await;
    found.sort_unstable();
    assert_eq!(found, [(0, 0), (1_000, 2)]);
}

/// These two are none, so that the rows are there twice: the bridge believes what it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_landed_at_a_replica_is_asked_of_another() {
    let mut found = with_lost_answers("replicas").await;
    found.sort_unstable();
    assert_eq!(found, [(1_000, 1), (1_000, 2)]);
}
