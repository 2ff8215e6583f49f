//! The server: accepts connections, bounds them, ends them.
//!
//! Not `axum::serve`: that installs no timer, so hyper's header time-out would do nothing and a
//! client that sends one byte a minute would hold its connection for ever. Here everything that a
//! stranger can make us keep has a bound: connections, their age, a header's time and size.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::renewal::Access;
use super::{HttpState, router, tls};

/// The bounds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue until one ends.
    pub connections: usize,
    /// For the TLS handshake: some round trips.
    pub handshake: Duration,
    /// For a request's head to arrive, and for the next one on an idle connection. Above the 15 s
    /// of the usual scrape interval, so that scrapers keep their connection.
    pub header_timeout: Duration,
    /// The same for a connection that comes while more than half of all are in use: a crowd that
    /// says nothing soon makes room for those that do, as an orchestrator that asks for `/livez`.
    pub crowded_header_timeout: Duration,
    /// After this a connection is ended after its present answer: a client that never reads cannot
    /// stay either.
    pub connection_age: Duration,
    /// For answers under way when the server stops; on a connection that is too old, from when there
    /// is an answer, as some wait for what they say longer than this.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            handshake: Duration::from_secs(10),
            header_timeout: Duration::from_secs(20),
            crowded_header_timeout: Duration::from_secs(1),
            connection_age: Duration::from_secs(300),
            finish: Duration::from_secs(3),
        }
    }
}

/// Bytes of one request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// After an accept that failed (no file descriptors left) before the next: it fails at once again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Listens, or says why not and what to do.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let advice = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: address in use; set http.listen to a free port, or stop \
             what listens there"
        ),
        std::io::ErrorKind::PermissionDenied => format!(
            "cannot listen on {address}: not permitted; set http.listen to a port above 1023"
        ),
        std::io::ErrorKind::AddrNotAvailable => format!(
            "cannot listen on {address}: this machine has no such address; set http.listen to one \
             that it has, or 0.0.0.0"
        ),
        _ => format!("cannot listen on {address}; set http.listen"),
    };
    let listening = TcpListener::bind(address).await;
    listening.map_err(|error| {
        let advice = advice(&error);
        anyhow::Error::new(error).context(advice)
    })
}

/// Serves until `shutdown` ends, then lets answers under way finish, for a bounded time.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    access: Access,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("asking for the address we listen on")?;
    let (tls, token) = (access.tls.is_some(), access.token.is_some());
    tracing::info!(event = "http_listening", %address, tls, token, "listening for HTTP");
    let mut server = Server {
        listener,
        router: router(state, access.token.clone()),
        access,
        limits,
        permits: Arc::new(Semaphore::new(limits.connections)),
        closing: CancellationToken::new(),
        connections: JoinSet::new(),
    };
    server.accept_until(shutdown).await;
    server.finish().await;
    Ok(())
}

/// Who has connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

struct Server {
    listener: TcpListener,
    router: Router,
    /// Kept up to date while this lives.
    access: Access,
    limits: Limits,
    permits: Arc<Semaphore>,
    closing: CancellationToken,
    connections: JoinSet<()>,
}

/// What can happen to the server.
enum Event {
    Accepted(std::io::Result<TcpStream>, OwnedSemaphorePermit),
    Ended(Result<(), JoinError>),
    Stop,
}

impl Server {
    async fn accept_until(&mut self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        loop {
            let event = tokio::select! {
                () = &mut shutdown => Event::Stop,
                Some(ended) = self.connections.join_next() => Event::Ended(ended),
                (accepted, permit) = accept(&self.listener, &self.permits) => {
                    Event::Accepted(accepted, permit)
                }
            };
            match event {
                Event::Stop => return,
                Event::Ended(ended) => note(ended),
                Event::Accepted(Ok(stream), permit) => self.start(stream, permit),
                Event::Accepted(Err(error), _) => {
                    tracing::warn!(event = "http_accept_failed", %error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn start(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let (mut limits, closing) = (self.limits, self.closing.clone());
        let Ok(peer) = stream.peer_addr() else {
            return; // it is gone already
        };
        let (router, peer) = (self.router.clone(), Peer(peer.ip()));
        if self.permits.available_permits() < limits.connections / 2 {
            limits.header_timeout = limits.header_timeout.min(limits.crowded_header_timeout);
            limits.handshake = limits.handshake.min(limits.crowded_header_timeout);
        }
        let tls = self.access.tls.as_ref().map(|present| Arc::clone(&present.borrow()));
        self.connections.spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "an HTTP connection is gone already");
            } else if let Some(tls) = tls {
                if let Some(stream) = greet(stream, tls, limits, &closing).await {
                    converse(stream, peer, router, limits, closing).await;
                }
            } else {
                converse(stream, peer, router, limits, closing).await;
            }
            drop(permit);
        });
    }

    async fn finish(mut self) {
        // Nobody shall wait for a connection that will not be accepted.
        drop(self.listener);
        self.closing.cancel();
        let all = async { while self.connections.join_next().await.is_some() {} };
        // Each connection bounds itself; this is the bound on what we might have got wrong there.
        if tokio::time::timeout(self.limits.finish * 2, all).await.is_err() {
            self.connections.shutdown().await;
        }
    }
}

/// The permit comes first: beyond the limit, connections wait in the kernel and cost us nothing.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (std::io::Result<TcpStream>, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("it is never closed");
    (listener.accept().await.map(|(stream, _)| stream), permit)
}

/// The TLS handshake; None if it does not come about in time.
async fn greet(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    limits: Limits,
    closing: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(limits.handshake, tls::accept(stream, config));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = closing.cancelled() => return None,
    };
    match shaken.context("the TLS handshake took too long").flatten() {
        Ok(stream) => Some(stream),
        // A stranger's mistake is no news; a flood of them must not be one of lines.
        Err(error) => {
            tracing::debug!("an HTTP connection was not taken: {error:#}");
            None
        }
    }
}

/// One connection, until it ends by itself, is too old, or the server stops.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    limits: Limits,
    closing: CancellationToken,
) {
    // What is asked and has no answer yet.
    let answering = TaskTracker::new();
    answering.close();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        answering.track_future(router.call(request))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
        () = tokio::time::sleep(limits.connection_age) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // How long a handler waits for what it says is bounded there.
            let over = async {
                tokio::select! {
                    () = closing.cancelled() => (),
                    () = answering.wait() => (),
                }
                tokio::time::sleep(limits.finish).await;
            };
            tokio::select! {
                ended = connection => ended,
                () = over => return,
            }
        }
    };
    // Clients that go away in the middle are the client's business.
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(event = "http_failed", %error, "an HTTP connection's task failed; the others go on");
    }
}
