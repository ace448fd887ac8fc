//! A client of the library and its life.

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::ConnectHandle;

use super::errors::from_client;
use super::places::Address;
use crate::error::{Error, ErrorKind, Result};

/// A client of one server and the task that drives it, which ends with it.
pub struct Session {
    pub client: Client,
    pub task: ConnectHandle,
    pub at: Address,
}

impl Session {
    /// Connects, and reconnects for ever.
    pub fn open(client: Client, at: Address) -> Self {
        let task = client.connect();
        Self { client, task, at }
    }

    /// Connects; the first failure counts.
    pub async fn reach(client: Client, at: Address) -> Result<Self> {
        let (mut connected, mut failed) = (client.reconnect_rx(), client.error_rx());
        let session = Self::open(client, at);
        tokio::select! {
            biased;
            Ok(_) = connected.recv() => Ok(session),
            Ok((error, _)) = failed.recv() => Err(from_client(&error)),
            else => Err(Error::new(ErrorKind::Connection, "the connection was closed")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
