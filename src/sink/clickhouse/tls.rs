//! TLS to ClickHouse: the public roots, or the authority of a file; optionally who we are.

use std::path::Path;

use anyhow::{Context as _, bail};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Tls;

/// A connector for `http://` and `https://`.
pub(super) fn connector(
    tcp: HttpConnector,
    tls: Option<&Tls>,
) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let Some(tls) = tls else {
        let builder = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .context("the TLS library offers no protocol version")?;
        return Ok(builder.https_or_http().enable_http1().wrap_connector(tcp));
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("the TLS library offers no protocol version")?;
    let mut roots = RootCertStore::empty();
    for certificate in tls.ca_file.iter().map(|path| certificates(path)) {
        roots.add_parsable_certificates(certificate?);
    }
    if roots.is_empty() {
        bail!("ca_file: no usable certificate in it");
    }
    let builder = builder.with_root_certificates(roots);
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .with_context(|| format!("key_file: no private key in {}", key.display()))?;
            builder.with_client_auth_cert(certificates(cert)?, key).context("cert_file")?
        }
        _ => builder.with_no_client_auth(),
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read certificates from {}", path.display()))
}
