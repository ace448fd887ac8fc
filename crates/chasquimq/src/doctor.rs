//! Looks at a server before jobs depend on it.

use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::Result;
use crate::store::Store;
use crate::version::ServerVersion;

/// Asks a server which one it is.
///
/// # Errors
/// Those of the connection, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a server
/// that is too old.
pub async fn server_version(url: &str) -> Result<ServerVersion> {
    let (tuning, events) = (ConnectionTuning::default(), EventsConfig::default());
    let store = Store::connect(url, "default", &tuning, &events, None).await?;
    let found = store.capabilities();
    let mut server = ServerVersion::new(&found.server, &found.version);
    server.xackdel |= found.ackdel();
    store.close().await;
    Ok(server)
}
