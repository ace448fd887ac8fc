//! What the server at the other end can do, found out once a connection.

use std::sync::atomic::{AtomicBool, Ordering};

use super::transport::{Link, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::version::{ServerVersion, numbers};

/// Which server it is, and which optional commands may be used.
#[derive(Debug)]
pub struct Capabilities {
    /// `redis` or `valkey`, as the server calls itself.
    pub server: String,
    /// The server's own version.
    pub version: String,
    /// XACKDEL answers (Redis 8.2.3 and later, some Valkey).
    ackdel: AtomicBool,
}

impl Capabilities {
    /// Asks the server, and refuses one that is too old.
    pub(super) async fn detect(link: &Link, stream: &bytes::Bytes) -> Result<Self> {
        let hello = link.call("HELLO", vec![]).await?;
        let server = field(&hello, "server").unwrap_or_else(|| "redis".into());
        let version = field(&hello, "version").unwrap_or_default();
        check_floor(&server, &version)?;
        let ackdel = has_ackdel(link, stream, &server, &version).await?;
        Ok(Self { server, version, ackdel: AtomicBool::new(ackdel) })
    }

    /// Whether XACKDEL may be used.
    #[must_use]
    pub fn ackdel(&self) -> bool {
        self.ackdel.load(Ordering::Relaxed)
    }

    /// As after a newer server has given way to this one.
    #[cfg(test)]
    pub(super) fn pretend_ackdel(&self) {
        self.ackdel.store(true, Ordering::Relaxed);
    }

    /// The server no longer knows XACKDEL: an older one has taken over.
    pub(super) fn downgrade(&self) {
        if self.ackdel.swap(false, Ordering::Relaxed) {
            tracing::warn!("the server no longer knows XACKDEL; using XACK and XDEL from now on");
        }
    }
}

pub(super) fn field(hello: &Reply, name: &str) -> Option<String> {
    let mut pairs = hello.items().chunks_exact(2);
    pairs.find(|pair| pair[0].text() == name).map(|pair| pair[1].text())
}

fn check_floor(server: &str, version: &str) -> Result<()> {
    if ServerVersion::new(server, version).is_served() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "the server is {server} {version}, which lacks XAUTOCLAIM, so jobs of dead workers \
             could not be recovered: use Redis 6.2 or later, or Valkey 7.2 or later"
        ),
    ))
}

/// Asks for an id that cannot exist, of a group that does not: nothing changes. 8.2.0 to 8.2.2 are
/// not asked: several ids in one XACKDEL overflow their stack (CVE-2025-62507).
pub(super) async fn has_ackdel(
    link: &Link,
    stream: &bytes::Bytes,
    server: &str,
    version: &str,
) -> Result<bool> {
    if server == "redis" && matches!(numbers(version), (8, 2, 0..=2)) {
        return Ok(false);
    }
    let args = vec![
        stream.clone().into(),
        "chasquimq-probe".into(),
        "IDS".into(),
        "1".into(),
        "0-1".into(),
    ];
    match link.call("XACKDEL", args).await {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Server | ErrorKind::Auth | ErrorKind::WrongType
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_servers_below_the_floor_in_one_sentence() {
        let error = check_floor("redis", "6.0.16").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("redis 6.0.16"), "{error}");
        assert!(check_floor("redis", "6.2.14").is_ok());
    }
}
