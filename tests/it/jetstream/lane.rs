//! From a stream into a table, and what the server is told of it.

use super::{Numbers, assert_never_overflowed, received, source, until_acked};
use crate::lab::{assert_accounts, number};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_stream_land_once_and_a_restart_receives_nothing_again() {
    const ALL: u64 = 20_000;
    let numbers = Numbers::new().await;
    let config = numbers.config("");
    let bridge = numbers.lab.start(&config, "").await;
    numbers.publish(0..ALL, 1_000_000).await;
    numbers.assert_each_once(0..ALL).await;
    let health = until_acked(&bridge, ALL).await;
    assert_never_overflowed(&health);
    assert_accounts(&health);
    let wrong = "SELECT countIf(_offset != n + 1 OR _topic NOT LIKE '%.numbers.%') FROM numbers";
    assert_eq!(numbers.lab.clickhouse.number(wrong).await, 0, "@offset is the stream's number");
    bridge.stop().await;
    let info = numbers.info().await;
    assert_eq!(
        (info.num_ack_pending, info.num_pending, info.ack_floor.stream_sequence),
        (0, 0, ALL)
    );

    let bridge = numbers.lab.start(&config, "").await;
    numbers.publish(ALL..ALL + 10, 1_000_000).await;
    let health = until_acked(&bridge, 10).await;
    assert_eq!(received(&health), 10, "nothing came again");
    assert_eq!(number(&source(&health)["lag"]), 0);
    numbers.assert_each_once(0..ALL + 10).await;
    bridge.stop().await;
}
