//! All topics and all connections: who may come in, what there is, who is subscribed to what.
//!
//! Owns the names. A subscription by a pattern is attached to every topic that it stands for, also
//! to those that come later.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::event::Writer;
use super::mailbox::{End, Mailbox, QueueId};
use super::name;
use super::protocol::{self, Code, Info, Problem, RequestId, Subscribe};
use super::session::Session;
use super::tap::RouteTopic;
use super::topic::{Owner, Settings, Subscriber, Topic};
use crate::config;
use crate::config::LiveQueue;
use crate::decode::Source;

pub(super) mod publish;
mod routes;
mod status;

/// Sockets bound themselves, to a little less; a stream of events that nobody reads does not.
const CLOSE_WITHIN: Duration = Duration::from_secs(4);

/// The hub of the feed. Shared.
#[derive(Debug)]
pub struct Live {
    pub(super) settings: config::Live,
    state: Mutex<State>,
    /// Somebody took something.
    drained: Arc<Notify>,
    /// Messages that subscribers lost, since the start.
    pub(super) lost: Arc<AtomicU64>,
    /// Those that serve connections.
    sessions: TaskTracker,
    /// Records whose key got no sub-topic.
    keyless: AtomicU64,
}

#[derive(Debug)]
struct State {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// Of all connections.
    subscriptions: usize,
    writer: Writer,
    /// What names the sub-topics of routes, by the routes' topics.
    keys: BTreeMap<String, Option<Arc<Source>>>,
    /// When it may be looked again for a sub-topic that can go.
    look_again: Option<Instant>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nobody new, no topic more or less.
    Draining,
}

#[derive(Debug)]
struct Connection {
    mailbox: Arc<Mailbox>,
    address: IpAddr,
    subscriptions: BTreeMap<Arc<str>, QueueId>,
}

/// Why a connection or a change of the topics is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The bridge stops.
    Draining,
    TooMany(String),
    Invalid(String),
}

/// What of a topic may be said when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TopicOptions {
    pub queue_size: Option<usize>,
    pub policy: Option<crate::flow::Strategy>,
    pub replay: Option<usize>,
}

/// Whether a topic was made, or was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    Known,
}

/// Why a topic is not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTopic {
    Draining,
    Unknown,
    /// It is what a route carries.
    OfRoute,
}

impl Live {
    /// With the topics of these routes; none if there is no feed.
    #[must_use]
    pub fn new(settings: config::Live, routes: &[config::Route]) -> Self {
        let state = State {
            topics: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            subscriptions: 0,
            writer: Writer::new(),
            keys: BTreeMap::new(),
            look_again: None,
            stage: Stage::Open,
        };
        let (drained, sessions) = (Arc::new(Notify::new()), TaskTracker::new());
        let (state, keyless) = (Mutex::new(state), AtomicU64::new(0));
        let live = Self { settings, state, drained, sessions, keyless, lost: Arc::default() };
        if live.settings.enabled {
            live.lay_routes(&routes.iter().map(RouteTopic::of).collect::<Vec<_>>());
        }
        live
    }

    #[must_use]
    pub fn settings(&self) -> &config::Live {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn default_settings(&self) -> Settings {
        Settings { queue: self.settings.queue, replay: self.settings.replay }
    }

    /// A connection from this address.
    ///
    /// # Errors
    ///
    /// When there are enough already, or the bridge stops.
    pub fn connect(self: &Arc<Self>, address: IpAddr) -> Result<Session, Refusal> {
        let mut state = self.lock();
        if state.stage != Stage::Open {
            return Err(Refusal::Draining);
        }
        let settings = &self.settings;
        if state.connections.len() >= settings.max_connections {
            let most = settings.max_connections;
            return Err(Refusal::TooMany(format!(
                "there are {most} connections (live.max_connections)"
            )));
        }
        let same = state.connections.values().filter(|other| other.address == address).count();
        if same >= settings.max_connections_per_address {
            let key = "live.max_connections_per_address";
            return Err(Refusal::TooMany(format!(
                "{same} connections come from {address} ({key})"
            )));
        }
        let id = state.next;
        state.next += 1;
        let (drained, lost) = (Arc::clone(&self.drained), Arc::clone(&self.lost));
        let name = format!("c{id}");
        let mailbox = Arc::new(Mailbox::new(&name, settings.log_every_drop, drained, lost));
        let connection =
            Connection { mailbox: Arc::clone(&mailbox), address, subscriptions: BTreeMap::new() };
        state.connections.insert(id, connection);
        drop(state);
        Ok(Session::new(Arc::clone(self), id, mailbox, self.sessions.token()))
    }

    /// A connection has ended.
    pub(super) fn leave(&self, id: u64) {
        let mut state = self.lock();
        let Some(gone) = state.connections.remove(&id) else { return };
        state.subscriptions -= gone.subscriptions.len();
        for (topic, queue) in gone.subscriptions {
            state.detach(&topic, &gone.mailbox, queue);
        }
        drop(state);
        self.drained.notify_waiters();
    }

    /// Subscribes a connection, and answers it.
    pub(super) fn subscribe(
        &self,
        id: u64,
        request_id: RequestId<'_>,
        ask: &Subscribe<'_>,
    ) -> Result<(), Problem> {
        name::check_pattern(&ask.topic).map_err(Problem::bad)?;
        ask.client_id.as_deref().map_or(Ok(()), protocol::check_client_id)?;
        let mut state = self.lock();
        let state = &mut *state;
        let connection = state.connections.get_mut(&id).ok_or_else(gone)?;
        if connection.subscriptions.contains_key(&*ask.topic) {
            let text = format!("{} is subscribed to already; unsubscribe first", ask.topic);
            return Err(Problem::bad(text));
        }
        let most = self.settings.max_subscriptions;
        if connection.subscriptions.len() >= most {
            let text = format!("{most} subscriptions on this connection (live.max_subscriptions)");
            return Err(Problem::new(Code::RateLimited, text));
        }
        if state.subscriptions >= self.settings.max_subscribers {
            let most = self.settings.max_subscribers;
            let text = format!("there are {most} subscriptions (live.max_subscribers)");
            return Err(Problem::new(Code::RateLimited, text));
        }
        let (topics, queue) = if name::is_pattern(&ask.topic) {
            let stood_for = |topic: &&Arc<Topic>| name::matches(&ask.topic, &topic.name);
            (state.topics.values().filter(stood_for).cloned().collect(), self.settings.queue)
        } else {
            let topic = state.topics.get(&*ask.topic).ok_or_else(|| no_such(&ask.topic))?;
            (vec![Arc::clone(topic)], topic.settings.queue)
        };
        let queue = self.queue(queue, ask)?;
        if let Some(client_id) = &ask.client_id {
            connection.mailbox.rename(client_id);
        }
        let (now, wall) = (Instant::now(), jiff::Timestamp::now());
        let topic: Arc<str> = (*ask.topic).into();
        let id = connection.mailbox.open(&topic, queue, wall.as_millisecond(), now);
        let mailbox = Arc::clone(&connection.mailbox);
        let subscriber = Subscriber { mailbox, queue: id, room: queue.size };
        connection.subscriptions.insert(topic, id);
        state.subscriptions += 1;
        let (ts, last_n) = (protocol::timestamp(wall), ask.last_n.min(queue.size));
        let mut replayed = 0;
        for topic in topics {
            replayed += topic.attach(subscriber.clone(), last_n, &mut state.writer, &ts, now);
        }
        let more = format!(r#","replayed":{replayed},"queue_size":{}"#, queue.size);
        subscriber.mailbox.start(id, protocol::ack(request_id, &ask.topic, &more, &ts));
        Ok(())
    }

    /// The queue that was asked for.
    fn queue(&self, default: LiveQueue, ask: &Subscribe<'_>) -> Result<LiveQueue, Problem> {
        let size = ask.queue_size.unwrap_or(default.size);
        if !(1..=self.settings.max_queue_size).contains(&size) {
            let most = self.settings.max_queue_size;
            return Err(Problem::bad(format!("queue_size: 1 to {most} (live.max_queue_size)")));
        }
        Ok(LiveQueue { size, strategy: ask.policy.unwrap_or(default.strategy), ..default })
    }

    pub(super) fn unsubscribe(&self, id: u64, topic: &str) -> Result<(), Problem> {
        let mut state = self.lock();
        let connection = state.connections.get_mut(&id).ok_or_else(gone)?;
        let queue = connection.subscriptions.remove(topic);
        let mailbox = Arc::clone(&connection.mailbox);
        let Some(queue) = queue else {
            let text = format!("not subscribed to {topic}");
            return Err(Problem::new(Code::TopicNotFound, text));
        };
        state.subscriptions -= 1;
        mailbox.shut(queue);
        state.detach(topic, &mailbox, queue);
        Ok(())
    }

    /// Makes a topic, unless it is there.
    ///
    /// # Errors
    ///
    /// When its name or what it is to be is not possible, or there are too many.
    pub fn create(&self, name: &str, options: TopicOptions) -> Result<Created, Refusal> {
        name::check(name).map_err(Refusal::Invalid)?;
        let mut settings = self.default_settings();
        settings.queue.size = options.queue_size.unwrap_or(settings.queue.size);
        settings.replay = options.replay.unwrap_or(settings.replay);
        settings.queue.strategy = options.policy.unwrap_or(settings.queue.strategy);
        let most = self.settings.max_queue_size;
        if !(1..=most).contains(&settings.queue.size) || settings.replay > most {
            let text = "queue_size: 1, and replay: 0, to ";
            return Err(Refusal::Invalid(format!("{text}{most} (live.max_queue_size)")));
        }
        let mut state = self.lock();
        if state.stage != Stage::Open {
            return Err(Refusal::Draining);
        }
        if state.topics.contains_key(name) {
            return Ok(Created::Known);
        }
        if let Some(route) = state.route_above(name) {
            let text = format!("{route} is a route: what is under its name is its own");
            return Err(Refusal::Invalid(text));
        }
        if state.topics.len() >= self.settings.max_topics {
            let most = self.settings.max_topics;
            return Err(Refusal::TooMany(format!("there are {most} topics (live.max_topics)")));
        }
        state.add(name, Owner::User, settings);
        Ok(Created::New)
    }

    /// Deletes a topic of a user; its subscribers are told, and detached.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not a user's.
    pub fn delete(&self, name: &str) -> Result<(), NoTopic> {
        let mut state = self.lock();
        if state.stage != Stage::Open {
            return Err(NoTopic::Draining);
        }
        match state.topics.get(name).map(|topic| topic.owner) {
            None => Err(NoTopic::Unknown),
            Some(Owner::Route | Owner::Key) => Err(NoTopic::OfRoute),
            Some(Owner::User) => {
                state.delete(name);
                Ok(())
            }
        }
    }

    /// The bridge stops: nobody new comes in, and all are told, once.
    pub fn drain(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.stage, Stage::Draining) == Stage::Draining {
            return;
        }
        let ts = protocol::timestamp(jiff::Timestamp::now());
        let told = protocol::info(Info::Shutdown, &ts);
        state.connections.values().for_each(|each| each.mailbox.note(told.clone()));
    }

    /// Nothing comes any more: each connection gets what waits for it, and is closed. Returns when
    /// all are, or have had the time for it.
    pub async fn close(&self) {
        self.drain();
        self.sessions.close();
        self.lock().connections.values().for_each(|each| each.mailbox.end(End::Shutdown));
        if tokio::time::timeout(CLOSE_WITHIN, self.sessions.wait()).await.is_err() {
            tracing::warn!(
                event = "live_not_closed",
                left = self.connections(),
                "live connections did not end in time"
            );
        }
    }
}

impl State {
    /// Adds a topic, unless it is there.
    fn add(&mut self, name: &str, owner: Owner, settings: Settings) -> Arc<Topic> {
        if let Some(known) = self.topics.get(name) {
            return Arc::clone(known);
        }
        let now = Instant::now();
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), owner, settings, now));
        for connection in self.connections.values() {
            let wanted = |of: &(&Arc<str>, &QueueId)| {
                name::is_pattern(of.0) && name::matches(of.0, &topic.name)
            };
            for (_, queue) in connection.subscriptions.iter().filter(wanted) {
                let (mailbox, queue) = (Arc::clone(&connection.mailbox), *queue);
                let room = mailbox.capacity(queue);
                let subscriber = Subscriber { mailbox, queue, room };
                topic.attach(subscriber, 0, &mut self.writer, "", now);
            }
        }
        self.topics.insert(name, Arc::clone(&topic));
        topic
    }

    fn delete(&mut self, name: &str) {
        let Some(topic) = self.topics.remove(name) else { return };
        let ts = protocol::timestamp(jiff::Timestamp::now());
        let told = protocol::info(Info::TopicDeleted(name), &ts);
        topic.delete();
        for connection in self.connections.values_mut() {
            if let Some(queue) = connection.subscriptions.remove(name) {
                self.subscriptions -= 1;
                connection.mailbox.finish(queue, told.clone());
            } else if connection.subscriptions.keys().any(|of| name::matches(of, name)) {
                connection.mailbox.note(told.clone());
            }
        }
    }

    /// From the topic, or from all that a pattern stands for.
    fn detach(&self, asked: &str, mailbox: &Arc<Mailbox>, queue: QueueId) {
        let stood_for = |topic: &&Arc<Topic>| name::matches(asked, &topic.name);
        self.topics.values().filter(stood_for).for_each(|topic| topic.detach(mailbox, queue));
    }
}

fn no_such(topic: &str) -> Problem {
    Problem::new(Code::TopicNotFound, format!("there is no topic {topic:.200}"))
}

fn gone() -> Problem {
    Problem::new(Code::Internal, "this connection has ended")
}
