//! Dead letters outside ClickHouse, with real servers and a real disk: durable before they count,
//! held while their place is not there, each of them there in the end.

mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream;
use base64::Engine as _;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::bridge::{Bridge, PATIENCE};
use crate::lab::{Lab, assert_accounts, number, settled};
use crate::stack::{Addresses, Stack};

/// A lab with the numbers' table and topic.
pub(crate) async fn numbers_lab() -> Lab {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    lab
}

/// Sends `good` numbers and between them what is none; gives how many records that were.
pub(crate) async fn send_mixed(lab: &Lab, good: std::ops::Range<u64>, bad: &[Vec<u8>]) -> u64 {
    let (sender, topic) = (lab.kafka(), lab.topic("numbers"));
    let count = good.end - good.start + bad.len() as u64;
    let good: Vec<u64> = good.collect();
    for (index, n) in good.iter().enumerate() {
        if let Some(bad) = bad.get(index) {
            sender.send(&topic, Some(0), Some(b"a key"), Some(bad));
        }
        sender.send(&topic, Some(0), None, Some(format!("{{\"n\":{n}}}").as_bytes()));
    }
    assert!(bad.len() <= good.len());
    sender.flush().await;
    count
}

/// What no number is; each different, one of them not even text.
pub(crate) fn bad_numbers(count: usize) -> Vec<Vec<u8>> {
    let mut bad: Vec<Vec<u8>> =
        (1..count).map(|n| format!("{{\"n\":\"bad {n}\"}}").into_bytes()).collect();
    bad.push(vec![0xFF, 0x00, b'\n', 0xFE]);
    bad
}

/// The letters by id, from JSON lines; how many lines there were.
fn letters(lines: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (BTreeMap<String, Json>, usize) {
    let mut letters = BTreeMap::new();
    let mut count = 0;
    for line in lines {
        let letter: Json = serde_json::from_slice(line.as_ref()).unwrap();
        letters.insert(letter["id"].as_str().unwrap().to_owned(), letter);
        count += 1;
    }
    (letters, count)
}

/// The payloads, as the bytes that came.
fn payloads(letters: &BTreeMap<String, Json>) -> BTreeSet<Vec<u8>> {
    let payload = |letter: &Json| {
        let text = letter["payload"].as_str().unwrap();
        match letter["payload_encoding"].as_str().unwrap() {
            "utf8" => text.as_bytes().to_vec(),
            "base64" => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            other => panic!("{other}"),
        }
    };
    letters.values().map(payload).collect()
}

fn expected(bad: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    bad.iter().cloned().collect()
}

fn file_lines(path: &std::path::Path) -> Vec<Vec<u8>> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "a torn line");
    bytes.split(|&byte| byte == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Everything in the topic.
async fn topic_lines(lab: &Lab, topic: &str) -> Vec<Vec<u8>> {
    let (mut client, topic) = (lab.client(), topic.to_owned());
    client.set("group.id", format!("{}-reader", lab.name)).set("enable.partition.eof", "true");
    let reading = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut lines = Vec::new();
        let started = std::time::Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "the end of {topic} does not come");
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => {
                    let line = message.payload().unwrap().to_vec();
                    let letter: Json = serde_json::from_slice(&line).unwrap();
                    assert_eq!(message.key().unwrap(), letter["id"].as_str().unwrap().as_bytes());
                    lines.push(line);
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return lines,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
    });
    reading.await.unwrap()
}

/// Everything that a stream holds.
async fn stream_lines(url: &str, stream: &str) -> Vec<Vec<u8>> {
    let client = async_nats::connect(url).await.unwrap();
    let mut stream = jetstream::new(client).get_stream(stream).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut lines = Vec::new();
    for sequence in 1..=last {
        lines.push(stream.get_raw_message(sequence).await.unwrap().payload.to_vec());
    }
    lines
}

async fn create_stream(url: &str, name: &str, subject: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let config = jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    let started = Instant::now();
    while let Err(error) = jetstream::new(client.clone()).create_stream(config.clone()).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn pending(bridge: &Bridge, letters: u64) {
    bridge
        .wait_until("the letters are held", |health| {
            number(&health["metrics"]["dead_letters_pending"]) == letters
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_wait_for_their_directory_through_a_kill_9_and_none_is_lost() {
    let lab = numbers_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("not/yet");
    let path = place.join("letters.jsonl");
    let over = format!("[dead_letters]\nto = 'file'\npath = '{}'", path.display());
    let bad = bad_numbers(20);
    let mut bridge = lab.start(&lab.numbers("kafka"), &over).await;
    bridge.needs_person("create the directory").await;
    let sent = send_mixed(&lab, 0..100, &bad).await;
    pending(&bridge, 20).await;
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", 100).await;
    // the first record is a bad one: nothing may be committed
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], None);
    bridge.kill().await;
    // half a line, as if it had been killed in the middle of one
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(&path, "{\"id\":\"torn").unwrap();
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    let (letters, lines) = letters(file_lines(&path));
    assert_eq!(payloads(&letters), expected(&bad));
    assert_eq!(lines, 20, "none twice");
    let first = letters.values().find(|letter| letter["offset"] == 0).unwrap();
    assert_eq!(first["key"], "a key");
    assert_eq!(first["route"], "numbers");
    assert_eq!(first["source"], "kafka");
    assert_eq!(first["topic_or_subject"], lab.topic("numbers"));
    bridge.stop().await;
    let end = i64::try_from(sent).unwrap();
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], Some(end));
}

/// Sets the limit on the size of the files that a process writes; the hard limit stays.
fn limit_file_size(bridge: &Bridge, limit: &str) {
    let arguments = [format!("--fsize={limit}:"), "--pid".to_owned(), bridge.pid().to_string()];
    let done = std::process::Command::new("prlimit").args(&arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_needs_a_person_and_nothing_is_lost_or_torn() {
    let lab = numbers_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let over = format!("[dead_letters]\nto = 'file'\npath = '{}'", path.display());
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let large = |n: usize| format!("{{\"n\":\"{n}{}\"}}", "x".repeat(700_000)).into_bytes();
    let sent = send_mixed(&lab, 0..10, &[large(0)]).await;
    bridge.wait_until("the first is written", |h| settled(h, "kafka", sent)).await;
    let before = file_lines(&path).len();
    // The log of the bridge is far below this limit, and so is one more letter; two are not.
    limit_file_size(&bridge, "1000000");
    let more: Vec<Vec<u8>> = (1..4).map(large).collect();
    let sent = sent + send_mixed(&lab, 10..20, &more).await;
    bridge.needs_person("raise the limit, or make room").await;
    assert_eq!(file_lines(&path).len(), before, "whole lines only, and none of the new");
    limit_file_size(&bridge, "unlimited");
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    assert_eq!(health["status"], "healthy", "{health:#}");
    let (letters, lines) = letters(file_lines(&path));
    assert_eq!((letters.len(), lines), (4, 4));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_wait_for_their_topic_through_a_kill_9_and_none_is_lost() {
    let lab = numbers_lab().await;
    let topic = lab.topic("dead");
    let over = format!("[dead_letters]\nto = 'kafka'\ntopic = '{topic}'");
    let bad = bad_numbers(20);
    let mut bridge = lab.start(&lab.numbers("kafka"), &over).await;
    bridge.needs_person("create it, or correct dead_letters.topic").await;
    let sent = send_mixed(&lab, 0..100, &bad).await;
    pending(&bridge, 20).await;
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], None);
    bridge.kill().await;
    lab.create_topics(std::slice::from_ref(&topic), 1).await;
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    bridge.stop().await;
    let (letters, lines) = letters(topic_lines(&lab, &topic).await);
    assert_eq!(payloads(&letters), expected(&bad));
    assert_eq!(lines, 20, "none twice");
    let end = i64::try_from(sent).unwrap();
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], Some(end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_too_large_for_its_topic_waits_and_its_neighbours_come_once() {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    use rdkafka::client::DefaultClientContext;
    let lab = numbers_lab().await;
    let topic = lab.topic("dead");
    lab.create_topics(std::slice::from_ref(&topic), 1).await;
    let admin: AdminClient<DefaultClientContext> = lab.client().create().unwrap();
    let limit = async |bytes: &str| {
        let config = AlterConfig::new(ResourceSpecifier::Topic(&topic));
        let config = config.set("max.message.bytes", bytes);
        admin.alter_configs(&[config], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    };
    limit("20000").await;
    let over = format!("[dead_letters]\nto = 'kafka'\ntopic = '{topic}'");
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let mut bad = bad_numbers(20);
    // not to be compressed into the limit
    let noise: String = (0..50_000).map(|_| rand::random_range('a'..='z')).collect();
    bad.push(format!("{{\"n\":\"{noise}\"}}").into_bytes());
    let sent = send_mixed(&lab, 0..100, &bad).await;
    bridge.needs_person("raise its max.message.bytes").await;
    limit("10000000").await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    bridge.stop().await;
    let (letters, lines) = letters(topic_lines(&lab, &topic).await);
    assert_eq!(payloads(&letters), expected(&bad));
    assert_eq!(lines, 21, "none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_wait_for_a_stream_that_takes_their_subject() {
    let lab = numbers_lab().await;
    let (subject, stream) = (lab.subject("dead"), lab.name.to_uppercase());
    let over = format!("[dead_letters]\nto = 'nats'\nsubject = '{subject}'");
    let bad = bad_numbers(20);
    let mut bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    bridge.needs_person("no JetStream stream takes the subject").await;
    let sent = send_mixed(&lab, 0..100, &bad).await;
    pending(&bridge, 20).await;
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], None);
    bridge.kill().await;
    let bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    pending(&bridge, 20).await;
    // and without a restart it goes on when the stream is there
    create_stream(&lab.at.nats, &stream, &subject).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    bridge.stop().await;
    let (letters, lines) = letters(stream_lines(&lab.at.nats, &stream).await);
    assert_eq!(payloads(&letters), expected(&bad));
    assert_eq!(lines, 20, "none twice");
    let end = i64::try_from(sent).unwrap();
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], Some(end));
}

/// A lab with a Kafka, or a NATS, of its own for the letters.
async fn lab_with_own(server: &'static str) -> Lab {
    let stack = tokio::task::spawn_blocking(move || Stack::up(&[server])).await.unwrap();
    let shared = Addresses::shared();
    let at = match server {
        "kafka" => Addresses { kafka: stack.address("KAFKA"), ..shared },
        _ => Addresses { nats: stack.address("NATS"), ..shared },
    };
    let lab = Lab::at(at, Some(stack)).await;
    lab.numbers_places().await;
    lab
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_wait_for_kafka_and_come_when_it_is_back() {
    let lab = lab_with_own("kafka").await;
    let topic = lab.topic("dead");
    lab.create_topics(std::slice::from_ref(&topic), 1).await;
    let over = format!("[dead_letters]\nto = 'kafka'\ntopic = '{topic}'");
    let bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    lab.of_stack(|stack| stack.kill("kafka")).await;
    // over the other transport, which does not keep them: they are lost if they are not held
    let client = lab.nats().await;
    let bad = bad_numbers(20);
    for payload in &bad {
        client.publish(lab.subject("numbers.1"), payload.clone().into()).await.unwrap();
    }
    client.flush().await.unwrap();
    pending(&bridge, 20).await;
    bridge.wait_for_log("insert refused, trying again").await;
    lab.of_stack(|stack| stack.start("kafka")).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "nats", 20)).await;
    assert_accounts(&health);
    assert_eq!(number(&health["metrics"]["dead_letters"]), 20, "{health:#}");
    bridge.stop().await;
    let (letters, _) = letters(topic_lines(&lab, &topic).await);
    assert_eq!(payloads(&letters), expected(&bad));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_wait_for_nats_and_come_when_it_is_back() {
    let lab = lab_with_own("nats").await;
    let (subject, stream) = (lab.subject("dead"), lab.name.to_uppercase());
    create_stream(&lab.at.nats, &stream, &subject).await;
    let over = format!("[dead_letters]\nto = 'nats'\nsubject = '{subject}'");
    let bridge = lab.start(&lab.numbers("kafka nats"), &over).await;
    lab.of_stack(|stack| stack.kill("nats")).await;
    let bad = bad_numbers(20);
    let sent = send_mixed(&lab, 0..100, &bad).await;
    pending(&bridge, 20).await;
    bridge.wait_for_log("no answer from JetStream").await;
    assert_eq!(lab.committed(&lab.topic("numbers")).await[0], None);
    lab.of_stack(|stack| stack.start("nats")).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    bridge.stop().await;
    let (letters, lines) = letters(stream_lines(&lab.at.nats, &stream).await);
    assert_eq!(payloads(&letters), expected(&bad));
    assert_eq!(lines, 20, "what was sent twice was recognised by its message id");
}
