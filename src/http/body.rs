//! The body of a request: small, whole, in time, and text.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::{MAX_BODY_BYTES, problem};

/// For a body of at most 64 KiB to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Its bytes, if its sender says how many there are.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// All of it; else what to answer.
pub(super) async fn text(body: Body) -> Result<String, Response> {
    let body = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, MAX_BODY_BYTES)).await;
    match body {
        Ok(Ok(bytes)) => String::from_utf8(bytes.to_vec())
            .map_err(|_| problem(StatusCode::BAD_REQUEST, "the body is not UTF-8")),
        Ok(Err(_)) => {
            let detail = "the body is larger than 64 KiB, or ended early";
            Err(problem(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}
