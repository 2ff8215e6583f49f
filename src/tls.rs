//! Certificates and keys out of PEM files, and what TLS makes of them: whom a client trusts, who
//! it is, who a server is; and what to do when it fails. No message of it holds anything of a key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore, ServerConfig,
    SignatureScheme,
};

mod advice;
mod connector;
mod diagnosis;

pub use self::advice::{Keys, advice};
pub use self::connector::connector;
pub use self::diagnosis::diagnose;

/// What a client says that knows the server's certificate and meets another.
const OTHER_CERTIFICATE: &str = "it shows another certificate than the one we know";

/// The certificates of a PEM file, at least one. The error leaves out the path: who takes a key for
/// another writes the secret itself there.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| anyhow::anyhow!("the file is no PEM"))?;
    if found.is_empty() {
        bail!("the file holds no certificate (-----BEGIN CERTIFICATE-----)");
    }
    Ok(found)
}

/// A certificate and its key that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// `cert_file` or `key_file`.
    pub key: &'static str,
    pub why: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl std::error::Error for Unusable {}

/// A certificate with its chain, and the key that belongs to it.
pub fn identity(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Unusable> {
    let of = |key| move |why: anyhow::Error| Unusable { key, why: format!("{why:#}") };
    let chain = certificates(cert).map_err(of("cert_file"))?;
    let private = private_key(key).map_err(of("key_file"))?;
    let identity = CertifiedKey::new(chain, private);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(identity)),
        Err(Error::InconsistentKeys(_)) => {
            let why = "is not the key of the certificate in cert_file".to_owned();
            Err(Unusable { key: "key_file", why })
        }
        Err(error) => Err(Unusable { key: "cert_file", why: error.to_string() }),
    }
}

fn private_key(path: &Path) -> anyhow::Result<Arc<dyn SigningKey>> {
    let pem = read(path)?;
    // The parser's own words are left out: they could quote what it read.
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        if pem.windows(9).any(|word| word == b"ENCRYPTED") {
            bail!("the private key is encrypted; decrypt it: openssl pkey -in KEY -out NEW");
        }
        bail!("the file holds no private key (-----BEGIN PRIVATE KEY-----)");
    };
    let key = provider().key_provider.load_private_key(key);
    key.map_err(|_| anyhow::anyhow!("TLS has no use for a key of this kind"))
}

/// A client that trusts the authorities of a file, or those of the system, and may say who it is.
pub fn client(
    ca: Option<&Path>,
    identity: Option<Arc<CertifiedKey>>,
) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("the TLS library offers no protocol version")?
        .with_root_certificates(roots(ca)?);
    Ok(match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    })
}

fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        // A system without any trusts nobody; the refusal will say so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| anyhow::anyhow!("a certificate in it: {error}"))?;
    }
    Ok(roots)
}

/// A client that trusts one certificate and nothing else, whatever name it is for: for asking a
/// server whose certificate lies in a file beside us.
pub fn pinned(certificate: CertificateDer<'static>) -> anyhow::Result<ClientConfig> {
    let verifier = Pinned { certificate, provider: provider() };
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("the TLS library offers no protocol version")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// A server with this certificate, speaking HTTP/1.1.
pub fn server(identity: Arc<CertifiedKey>) -> anyhow::Result<ServerConfig> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(identity));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("the TLS library offers no protocol version")?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).context("the file cannot be read")
}

/// Accepts one certificate; the handshake still proves that the server has its key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(OTHER_CERTIFICATE.to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
