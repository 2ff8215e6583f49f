//! The bridge's own word: its stream of events, opened again for as long as somebody looks.

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use futures_util::{Stream, StreamExt as _, stream};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{sleep, timeout};

use super::sse::{Event, Events};
use crate::cli::bridge;

const PATH: &str = "/health/stream";

/// Once a second there is an event; after so long without one nobody speaks any more.
pub(super) const SILENT: Duration = Duration::from_secs(4);

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// Which bridge.
#[derive(Debug)]
pub(super) struct Place {
    uri: Uri,
    trust: ClientConfig,
    authorization: Option<HeaderValue>,
}

impl Place {
    /// # Errors
    /// When the address is none, or the token cannot be sent.
    pub(super) fn new(
        url: &str,
        trust: ClientConfig,
        token: Option<SecretString>,
    ) -> anyhow::Result<Self> {
        let bearer = |token: SecretString| {
            HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .context("the token cannot be sent")
        };
        let authorization = token.map(bearer).transpose()?;
        Ok(Self { uri: bridge::uri(url, PATH)?, trust, authorization })
    }

    async fn open(&self) -> anyhow::Result<Open> {
        let mut request = Request::get(self.uri.clone()).body(Body::empty())?;
        if let Some(token) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let (head, body) = bridge::begin(request, self.trust.clone()).await?.into_parts();
        match head.status {
            StatusCode::OK => Ok(Open { body: body.into_data_stream(), events: Events::default() }),
            StatusCode::UNAUTHORIZED => bail!("it wants its token: give --token-file"),
            StatusCode::SERVICE_UNAVAILABLE => bail!("as many watch it as may, or it goes away"),
            status => bail!("{}", bridge::strange(status, b"")),
        }
    }
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Heard {
    Told(Event),
    /// It is tried again; why it was lost.
    Lost(String),
}

/// For ever. What is waited for goes on where it was when the wait is given up.
pub(super) fn heard(place: Place) -> impl Stream<Item = Heard> {
    let listener = Listener { place, open: None, rests: false };
    stream::unfold(listener, |mut listener| async {
        let heard = listener.next().await;
        Some((heard, listener))
    })
}

struct Open {
    body: BodyDataStream,
    events: Events,
}

struct Listener {
    place: Place,
    open: Option<Open>,
    rests: bool,
}

impl Listener {
    async fn next(&mut self) -> Heard {
        match self.try_next().await {
            Ok(event) => Heard::Told(event),
            Err(why) => {
                self.open = None;
                self.rests = true;
                Heard::Lost(format!("{why:#}"))
            }
        }
    }

    async fn try_next(&mut self) -> anyhow::Result<Event> {
        if std::mem::take(&mut self.rests) {
            sleep(AGAIN).await;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let opening = timeout(SILENT, self.place.open()).await;
                closed.insert(opening.with_context(|| silent(&self.place.uri))??)
            }
        };
        loop {
            if let Some(event) = open.events.next() {
                return Ok(event);
            }
            let piece = timeout(SILENT, open.body.next()).await;
            let piece = piece.with_context(|| silent(&self.place.uri))?;
            open.events.take_in(&piece.context("the stream has ended")??)?;
        }
    }
}

fn silent(uri: &Uri) -> String {
    format!("no word from {uri} for {} s", SILENT.as_secs())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A bridge as it is seen by what reads its stream: it ends, and is opened again.
    #[tokio::test]
    async fn a_stream_that_ends_is_opened_again_and_a_refusal_says_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let answers = [
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nevent: a\ndata: 1\n\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nevent: b\ndata: 2\n\n",
            ];
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 1024];
                let read = socket.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
                assert!(asked.contains("GET /health/stream"), "{asked}");
                assert!(asked.contains("Bearer s3cret"), "{asked}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let trust = crate::tls::client(None, None).unwrap();
        let place = Place::new(&url, trust, Some("s3cret".to_owned().into())).unwrap();
        let said = heard(place).map(|heard| match heard {
            Heard::Told(event) => event.name,
            Heard::Lost(why) => why,
        });
        let said =
            timeout(Duration::from_secs(30), said.take(4).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(said[0], "it wants its token: give --token-file");
        assert_eq!((said[1].as_str(), said[3].as_str()), ("a", "b"), "{said:?}");
        assert!(said[2].contains("the stream has ended"), "{said:?}");
        while let Some(ended) = server.join_next().await {
            ended.unwrap();
        }
    }
}
