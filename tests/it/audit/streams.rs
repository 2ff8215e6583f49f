//! The audit of JetStream: numbers of a stream instead of offsets, a consumer instead of a group.

use async_nats::jetstream::stream::{self, RetentionPolicy};

use super::Audited;
use crate::jetstream::{Numbers, until_acked};
use crate::lab::Lab;

/// A stream in which every second message is none of the route's.
async fn numbers(retention: RetentionPolicy) -> Numbers {
    let numbers = Numbers::without_stream(Lab::new().await).await;
    let config = stream::Config {
        name: numbers.stream(),
        subjects: vec![numbers.lab.subject("numbers.>"), numbers.lab.subject("other")],
        retention,
        ..stream::Config::default()
    };
    numbers.jetstream.create_stream(config).await.unwrap();
    numbers
}

async fn publish(numbers: &Numbers, range: std::ops::Range<u64>) {
    for n in range {
        numbers.publish(n..n + 1, 1_000_000).await;
        let other = numbers.lab.subject("other");
        numbers.jetstream.publish(other, "x".into()).await.unwrap().await.unwrap();
    }
}

async fn deliver(numbers: &Numbers, records: u64) {
    let bridge = numbers.lab.start(&numbers.config(""), "").await;
    until_acked(&bridge, records).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_proved_by_its_numbers_and_what_others_publish_is_no_gap() {
    let numbers = numbers(RetentionPolicy::Limits).await;
    publish(&numbers, 0..100).await;
    deliver(&numbers, 100).await;
    let whole = Audited::of(&numbers.lab, &numbers.config(""), &[]).await;
    // The last message of another is not the consumer's: it waits behind nothing.
    whole.says(0, &["complete", "1..200 100 0 99"]);
    assert_eq!(whole.partition(0)["without_row"]["no_record"], 99);

    // Number n has the sequence 2n + 1.
    numbers.lab.clickhouse.query("DELETE FROM numbers WHERE n = 20").await;
    let holed = Audited::of(&numbers.lab, &numbers.config(""), &[]).await;
    holed.says(1, &["MISSING 1 record: offset 41"]);
    let unread = Audited::of(&numbers.lab, &numbers.config(""), &["--read-topic=never"]).await;
    unread.says(2, &["100 offsets: no row"]);
    let since = Audited::of(&numbers.lab, &numbers.config(""), &["--since", "1h"]).await;
    since.says(2, &["of a stream say --offsets"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_a_stream_is_not_delivered_yet() {
    let numbers = numbers(RetentionPolicy::Limits).await;
    publish(&numbers, 0..10).await;
    deliver(&numbers, 10).await;
    publish(&numbers, 10..15).await;
    let audited = Audited::of(&numbers.lab, &numbers.config(""), &[]).await;
    audited.says(0, &["1..20 10 0 9 11"]);
}

/// What was acknowledged is gone from it: it cannot say whether there ever was a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_forgets_what_was_acknowledged_proves_no_gap() {
    let numbers = numbers(RetentionPolicy::WorkQueue).await;
    numbers.publish(0..10, 1_000_000).await;
    deliver(&numbers, 10).await;
    let whole = Audited::of(&numbers.lab, &numbers.config(""), &[]).await;
    whole.says(0, &["1..11 10"]);
    numbers.lab.clickhouse.query("DELETE FROM numbers WHERE n = 4").await;
    let holed = Audited::of(&numbers.lab, &numbers.config(""), &[]).await;
    holed.says(2, &["not proven, 1 offset: no row", ": 5"]);
}
