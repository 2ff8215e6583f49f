//! The pages at `/` and `/live`: self-contained files, where they were built (`scripts/build-web`), else
//! plain ones; `build.rs` chooses. The dashboard comes with the same status that its stream goes on
//! with, so that it is right before its first event.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::stream::Now;
use super::{HttpState, problem};

const PAGE: &str = include_str!(concat!(env!("OUT_DIR"), "/page.html"));

/// Of the live feed; likewise made by `scripts/build-web`, or plain.
const LIVE: &str = include_str!(concat!(env!("OUT_DIR"), "/live.html"));

/// Where the page takes its first status from.
const FIRST: &str = "__FIRST__";

/// On every script and style of the page.
const NONCE: &str = "__NONCE__";

pub(super) async fn page(State(state): State<HttpState>) -> Response {
    let Ok(json) = serde_json::to_string(&Now::of(&state)) else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written as JSON");
    };
    // Inside a script element only `</script` and `<!--` mean something; without `<` neither can
    // stand there, and to JSON it is the same. The nonce first, so that nothing in it is taken for a
    // place.
    answer(PAGE, |page| page.replace(FIRST, &json.replace('<', "\\u003c")))
}

/// A page that shows the live feed, and has nothing of it in itself.
pub(super) async fn live() -> Response {
    secured(LIVE)
}

/// A page of ours, as it is.
pub(super) fn secured(page: &str) -> Response {
    answer(page, |page| page)
}

/// With a nonce and the policy that asks for it, then filled in.
fn answer(page: &str, filled: impl FnOnce(String) -> String) -> Response {
    let nonce = BASE64.encode(rand::random::<[u8; 16]>());
    let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the policy cannot be a header");
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, filled(page.replace(NONCE, &nonce))).into_response()
}

/// Nothing from elsewhere, and of what is here only what carries this answer's nonce: nothing that a
/// subject's name could smuggle in runs.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}
