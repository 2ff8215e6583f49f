//! Producers: each writes its numbers in sequence, at a steady rate, until it is told to stop, and
//! outlives whatever happens to the server. What it says it sent is there, once.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{self, Context};
use futures_util::future::join_all;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::oracle::{PARTITIONS, is_bad, partition};
use super::place::{Delivery, Place, Source};
use crate::bridge::PATIENCE;
use crate::lab::{KafkaSender, Paced, number};

/// Of each source.
pub(crate) const PRODUCERS: usize = 2;

/// An acknowledgement that was sent arrives well within this.
const OWED_WITHIN: Duration = Duration::from_secs(20);

/// Records that wait for the stream's acknowledgement together.
const AT_ONCE: u64 = 50;

pub(crate) struct Load {
    stop: watch::Sender<bool>,
    producers: JoinSet<(Source, usize, u64)>,
}

/// How many numbers each producer of a source sent.
pub(crate) type Sent = Vec<(Source, Vec<u64>)>;

impl Load {
    /// So many records a second from each source.
    pub(crate) async fn start(place: &Place, rate: u64) -> Self {
        let stop = watch::Sender::new(false);
        let mut producers = JoinSet::new();
        let rate = rate / PRODUCERS as u64;
        for &source in &place.wanted.sources {
            for producer in 0..PRODUCERS {
                let (to, stop) = (place.address(source), stop.subscribe());
                let producer = Producer { number: producer, to, pace: Paced::new(rate), stop };
                match source {
                    Source::Kafka => {
                        producers.spawn(producer.kafka(place.lab.lasting_kafka()));
                    }
                    Source::JetStream => {
                        let context = jetstream::new(place.lab.nats().await);
                        producers.spawn(producer.jetstream(context));
                    }
                    Source::Nats => {
                        producers.spawn(producer.nats(place.lab.nats().await));
                    }
                }
            }
        }
        Self { stop, producers }
    }

    /// Stops the producers, waits until the servers have everything, and says how much that is.
    pub(crate) async fn finish(self) -> Sent {
        self.stop.send_replace(true);
        let mut sent = Sent::new();
        for (source, producer, count) in self.producers.join_all().await {
            let index = sent.iter().position(|(known, _)| *known == source).unwrap_or_else(|| {
                sent.push((source, vec![0; PRODUCERS]));
                sent.len() - 1
            });
            sent[index].1[producer] = count;
        }
        sent
    }
}

/// `v` of a bad one is no number.
pub(crate) fn payload(producer: usize, n: u64) -> String {
    let v = if is_bad(n) { "\"bad\"".to_owned() } else { (n % 1_000).to_string() };
    format!("{{\"p\":{producer},\"n\":{n},\"v\":{v}}}")
}

/// One of them: its numbers, one after the other, in order.
struct Producer {
    number: usize,
    /// A topic, or what its subjects begin with.
    to: String,
    pace: Paced,
    stop: watch::Receiver<bool>,
}

impl Producer {
    fn goes_on(&self) -> bool {
        !*self.stop.borrow()
    }

    async fn kafka(mut self, sender: KafkaSender) -> (Source, usize, u64) {
        let mut n = 0;
        while self.goes_on() {
            let partition = i32::try_from(partition(n)).unwrap();
            let payload = payload(self.number, n);
            sender.send(&self.to, Some(partition), None, Some(payload.as_bytes()));
            n += 1;
            self.pace.next().await;
        }
        sender.flush().await;
        (Source::Kafka, self.number, n)
    }

    /// Publishes again whatever was not acknowledged; the stream knows each by its id.
    async fn jetstream(mut self, context: Context) -> (Source, usize, u64) {
        let mut next = 0;
        while self.goes_on() {
            let mut open: Vec<u64> = (next..next + AT_ONCE).collect();
            next += AT_ONCE;
            while !open.is_empty() {
                let sending = open.iter().map(|&n| publish(&context, &self.to, self.number, n));
                let landed = join_all(sending).await;
                let mut landed = landed.into_iter();
                open.retain(|_| !landed.next().expect("one for each"));
            }
            for _ in 0..AT_ONCE {
                self.pace.next().await;
            }
        }
        (Source::JetStream, self.number, next)
    }

    /// Best effort, as core NATS is.
    async fn nats(mut self, client: async_nats::Client) -> (Source, usize, u64) {
        let mut n = 0;
        while self.goes_on() {
            let subject = format!("{}.{}", self.to, partition(n));
            client.publish(subject, payload(self.number, n).into()).await.unwrap();
            n += 1;
            self.pace.next().await;
        }
        client.flush().await.unwrap();
        (Source::Nats, self.number, n)
    }
}

/// Whether the stream says that it has it.
async fn publish(context: &Context, subject: &str, producer: usize, n: u64) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{producer}-{n}"));
    let subject = format!("{subject}.{}", partition(n));
    let payload = payload(producer, n).into();
    match context.publish_with_headers(subject, headers, payload).await {
        Ok(acknowledgement) => acknowledgement.await.is_ok(),
        Err(_) => false,
    }
}

/// How many records a topic holds, by partition. The judge of the producers: a number that a
/// producer wrote twice would be taken for the bridge's fault.
pub(crate) async fn held_by_kafka(place: &Place) -> Vec<i64> {
    let (client, topic) = (place.lab.client(), place.address(Source::Kafka));
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().unwrap();
        let of = |partition| {
            let partition = i32::try_from(partition).unwrap();
            let (low, high) = consumer.fetch_watermarks(&topic, partition, PATIENCE).unwrap();
            assert_eq!(low, 0, "nothing was removed");
            high
        };
        (0..PARTITIONS).map(of).collect()
    });
    asking.await.unwrap()
}

/// How many records the stream holds, and how many of them the consumer still owes somebody. The last
/// acknowledgements may be on their way in the server when the bridge has ended.
pub(crate) async fn held_by_jetstream(place: &Place) -> (u64, u64) {
    let began = Instant::now();
    loop {
        let (held, owed) = held_by_jetstream_now(place).await;
        if owed == 0 || began.elapsed() > OWED_WITHIN {
            return (held, owed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn held_by_jetstream_now(place: &Place) -> (u64, u64) {
    let context = jetstream::new(place.lab.nats().await);
    let stream = context.get_stream(place.stream()).await.unwrap();
    let name = format!("{}-{}", place.lab.name, Source::JetStream);
    let state = &stream.cached_info().state;
    if Source::JetStream.can_at_best(place.wanted.delivery) == Delivery::ExactlyOnce {
        let bucket = context.get_key_value("data_bridge").await.unwrap();
        let kept = bucket.get(format!("{}.{name}", place.stream())).await.unwrap().unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        return (state.messages, state.last_sequence + 1 - number(&kept["place"]["next"]));
    }
    let consumer: Consumer<pull::Config> = stream.get_consumer(&name).await.unwrap();
    let info = consumer.cached_info();
    (state.messages, info.num_pending + info.num_ack_pending as u64)
}

/// How many a partition must hold.
pub(crate) fn sent_to(sent: &[u64], to: u64) -> i64 {
    let of = |&sent: &u64| (0..sent).filter(|&n| partition(n) == to).count();
    i64::try_from(sent.iter().map(of).sum::<usize>()).unwrap()
}
