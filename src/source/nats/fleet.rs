//! The bucket in which bridges tell each other how they are: writes our entry, reads those of the
//! others, and hands what that means on. What an entry means is `crate::fleet`'s.
//!
//! Nothing waits for it: the work goes on whatever becomes of NATS, and what is not heard of for too
//! long is forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use async_nats::ConnectOptions;
use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{self as bucket, Store};
use async_nats::jetstream::stream::StorageType;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{jetstream, kv, server_addresses, with_identity};
use crate::config;
use crate::fleet::{Entry, Fleet, MAX_ENTRY_BYTES, MAX_OTHERS, Said, View};
use crate::subject::token;

/// For one turn, whatever is asked in it.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// For taking our leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Entries of a bucket that we make go by themselves after so many times `forget_after`.
const KEPT_FOR: u32 = 10;
/// Keys that are asked for, of others. Who has left keeps one for a while: after a rolling restart there
/// are twice as many as instances.
const MAX_KEYS: usize = 4 * MAX_OTHERS;
/// How often a connection that is being made is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Keys asked for at a time: all of a large fleet are read in a few round trips.
const ASKED_AT_A_TIME: usize = 16;

/// One instance among those that share a bucket.
pub struct Member<F> {
    client: Client,
    context: Context,
    config: config::Fleet,
    store: Option<Store>,
    fleet: Fleet,
    key: String,
    /// How this instance is.
    own: F,
    seen: watch::Sender<Arc<View>>,
    error: Option<String>,
}

impl<F> std::fmt::Debug for Member<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<F: Fn() -> Said + Send> Member<F> {
    /// Begins to connect; a server that is down is waited for by the client. Nothing is said or
    /// heard before [`Self::run`].
    ///
    /// # Errors
    /// When a file that `[nats]` names cannot be read, or does not hold what it should.
    pub async fn new(
        nats: &config::Nats,
        config: &config::Fleet,
        instance: &str,
        own: F,
        seen: watch::Sender<Arc<View>>,
    ) -> anyhow::Result<Self> {
        let options = ConnectOptions::new()
            .name(format!("data-bridge {instance} fleet"))
            .retry_on_initial_connect();
        let options = with_identity(options, nats).await?;
        let client =
            options.connect(server_addresses(nats)?).await.context("connecting to NATS")?;
        Ok(Self {
            context: jetstream::context(client.clone(), nats),
            client,
            config: config.clone(),
            store: None,
            fleet: Fleet::new(instance, config),
            key: token(instance),
            own,
            seen,
            error: None,
        })
    }

    /// Says and hears until `end`; then takes its leave, so that nobody waits for it.
    pub async fn run(mut self, end: impl Future<Output = ()> + Send) {
        tokio::pin!(end);
        // The client has only begun to connect: a start is not told as an outage.
        tokio::select! {
            () = &mut end => return,
            _ = timeout(TURN_WITHIN, connected(self.client.clone())) => {}
        }
        let mut tick = tokio::time::interval(self.config.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = tick.tick() => {}
            }
            tokio::select! {
                () = &mut end => break,
                () = self.turn() => {}
            }
        }
        if let Some(store) =
            self.store.filter(|_| self.client.connection_state() == State::Connected)
        {
            let left = timeout(LEAVE_WITHIN, store.delete(&self.key)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::debug!("the fleet was not told that we leave: it forgets us by itself");
            }
        }
    }

    async fn turn(&mut self) {
        let said = (self.own)();
        let done = timeout(TURN_WITHIN, self.say_and_hear(&said)).await;
        let error = match done {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {TURN_WITHIN:?}")),
        };
        if error.is_some() {
            self.store = None; // it may have been deleted: opened again, and made if need be
        }
        if self.error != error {
            match &error {
                Some(why) => tracing::warn!(
                    event = "fleet_away",
                    "the fleet is not heard of, work goes on: {why}"
                ),
                None => tracing::info!(event = "fleet_back", "the fleet is heard of again"),
            }
            self.error.clone_from(&error);
        }
        let view = self.fleet.look(&said, Instant::now());
        self.seen.send_replace(Arc::new(View { error, ..view }));
    }

    async fn say_and_hear(&mut self, said: &Said) -> Result<(), String> {
        if self.client.connection_state() != State::Connected {
            return Err("no connection to NATS".to_owned());
        }
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.store.insert(self.open().await?).clone(),
        };
        store.put(&self.key, said.entry().into()).await.map_err(|error| error.to_string())?;
        let (entries, more) = entries(&store, &self.key).await?;
        self.fleet.read(entries, more, Instant::now());
        Ok(())
    }

    async fn open(&self) -> Result<Store, String> {
        let name = &self.config.bucket;
        if let Some(store) = kv::open(&self.context, name).await? {
            return forgets(store);
        }
        let made = self.context.create_key_value(bucket::Config {
            bucket: name.clone(),
            description: "data-bridge: how the instances of a fleet are".to_owned(),
            history: 1,
            max_age: self.config.forget_after * KEPT_FOR,
            max_value_size: i32::try_from(MAX_ENTRY_BYTES).unwrap_or(i32::MAX),
            storage: StorageType::Memory,
            num_replicas: 1,
            ..bucket::Config::default()
        });
        made.await.map_err(|error| error.to_string())
    }
}

/// A bucket that keeps for ever what those have said that are gone would in time be full of them.
fn forgets(store: Store) -> Result<Store, String> {
    if store.stream.cached_info().config.max_age.is_zero() {
        return Err(format!(
            "the bucket {} (fleet.bucket) keeps entries for ever: give it a max_age, or name another \
             one, which is made by itself",
            store.name
        ));
    }
    Ok(store)
}

async fn connected(client: Client) {
    let mut look = tokio::time::interval(LOOK);
    while client.connection_state() != State::Connected {
        look.tick().await;
    }
}

/// The keys of others, the first in order: NATS tells them in another one each time, and who is left out
/// of one look and not of the next would seem to have come back.
#[derive(Debug, Default)]
struct Keys {
    asked: BTreeSet<String>,
    more: usize,
}

impl Keys {
    fn note(&mut self, key: &str) {
        if self.asked.insert(key.to_owned()) && self.asked.len() > MAX_KEYS {
            self.asked.pop_last();
            self.more += 1;
        }
    }
}

/// What of others is in the bucket, as far as it is of interest; and how much more there is.
async fn entries(store: &Store, own: &str) -> Result<(Vec<Entry>, usize), String> {
    let all = store.stream.info_with_subjects(format!("{}>", store.prefix)).await;
    let mut all = all.map_err(|error| error.to_string())?;
    let mut keys = Keys::default();
    while let Some((subject, _)) = all.try_next().await.map_err(|error| error.to_string())? {
        let key = subject.strip_prefix(&store.prefix).filter(|key| *key != own);
        key.into_iter().for_each(|key| keys.note(key));
    }
    let Keys { asked, more } = keys;
    let asked = stream::iter(asked).map(|key| entry(store, key)).buffer_unordered(ASKED_AT_A_TIME);
    let read: Vec<Option<Entry>> = asked.try_collect().await?;
    Ok((read.into_iter().flatten().collect(), more))
}

/// None: whoever it was has left.
async fn entry(store: &Store, key: String) -> Result<Option<Entry>, String> {
    let message = kv::last(store, &key).await?.filter(|message| !kv::is_deleted(message));
    Ok(message.map(|message| {
        let (revision, value) = (message.sequence, message.payload.to_vec());
        Entry { key, revision, value }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_keys_are_asked_for_in_whatever_order_they_are_told() {
        let all: Vec<String> = (0..MAX_KEYS + 44).map(|n| format!("i{n:03}")).collect();
        let of = |told: &mut dyn Iterator<Item = &String>| {
            let mut keys = Keys::default();
            told.for_each(|key| keys.note(key));
            assert_eq!(keys.more, 44);
            keys.asked
        };
        let asked = of(&mut all.iter());
        assert_eq!(asked.len(), MAX_KEYS);
        assert_eq!(asked, of(&mut all.iter().rev()));
        let (even, odd): (Vec<_>, Vec<_>) = all.iter().partition(|key| key.ends_with('4'));
        assert_eq!(asked, of(&mut odd.into_iter().chain(even)));
    }
}
