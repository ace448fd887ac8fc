//! Where a slot is served: at the URL's address, or where the Sentinels or the cluster say it is now.
//!
//! The library could follow both by itself. Then it connects to every primary of a cluster and serves
//! none of them while one is away, ends its task at a slot that moves (ASK) where commands may be sent
//! but once, and goes on dialling a primary that has failed. So a client of it knows one address, and
//! the address is found here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::prelude::Builder;
use fred::types::config::{Server, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, RespVersion};
use futures::future::select_ok;
use tokio::time::timeout;

use super::errors::from_client;
use super::reply::Reply;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};

/// A server's address: a host and port, or a socket.
pub type Address = ServerConfig;

/// How many are asked at once.
const AT_ONCE: usize = 3;

/// The most nodes of a cluster that are remembered.
const MOST_KNOWN: usize = 64;

/// The way to the server that owns a slot.
pub struct Places {
    source: Source,
    /// Builds clients of that server.
    builder: Builder,
    /// Whom to ask: the hosts of the URL, and those that a cluster has told of.
    known: Mutex<Vec<Server>>,
    patience: Duration,
}

enum Source {
    Fixed(Address),
    Sentinel { service: String, builder: Box<Builder> },
    Cluster,
}

impl Places {
    /// Places that `builder`, which is made from a URL, leads to; whom it asks has `patience` to answer.
    pub fn new(mut builder: Builder, patience: Duration) -> Self {
        let server = builder.get_config().map(|config| config.server.clone()).unwrap_or_default();
        let (source, known) = match server {
            ServerConfig::Sentinel { hosts, service_name, username, password } => {
                let mut asking = builder.clone();
                asking.with_config(|config| {
                    (config.username, config.password) = (username, password);
                    (config.credential_provider, config.database) = (None, None);
                    config.version = RespVersion::RESP2;
                });
                (Source::Sentinel { service: service_name, builder: Box::new(asking) }, hosts)
            }
            ServerConfig::Clustered { hosts, .. } => {
                builder.with_config(|config| config.database = None);
                (Source::Cluster, hosts)
            }
            address => (Source::Fixed(address), vec![]),
        };
        Self { source, builder, known: Mutex::new(known), patience }
    }

    /// Whether the address is the URL's own and never another.
    pub fn is_fixed(&self) -> bool {
        matches!(self.source, Source::Fixed(_))
    }

    /// The address at which the slot is served now.
    pub async fn owner(&self, slot: u16) -> Result<Address> {
        if let Source::Fixed(address) = &self.source {
            return Ok(address.clone());
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failure = Error::new(ErrorKind::Connection, "nobody to ask");
        for servers in known.chunks(AT_ONCE) {
            let asked = servers.iter().map(|server| Box::pin(self.ask(server, slot)));
            match timeout(self.patience, select_ok(asked)).await {
                Ok(Ok((address, _))) => return Ok(address),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = Error::new(ErrorKind::Timeout, "no answer in time"),
            }
        }
        let who =
            if matches!(self.source, Source::Cluster) { "node of the cluster" } else { "Sentinel" };
        Err(failure.context(format_args!("no {who} tells where the primary is")))
    }

    /// A client of the server at this address; whether its first failure ends it.
    pub fn client(&self, at: &Address, fail_fast: bool) -> Result<Client> {
        client(&self.builder, at, fail_fast)
    }

    /// A client of the server at this address that does not reconnect.
    pub fn client_for_once(&self, at: &Address) -> Client {
        let mut config = self.builder.get_config().cloned().unwrap_or_default();
        (config.server, config.fail_fast) = (at.clone(), true);
        let performance = self.builder.get_performance_config().clone();
        let connection = self.builder.get_connection_config().clone();
        Client::new(config, Some(performance), Some(connection), None)
    }

    async fn ask(&self, server: &Server, slot: u16) -> Result<Address> {
        let (command, args, builder) = match &self.source {
            Source::Sentinel { service, builder } => {
                ("SENTINEL", vec!["GET-MASTER-ADDR-BY-NAME", service], &**builder)
            }
            _ => ("CLUSTER", vec!["SLOTS"], &self.builder),
        };
        let at = Address::Centralized { server: server.clone() };
        let session = Session::reach(client(builder, &at, true)?, at).await?;
        let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        let frame = session.client.custom_raw(command, args).await;
        let answer = Reply::read(frame.map_err(|error| from_client(&error))?)?;
        let owner = if let Source::Sentinel { service, .. } = &self.source {
            place(answer.items(), server).ok_or_else(|| {
                Error::config(format!("the Sentinel knows no primary named {service:?}"))
            })?
        } else {
            self.learn(&answer, server);
            let owner = answer.items().iter().find_map(|range| owner(range.items(), slot));
            owner.and_then(|node| place(node, server)).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, format!("slot {slot} is served by no node"))
            })?
        };
        Ok(Address::Centralized { server: owner })
    }

    /// Remembers the nodes of a cluster, the one that answered first.
    fn learn(&self, slots: &Reply, answered: &Server) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = slots.items().iter().flat_map(|range| range.items().iter().skip(2));
        for node in nodes.filter_map(|node| place(node.items(), answered)) {
            if known.len() < MOST_KNOWN && !known.contains(&node) {
                known.push(node);
            }
        }
        if let Some(first) = known.iter().position(|node| node == answered) {
            known.swap(0, first);
        }
    }
}

fn client(builder: &Builder, at: &Address, fail_fast: bool) -> Result<Client> {
    let mut builder = builder.clone();
    builder.with_config(|config| {
        config.server = at.clone();
        config.fail_fast = fail_fast;
    });
    builder.build().map_err(|error| from_client(&error))
}

/// The primary of a range of slots, if the slot is in it.
fn owner(range: &[Reply], slot: u16) -> Option<&[Reply]> {
    let [first, last, primary, ..] = range else { return None };
    (first.int()..=last.int()).contains(&slot.into()).then(|| primary.items())
}

/// Host and port; an empty host is that of the one who was asked.
fn place(node: &[Reply], asked: &Server) -> Option<Server> {
    let [host, port, ..] = node else { return None };
    let host = if host.text().is_empty() { asked.host.to_string() } else { host.text() };
    let port = u16::try_from(port.int()).ok().filter(|port| *port > 0)?;
    (host != "?").then(|| Server::new(host, port))
}
