//! Throw-away Redis and Valkey servers for the tests, and a proxy that misbehaves on purpose.
//!
//! A test that only needs a queue of its own takes [`unique_queue`] on the [`shared_server`]; a test that
//! hurts its server starts one with [`Server::start`] or [`Server::builder`]. Every server listens on the
//! loopback alone, keeps its data in a folder of its own and ends with the test process, however that ends.
//!
//! Which server it is says the environment: `CHASQUIMQ_TEST_SERVER` names one of [`ServerKind::all`]. With
//! `CHASQUIMQ_TEST_TOPOLOGY=cluster` every server is a cluster of one node and [`Server::url`] says so. With
//! an `ACL SETUSER` command in `CHASQUIMQ_TEST_ACL` every server has that user, and the URLs are its own;
//! [`Server::command`] may do everything all the same.
//!
//! The faces here panic instead of returning errors: a test has nothing better to do with them.

mod certificates;
mod client;
mod cluster;
mod kind;
mod login;
mod process;
mod proxy;
mod reply;
mod sentinel;
mod server;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

pub use certificates::{Authority, Identity};
pub use cluster::Cluster;
pub use kind::ServerKind;
pub use proxy::ChaosProxy;
pub use reply::Reply;
pub use sentinel::Sentinels;
pub use server::{Server, ServerBuilder};

/// The server that all tests of this process share, started by the first that asks. Treat it kindly: no
/// FLUSHALL, no CONFIG SET, no kill.
///
/// # Panics
/// When no server can be started; the message says why.
pub async fn shared_server() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(Server::start).await
}

/// A queue name that no other test of this run uses.
pub fn unique_queue(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until `condition` holds, asking every 10 ms.
///
/// # Panics
/// When it does not hold `within` the given time; `what` names it in the message.
pub async fn eventually(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
