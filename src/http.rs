//! The HTTP face: health, probes, metrics, the pages and their streams, documents. The only user of axum.
//!
//! Every answer is made from the snapshot that lies in the `watch`: no handler waits for the
//! pipeline, a source or ClickHouse, so `/health` answers in the worst of times. Only a change of the
//! configuration (`admin.rs`) and messages that are published (`publish.rs`) wait, for a bounded time,
//! for what becomes of them. The live feed has its sockets in
//! `http/live.rs`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::alert::Alerts;
use crate::history::Histories;
use crate::live::Live;
use crate::metrics::{Exposition, Format};
use crate::reload::Door;
use crate::source::live::Publisher;
use crate::status::health::Health;
use crate::status::{Identity, Snapshot, Snapshots};
use crate::webhook::Tallies;

mod access;
mod admin;
mod body;
mod docs;
mod live;
mod page;
mod publish;
mod renewal;
mod server;
mod stream;
mod tls;

pub use renewal::Access;
use renewal::Present;
pub use server::{Limits, bind, serve};

/// Far more than any request to us needs, but for messages: else the only body is a configuration.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Where the handlers learn what they say, and whom they ask.
#[derive(Debug)]
pub struct Known {
    pub snapshots: Snapshots,
    pub alerts: Alerts,
    /// Who is told of them.
    pub webhooks: Tallies,
    pub histories: Histories,
    pub identity: Identity,
    pub exposition: Arc<Exposition>,
    /// Where changes of the configuration are asked for.
    pub door: Door,
    /// Where messages are published.
    pub publisher: Publisher,
    pub live: Arc<Live>,
}

/// What the handlers have.
#[derive(Debug, Clone)]
pub struct HttpState {
    snapshots: Snapshots,
    alerts: Alerts,
    webhooks: Tallies,
    identity: Identity,
    exposition: Arc<Exposition>,
    histories: Histories,
    /// Who may watch at a time.
    watchers: Arc<Semaphore>,
    /// Where changes of the configuration are asked for.
    door: Door,
    /// Where messages are published.
    publisher: Publisher,
    /// Whoever was let in may publish to routes: with the token, or because none is wanted.
    may_publish: bool,
    live: Arc<Live>,
}

impl HttpState {
    #[must_use]
    pub fn new(known: Known) -> Self {
        let Known { snapshots, alerts, webhooks, histories, identity, .. } = known;
        let Known { exposition, door, publisher, live, .. } = known;
        let watchers = Arc::new(Semaphore::new(stream::WATCHERS));
        Self {
            snapshots,
            alerts,
            webhooks,
            identity,
            exposition,
            histories,
            watchers,
            door,
            publisher,
            may_publish: false,
            live,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// What `/health` says now.
    fn health(&self) -> Health {
        self.health_of(&self.snapshot())
    }

    fn health_of(&self, snapshot: &Snapshot) -> Health {
        let firing = Arc::clone(&self.alerts.borrow());
        let health = snapshot.health(&self.identity, &firing, Instant::now());
        health.with_webhooks(&self.webhooks)
    }
}

/// Every path; all but the probes only with the token, if there is one.
fn router(state: HttpState, token: Option<Present<SecretString>>) -> Router {
    let may_publish = token.is_some() || state.publisher.limits().without_token;
    let (state, guard) = (HttpState { may_publish, ..state }, access::Guard { token });
    let paths = paths(&state).into_iter();
    paths
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            let detail = "this path does not answer this method";
            problem(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), refuse_large_bodies))
        .layer(middleware::from_fn_with_state(guard, access::require_token))
        .layer(middleware::from_fn_with_state(state.clone(), live::share))
        .layer(middleware::from_fn(common_headers))
        .with_state(state)
}

/// Every path, with what answers there; `docs/openapi.yaml` has the same.
fn paths(state: &HttpState) -> Vec<(&'static str, MethodRouter<HttpState>)> {
    let own = [
        ("/", get(page::page)),
        ("/health", get(health)),
        ("/health/stream", get(stream::watch)),
        ("/livez", get(livez)),
        ("/readyz", get(readyz)),
        ("/metrics", get(metrics)),
        (admin::CONFIG, get(admin::show).put(admin::change)),
        (publish::MESSAGES, post(publish::publish)),
    ];
    own.into_iter().chain(live::paths(state)).chain(docs::paths()).collect()
}

async fn health(State(state): State<HttpState>) -> Response {
    let health = state.health();
    (serving_or_not(health.is_serving()), Json(health)).into_response()
}

/// Alive: our own loops turn. Never asks whether ClickHouse does: restarting the bridge because
/// its sink is down would make everything worse.
async fn livez(State(state): State<HttpState>) -> Response {
    let wedged = state.snapshot().wedged(Instant::now());
    let code = serving_or_not(wedged.is_none());
    (code, Json(json!({ "alive": wedged.is_none(), "wedged": wedged }))).into_response()
}

/// Ready: it runs. Paused is ready: a paused bridge is doing what it is for.
async fn readyz(State(state): State<HttpState>) -> Response {
    let (snapshot, now) = (state.snapshot(), Instant::now());
    let ready = snapshot.is_ready(now);
    let body = json!({ "ready": ready, "status": snapshot.condition(now) });
    (serving_or_not(ready), Json(body)).into_response()
}

async fn metrics(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    let format = if access::accepts(&headers, "application/openmetrics-text") {
        Format::OpenMetrics
    } else {
        Format::Classic
    };
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (headers, state.exposition.text(format)).into_response()
}

fn serving_or_not(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// An error as JSON, for those who wrote a program against us.
fn problem(status: StatusCode, detail: &str) -> Response {
    let error = status.canonical_reason().unwrap_or("error");
    (status, Json(json!({ "error": error, "detail": detail }))).into_response()
}

/// Refuses by the announced length. Of a body without one no more is read than that.
async fn refuse_large_bodies(
    State(state): State<HttpState>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let of_messages = publish::is_messages(request.uri().path());
    let most =
        if of_messages { state.publisher.limits().max_request_bytes } else { MAX_BODY_BYTES };
    if body::announced(request.headers()).is_some_and(|length| length > most) {
        let detail = match of_messages {
            true => "the body is larger than live.publish.max_request_bytes",
            false => "no other path takes a body of more than 64 KiB",
        };
        return problem(StatusCode::PAYLOAD_TOO_LARGE, detail);
    }
    next.run(request).await
}

async fn common_headers(request: Request<Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    // A status that comes out of a cache is a lie.
    let headers: [(HeaderName, &str); 2] =
        [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
