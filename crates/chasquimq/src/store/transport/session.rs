//! A client of the library and its life.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::ConnectHandle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::SHORTEST;
use super::errors::from_client;
use super::places::Address;
use crate::error::{Error, ErrorKind, Result};

/// A client of one server and the tasks that drive it, which end with it.
pub struct Session {
    pub client: Client,
    pub task: ConnectHandle,
    pulse: JoinHandle<()>,
    pub at: Address,
}

impl Session {
    /// Connects, and reconnects for ever.
    pub fn open(client: Client, at: Address) -> Self {
        let task = client.connect();
        let pulse = tokio::spawn(pulse(client.perf_config().default_command_timeout / 2));
        Self { client, task, pulse, at }
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
        self.pulse.abort();
    }
}

/// Keeps a timer that ends before any command's does: the runtime wakes its driver, by a system
/// call, for each timer that is the earliest of all.
async fn pulse(period: Duration) {
    loop {
        sleep(period.max(SHORTEST)).await;
    }
}
