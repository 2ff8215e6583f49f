//! Who may see what: the bearer token, and reading request headers.

use std::hint::black_box;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use super::docs;
use super::live;
use super::problem;
use super::renewal::Present;

/// Probes and health checks carry no secrets, and their callers none either; nor does a page that
/// asks for the token itself.
const OPEN: [&str; 4] = ["/health", "/livez", "/readyz", live::PAGE];

/// What a browser shows and reads. It can ask a person for the token only as a password (`Basic`),
/// and then sends it by itself, whoever made it ask: so nothing else takes it in this form.
const SHOWN: [&str; 2] = ["/", "/health/stream"];

fn is_shown(path: &str) -> bool {
    SHOWN.contains(&path) || docs::SHOWN.contains(&path)
}

/// What changes something is closed to all while there is no token.
const ADMIN: &str = "/admin/";

/// By what requests are let through.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) token: Option<Present<SecretString>>,
}

impl Guard {
    /// It changes something, and there is no token that could allow it.
    fn is_closed_to_all(&self, path: &str) -> bool {
        self.token.is_none() && path.starts_with(ADMIN)
    }
}

/// By what a request was let through: what goes on after its answer has begun, a socket or a stream,
/// goes on for as long as that is good.
#[derive(Debug, Clone)]
pub(super) struct Pass(Option<Present<SecretString>>);

impl Pass {
    /// Whether the token is among what a request brings, in a form that its path takes.
    fn opens(&mut self, path: &str, headers: &HeaderMap) -> bool {
        let Some(token) = &mut self.0 else { return true };
        let token = token.borrow_and_update();
        let given = bearer(headers)
            .or_else(|| password(headers).filter(|_| is_shown(path)))
            .or_else(|| offered(headers).filter(|_| path == live::SOCKET));
        given.is_some_and(|given| same(&given, token.expose_secret().as_bytes()))
    }

    /// Until another token is in use; without one, and with one that does not change, for ever.
    pub(super) async fn revoked(&mut self) {
        if let Some(token) = &mut self.0
            && token.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Lets a request through if its path is open, if no token is configured, or if it carries it.
/// Unknown paths are closed too: a stranger learns nothing.
pub(super) async fn require_token(
    State(guard): State<Guard>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    if guard.is_closed_to_all(request.uri().path()) {
        let detail = "nobody may change anything here: set http.token or http.token_file, and \
                      restart the bridge";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let path = request.uri().path();
    let is_shown = is_shown(path);
    let mut pass = Pass(guard.token);
    if OPEN.contains(&path) || pass.opens(path, request.headers()) {
        request.extensions_mut().insert(pass);
        return next.run(request).await;
    }
    let mut refusal =
        problem(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer <http.token>`");
    let mut challenge = |text| {
        refusal.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(text));
    };
    challenge("Bearer realm=\"data-bridge\"");
    if is_shown {
        challenge("Basic realm=\"data-bridge: the token is the password, any user\"");
    }
    refusal
}

fn bearer(headers: &HeaderMap) -> Option<Vec<u8>> {
    Some(credentials(headers, "bearer")?.as_bytes().to_vec())
}

/// The password of any user.
fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let pair = BASE64_STANDARD.decode(credentials(headers, "basic")?).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn credentials<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let (scheme, given) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| given.trim())
}

/// A page in a browser can give a socket no header of its own, but a subprotocol:
/// `bearer.` and the token in base64url, without padding.
fn offered(headers: &HeaderMap) -> Option<Vec<u8>> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers.filter_map(|value| value.to_str().ok()).flat_map(|l| l.split(','));
    let token = offers.find_map(|offer| offer.trim().strip_prefix("bearer."))?;
    BASE64_URL_SAFE_NO_PAD.decode(token).ok()
}

/// Equality in a time that tells nothing about where two tokens differ. Their length may show.
/// An empty token, should one be configured, opens nothing.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differences = given.iter().zip(token).fold(0_u8, |sum, (a, b)| black_box(sum | (a ^ b)));
    given.len() == token.len() && differences == 0 && !token.is_empty()
}

/// The client says that it takes this media type (and not with `q=0`).
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
        is_it && quality.is_none_or(|quality| quality > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_when_every_byte_is() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"", b""), "an empty token opens nothing");
        for other in [&b"Secret"[..], b"secre", b"secrets", b"", b"secreT"] {
            assert!(!same(other, b"secret"), "{other:?}");
        }
    }

    #[test]
    fn open_metrics_is_given_to_those_who_name_it() {
        let accepts_it = |accept: &str| {
            let headers = [(header::ACCEPT, HeaderValue::from_str(accept).unwrap())];
            accepts(&headers.into_iter().collect(), "application/openmetrics-text")
        };
        assert!(accepts_it(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*"
        ));
        assert!(accepts_it("text/plain, Application/OpenMetrics-Text"));
        assert!(!accepts_it("text/plain;version=0.0.4"));
        assert!(!accepts_it("*/*"));
        assert!(!accepts_it("application/openmetrics-text;q=0"));
    }
}
