//! Inserts that are taken and never answered: the bridge gives them up, their connections too.

use std::time::Duration;

use super::proxy::{Proxy, Wire};
use crate::bridge::PATIENCE;
use crate::lab::{Lab, settled};

const UNANSWERED: usize = 6;
const ALL: u64 = 100;
/// As many inserts are under way at a time.
const KEPT: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_is_never_answered_leaves_no_connection_behind() {
    let mut lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    proxy.inject(Wire::SwallowAnswer, UNANSWERED / 2);
    proxy.inject(Wire::Blackhole, UNANSWERED / 2);
    let bridge = lab.start(&lab.numbers("kafka"), "clickhouse.insert_timeout = \"1s\"").await;
    lab.numbers_to_kafka(0..ALL, u64::MAX).await;
    bridge.wait_until("all is stored", |health| settled(health, "kafka", ALL)).await;
    assert_eq!(proxy.counts().injected.values().sum::<u64>(), UNANSWERED as u64);
    assert_eq!(lab.stored_numbers(&(0..ALL)).await, (ALL, ALL));
    // one that was used well may be kept for the next insert
    let closed = async {
        while proxy.counts().open > KEPT {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let left = tokio::time::timeout(PATIENCE / 6, closed).await;
    assert!(left.is_ok(), "{} connections are left", proxy.counts().open);
    bridge.stop().await;
}
