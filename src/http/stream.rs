//! `/health/stream`: what `/health` says, once a second, as server-sent events, and what it does
//! not: the last ten minutes, the newest dead letters, the configuration in force. For the page; a
//! terminal may read it as well.
//!
//! A watcher owns a permit and a place in the history's `watch`: one that reads slowly misses looks,
//! and makes nobody wait. Who watches costs a JSON a second, and nobody nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::access::Pass;
use super::{HttpState, problem};
use crate::history::{Histories, Sample};
use crate::status::health::{Health, rfc3339};
use crate::status::{LetterSample, Verdict};

/// Pages and terminals that watch at a time; more are told to come later.
pub(super) const WATCHERS: usize = 16;

/// After so long a stream ends between two events, and its reader comes again: before the server
/// would cut the connection in the middle of one (`Limits::connection_age`).
pub(super) const AGE: Duration = Duration::from_secs(240);

/// When a reader shall come again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the page shows: the event `status`.
#[derive(Debug, Serialize)]
pub(super) struct Now {
    verdict: Verdict,
    /// Since when it is so.
    since: String,
    sample: Sample,
    health: Health,
    /// The newest dead letter of each route and reason.
    letters: Vec<Letter>,
}

/// A dead letter, without its values: they may be personal.
#[derive(Debug, Serialize)]
struct Letter {
    time: String,
    route: String,
    reason: &'static str,
    why: String,
    source: &'static str,
    topic_or_subject: String,
    partition: Option<i32>,
    offset: Option<i64>,
}

impl Letter {
    fn of(letter: &LetterSample) -> Self {
        let LetterSample { time, route, reason, outline, source, .. } = letter;
        Self {
            time: rfc3339(*time),
            route: route.clone(),
            reason,
            why: outline.clone(),
            source,
            topic_or_subject: letter.topic_or_subject.clone(),
            partition: letter.partition,
            offset: letter.offset,
        }
    }
}

impl Now {
    pub(super) fn of(state: &HttpState) -> Self {
        let (verdict, since, sample) = state.histories.borrow().latest();
        let snapshot = state.snapshot();
        let letters = &snapshot.dead_letters.newest;
        Self {
            verdict,
            since: rfc3339(since),
            sample,
            health: state.health_of(&snapshot),
            letters: letters.iter().map(|letter| Letter::of(letter)).collect(),
        }
    }
}

/// What was: the event `history`, once, at first.
#[derive(Debug, Serialize)]
struct Before {
    samples: Vec<Sample>,
}

/// The event `config`, at first and after each change.
#[derive(Debug, Serialize)]
struct Configured {
    toml: String,
}

pub(super) async fn watch(
    State(state): State<HttpState>,
    Extension(pass): Extension<Pass>,
) -> Response {
    let Ok(permit) = Arc::clone(&state.watchers).try_acquire_owned() else {
        let detail = "as many watch as may; /health says the same, once";
        let again = [(header::RETRY_AFTER, HeaderValue::from(AGE.as_secs()))];
        return (again, problem(StatusCode::SERVICE_UNAVAILABLE, detail)).into_response();
    };
    // nginx would keep events back until its buffer is full; and on a connection that is older than
    // its stream the next one would be cut before its time
    let headers = [("x-accel-buffering", "no"), ("connection", "close")];
    (headers, Sse::new(events(state, pass, permit))).into_response()
}

fn events(
    state: HttpState,
    pass: Pass,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let histories = state.histories.clone();
    let until = Instant::now() + AGE;
    let watcher = Watcher { state, pass, histories, until, configured: None, _permit: permit };
    let looks = stream::unfold(watcher, |mut watcher| async {
        let events = watcher.next().await?;
        Some((stream::iter(events.into_iter().map(Ok)), watcher))
    });
    looks.flatten()
}

struct Watcher {
    state: HttpState,
    pass: Pass,
    histories: Histories,
    until: Instant,
    /// The hash of the configuration that was told last; None before the first event.
    configured: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// What there is to say at the next look; None at the end of the bridge, of the stream, or of the
    /// token that opened it.
    async fn next(&mut self) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        if self.configured.is_none() {
            let samples = self.histories.borrow_and_update().samples().iter().copied().collect();
            events.extend(event("history", &Before { samples }));
        } else {
            let more = tokio::select! {
                changed = self.histories.changed() => changed.is_ok(),
                () = self.pass.revoked() => false,
            };
            if !more || Instant::now() > self.until {
                return None;
            }
        }
        let now = Now::of(&self.state);
        let hash = &now.health.config.hash;
        if self.configured.as_ref() != Some(hash) {
            self.configured = Some(hash.clone());
            events.extend(event("config", &Configured { toml: self.state.door.in_force() }));
        }
        events.extend(event("status", &now));
        Some(events)
    }
}

fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    match Event::default().event(name).retry(AGAIN).json_data(data) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(event = "http_failed", %error, name, "an event for the page cannot be written as JSON");
            None
        }
    }
}
