//! Asks a server for its certificate as our own TLS sees it, for clients whose errors do not say
//! what is wrong with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Keys, advice, client};

/// Asked only when a connection has just failed: the server is there, or was.
const WITHIN: Duration = Duration::from_secs(3);

/// What is wrong with the certificate that `host:port` shows, to those who trust the authorities of
/// a file (or of the system); None if it would be accepted, or nobody can tell.
pub async fn diagnose(address: &str, ca: Option<&Path>, keys: &Keys) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let connector = TlsConnector::from(Arc::new(client(ca, None).ok()?));
    let shaking = async {
        let stream = TcpStream::connect(address).await.ok()?;
        connector.connect(name, stream).await.err()
    };
    let error = tokio::time::timeout(WITHIN, shaking).await.ok()??;
    advice(&error.to_string(), keys)
}
