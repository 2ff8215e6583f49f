//! A connection to `/ws`: texts in, texts out, and why it ended. The only user of tungstenite in
//! `src/`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, Uri, header};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{ANSWER_WITHIN, Bridge, Trouble, refusal};
use crate::cli::bridge;
use crate::tls;

/// After so long a silence the bridge is asked for a sign of life, and after another one given up.
/// It pings by itself, as often as `live.ping_interval` says.
const QUIET: Duration = Duration::from_secs(30);

/// For the bridge's farewell.
pub(super) const PART_WITHIN: Duration = Duration::from_secs(1);

/// What carries it: TCP, with TLS or without.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub(super) struct Socket {
    inner: WebSocketStream<Box<dyn Wire>>,
    /// Nothing has come since the bridge was asked for a sign of life.
    asked: bool,
}

impl Socket {
    /// With so many bytes on the way to us at most, where that is said: what we do not read then
    /// waits at the bridge.
    pub(super) async fn connect(bridge: &Bridge, narrow: Option<u32>) -> Result<Self, Trouble> {
        let connecting = Self::connect_at_leisure(bridge, narrow);
        timeout(ANSWER_WITHIN, connecting).await.unwrap_or_else(|_| {
            let seconds = ANSWER_WITHIN.as_secs();
            Err(Trouble::Away(format!("no answer from {} within {seconds} s", bridge.url)))
        })
    }

    async fn connect_at_leisure(bridge: &Bridge, narrow: Option<u32>) -> Result<Self, Trouble> {
        let uri =
            bridge::uri(&bridge.url, "/ws").map_err(|error| Trouble::Usage(error.to_string()))?;
        let away = |error: &dyn std::fmt::Display| {
            let text = format!("{error:#}");
            let advice = tls::advice(&text, &tls::Keys::HEALTH);
            Trouble::Away(advice.unwrap_or_else(|| format!("cannot reach {}: {text}", bridge.url)))
        };
        let request = request(bridge, &uri)?;
        let stream = tcp(&uri, narrow).await.map_err(|error| away(&error))?;
        let wire: Box<dyn Wire> = if uri.scheme_str() == Some("https") {
            let shaken = shake(stream, &uri, bridge.trust.clone()).await;
            Box::new(shaken.map_err(|error| away(&format!("{error:#}")))?)
        } else {
            Box::new(stream)
        };
        match client_async(request, wire).await {
            Ok((inner, _)) => Ok(Self { inner, asked: false }),
            Err(Error::Http(answer)) => {
                let status = StatusCode::from_u16(answer.status().as_u16());
                let body = answer.body().as_deref().unwrap_or_default();
                Err(refusal(status.unwrap_or_default(), body))
            }
            Err(error) => Err(away(&error)),
        }
    }

    pub(super) async fn say(&mut self, message: &Json) -> Result<(), Trouble> {
        let saying = timeout(ANSWER_WITHIN, self.inner.send(Message::text(message.to_string())));
        match saying.await {
            Ok(said) => said.map_err(|error| lost(&error)),
            Err(_) => Err(Trouble::Away("the bridge takes nothing any more".to_owned())),
        }
    }

    /// The next message. May be cancelled.
    pub(super) async fn hear(&mut self) -> Result<String, Trouble> {
        loop {
            let Ok(frame) = timeout(QUIET, self.inner.next()).await else {
                if self.asked {
                    return Err(Trouble::Away("the bridge gives no sign of life".to_owned()));
                }
                self.asked = true;
                let ping = self.inner.send(Message::Ping(Bytes::new()));
                ping.await.map_err(|error| lost(&error))?;
                continue;
            };
            self.asked = false;
            match frame {
                None => return Err(Trouble::Away("the connection was cut".to_owned())),
                Some(Err(error)) => return Err(lost(&error)),
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Says farewell, and waits a moment for the bridge's.
    pub(super) async fn part(mut self) {
        let parting = async {
            if self.inner.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.inner.next().await {}
            }
        };
        // who does not answer has lost nothing by it
        drop(timeout(PART_WITHIN, parting).await);
    }
}

fn lost(error: &Error) -> Trouble {
    Trouble::Away(format!("the connection was lost: {error}"))
}

fn closed(frame: Option<&CloseFrame>) -> Trouble {
    Trouble::Away(match frame {
        Some(frame) => {
            format!(
                "the bridge closed the connection: {} ({})",
                frame.reason,
                u16::from(frame.code)
            )
        }
        None => "the bridge closed the connection".to_owned(),
    })
}

/// The handshake's request, with the token.
fn request(bridge: &Bridge, uri: &Uri) -> Result<Request, Trouble> {
    let usage = |why: &dyn std::fmt::Display| Trouble::Usage(format!("{}: {why}", bridge.url));
    let address = uri.to_string().replacen("http", "ws", 1);
    let mut request = address.into_client_request().map_err(|error| usage(&error))?;
    if let Some(authorization) = bridge.authorization() {
        let value = authorization.parse().map_err(|_| usage(&"the token cannot be sent"))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

/// To the first of the name's addresses that answers.
async fn tcp(uri: &Uri, narrow: Option<u32>) -> std::io::Result<TcpStream> {
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut last = std::io::Error::other("the name has no address");
    for address in lookup_host((host(uri), port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bytes) = narrow {
            socket.set_recv_buffer_size(bytes)?;
        }
        match socket.connect(address).await {
            Ok(stream) => return stream.set_nodelay(true).map(|()| stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Without the brackets that an address of IPv6 has in a URL.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

async fn shake(
    stream: TcpStream,
    uri: &Uri,
    trust: ClientConfig,
) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(host(uri).to_owned())?;
    Ok(TlsConnector::from(Arc::new(trust)).connect(name, stream).await?)
}
