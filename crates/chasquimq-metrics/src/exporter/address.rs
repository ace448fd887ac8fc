//! Where the exporter listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

const LOOKUP: Duration = Duration::from_secs(5);

/// Why an exporter cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The address cannot be understood, or its host is not known.
    #[error(
        "metrics address {given:?} is no address ({reason}): use HOST:PORT, such as \
         127.0.0.1:9090, or only a port to listen on 127.0.0.1"
    )]
    Address {
        /// As it was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process listens there.
    #[error(
        "metrics address {address} is in use by another process: give each process of this host a \
         port of its own, or use port 0 for any free one"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The system does not let this process listen there.
    #[error("cannot listen on metrics address {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The recorder refuses the buckets of a histogram.
    #[error("cannot make the metrics recorder: {0}")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}

/// The address that is meant; loopback where no host is named.
pub(super) async fn resolve(given: &str) -> Result<SocketAddr, ExporterError> {
    let wrong = |reason: String| ExporterError::Address { given: given.to_owned(), reason };
    let port = given.strip_prefix(':').unwrap_or(given);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let found = timeout(LOOKUP, lookup_host(given))
        .await
        .map_err(|_| wrong(format!("no answer about its host within {} s", LOOKUP.as_secs())))?
        .map_err(|error| wrong(error.to_string()))?;
    // A name such as localhost often has an IPv6 address too, which fewer programs look at.
    let found: Vec<SocketAddr> = found.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().ok_or_else(|| wrong("its host has no address".into()))
}

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, ExporterError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ExporterError::Taken { address },
        _ => ExporterError::Listen { address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_host_it_is_loopback() {
        for given in ["9090", ":9090", "127.0.0.1:9090", "localhost:9090"] {
            assert_eq!(resolve(given).await.unwrap().to_string(), "127.0.0.1:9090", "{given}");
        }
        assert_eq!(resolve("0.0.0.0:1").await.unwrap().to_string(), "0.0.0.0:1");
        assert_eq!(resolve("[::1]:1").await.unwrap().to_string(), "[::1]:1");
    }

    #[tokio::test]
    async fn says_what_an_address_looks_like() {
        for given in ["", "127.0.0.1", "127.0.0.1:x", "99999", "http://127.0.0.1:9090"] {
            let error = resolve(given).await.unwrap_err().to_string();
            assert!(error.contains(&format!("{given:?}")), "{error}");
            assert!(error.contains("use HOST:PORT, such as 127.0.0.1:9090"), "{error}");
        }
    }
}
