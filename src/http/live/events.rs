//! A topic as server-sent events, for those who want plain HTTP: each event's data is what a socket
//! would get. A stream ends between two events before the server would cut its connection in the
//! midst of one; browsers come again by themselves.

use std::convert::Infallible;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::refused;
use crate::http::access::Pass;
use crate::http::server::Peer;
use crate::http::stream::AGE;
use crate::http::{HttpState, problem};
use crate::live::Session;
use crate::live::protocol::{Code, Subscribe, Text, timestamp};

/// Messages to a write.
const MESSAGES: usize = 256;

/// What may be said behind the `?`.
#[derive(Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    last_n: usize,
    client_id: Option<String>,
}

pub(super) async fn stream(
    State(state): State<HttpState>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(pass): Extension<Pass>,
    Path(topic): Path<String>,
    Query(Wish { last_n, client_id }): Query<Wish>,
) -> Response {
    let client_id = client_id.map(Into::into);
    let (queue_size, policy) = (None, None);
    let ask = Subscribe { topic: topic.into(), last_n, client_id, queue_size, policy };
    let session = match Session::listening(&state.live, address, &ask) {
        Ok(Ok(session)) => session,
        Ok(Err(wrong)) => return problem(status(wrong.code), &wrong.message),
        Err(refusal) => return refused(refusal),
    };
    let quiet = state.live.settings().ping_interval;
    let end = Instant::now() + AGE;
    let parts = stream::unfold(Some((session, pass)), move |open| async move {
        let (session, mut pass) = open.filter(|_| Instant::now() < end)?;
        let mailbox = session.mailbox();
        let mut texts = Vec::with_capacity(MESSAGES);
        let next = mailbox.next(&mut texts, MESSAGES, || timestamp(jiff::Timestamp::now()));
        let next = tokio::select! {
            next = timeout_at(end.min(Instant::now() + quiet), next) => next,
            () = pass.revoked() => return None,
        };
        let more = match next {
            Err(_) => return Some((part(b": quiet\n\n"), Some((session, pass)))),
            Ok(ended) => ended.is_ok(),
        };
        let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 8).sum());
        texts.iter().for_each(|text| write(&mut bytes, text));
        Some((Ok(Bytes::from(bytes)), more.then_some((session, pass))))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    (headers, Body::from_stream(parts)).into_response()
}

fn part(text: &'static [u8]) -> Result<Bytes, Infallible> {
    Ok(Bytes::from_static(text))
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::TopicNotFound => StatusCode::NOT_FOUND,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::BadRequest | Code::SlowConsumer => StatusCode::BAD_REQUEST,
    }
}

/// A payload may have line breaks in it: each line is data of the same event.
fn write(into: &mut Vec<u8>, text: &Text) {
    for line in text.bytes().split(|byte| matches!(byte, b'\n' | b'\r')) {
        into.extend_from_slice(b"data: ");
        into.extend_from_slice(line);
        into.push(b'\n');
    }
    into.push(b'\n');
}
