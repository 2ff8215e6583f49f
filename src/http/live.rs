//! The paths of the live feed. What is said on them is in `live/`; here is how it gets there, and
//! who may.
//!
//! Who may: with `http.token` in the configuration, those who have it. Without one only those on
//! this machine, unless `live.open` says otherwise: it shows what the bridge carries. And of pages
//! in browsers, which send requests wherever they like, those that come from the bridge itself or
//! from an allowed origin.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{HttpState, body, page, problem};
use crate::config::LiveAccess;
use crate::live::{Created, NoTopic, QueueStatus, Refusal, TopicOptions, TopicStatus, protocol};
use crate::record::UnixMs;

mod cors;
mod events;
mod offers;
mod origin;
mod socket;

pub(super) use cors::share;

pub(super) const SOCKET: &str = "/ws";

/// Nothing of the feed is in it: it asks for what it shows, with the token that it was given.
pub(super) const PAGE: &str = "/live";

/// A client that was refused because there are too many tries again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

pub(super) fn paths(
    state: &HttpState,
) -> impl Iterator<Item = (&'static str, MethodRouter<HttpState>)> {
    let paths = [
        (SOCKET, get(socket::upgrade)),
        (PAGE, get(page::live)),
        ("/topics", get(topics).post(create)),
        ("/topics/{name}", delete(remove)),
        ("/topics/{name}/events", get(events::stream)),
        ("/stats", get(stats)),
        ("/subscriber-stats", get(subscriber_stats)),
    ];
    let admit = middleware::from_fn_with_state(state.clone(), admit);
    paths.into_iter().map(move |(path, methods)| (path, methods.route_layer(admit.clone())))
}

/// Lets those through who may see the feed; who has no token where one is asked for does not get
/// here.
async fn admit(State(state): State<HttpState>, request: Request<Body>, next: Next) -> Response {
    match may_see(&state, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(closed) => closed.into_response(),
    }
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Closed(StatusCode, &'static str);

impl IntoResponse for Closed {
    fn into_response(self) -> Response {
        problem(self.0, self.1)
    }
}

/// The same, as a question.
pub(super) fn may_see(state: &HttpState, headers: &HeaderMap) -> Result<(), Closed> {
    let settings = state.live.settings();
    if !settings.enabled {
        let detail = "there is no live feed: live.enabled is false";
        return Err(Closed(StatusCode::NOT_FOUND, detail));
    }
    if settings.access == LiveAccess::Nobody {
        let detail = "the live feed shows what the bridge carries, and others than this machine \
                      can connect: set http.token or http.token_file, or live.open = true if \
                      everybody may see it; then restart the bridge";
        return Err(Closed(StatusCode::FORBIDDEN, detail));
    }
    from_known_page(state, headers)
}

/// No page has sent this, or one that may.
pub(super) fn from_known_page(state: &HttpState, headers: &HeaderMap) -> Result<(), Closed> {
    let settings = state.live.settings();
    let guarded = settings.access != LiveAccess::ThisMachine;
    if !origin::is_allowed(headers, &settings.allowed_origins, guarded) {
        let detail = "this page's origin may not connect: add it to live.allowed_origins";
        return Err(Closed(StatusCode::FORBIDDEN, detail));
    }
    Ok(())
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Draining => problem(StatusCode::SERVICE_UNAVAILABLE, "the bridge stops"),
        Refusal::Invalid(why) => problem(StatusCode::BAD_REQUEST, &why),
        Refusal::TooMany(why) => {
            let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &why);
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            response
        }
    }
}

async fn topics(State(state): State<HttpState>) -> Response {
    let topics: Vec<Value> = state.live.topics().iter().map(shown).collect();
    Json(json!({ "topics": topics })).into_response()
}

fn shown(topic: &TopicStatus) -> Value {
    json!({
        "name": &*topic.name,
        "kind": topic.owner.name(),
        "subscribers": topic.subscribers,
        "messages": topic.messages,
    })
}

/// A topic to make.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTopic {
    name: String,
    queue_size: Option<usize>,
    policy: Option<String>,
    replay: Option<usize>,
}

async fn create(State(state): State<HttpState>, body: Body) -> Response {
    let text = match body::text(body).await {
        Ok(text) => text,
        Err(refusal) => return refusal,
    };
    let bad = |why: &str| problem(StatusCode::BAD_REQUEST, why);
    let NewTopic { name, queue_size, policy, replay } = match serde_json::from_str(&text) {
        Ok(topic) => topic,
        Err(error) => return bad(&format!("{error}; write {{\"name\": \"my-topic\"}}")),
    };
    let policy = match policy.as_deref().map(protocol::policy).transpose() {
        Ok(policy) => policy,
        Err(wrong) => return bad(&wrong.message),
    };
    let status = match state.live.create(&name, TopicOptions { queue_size, policy, replay }) {
        Ok(Created::New) => StatusCode::CREATED,
        Ok(Created::Known) => StatusCode::OK,
        Err(refusal) => return refused(refusal),
    };
    (status, Json(json!({ "name": name, "created": status == StatusCode::CREATED })))
        .into_response()
}

async fn remove(State(state): State<HttpState>, Path(name): Path<String>) -> Response {
    match state.live.delete(&name) {
        Ok(()) => Json(json!({ "name": name, "deleted": true })).into_response(),
        Err(NoTopic::Draining) => refused(Refusal::Draining),
        Err(NoTopic::Unknown) => problem(StatusCode::NOT_FOUND, "there is no such topic"),
        Err(NoTopic::OfRoute) => {
            problem(StatusCode::CONFLICT, "this topic is what a route carries; it stays")
        }
    }
}

async fn stats(State(state): State<HttpState>) -> Response {
    let topics = state.live.topics();
    let sum = |of: fn(&TopicStatus) -> u64| topics.iter().map(of).sum::<u64>();
    // What has a key is counted in its route's topic too.
    let whole = topics.iter().filter(|topic| !topic.owner.is_part());
    let (messages, rate) =
        whole.fold((0, 0.0), |(sum, rate), topic| (sum + topic.messages, rate + topic.rate));
    let totals = json!({
        "topics": topics.len(),
        "connections": state.live.connections(),
        "subscribers": state.live.subscribers().len(),
        "messages": messages,
        "rate": rate,
        "dropped": sum(|topic| topic.dropped),
        "overrun": sum(|topic| topic.overrun),
        "keyless": state.live.keyless(),
    });
    let by_name: BTreeMap<&str, Value> = topics
        .iter()
        .map(|topic| {
            let status = json!({
                "kind": topic.owner.name(),
                "messages": topic.messages,
                "rate": topic.rate,
                "subscribers": topic.subscribers,
                "replay_depth": topic.replay_depth,
                "dropped": topic.dropped,
                "overrun": topic.overrun,
            });
            (&*topic.name, status)
        })
        .collect();
    Json(json!({ "topics": by_name, "totals": totals })).into_response()
}

/// Keyed by `topic/client_id`.
async fn subscriber_stats(State(state): State<HttpState>) -> Response {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (client, queue) in state.live.subscribers() {
        all.insert(format!("{}/{client}", queue.topic), queue_shown(&queue));
    }
    Json(all).into_response()
}

fn queue_shown(queue: &QueueStatus) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts far below 2^53")]
    let utilization = queue.size as f64 / queue.max as f64;
    json!({
        "queue_size": queue.size,
        "queue_max": queue.max,
        "queue_bytes": queue.bytes,
        "utilization": utilization,
        "delivered": queue.delivered,
        "dropped": queue.dropped,
        "since": time(queue.since),
    })
}

fn time(at: UnixMs) -> Option<String> {
    jiff::Timestamp::from_millisecond(at).ok().map(protocol::timestamp)
}
