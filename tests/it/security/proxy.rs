//! TLS in front of ClickHouse, whose own listener here speaks none: terminates it, and shows
//! whatever certificate it is told to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use data_bridge::tls;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, Signed};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    config: watch::Sender<Arc<ServerConfig>>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// Shows this certificate; with an authority, wants a certificate of it in return.
    pub(crate) async fn start(to: &str, shows: &Signed, wants: Option<&Authority>) -> Self {
        let to: SocketAddr = to.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (config, present) = watch::channel(server(shows, wants));
        let mut running = JoinSet::new();
        running.spawn(accept(listener, to, present));
        Self { port, config, _running: running }
    }

    /// From now on shows this one. Connections that are open are cut: they were made under the old.
    pub(crate) fn show(&self, shows: &Signed, wants: Option<&Authority>) {
        self.config.send_replace(server(shows, wants));
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, config: watch::Receiver<Arc<ServerConfig>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let mut config = config.clone();
        connections.spawn(async move {
            let now = Arc::clone(&config.borrow_and_update());
            let pass = async {
                let mut outside = TlsAcceptor::from(now).accept(stream).await?;
                let mut inside = TcpStream::connect(to).await?;
                copy_bidirectional(&mut outside, &mut inside).await
            };
            tokio::select! {
                passed = pass => drop(passed),
                _ = config.changed() => {}
            }
        });
    }
}

fn server(shows: &Signed, wants: Option<&Authority>) -> Arc<ServerConfig> {
    let identity = tls::identity(&shows.cert, &shows.key).unwrap();
    let Some(authority) = wants else { return Arc::new(tls::server(identity).unwrap()) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&authority.file())),
        Arc::clone(&provider),
    );
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(identity));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(resolver);
    Arc::new(config)
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::certificates(file).unwrap());
    roots
}
