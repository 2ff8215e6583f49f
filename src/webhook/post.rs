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

/// A receiver's address, and how to get there.
#[derive(Clone)]
pub struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    authorization: Option<HeaderValue>,
    within: Duration,
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
        let path = match config.kind {
            WebhookKind::Alertmanager if !url.ends_with(ALERTMANAGER) => ALERTMANAGER,
            _ => "",
        };
        let url = format!("{}{path}", url.trim_end_matches('/'));
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
            uri: url.parse().ok().context("url is no address")?,
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
        bail!("{status}: {}{hint}", said(answer).await);
    }
}

/// The beginning of what was answered, in one line.
async fn said(answer: Response<hyper::body::Incoming>) -> String {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(ANSWER_CHARS).collect()
}
