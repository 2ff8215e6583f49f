//! `/admin/config`: what is in force, and changing it. Only with the token; without one in the
//! configuration nobody gets here (`access.rs`).

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{HttpState, body};
use crate::config::{Change, Layer};
use crate::reload::Outcome;

pub(super) const CONFIG: &str = "/admin/config";

/// The effective configuration as TOML, secrets hidden.
pub(super) async fn show(State(state): State<HttpState>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], state.door.in_force()).into_response()
}

/// Reads the files again, lays the body over them, and applies what comes of it, whole or not at
/// all; or only says what that would be.
pub(super) async fn change(
    State(state): State<HttpState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let only_tried = match only_tried(query.as_deref()) {
        Ok(only_tried) => only_tried,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &[why]),
    };
    let text = match body::text(body).await {
        Ok(text) => text,
        Err(refusal) => return refusal,
    };
    let layer = (!text.trim().is_empty()).then(|| Layer {
        origin: "the request",
        extension: extension(&headers),
        text,
    });
    answer(match only_tried {
        true => state.door.try_out(layer).await,
        false => state.door.ask("PUT /admin/config", layer).await,
    })
}

/// A slip in it must not change what was only to be tried.
fn only_tried(query: Option<&str>) -> Result<bool, String> {
    match query.unwrap_or_default() {
        "" | "dry_run=false" => Ok(false),
        "dry_run=true" => Ok(true),
        other => Err(format!(
            "nothing was changed: the query may be \"dry_run=true\" or \"dry_run=false\", and is \
             {other:?}"
        )),
    }
}

/// TOML, unless the header says otherwise; `curl -d` says `x-www-form-urlencoded` of anything.
fn extension(headers: &HeaderMap) -> &'static str {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim() {
        "application/json" => "json",
        "application/yaml" | "application/x-yaml" | "text/yaml" => "yaml",
        _ => "toml",
    }
}

fn answer(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Applied { hash, changes } => differences(true, &hash, &changes),
        Outcome::Possible { hash, changes } => differences(false, &hash, &changes),
        Outcome::Invalid(why) => refused(StatusCode::UNPROCESSABLE_ENTITY, &[why]),
        Outcome::NeedsRestart(keys) => refused(StatusCode::CONFLICT, &keys),
        Outcome::NotNow(why) => refused(StatusCode::SERVICE_UNAVAILABLE, &[why]),
    }
}

fn differences(applied: bool, hash: &str, changes: &[Change]) -> Response {
    let body = json!({ "applied": applied, "hash": hash, "changes": changes });
    (StatusCode::OK, Json(body)).into_response()
}

fn refused(status: StatusCode, reasons: &[String]) -> Response {
    (status, Json(json!({ "applied": false, "reasons": reasons }))).into_response()
}
