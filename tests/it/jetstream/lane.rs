//! From a stream into a table, and what the server is told of it.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{Numbers, assert_never_overflowed, received, source, until_acked, until_under_load};
use crate::bridge::PATIENCE;
use crate::lab::{Lab, assert_accounts, number};

/// So small that it is full at once, and JetStream alone trips the rule.
const SMALL: &str = "backpressure = { max_buffer_size = 5000, pause_threshold = 4000, \
                     resume_threshold = 2000, pull_limit = 5000 }\n\
                     writers.default.batch_rows = 1000\nwriters.aggregate.batch_rows = 1000\n";

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
    bridge.stop().await;
    let wrong = "SELECT countIf(_subject NOT LIKE '%.numbers.%') FROM numbers";
    assert_eq!(numbers.lab.clickhouse.number(wrong).await, 0);
    let sequences = "SELECT uniqExact(_offset) * (max(_offset) - min(_offset) + 1 = count()) \
                     FROM numbers WHERE _offset > 0";
    assert_eq!(numbers.lab.clickhouse.number(sequences).await, ALL, "the stream's own numbers");
    let info = numbers.until_all_acked().await;
    assert_eq!((info.num_pending, info.ack_floor.stream_sequence), (0, ALL));

    let bridge = numbers.lab.start(&config, "").await;
    numbers.publish(ALL..ALL + 10, 1_000_000).await;
    let health = until_acked(&bridge, 10).await;
    assert_eq!(received(&health), 10, "nothing came again");
    assert_eq!(number(&source(&health)["lag"]), 0);
    numbers.assert_each_once(0..ALL + 10).await;
    bridge.stop().await;
}

/// What is on its way when the bridge stops is given back: it comes again at once, and not after
/// `ack_wait`. And it goes to others: a bridge that drains and gets it again, and gives it back again,
/// would make a dead letter of it by and by.
///
/// A bridge on a machine that stalls says that it could not give all of it back in time: only then
/// `ack_wait` is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_gives_back_what_it_does_not_store() {
    const AT_ONCE: Duration = Duration::from_secs(40);
    let numbers = Numbers::new().await;
    // The four bridges of this test: each has a record once at most.
    let config = numbers.config("ack_wait = \"1m\"\nmax_deliver = 4");
    let (mut late, mut stopped) = (false, Instant::now());
    let stops = async {
        for _ in 0..3 {
            let mut bridge = numbers.lab.start(&config, "").await;
            until_under_load(&bridge).await;
            assert_eq!(bridge.terminate().await, 0, "{}", bridge.log_tail());
            late |= !bridge.logged("JetStream was not told in time").is_empty();
            stopped = Instant::now();
        }
    };
    let all = numbers.publish_during(5_000, stops).await;
    let bridge = numbers.lab.start(&config, "").await;
    numbers.assert_each_once(0..all).await;
    let took = stopped.elapsed();
    assert!(late || took < AT_ONCE, "{took:?}");
    bridge.stop().await;
    numbers.until_all_acked().await;
}

/// ClickHouse is down for several times `ack_wait`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_longer_than_ack_wait_neither_grows_the_buffer_nor_stores_twice() {
    const ALL: u64 = 20_000;
    // Each third of it the bridge says that it is at it: it may be late by seconds.
    const ACK_WAIT: Duration = Duration::from_secs(10);
    let numbers = Numbers::without_stream(Lab::with_own_clickhouse().await).await;
    numbers.create_stream(1).await;
    let bridge = numbers.lab.start(&numbers.config("ack_wait = \"10s\""), SMALL).await;
    numbers.lab.kill_clickhouse().await;
    numbers.publish(0..ALL, 1_000_000).await;
    bridge
        .wait_until("it is paused", |health| {
            source(health)["paused"] == true && source(health)["natively_paused"] == true
        })
        .await;
    let before = bridge.health().await;
    // the time itself is what this is about
    tokio::time::sleep(2 * ACK_WAIT).await;
    let health = bridge.health().await;
    assert_eq!(received(&health), received(&before), "nothing more is taken");
    assert!(number(&source(&health)["held"]) <= 5_000, "{health:#}");
    // Without a request nothing is delivered again, whatever the server thinks. Another reader is
    // offered first what nobody seems to be at: that is nothing of what the bridge holds.
    let consumer: Consumer<pull::Config> = numbers
        .jetstream
        .get_consumer_from_stream(numbers.consumer(), numbers.stream())
        .await
        .unwrap();
    let mut offered = consumer.fetch().max_messages(100).messages().await.unwrap();
    let mut count = 0;
    while let Some(message) = offered.next().await {
        let message = message.unwrap();
        assert_eq!(message.info().unwrap().delivered, 1, "the server knows that we are at it");
        message.ack_with(AckKind::Nak(None)).await.unwrap();
        count += 1;
    }
    assert_eq!(count, 100);

    // Now it cannot say so: the server delivers again what is held.
    bridge.signal("STOP");
    // `ack_wait` has to pass: the time itself again
    tokio::time::sleep(2 * ACK_WAIT).await;
    bridge.signal("CONT");
    numbers.lab.start_clickhouse().await;
    numbers.assert_each_once(0..ALL).await;
    let health = until_acked(&bridge, ALL).await;
    assert_eq!(received(&health), ALL, "what came again was not admitted again");
    assert_never_overflowed(&health);
    assert_accounts(&health);
    // Each pause ends. There may be another one: what waited in the stream fills the buffer again,
    // and with this pull limit that alone trips the rule.
    let pressure = &health["metrics"]["backpressure"];
    let pauses = number(&pressure["pause_count"]);
    let lines = |line| bridge.logged(line).len() as u64;
    assert!(pauses >= 1 && pressure["active"] == false, "{pressure:#}");
    assert_eq!(lines("JetStream subscriber paused"), pauses);
    assert_eq!(lines("JetStream subscriber resumed"), pauses);
    bridge.stop().await;
    numbers.until_all_acked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_one_consumer() {
    const ALL: u64 = 30_000;
    let numbers = Numbers::new().await;
    let config = numbers.config("");
    let (one, other) = tokio::join!(numbers.lab.start(&config, ""), numbers.lab.start(&config, ""));
    numbers.publish(0..ALL, 20_000).await;
    numbers.assert_each_once(0..ALL).await;
    let (one_got, other_got) = (received(&one.health().await), received(&other.health().await));
    assert!(one_got > 0 && other_got > 0, "{one_got} and {other_got}");
    assert_eq!(one_got + other_got, ALL);
    // one leaves: the other has all
    one.stop().await;
    numbers.publish(ALL..2 * ALL, 20_000).await;
    numbers.assert_each_once(0..2 * ALL).await;
    other.stop().await;
    numbers.until_all_acked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_bridge_loses_nothing() {
    let numbers = Numbers::new().await;
    let config = numbers.config("ack_wait = \"2s\"");
    let all = numbers.killed_under_load(&config, 4, 500, 5_000).await;
    let bridge = numbers.lab.start(&config, "").await;
    numbers.lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", all).await;
    bridge
        .wait_until("all is acknowledged", |health| {
            number(&source(health)["held"]) == 0 && source(health)["lag"] == 0
        })
        .await;
    bridge.stop().await;
}

/// With confirmation, or in bulk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_acknowledge_tells_the_server_everything() {
    const ALL: u64 = 20_000;
    for keys in ["double_ack = true", "ack = \"all\"", "ack = \"all\"\ndouble_ack = true"] {
        let numbers = Numbers::new().await;
        let bridge = numbers.lab.start(&numbers.config(keys), "").await;
        numbers.publish(0..ALL, 1_000_000).await;
        numbers.assert_each_once(0..ALL).await;
        until_acked(&bridge, ALL).await;
        bridge.stop().await;
        let info = numbers.until_all_acked().await;
        assert_eq!(info.ack_floor.stream_sequence, ALL, "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_comes_too_often_becomes_a_dead_letter_and_comes_no_more() {
    let numbers = Numbers::new().await;
    let consumer = pull::Config {
        durable_name: Some(numbers.consumer()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: numbers.lab.subject("numbers.>"),
        max_deliver: -1,
        ..pull::Config::default()
    };
    let consumer =
        numbers.jetstream.create_consumer_on_stream(consumer, numbers.stream()).await.unwrap();
    numbers.publish(0..100, 1_000_000).await;
    // Somebody took each of them once, and the third one as often as is borne.
    let mut all = consumer.batch().max_messages(100).messages().await.unwrap();
    while let Some(message) = all.next().await {
        message.unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
    for _ in 1..3 {
        let mut all = consumer.batch().max_messages(100).messages().await.unwrap();
        while let Some(message) = all.next().await {
            let message = message.unwrap();
            let third = message.info().unwrap().stream_sequence == 3;
            let kind = if third { AckKind::Nak(None) } else { AckKind::Ack };
            message.ack_with(kind).await.unwrap();
        }
    }
    let bridge = numbers.lab.start(&numbers.config("max_deliver = 3"), "").await;
    let letter = "SELECT reason, offset, topic_or_subject, source, payload FROM dead_letters";
    numbers.lab.clickhouse.until("SELECT count() FROM dead_letters", 1).await;
    let letter = numbers.lab.clickhouse.row(letter).await;
    assert_eq!(letter["reason"], "delivered_too_often");
    assert_eq!((number(&letter["offset"]), &letter["source"]), (3, &"jetstream".into()));
    assert_eq!(letter["topic_or_subject"], numbers.lab.subject("numbers.2"));
    assert_eq!(letter["payload"], "{\"n\":2}");
    let health = until_acked(&bridge, 1).await;
    assert_eq!((received(&health), number(&source(&health)["dead_lettered"])), (1, 1));
    assert_accounts(&health);
    bridge.stop().await;
    let info = numbers.until_all_acked().await;
    assert_eq!(info.ack_floor.stream_sequence, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stream_is_waited_for_and_says_what_to_do() {
    let numbers = Numbers::without_stream(Lab::new().await).await;
    let bridge = numbers.lab.spawn(&numbers.config(""), "").ready().await;
    bridge.needs_person("nats stream add").await;
    numbers.create_stream(1).await;
    numbers.publish(0..1_000, 1_000_000).await;
    numbers.assert_each_once(0..1_000).await;
    bridge.needs_nobody().await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_would_lose_records_is_refused_and_not_changed() {
    let numbers = Numbers::new().await;
    let limited = pull::Config {
        durable_name: Some(numbers.consumer()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: numbers.lab.subject("numbers.>"),
        max_deliver: 5,
        ..pull::Config::default()
    };
    numbers.jetstream.create_consumer_on_stream(limited, numbers.stream()).await.unwrap();
    let bridge = numbers.lab.spawn(&numbers.config(""), "").ready().await;
    numbers.publish(0..1_000, 1_000_000).await;
    bridge.needs_person("gives up after 5 deliveries").await;
    assert_eq!(numbers.info().await.config.max_deliver, 5);
    assert_eq!(received(&bridge.health().await), 0);
    let consumer = numbers.consumer();
    numbers.jetstream.delete_consumer_from_stream(consumer, numbers.stream()).await.unwrap();
    numbers.assert_each_once(0..1_000).await;
    bridge.stop().await;
}

/// One table is missing; its own stream waits, the other one flows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_table_holds_up_its_own_pulls_only() {
    const ALL: u64 = 30_000;
    let numbers = Numbers::new().await;
    let other = async_nats::jetstream::stream::Config {
        name: format!("{}OTHER", numbers.stream()),
        subjects: vec![numbers.lab.subject("other")],
        ..Default::default()
    };
    numbers.jetstream.create_stream(other).await.unwrap();
    let route = format!(
        "[[routes]]\nname = \"other\"\njetstream_subjects = [\"{}\"]\ntable = \"not_there\"\n",
        numbers.lab.subject("other")
    );
    let bridge = numbers
        .lab
        .start(
            &(numbers.config("batch = 200") + &route),
            "backpressure = { \
            max_buffer_size = 24000, pause_threshold = 20000, resume_threshold = 8000 }",
        )
        .await;
    numbers.publish_to(|_| numbers.lab.subject("other"), 0..15_000, 1_000_000).await;
    bridge.wait_for_log("its routes wait").await;
    numbers.publish(0..ALL, 1_000_000).await;
    numbers.assert_each_once(0..ALL).await;
    let sql = "CREATE TABLE not_there (n UInt64) ENGINE = MergeTree ORDER BY n";
    numbers.lab.clickhouse.query(sql).await;
    numbers.lab.clickhouse.until("SELECT uniqExact(n) FROM not_there", 15_000).await;
    let health = until_acked(&bridge, ALL + 15_000).await;
    assert_never_overflowed(&health);
    tokio::time::timeout(PATIENCE, bridge.stop()).await.unwrap();
}
