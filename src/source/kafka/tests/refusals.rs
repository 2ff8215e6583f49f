//! What a broker refuses, and what it no longer has: told, waited for, never passed over.

use std::sync::atomic::Ordering;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::bench::{
    self, Bench, GROUP, cluster, group_offset, is_told, look_each_second, numbered, produce,
};

/// What a person has to do: this and nothing else.
fn needs_only(bench: &Bench, part: &str) -> bool {
    let needs = bench.handle.observed.needs_person.lock().unwrap();
    matches!(needs.as_slice(), [need] if need.contains(part))
}

fn needs_nobody(bench: &Bench) -> bool {
    bench.handle.observed.needs_person.lock().unwrap().is_empty()
}

#[tokio::test]
async fn a_topic_that_comes_later_is_read_without_a_restart() {
    let cluster = cluster(&[("known", 1)]);
    let brokers = cluster.bootstrap_servers();
    let mut config = bench::settings(&brokers);
    look_each_second(&mut config);
    produce(&brokers, "known", 0, &numbered(0, 5));
    let mut bench = Bench::start(&config, &["known", "later"], 100);
    bench.until_seen(5).await;
    bench.until("it is missed", |bench| is_told(bench, "not available: later: ")).await;
    assert!(is_told(&bench, "(looked for again every 1s)"), "{:?}", bench.connection);
    assert!(needs_only(&bench, "create the topic, or correct kafka_topics"));
    cluster.create_topic("later", 1, 1).unwrap();
    produce(&brokers, "later", 0, &numbered(5, 10));
    bench.until_seen(10).await;
    assert_eq!(bench.payloads(), numbered(0, 10));
    bench.until("nothing is missed", |bench| bench.connection.last() == Some(&None)).await;
    assert!(needs_nobody(&bench));
    bench.close().await;
}

#[tokio::test]
async fn a_topic_that_may_not_be_read_is_told_until_it_may() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 5));
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.topic_error("t", refused).unwrap();
    let mut config = bench::settings(&brokers);
    look_each_second(&mut config);
    let mut bench = Bench::start(&config, &["t"], 100);
    bench.until("a refusal", |bench| is_told(bench, "t: Broker: Topic authorization failed")).await;
    cluster.topic_error("t", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    bench.until_seen(5).await;
    bench.until("no refusal", |bench| bench.connection.last() == Some(&None)).await;
    bench.close().await;
}

/// librdkafka's batches count an error as the record that it came in place of.
#[tokio::test]
async fn a_record_that_could_not_be_read_is_not_passed_over() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "t", 0, &numbered(0, 10));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until_seen(10).await;
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    // Twice: librdkafka takes the first answer at the end of a partition for that end, whatever it says.
    cluster.request_errors(RDKafkaApiKey::Fetch, &[refused, refused]);
    bench.until("a refusal", |bench| is_told(bench, "Fetch from broker")).await;
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    // Whoever resumes goes on where the application was.
    let paused = |bench: &Bench| bench.handle.observed.natively_paused.load(Ordering::Acquire);
    bench.want(|wanted| wanted.native_pause = true);
    bench.until("a native pause", paused).await;
    produce(&brokers, "t", 0, &numbered(10, 15));
    bench.want(|wanted| wanted.native_pause = false);
    bench.until_seen(15).await;
    assert_eq!(bench.payloads(), numbered(0, 15));
    assert_eq!(bench.committed, durable, "a record that was not read is not committed");
    bench.until("no refusal", |bench| bench.connection.last() == Some(&None)).await;
    assert!(needs_nobody(&bench));
    bench.close().await;
}

/// `auto_offset_reset = "error"`: what is gone is told, and nobody else is kept waiting.
#[tokio::test]
async fn a_partition_without_an_offset_to_go_on_from_is_told_and_the_others_go_on() {
    let cluster = cluster(&[("gone", 1), ("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, "gone", 0, &numbered(0, 5));
    produce(&brokers, "t", 0, &numbered(0, 5));
    bench::commit(&brokers, GROUP, "gone", 0, 100);
    bench::commit(&brokers, GROUP, "t", 0, 0);
    let mut config = bench::settings(&brokers);
    config.auto_offset_reset = "error".to_owned();
    let mut bench = Bench::start(&config, &["gone", "t"], 100);
    bench.until("it is told", |bench| is_told(bench, "offset not available")).await;
    produce(&brokers, "t", 0, &numbered(5, 10));
    bench.until_seen(10).await;
    let durable = bench.all_seen();
    bench.want(|wanted| wanted.commit = durable.clone());
    bench.until("a commit", |bench| !bench.committed.is_empty()).await;
    assert_eq!(bench.payloads(), numbered(0, 10));
    assert_eq!((&bench.lost, &bench.committed), (&Vec::new(), &durable), "the client is the same");
    assert!(is_told(&bench, "until it is assigned anew"), "{:?}", bench.connection);
    assert!(needs_only(&bench, "gone/0 is not read"));
    bench.close().await;
    assert_eq!(group_offset(&brokers, GROUP, "gone", 0), Some(100), "nothing was read of it");
}

/// Whatever the reason: nothing behind it is read before it is.
#[tokio::test]
async fn whatever_keeps_a_partition_from_being_read_is_told_until_it_is_read() {
    let cluster = cluster(&[("t", 1)]);
    let brokers = cluster.bootstrap_servers();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUEST;
    cluster.request_errors(RDKafkaApiKey::Fetch, &[refused, refused]);
    produce(&brokers, "t", 0, &numbered(0, 5));
    let mut bench = Bench::start(&bench::settings(&brokers), &["t"], 100);
    bench.until("a refusal", |bench| needs_only(bench, "t/0 is not read")).await;
    bench.until_seen(5).await;
    bench.until("no refusal", needs_nobody).await;
    bench.close().await;
}
