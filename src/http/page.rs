//! The status page: one self-contained file, filled with the same health that `/health` gives and
//! kept fresh by asking for it. The dashboard takes its place later.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{HttpState, problem};

const PAGE: &str = include_str!("page.html");

/// Where the page takes its first health from.
const PLACE: &str = "__HEALTH__";

/// Nothing from elsewhere, and nothing that a subject's name could smuggle in.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) async fn page(State(state): State<HttpState>) -> Response {
    let Ok(json) = serde_json::to_string(&state.health()) else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written as JSON");
    };
    // Inside a script element only `</script` and `<!--` mean something; without `<` neither can
    // stand there, and to JSON it is the same.
    let page = PAGE.replace(PLACE, &json.replace('<', "\\u003c"));
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}
