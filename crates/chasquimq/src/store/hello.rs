//! How a server introduces itself, asked once a connection.

use super::transport::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::version::ServerVersion;

/// What a server says of itself.
pub(crate) struct Hello {
    pub server: ServerVersion,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `replica`.
    pub role: String,
}

impl Hello {
    pub(super) async fn ask(link: &Link) -> Result<Self> {
        let hello = link.call("HELLO", vec![]).await?;
        let field = |name| {
            let mut pairs = hello.items().chunks_exact(2);
            let pair = pairs.find(|pair| pair[0].text() == name);
            pair.map(|pair| pair[1].text()).unwrap_or_default()
        };
        let server = ServerVersion::new(&field("server"), &field("version"));
        Ok(Self { server, mode: field("mode"), role: field("role") })
    }

    /// The server, unless it is too old.
    pub(super) fn served(self) -> Result<ServerVersion> {
        let server = self.server;
        if server.is_served() {
            return Ok(server);
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server is {server}, which lacks XAUTOCLAIM, so jobs of dead workers could not \
                 be recovered: use Redis 6.2 or later, or Valkey 7.2 or later"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_servers_below_the_floor_in_one_sentence() {
        let served = |version| {
            let (mode, role) = ("standalone".into(), "master".into());
            Hello { server: ServerVersion::new("redis", version), mode, role }.served()
        };
        let error = served("6.0.16").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("redis 6.0.16"), "{error}");
        assert_eq!(served("6.2.14").unwrap().version, "6.2.14");
    }
}
