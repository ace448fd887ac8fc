//! The accept loop and its connections.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::http::respond;
use super::state::State;

/// Connections at a time; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be silent between two requests, or within the head of one.
const IDLE: Duration = Duration::from_secs(75);
/// A connection is closed after its current request when it is as old as this, so that one whose
/// client stopped reading cannot keep its place for ever.
const LIFETIME: Duration = Duration::from_mins(10);
const LAST_REQUEST: Duration = Duration::from_secs(30);
const UPKEEP: Duration = Duration::from_secs(1);

/// Serves until it is dropped; its connections end with it.
pub(super) async fn run(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut upkeep = interval(UPKEEP);
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics exporter cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a request to the metrics exporter panicked");
                }
            }
            _ = upkeep.tick() => state.tidy(),
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, std::convert::Infallible>(respond(&request, &state).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => Ok(served),
        () = sleep(LIFETIME) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_REQUEST, connection).await
        }
    };
    if let Ok(Err(error)) = served {
        tracing::debug!(%error, "a connection to the metrics exporter broke");
    }
}
