//! The state of the connections: what the client says of them, and what we tell of it.
//!
//! The client's events come through a small queue that it drops from when it is full, and its
//! callbacks hold up its own work. So they only take notes and wake us; whether a connection is
//! up, and how often it came up, is read from the client itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ClientError, Event, Server};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::source::{Observed, SourceEvent, SourcePort};
use crate::tls;

/// A failing server is logged at once, then as often as this.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// The prefix of the subject by which a drain is fenced; nothing else uses it here.
const INBOX: &str = "_INBOX.";

#[derive(Debug, Default)]
struct Heard {
    /// Why there is no connection.
    failure: Option<String>,
    /// What the server refuses on a connection that is up, a subscription for instance.
    complaint: Option<String>,
}

/// What the callbacks of one client noted.
#[derive(Debug)]
pub(super) struct Notes {
    heard: Mutex<Heard>,
    fence_refused: AtomicBool,
    parked: AtomicBool,
    changed: Arc<Notify>,
    observed: Arc<Observed>,
    /// What to do when a server does not let us in.
    sign_in: &'static str,
}

impl Notes {
    pub(super) fn new(
        changed: Arc<Notify>,
        observed: Arc<Observed>,
        sign_in: &'static str,
    ) -> Self {
        Self {
            sign_in,
            heard: Mutex::default(),
            fence_refused: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            changed,
            observed,
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, event: &Event) {
        match event {
            Event::SlowConsumer(_) => {
                self.observed.slow_consumer_events.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Event::Connected => *self.heard() = Heard::default(),
            Event::Disconnected => {
                let mut heard = self.heard();
                heard.failure = heard.complaint.take();
            }
            Event::ClientError(ClientError::Other(kind)) => self.fail(kind),
            Event::ClientError(error) => self.fail(&error.to_string()),
            Event::ServerError(error) => {
                let text = error.to_string();
                if text.contains(INBOX) {
                    self.fence_refused.store(true, Ordering::Release);
                } else {
                    self.heard().complaint = Some(text);
                }
            }
            Event::LameDuckMode => {
                tracing::info!(event = "nats_lame_duck", "a NATS server is about to shut down")
            }
            Event::Draining | Event::Closed => {}
        }
        self.changed.notify_one();
    }

    /// The event says only of which kind the failure is; [`Self::attempt`] knows the rest, and puts
    /// it here before the next attempt.
    fn fail(&self, kind: &str) {
        self.heard().failure.get_or_insert_with(|| kind.to_owned());
    }

    /// The client is about to connect; the servers carry how it went the last time. The addresses
    /// are written without what else their URLs may hold.
    pub(super) fn attempt(&self, servers: &[Server]) {
        let failures: Vec<String> =
            servers.iter().filter_map(|server| describe(server, self.sign_in)).collect();
        if !failures.is_empty() {
            self.heard().failure = Some(failures.join("; "));
            self.changed.notify_one();
        }
    }

    pub(super) fn fence_refused(&self) -> bool {
        self.fence_refused.load(Ordering::Acquire)
    }

    /// A client that never reached a server goes on trying after it was dropped; from here on
    /// it waits instead.
    pub(super) fn park(&self) {
        self.parked.store(true, Ordering::Release);
    }

    pub(super) fn parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }
}

fn describe(server: &Server, sign_in: &str) -> Option<String> {
    let error = server.last_error.as_ref()?;
    let (host, port) = (server.addr.host(), server.addr.port());
    if error.contains("authorization violation") {
        return Some(format!("{host}:{port} refused our login: {sign_in}"));
    }
    let why = tls::advice(error, &tls::Keys::NATS);
    Some(format!("{host}:{port}: {}", why.as_deref().unwrap_or(error)))
}

/// One connection, as it was when last looked at.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    notes: Arc<Notes>,
    connects: u64,
    up: bool,
}

impl Link {
    pub(super) fn new(client: Client, notes: Arc<Notes>) -> Self {
        Self { client, notes, connects: 0, up: false }
    }

    /// Looks again; true if the connection had gone and come back unnoticed.
    fn look(&mut self) -> bool {
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        let up = self.client.connection_state() == State::Connected;
        let flapped = self.up && up && connects != self.connects;
        (self.connects, self.up) = (connects, up);
        flapped
    }

    /// None while it is coming up for the first time and nothing went wrong yet.
    fn state(&self) -> Option<Result<(), String>> {
        let heard = self.notes.heard();
        match (self.up, &heard.complaint, &heard.failure) {
            (true, Some(complaint), _) => Some(Err(complaint.clone())),
            (true, None, _) => Some(Ok(())),
            (false, _, Some(failure)) => Some(Err(failure.clone())),
            (false, _, None) if self.connects > 0 => Some(Err("connection lost".to_owned())),
            (false, _, None) => None,
        }
    }
}

/// All connections of the source.
#[derive(Debug)]
pub(super) struct Watch {
    links: Vec<Link>,
    /// Reconnects of connections that have left.
    reconnects_before: u64,
    port: SourcePort,
    /// The source's name for people.
    label: &'static str,
    told: Option<Result<(), String>>,
    log_again: Instant,
}

impl Watch {
    pub(super) fn new(links: Vec<Link>, port: SourcePort, label: &'static str) -> Self {
        let (told, log_again) = (None, Instant::now());
        Self { links, reconnects_before: 0, port, label, told, log_again }
    }

    /// These connections take the place of those before.
    pub(super) fn renew(&mut self, links: Vec<Link>) {
        self.reconnects_before += self.reconnects();
        self.links = links;
    }

    fn reconnects(&self) -> u64 {
        self.links.iter().map(|link| link.connects.saturating_sub(1)).sum()
    }

    /// Tells what has changed.
    pub(super) async fn look(&mut self) {
        let mut flapped = false;
        for link in &mut self.links {
            flapped |= link.look();
        }
        let up = !self.links.is_empty() && self.links.iter().all(|link| link.up);
        self.port.observed.connected.store(up, Ordering::Relaxed);
        let reconnects = self.reconnects_before + self.reconnects();
        self.port.observed.reconnects.store(reconnects, Ordering::Relaxed);
        if flapped {
            self.tell(Err("connection lost and restored".to_owned())).await;
        }
        let states: Vec<_> = self.links.iter().filter_map(Link::state).collect();
        let failure = states.iter().find_map(|state| state.as_ref().err());
        match failure {
            Some(failure) => self.tell(Err(failure.clone())).await,
            None if up => self.tell(Ok(())).await,
            None => {}
        }
    }

    async fn tell(&mut self, state: Result<(), String>) {
        let new = self.told.as_ref() != Some(&state);
        self.log(&state, new);
        if new {
            self.told = Some(state.clone());
            super::send(&self.port, SourceEvent::Connection { error: state.err() }).await;
        }
    }

    fn log(&mut self, state: &Result<(), String>, new: bool) {
        let now = Instant::now();
        match state {
            Ok(()) if new => {
                self.log_again = now;
                tracing::info!(
                    event = "nats_connected",
                    connections = self.links.len(),
                    "{} connected",
                    self.label
                );
            }
            Err(error) if now >= self.log_again => {
                self.log_again = now + LOG_EVERY;
                tracing::warn!(event = "nats_connection_failed", %error, "{} connection failed; trying again", self.label);
            }
            _ => {}
        }
    }

    /// The source has ended.
    pub(super) async fn closed(self, error: Option<String>) {
        self.port.observed.connected.store(false, Ordering::Relaxed);
        super::send(&self.port, SourceEvent::Closed { error }).await;
    }
}
