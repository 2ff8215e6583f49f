//! HTTP with or without TLS, for the clients that are ours: the system's authorities, or those of a
//! file; optionally who we are.

use anyhow::Context as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

use crate::config::Tls;

/// A connector for `http://` and `https://`.
pub fn connector(
    tcp: HttpConnector,
    config: Option<&Tls>,
) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let config = config.cloned().unwrap_or_default();
    let identity = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some(super::identity(cert, key)?),
        _ => None,
    };
    let client = super::client(config.ca_file.as_deref(), identity).context("ca_file")?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(client);
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}
