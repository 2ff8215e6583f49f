//! One request to a receiver. The only place that knows its address and token: neither is ever shown.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::ExposeSecret as _;

use crate::config::{Webhook, WebhookKind};
use crate::tls;

/// Where Alertmanager takes alerts.
const ALERTMANAGER: &str = "/api/v2/alerts";

/// What is read of an answer, and what is shown of it: enough for a sentence about what was wrong.
const ANSWER_BYTES: usize = 16 * 1024;
const ANSWER_CHARS: usize = 200;

/// Shorter parts of an address stand in any sentence.
const SECRET_CHARS: usize = 4;

/// A receiver's address, and how to get there.
#[derive(Clone)]
pub struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    authorization: Option<HeaderValue>,
    within: Duration,
    /// What no answer is to repeat, the longest first.
    secrets: Vec<String>,
}

// The address holds a secret often enough.
impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("within", &self.within).finish_non_exhaustive()
    }
}

impl Post {
    /// # Errors
    /// When the files of its TLS cannot be used any more.
    pub fn new(config: &Webhook) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(config.timeout));
        tcp.enforce_http(false);
        let connector = tls::connector(tcp, config.tls.as_ref()).context("tls")?;
        let url = config.url.expose_secret();
        let uri: Uri = url.parse().ok().context("url is no address")?;
        let uri = match config.kind {
            WebhookKind::Alertmanager => of_alertmanager(uri)?,
            WebhookKind::Json | WebhookKind::Slack => uri,
        };
        let authorization = config.token.as_ref().map(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            // Rarely asked: a connection that was kept is a connection that was closed meanwhile.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            secrets: secrets(&uri, config.token.as_ref().map(|token| token.expose_secret())),
            uri,
            authorization: authorization
                .transpose()
                .ok()
                .context("token is no text for a header")?,
            within: config.timeout,
        })
    }

    /// Sends it; why it did not arrive, in words that hold neither address nor token.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let within = self.within;
        match tokio::time::timeout(within, self.exchange(body)).await {
            Ok(done) => done.map_err(|error| {
                let error = format!("{error:#}");
                tls::advice(&error, &tls::Keys::WEBHOOK).unwrap_or(error)
            }),
            Err(_) => Err(format!("no answer within {} s", within.as_secs_f64())),
        }
    }

    async fn exchange(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let agent = concat!("data-bridge/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, agent);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(body)).context("making the request")?;
        let answer = self.client.request(request).await.context("cannot reach it")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        if status.is_redirection() {
            bail!("{status}: it points elsewhere, and that is not followed; give the last address");
        }
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; see its token",
            StatusCode::NOT_FOUND => "; see its url and kind",
            _ => "",
        };
        bail!("{status}: {}{hint}", self.said(answer).await);
    }

    /// The beginning of what was answered, in one line. Many servers quote what they were asked for.
    async fn said(&self, answer: Response<hyper::body::Incoming>) -> String {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let text = without(&String::from_utf8_lossy(&bytes), &self.secrets);
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").chars().take(ANSWER_CHARS).collect()
    }
}

/// Where Alertmanager takes alerts, unless it is named already.
fn of_alertmanager(uri: Uri) -> anyhow::Result<Uri> {
    let path = uri.path().trim_end_matches('/');
    let path = format!("{}{ALERTMANAGER}", path.strip_suffix(ALERTMANAGER).unwrap_or(path));
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(format!("{path}{query}").parse().context("url is no address")?);
    Uri::from_parts(parts).context("url is no address")
}

/// What is a secret of an address: its path as a whole and in parts, its query; and the token.
fn secrets(uri: &Uri, token: Option<&str>) -> Vec<String> {
    let whole = uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str);
    let query = uri.query().into_iter().flat_map(|query| query.split(['&', '=']));
    let parts = whole.into_iter().chain([uri.path()]).chain(uri.path().split('/')).chain(query);
    let parts = parts.filter(|part| part.len() >= SECRET_CHARS).chain(token);
    let mut secrets: Vec<String> =
        parts.filter(|part| *part != ALERTMANAGER).map(str::to_owned).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn without(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> String {
        of_alertmanager(url.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn alertmanager_is_asked_where_it_takes_alerts_however_it_is_named() {
        for given in ["http://am:9093", "http://am:9093/", "http://am:9093/api/v2/alerts/"] {
            assert_eq!(at(given), "http://am:9093/api/v2/alerts");
        }
        assert_eq!(at("http://am/of/me/?tenant=a"), "http://am/of/me/api/v2/alerts?tenant=a");
    }

    #[test]
    fn what_an_answer_quotes_of_the_address_is_hidden() {
        let uri = "https://h/hooks/T0Secret/B0?key=k3ysecret".parse().unwrap();
        let secrets = secrets(&uri, Some("t0ken"));
        let page =
            "Cannot POST /hooks/T0Secret/B0?key=k3ysecret; path \"T0Secret\", k3ysecret, t0ken";
        let shown = without(page, &secrets);
        assert_eq!(shown, "Cannot POST ***; path \"***\", ***, ***");
    }
}
