//! One request to somebody outside who is told something: a receiver of alerts, a collector. The only
//! place that knows addresses and tokens: neither is ever shown.

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Tls;
use crate::tls;

/// What is read of an answer, and what is shown of it: enough for a sentence about what was wrong.
const ANSWER_BYTES: usize = 16 * 1024;
const ANSWER_CHARS: usize = 200;

/// Shorter parts of an address or of a header stand in any sentence.
const SECRET_CHARS: usize = 4;
/// Paths that are no secret.
const KNOWN_PATHS: [&str; 3] = ["/api/v2/alerts", "/v1/traces", "/v1/metrics"];

/// To whom, and what to say to people when it does not arrive.
#[derive(Debug)]
pub struct To<'a> {
    pub url: &'a SecretString,
    /// By name, in small letters.
    pub headers: Vec<(&'a str, SecretString)>,
    pub content_type: &'static str,
    pub tls: Option<&'a Tls>,
    /// For one request.
    pub timeout: Duration,
    pub keys: &'static tls::Keys,
    /// What to look at when it does not know us, and when there is nothing at the address.
    pub see: [&'static str; 2],
}

/// Why something did not arrive, in words that hold neither address nor token.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    /// It may arrive when it is sent again as it is.
    pub passes: bool,
}

/// An address, and how to get there.
#[derive(Clone)]
pub struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    within: Duration,
    keys: &'static tls::Keys,
    see: [&'static str; 2],
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
    /// When the files of its TLS cannot be used any more, or its texts are none for HTTP.
    pub fn new(to: To<'_>) -> anyhow::Result<Self> {
        let To { url, headers: given, content_type, tls, timeout, keys, see } = to;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timeout));
        tcp.enforce_http(false);
        let connector = tls::connector(tcp, tls).context("tls")?;
        let agent = HeaderValue::from_static(concat!("data-bridge/", env!("CARGO_PKG_VERSION")));
        let uri: Uri = url.expose_secret().parse().ok().context("its address is none")?;
        let secrets = secrets(&uri, given.iter().map(|(_, secret)| secret.expose_secret()));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(USER_AGENT, agent);
        for (name, secret) in given {
            let mut value = HeaderValue::from_str(secret.expose_secret())
                .ok()
                .with_context(|| format!("{name} is no text for a header"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).context("the name of a header")?, value);
        }
        Ok(Self {
            // Rarely asked: a connection that was kept is a connection that was closed meanwhile.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            uri,
            headers,
            within: timeout,
            keys,
            see,
            secrets,
        })
    }

    /// Sends it.
    ///
    /// # Errors
    /// When it did not arrive, or nobody said that it did.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), Failure> {
        let within = self.within;
        let lasting = |what: String| Failure { what, passes: true };
        match tokio::time::timeout(within, self.exchange(body)).await {
            Ok(Ok(answer)) => self.judge(&answer),
            Ok(Err(error)) => {
                let error = format!("{error:#}");
                Err(lasting(tls::advice(&error, self.keys).unwrap_or(error)))
            }
            Err(_) => Err(lasting(format!("no answer within {} s", within.as_secs_f64()))),
        }
    }

    async fn exchange(&self, body: Vec<u8>) -> anyhow::Result<Response<Bytes>> {
        let mut request = Request::post(self.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        let request = request.body(Full::from(body)).context("making the request")?;
        let answer = self.client.request(request).await.context("cannot reach it")?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Response::from_parts(head, body))
    }

    fn judge(&self, answer: &Response<Bytes>) -> Result<(), Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if status.is_redirection() {
            let what = format!(
                "{status}: it points elsewhere, and that is not followed; give the last address"
            );
            return Err(Failure { what, passes });
        }
        let [login, place] = self.see;
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("; see {login}"),
            StatusCode::NOT_FOUND => format!("; see {place}"),
            _ => String::new(),
        };
        Err(Failure { what: format!("{status}: {}{hint}", self.said(answer.body())), passes })
    }

    /// The beginning of what was answered, in one line. Many servers quote what they were asked for.
    fn said(&self, body: &[u8]) -> String {
        let text = without(&String::from_utf8_lossy(body), &self.secrets);
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").chars().take(ANSWER_CHARS).collect()
    }
}

/// What is a secret of an address: its path as a whole and in parts, its query; and what goes along
/// in headers, also without the scheme before it (`Bearer`, `Basic`).
fn secrets<'a>(uri: &Uri, headers: impl Iterator<Item = &'a str>) -> Vec<String> {
    let whole = uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str);
    let query = uri.query().into_iter().flat_map(|query| query.split(['&', '=']));
    let parts = whole.into_iter().chain([uri.path()]).chain(uri.path().split('/')).chain(query);
    let parts = parts.filter(|part| !KNOWN_PATHS.contains(part));
    let tokens = headers.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, it)| it)]);
    let all = parts.chain(tokens.flatten()).filter(|part| part.len() >= SECRET_CHARS);
    let mut secrets: Vec<String> = all.map(str::to_owned).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn without(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_quotes_of_the_address_is_hidden() {
        let uri = "https://h/hooks/T0Secret/B0?key=k3ysecret".parse().unwrap();
        let secrets = secrets(&uri, ["Bearer t0ken"].into_iter());
        let page =
            "Cannot POST /hooks/T0Secret/B0?key=k3ysecret; path \"T0Secret\", k3ysecret, t0ken";
        let shown = without(page, &secrets);
        assert_eq!(shown, "Cannot POST ***; path \"***\", ***, ***");
    }

    #[test]
    fn a_login_is_hidden_without_its_scheme_and_what_stands_in_any_sentence_is_not() {
        let headers = ["Basic dXNlcjpwYXNz", "1", ""];
        let secrets = secrets(&"http://h/".parse().unwrap(), headers.into_iter());
        let page = "bad credentials dXNlcjpwYXNz in \"Basic dXNlcjpwYXNz\", tenant 1 of 12";
        let shown = without(page, &secrets);
        assert_eq!(shown, "bad credentials *** in \"***\", tenant 1 of 12");
    }
}
