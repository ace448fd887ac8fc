//! The exporter: what it answers, who shares it, and when it lets go.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chasquimq::MetricsSink;
use chasquimq_metrics::exporter::ScaleFuture;
use chasquimq_metrics::{Exporter, ExporterError, Probe, Scale};
use chasquimq_testkit::eventually;
use serde_json::Value;

use crate::names::assert_well_formed;
use crate::support::{free_address, get, request, samples, tell_everything};

/// A worker whose state the test sets.
struct Worker {
    queue: &'static str,
    live: AtomicBool,
    ready: AtomicBool,
    scale: Result<Scale, &'static str>,
}

impl Worker {
    fn new(queue: &'static str, scale: Result<Scale, &'static str>) -> Arc<Self> {
        Arc::new(Self { queue, live: true.into(), ready: true.into(), scale })
    }
}

impl Probe for Worker {
    fn queue(&self) -> &str {
        self.queue
    }
    fn live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
    fn scale(&self) -> ScaleFuture<'_> {
        Box::pin(async { self.scale.map_err(Into::into) })
    }
}

#[tokio::test]
async fn health_is_that_of_all_workers() {
    let exporter = Exporter::start("127.0.0.4:0").await.unwrap();
    let address = exporter.address();
    let asks = async |path: &str| get(address, path).await.unwrap();
    assert_eq!(asks("/livez").await, (200, "ok\n".into()));
    assert_eq!(asks("/readyz").await, (503, "no worker runs in this process\n".into()));

    let (one, other) = (Worker::new("emails", Err("")), Worker::new("reports", Err("")));
    let watched = exporter.watch(one.clone());
    let _watched = exporter.watch(other.clone());
    assert_eq!(asks("/readyz").await, (200, "ok\n".into()));
    one.ready.store(false, Ordering::Relaxed);
    assert_eq!(asks("/livez").await.0, 200);
    assert_eq!(asks("/readyz").await, (503, "worker of queue emails: it claims no jobs\n".into()));
    other.live.store(false, Ordering::Relaxed);
    let stuck = "worker of queue reports: its loops stand still\n";
    assert_eq!(asks("/livez").await, (503, stuck.into()));

    drop(watched);
    assert_eq!(asks("/readyz").await.0, 200, "who is watched no more is asked no more");
}

#[tokio::test]
async fn tells_autoscalers_the_load_of_a_queue() {
    let exporter = Exporter::start("127.0.0.5:0").await.unwrap();
    let load = Scale { backlog: 3, oldest_age: Duration::from_millis(1500), inflight: 7 };
    let _emails = exporter.watch(Worker::new("team:emails", Ok(load)));
    let _reports = exporter.watch(Worker::new("reports", Err("the server is away")));
    let asks = async |path: &str| get(exporter.address(), path).await.unwrap();
    for path in ["/scale?queue=team:emails", "/scale?other=1&queue=team%3Aemails"] {
        let (status, body) = asks(path).await;
        let json: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(json, serde_json::json!({"backlog": 3, "oldest_age_s": 1.5, "inflight": 7}));
    }
    let (status, body) = asks("/scale?queue=reports").await;
    assert_eq!((status, body.contains("the server is away")), (503, true), "{body}");
    let (status, body) = asks("/scale?queue=nobody").await;
    assert_eq!((status, body.contains("[\"team:emails\", \"reports\"]")), (404, true), "{body}");
    assert_eq!(asks("/scale").await.0, 400);
}

#[tokio::test]
async fn shows_the_metrics_of_its_sinks_and_its_workers() {
    let exporter = Exporter::start("127.0.0.6:0").await.unwrap();
    let (first, second) = (exporter.sink("emails"), exporter.sink("emails"));
    tell_everything(&first);
    tell_everything(&second);
    let (worker, idle) = (Worker::new("emails", Err("")), Worker::new("emails", Err("")));
    idle.ready.store(false, Ordering::Relaxed);
    let watches = [exporter.watch(worker), exporter.watch(idle)];
    let scrape = async || get(exporter.address(), "/metrics").await.unwrap().1;
    let metrics = scrape().await;
    assert_well_formed(&metrics);
    let shown = samples(&metrics);
    assert_eq!(shown["chasquimq_jobs_completed_total{queue=\"emails\"}"], 2.0);
    let buckets: Vec<_> =
        shown.keys().filter(|series| series.contains("handler_duration_seconds_bucket")).collect();
    assert_eq!(buckets.len(), 17, "5 ms to 1 h and infinity: {buckets:?}");
    let workers = |shown: &str| {
        let shown = samples(shown);
        ["workers", "workers_live", "workers_ready"]
            .map(|name| shown[&format!("chasquimq_{name}{{queue=\"emails\"}}")])
    };
    assert_eq!(workers(&metrics), [2.0, 2.0, 1.0]);
    drop(watches);
    assert_eq!(workers(&scrape().await), [0.0; 3]);
}

#[tokio::test]
async fn refuses_what_it_does_not_serve() {
    let exporter = Exporter::start("127.0.0.7:0").await.unwrap();
    let (status, body) = get(exporter.address(), "/").await.unwrap();
    assert_eq!((status, body.contains("/metrics, /livez, /readyz and /scale")), (404, true));
    assert_eq!(request(exporter.address(), "POST", "/metrics").await.unwrap().0, 405);
    let (status, body) = request(exporter.address(), "HEAD", "/metrics").await.unwrap();
    assert_eq!((status, body.as_str()), (200, ""));
}

#[tokio::test]
async fn workers_of_a_process_share_it_and_the_last_one_closes_it() {
    let asked = free_address().to_string();
    let first = Exporter::start(&asked).await.unwrap();
    let second = Exporter::start(&asked).await.unwrap();
    assert_eq!(first.address(), second.address());
    second.sink("q").stale_settlements(1);
    drop(second);
    let watch = first.watch(Worker::new("q", Err("")));
    let address = first.address();
    drop(first);
    let (_, metrics) = get(address, "/metrics").await.unwrap();
    assert_eq!(samples(&metrics)["chasquimq_stale_settlements_total{queue=\"q\"}"], 1.0);
    drop(watch);

    let anew = Exporter::start(&asked).await.unwrap();
    let (_, metrics) = get(anew.address(), "/metrics").await.unwrap();
    assert_eq!(samples(&metrics).len(), 0, "a new one begins anew");
    drop(anew);
    eventually("the port is free", Duration::from_secs(5), async || {
        TcpListener::bind(address).is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let asked = squatter.local_addr().unwrap();
    let error = Exporter::start(&asked.to_string()).await.err().unwrap();
    assert!(matches!(error, ExporterError::Taken { address } if address == asked));
    let told = error.to_string();
    assert!(told.contains(&asked.to_string()) && told.contains("use port 0"), "{told}");

    drop(squatter);
    Exporter::start(&asked.to_string()).await.unwrap();
}

#[test]
fn an_exporter_whose_runtime_has_ended_is_replaced() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = free_address().to_string();
    let old = runtime();
    let orphan = old.block_on(Exporter::start(&asked)).unwrap();
    drop(old);
    runtime().block_on(async {
        let anew = Exporter::start(&asked).await.unwrap();
        assert_eq!(get(anew.address(), "/livez").await.unwrap().0, 200);
    });
    drop(orphan);
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_others_out() {
    let exporter = Exporter::start("127.0.0.8:0").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(exporter.address()).await.unwrap());
    }
    assert_eq!(get(exporter.address(), "/livez").await.unwrap().0, 200);
}
