//! Certificates made for a test, as PEM files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority that signs certificates, and the folder in which all of them stand.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority that nobody else trusts.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut params = CertificateParams::default();
        // Two authorities of one name are one to whoever looks for the issuer of a certificate.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("test authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::Builder::new().prefix("chasquimq-ca-").tempdir().expect("a folder");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, dir }
    }

    /// The authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for these names and addresses.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn issue(&self, file: &str, names: &[&str]) -> Identity {
        self.sign(file, &params(names))
    }

    /// The same, but its time has passed.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Identity {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(file, &params)
    }

    fn sign(&self, file: &str, params: &CertificateParams) -> Identity {
        let pair = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&pair, &self.issuer).expect("a certificate");
        let path = |suffix: &str| self.dir.path().join(format!("{file}.{suffix}"));
        let (cert, key) = (path("pem"), path("key"));
        write(&cert, &signed.pem());
        write(&key, &pair.serialize_pem());
        Identity { cert, key }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names of servers")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}
