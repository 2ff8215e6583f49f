//! The key-value bucket in which it is kept who reads a stream exactly once, and how far: one key
//! for each consumer. Asks and answers; what is asked and what it means is `lease.rs`.

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Config, Store};
use async_nats::jetstream::stream::{Info, StorageType};

use super::bind::{Unbound, Wish};
use super::follow::made;
use super::lease::{Ask, Entry, Place, Value};
use crate::config::Deliver;
use crate::source::nats::kv;
use crate::subject::token;

/// The key of one consumer, ready to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    store: Arc<Store>,
    key: String,
    /// The stream whose consumer it is.
    pub(super) stream: String,
}

/// What the bucket said.
#[derive(Debug)]
pub(super) enum Told {
    Read {
        bucket: Bucket,
        entry: Entry,
        /// Where to begin, if nobody ever did.
        first: Option<Place>,
    },
    Unread(Unbound),
    Wrote(u64),
    /// It was refused, or nobody knows.
    Unwritten(String),
}

/// Asks; `bucket` is what a question before this one has opened.
pub(super) async fn ask(wish: Wish, context: Context, bucket: Option<Bucket>, ask: Ask) -> Told {
    match (ask, bucket) {
        (Ask::Read, bucket) => match read(&wish, &context, bucket).await {
            Ok((bucket, entry, first)) => Told::Read { bucket, entry, first },
            Err(why) => Told::Unread(why),
        },
        (Ask::Write { value, revision }, Some(bucket)) => bucket.write(&value, revision).await,
        (Ask::Write { .. }, None) => Told::Unwritten("the bucket is not open".to_owned()),
    }
}

async fn read(
    wish: &Wish,
    context: &Context,
    bucket: Option<Bucket>,
) -> Result<(Bucket, Entry, Option<Place>), Unbound> {
    let bucket = match bucket {
        Some(bucket) => bucket,
        None => {
            let stream = wish.stream(context).await?;
            wish.must_keep(&stream)?;
            let name = &stream.config.name;
            match Bucket::open(wish, context, name).await? {
                Some(bucket) => bucket,
                None => Bucket::make(wish, context, name, stream.config.num_replicas).await?,
            }
        }
    };
    if let Some(wrong) = bucket.wrong() {
        return Err(Unbound::NeedsPerson(format!(
            "route {}: the bucket {} (nats.jetstream.state_bucket) {wrong}: what delivery = \
             \"exactly_once\" goes by would be lost; name another one, which is made by itself",
            wish.route, wish.settings.state.bucket
        )));
    }
    let entry = bucket.entry(wish).await?;
    let first = match &entry.value {
        Some(_) => None,
        None => Some(wish.first(context).await?),
    };
    Ok((bucket, entry, first))
}

impl Wish {
    /// Where to begin when nobody ever did: behind what the route's consumer has done, if it had
    /// one while it was read at least once; else as it is configured.
    async fn first(&self, context: &Context) -> Result<Place, Unbound> {
        let stream = self.stream(context).await?;
        let consumer = self.existing(context, &stream.config.name).await?;
        let done = consumer.map(|consumer| consumer.cached_info().ack_floor.stream_sequence);
        Ok(Place { stream: made(&stream), next: self.begins_at(&stream, done), note: None })
    }

    fn begins_at(&self, stream: &Info, done: Option<u64>) -> u64 {
        match (done.filter(|done| *done > 0), self.settings.deliver) {
            (Some(done), _) => done + 1,
            (None, Deliver::All) => 1,
            (None, Deliver::New) => stream.state.last_sequence + 1,
        }
    }
}

impl Bucket {
    /// The key in the bucket as it is; None if there is no bucket.
    pub(super) async fn open(
        wish: &Wish,
        context: &Context,
        stream: &str,
    ) -> Result<Option<Self>, Unbound> {
        let store = kv::open(context, &wish.settings.state.bucket).await;
        let store = store.map_err(|why| unopened(wish, &why))?;
        Ok(store.map(|store| Self::of(wish, stream, store)))
    }

    /// As many replicas as the stream has, unless it is configured.
    async fn make(
        wish: &Wish,
        context: &Context,
        stream: &str,
        replicas: usize,
    ) -> Result<Self, Unbound> {
        let bucket = wish.settings.state.bucket.clone();
        let num_replicas = wish.settings.state.replicas.unwrap_or(replicas);
        tracing::info!(
            event = "jetstream_bucket_made",
            bucket,
            replicas = num_replicas,
            "the bucket is made"
        );
        let config = Config {
            bucket,
            description: "data-bridge: who reads a stream exactly once, and how far".to_owned(),
            history: 1,
            storage: StorageType::File,
            num_replicas,
            ..Config::default()
        };
        let made = context.create_key_value(config).await;
        let store = made.map_err(|error| unopened(wish, &error.to_string()))?;
        Ok(Self::of(wish, stream, store))
    }

    fn of(wish: &Wish, stream: &str, store: Store) -> Self {
        let key = key(stream, &wish.takes.consumer);
        Self { store: Arc::new(store), key, stream: stream.to_owned() }
    }

    pub(super) fn replicas(&self) -> usize {
        self.store.stream.cached_info().config.num_replicas
    }

    /// Why what is in it would not last.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let config = &self.store.stream.cached_info().config;
        if config.storage == StorageType::Memory {
            return Some("is kept in memory");
        }
        (!config.max_age.is_zero()).then_some("forgets its keys by their age")
    }

    /// The key as it is.
    pub(super) async fn entry(&self, wish: &Wish) -> Result<Entry, Unbound> {
        let last = kv::last(&self.store, &self.key).await.map_err(|why| unopened(wish, &why))?;
        let Some(message) = last else { return Ok(Entry { revision: 0, value: None }) };
        if kv::is_deleted(&message) {
            return Ok(Entry { revision: message.sequence, value: None });
        }
        let value: Value = serde_json::from_slice(&message.payload).map_err(|error| {
            Unbound::NeedsPerson(format!(
                "route {}: the key {} of the bucket {} cannot be read ({error}): run the version \
                 that wrote it until it has stopped cleanly, or name another bucket \
                 (nats.jetstream.state_bucket)",
                wish.route, self.key, self.store.name
            ))
        })?;
        Ok(Entry { revision: message.sequence, value: Some(value) })
    }

    async fn write(&self, value: &Value, revision: u64) -> Told {
        let text = serde_json::to_vec(value).expect("names and numbers are JSON");
        match self.store.update(&self.key, text.into(), revision).await {
            Ok(revision) => Told::Wrote(revision),
            Err(error) => Told::Unwritten(format!(
                "the key {} of the bucket {}: {error}",
                self.key, self.store.name
            )),
        }
    }
}

fn unopened(wish: &Wish, why: &str) -> Unbound {
    let name = &wish.settings.state.bucket;
    Unbound::Later(format!("route {}: the bucket {name}: {why}", wish.route))
}

/// `STREAM.CONSUMER`.
fn key(stream: &str, consumer: &str) -> String {
    format!("{}.{}", token(stream), token(consumer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_consumer_has_a_key_of_its_own_that_a_bucket_takes() {
        let allowed = |key: &str| {
            key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=' | '.'))
        };
        assert_eq!(key("TICKS", "bridge-ticks"), "TICKS.bridge-ticks");
        assert_eq!(key("T$", "ü"), "T=24.=c3=bc");
        assert_ne!(key("T", "a=24"), key("T", "a$"));
        assert!(allowed(&key("T=$ü", "a b")));
    }

    #[test]
    fn what_is_kept_in_a_key_is_read_as_it_was_written() {
        for note in [None, Some("db1 00ff 1a t:1-9:9:ab:0:1700000000000".into())] {
            let place = Place { stream: 1_700_000_000_123_456_789, next: 10, note };
            let value = Value { owner: "a/1".to_owned(), free: false, count: 3, place };
            let text = serde_json::to_string(&value).unwrap();
            assert!(text.contains("\"next\":10"), "{text}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
