//! TLS by a URL: whom to trust, and who one is.
//!
//! `rediss://host?ca=/ca.pem&cert=/me.pem&key=/me.key`: `ca` stands in the place of the system's own
//! authorities; `cert` and `key` are shown to a server that asks. The files are read at each new
//! client, and those that say who one is at each handshake. `insecure=true` checks nothing.

use std::path::PathBuf;
use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};

/// What a URL says of TLS.
#[derive(Debug, Default, PartialEq)]
pub struct Tls {
    ca: Option<PathBuf>,
    identity: Option<Identity>,
    insecure: bool,
}

/// The files that say who one is.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    cert: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// Takes what is said of TLS out of a URL: the URL that is left has a plain scheme.
    pub fn take(url: &str) -> Result<(String, Option<Self>)> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut ca, mut cert, mut key, mut insecure) = (None, None, None, false);
        let mut others = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "ca" => ca = Some(PathBuf::from(&*value)),
                "cert" => cert = Some(PathBuf::from(&*value)),
                "key" => key = Some(PathBuf::from(&*value)),
                "insecure" => insecure = is_true(&value)?,
                _ => drop(others.append_pair(&name, &value)),
            }
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            (None, None) => None,
            _ => return Err(Error::config("cert= and key= belong together: one is missing")),
        };
        let tls = Self { ca, identity, insecure };
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let plain = ["redis", "valkey"].into_iter().find_map(|base| {
            let kind = scheme.strip_prefix(base)?.strip_prefix('s')?;
            Some(format!("{base}{kind}"))
        });
        let Some(plain) = plain else {
            return if tls == Self::default() {
                Ok((url.to_owned(), None))
            } else {
                Err(Error::config("ca=, cert=, key= and insecure= need TLS: rediss://"))
            };
        };
        let others = others.finish();
        let mark = if others.is_empty() { "" } else { "?" };
        Ok((format!("{plain}://{rest}{mark}{others}"), Some(tls)))
    }

    /// What the client library needs of it.
    pub fn connector(&self) -> Result<TlsConfig> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure {
            tracing::warn!(
                "TLS with insecure=true: anybody on the way can pose as the server and read all"
            );
            Arc::new(Blind(Arc::clone(&provider)))
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(
                Arc::new(self.authorities()?),
                Arc::clone(&provider),
            );
            builder.build().map_err(unusable)?
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                identity.read(&provider)?;
                let files = Files { identity: identity.clone(), provider };
                builder.with_client_cert_resolver(Arc::new(files))
            }
        };
        Ok(TlsConnector::from(config).into())
    }

    fn authorities(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        let Some(path) = &self.ca else {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::config(
                    "this system trusts no authority: install ca-certificates, or name one with ca=",
                ));
            }
            return Ok(store);
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::config(format!("ca={} cannot be used: {error}", path.display()))
        };
        let certs = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
        for cert in certs {
            let cert = cert.map_err(|error| unreadable(&error))?;
            store.add(cert).map_err(|error| unreadable(&error))?;
        }
        if store.is_empty() { Err(unreadable(&"it holds no certificate")) } else { Ok(store) }
    }
}

impl Identity {
    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey> {
        let unreadable = |file: &PathBuf, error: &dyn std::fmt::Display| {
            Error::config(format!("{} cannot be used: {error}", file.display()))
        };
        let chain = CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(|error| unreadable(&self.cert, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| unreadable(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| unreadable(&self.key, &error))
    }
}

/// Reads who one is anew at each handshake: short-lived certificates are replaced on disk.
#[derive(Debug)]
struct Files {
    identity: Identity,
    provider: Arc<CryptoProvider>,
}

impl ResolvesClientCert for Files {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.identity.read(&self.provider) {
            Ok(key) => Some(Arc::new(key)),
            Err(error) => {
                tracing::warn!(%error, "connecting without a client certificate");
                None
            }
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate for any name.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn is_true(value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::config("insecure= must be true or false")),
    }
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::config(format!("TLS cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_what_it_says_of_tls_and_keeps_the_rest() {
        let (url, tls) = Tls::take("redis://h:1/2?node=b:2").unwrap();
        assert_eq!((&*url, tls), ("redis://h:1/2?node=b:2", None));
        let (url, tls) = Tls::take("rediss-cluster://u:p@h:1?ca=%2Fa%20b.pem&node=b%3A2").unwrap();
        assert_eq!(url, "redis-cluster://u:p@h:1?node=b%3A2");
        assert_eq!(tls.unwrap().ca, Some("/a b.pem".into()));
        let (url, tls) = Tls::take("valkeys://h?insecure=true").unwrap();
        assert_eq!((&*url, tls.unwrap().insecure), ("valkey://h", true));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for url in [
            "redis://h?ca=/a.pem",
            "redis://h?insecure=true",
            "rediss://h?cert=/a.pem",
            "rediss://h?insecure=maybe",
        ] {
            assert!(Tls::take(url).is_err(), "{url}");
        }
    }
}
