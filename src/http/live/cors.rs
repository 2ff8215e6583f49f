//! What pages from elsewhere may read: a browser shows an answer only to a page that the answer names,
//! and asks before it sends what no form could send. So those of `live.allowed_origins` are named, on
//! what of the feed goes over plain HTTP; sockets have no such rule (`origin.rs` is theirs).
//!
//! Stands before the token: the browser's question has none, and a page is to see why it was refused.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{HttpState, origin};

/// What may be sent; a browser remembers it for so many seconds.
const MAY_BE_SENT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Besides the body.
const MAY_BE_READ: [(HeaderName, &str); 1] =
    [(header::ACCESS_CONTROL_EXPOSE_HEADERS, "retry-after")];

pub(in crate::http) async fn share(
    State(state): State<HttpState>,
    request: Request<Body>,
    next: Next,
) -> Response {
    if !is_shared(request.uri().path()) {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin =
        origin.filter(|origin| origin::is_listed(origin, &state.live.settings().allowed_origins));
    let is_question = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let (mut response, also) = match &origin {
        Some(_) if is_question => (StatusCode::NO_CONTENT.into_response(), &MAY_BE_SENT[..]),
        Some(_) => (next.run(request).await, &MAY_BE_READ[..]),
        None => (next.run(request).await, &[][..]),
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        name(response.headers_mut(), origin, also);
    }
    response
}

fn name(headers: &mut HeaderMap, origin: HeaderValue, also: &[(HeaderName, &'static str)]) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (header, value) in also {
        headers.insert(header, HeaderValue::from_static(value));
    }
}

/// Topics, what is published to them, and what is said of them.
fn is_shared(path: &str) -> bool {
    ["/topics", "/stats", "/subscriber-stats"].contains(&path) || path.starts_with("/topics/")
}
