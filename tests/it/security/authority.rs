//! Certificate authorities made at test time, and what they sign.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority that nobody but this test knows.
pub(crate) struct Authority {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Puts its files into this directory, their names beginning with its own.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.join(format!("{name}.ca.pem")), cert.pem()).unwrap();
        Self { dir: dir.to_owned(), name: name.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// What those who trust it are given.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.ca.pem", self.name))
    }

    /// A certificate for these names and addresses.
    pub(crate) fn sign(&self, subject: &str, names: &[&str]) -> Signed {
        self.write(subject, Self::params(subject, names))
    }

    /// One that was good until a moment in the past.
    pub(crate) fn sign_expired(&self, subject: &str, names: &[&str]) -> Signed {
        let mut params = Self::params(subject, names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.write(subject, params)
    }

    fn params(subject: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params
    }

    fn write(&self, subject: &str, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.dir.join(format!("{}.{subject}.{kind}", self.name));
        let signed = Signed { cert: path("pem"), key: path("key") };
        std::fs::write(&signed.cert, cert.pem()).unwrap();
        std::fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }
}
