//! What the last owner noted beside its offsets, and how it is taken up.

use std::sync::Arc;

use super::bench::{self, Bench, cluster, numbered, produce};
use super::{ChunkLimits, Options};
use crate::record::Position;

fn begin(brokers: &str) -> Bench {
    let options = Options { limits: ChunkLimits::default(), exactly_once: true };
    Bench::start_with(&bench::settings(brokers), &["t"], 100, options)
}

#[tokio::test]
async fn nothing_of_noted_partitions_is_taken_before_it_is_said_which_of_them_have_to_wait() {
    let cluster = cluster(&[("t", 2)]);
    let brokers = cluster.bootstrap_servers();
    for partition in 0..2 {
        produce(&brokers, "t", partition, &numbered(0, 10));
    }
    let mut last_owner = begin(&brokers);
    last_owner.until_seen(20).await;
    let note = |partition| Position { note: Some("noted".into()), ..Position::new(partition, 0) };
    let notes: Vec<_> = last_owner.assigned.iter().cloned().map(note).collect();
    last_owner.want(|wanted| wanted.commit = notes);
    last_owner.until("both notes", |bench| bench.committed.len() == 2).await;
    last_owner.close().await;

    let mut bench = begin(&brokers);
    bench.takes_up = false;
    bench.until("both partitions", |bench| bench.assigned.len() == 2).await;
    // Half a second, in which all of them would come many times over.
    for _ in 0..25 {
        bench.look().await;
    }
    assert_eq!(bench.offsets(), [0; 0]);
    let (waits, goes) = (Arc::clone(&bench.assigned[0]), Arc::clone(&bench.assigned[1]));
    bench.want(|wanted| wanted.held = vec![waits]);
    bench.take_up();
    bench.until_seen(10).await;
    assert!(bench.seen.iter().all(|seen| seen.partition == goes));
    bench.want(|wanted| wanted.held = Vec::new());
    bench.until_seen(20).await;
    bench.close().await;
}
