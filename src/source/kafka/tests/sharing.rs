//! Two sources of one group, under the protocol that lets each keep what it has.

use std::sync::Arc;

use super::bench::{self, Bench, GROUP, cluster, group_offset, numbered, produce};
use crate::config;

/// The mock broker refuses commits from the moment in which any member joins again; Kafka takes them
/// until all have. On a busy machine the second member is that quick now and then: then it is tried
/// anew, in another group.
#[tokio::test]
async fn cooperative_rebalances_take_only_what_goes() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    produce(&brokers, "t", 1, &numbered(10, 20));
    let mut config = bench::settings(&brokers);
    let strategy = ("partition.assignment.strategy".to_owned(), "cooperative-sticky".to_owned());
    config.client.extend([strategy]);
    for attempt in 0..5 {
        config.group_id = format!("{GROUP}{attempt}");
        if takes_only_what_goes(&brokers, &config).await {
            return;
        }
    }
    panic!("the mock broker was in between two generations each time");
}

/// False if the commit of what goes was refused because another rebalance had begun.
async fn takes_only_what_goes(brokers: &str, config: &config::Kafka) -> bool {
    let mut first = Bench::start(config, &["t"], 100);
    first.answers = false;
    first.until_seen(20).await;
    let mut second = Bench::start(config, &["t"], 100);
    first.until("a revocation", |bench| !bench.revoked.is_empty()).await;
    let revoked = first.revoked.pop().unwrap();
    assert_eq!(revoked.partitions.len(), 1);
    let durable = first.all_seen();
    let going = Arc::clone(&revoked.partitions[0]);
    revoked.answer.send(durable).unwrap();
    let told = |bench: &Bench| bench.committed.len() + bench.commit_errors.len() > 0;
    first.until("its commit", told).await;
    first.answers = true;
    if let Some(refused) = first.commit_errors.first() {
        assert!(refused.contains("RebalanceInProgress"), "{refused}");
        first.close().await;
        second.close().await;
        return false;
    }
    assert_eq!(first.committed.len(), 1, "only what goes is committed");
    assert_eq!(group_offset(brokers, &config.group_id, "t", going.number), Some(10));
    assert_eq!(first.assigned.len(), 1);
    second.until("the other partition", |bench| bench.assigned.len() == 1).await;
    first.close().await;
    second.until("both", |bench| bench.assigned.len() == 2).await;
    // What the first had not committed comes again; what it had does not.
    second.until_seen(10).await;
    second.close().await;
    true
}
