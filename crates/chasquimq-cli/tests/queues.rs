//! The commands that count queues, on a real server.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::{Output, Stdio};
use std::time::Duration;

use chasquimq::{ConsumerConfig, Producer, ProducerConfig, Session};
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn chasqui(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chasqui"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Exit code, stdout, stderr.
async fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = chasqui(args).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A queue with 3 ready and 2 delayed jobs.
async fn fill(server: &Server, queue: &str) {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    let producer = Producer::connect(&server.url(), config).await.unwrap();
    producer.add_bulk(vec![1, 2, 3]).await.unwrap();
    producer.add_in_bulk(Duration::from_hours(1), vec![4, 5]).await.unwrap();
}

#[tokio::test]
async fn inspect_prints_one_line_a_number() {
    let (server, queue) = (shared_server().await, unique_queue("inspect"));
    let url = server.url();
    let empty = "ready             0\nin flight         0\ndelayed           0\nretrying          0\n\
                 dead              0\noldest ready for  0s\n";
    assert_eq!(run(&["inspect", &queue, "--url", &url]).await, (0, empty.into(), String::new()));
    fill(server, &queue).await;
    let config = ConsumerConfig {
        queue_name: queue.clone(),
        concurrency: 1,
        prefetch: Some(0),
        ..Default::default()
    };
    let session = Session::start(&url, config).await.unwrap();
    assert_eq!(session.take(1).await.len(), 1);
    let (code, out, err) = run(&["inspect", &queue, "--url", &url, "--json"]).await;
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1));
    let counts: Value = serde_json::from_str(&out).unwrap();
    let age = counts["oldest_ready_age_ms"].as_u64().unwrap();
    assert!(age < 20_000, "{age}");
    let expected = json!({
        "queue": queue, "ready": 2, "in_flight": 1, "delayed": 2, "retrying": 0, "dead": 0,
        "oldest_ready_age_ms": age,
    });
    assert_eq!(counts, expected);
    session.close(Duration::from_secs(2)).await;
    let (code, out, err) = run(&["inspect", "a b", "--url", &url]).await;
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
}

/// A running `chasqui exporter`.
struct Running {
    process: Child,
    address: String,
    _out: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn start(url: &str, queues: &[&str]) -> Self {
        let args =
            [&["exporter", "--addr", "127.0.0.1:0", "--url", url, "--queue"], queues].concat();
        let mut command = chasqui(&args);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap().unwrap();
        let told = format!("metrics of {} on http://", queues.join(", "));
        let address = line.strip_prefix(&told).and_then(|line| line.strip_suffix("/metrics"));
        Self { process, address: address.expect(&line).to_owned(), _out: out }
    }

    /// One GET: status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn becomes(&self, path: &str, status: u16) {
        let what = format!("{path} answers {status}");
        eventually(&what, PATIENCE, async || self.get(path).await.0 == status).await;
    }

    async fn shows(&self, series: &str) -> Option<String> {
        let (status, metrics) = self.get("/metrics").await;
        assert_eq!(status, 200);
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .map(|value| value.trim().to_owned())
    }

    /// Sends a signal: exit code and what it said on stderr.
    async fn ends(mut self, signal: rustix::process::Signal) -> (i32, String) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
        let status = timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        let mut err = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        (status.code().unwrap(), err)
    }
}

#[tokio::test]
async fn exporter_shows_the_queues_and_ends_when_told_to() {
    let (server, queue, other) =
        (shared_server().await, unique_queue("exported"), unique_queue("empty"));
    fill(server, &queue).await;
    let exporter = Running::start(&server.url(), &[&queue, &other]).await;
    exporter.becomes("/readyz", 200).await;
    let gauge = |state: &str, queue: &str| format!("chasquimq_queue_{state}{{queue=\"{queue}\"}}");
    for (series, value) in [
        (gauge("ready_jobs", &queue), "3"),
        (gauge("delayed_jobs", &queue), "2"),
        (gauge("inflight_jobs", &queue), "0"),
        (gauge("retrying_jobs", &queue), "0"),
        (gauge("dead_jobs", &queue), "0"),
        (gauge("ready_jobs", &other), "0"),
        (gauge("oldest_ready_age_seconds", &other), "0"),
    ] {
        assert_eq!(exporter.shows(&series).await.as_deref(), Some(value), "{series}");
    }
    let age = exporter.shows(&gauge("oldest_ready_age_seconds", &queue)).await.unwrap();
    assert!(age.parse::<f64>().unwrap() < PATIENCE.as_secs_f64(), "{age}");
    assert_eq!(exporter.get("/livez").await.0, 200);
    let (status, scale) = exporter.get(&format!("/scale?queue={queue}")).await;
    let scale: Value = serde_json::from_str(&scale).unwrap();
    assert_eq!((status, &scale["backlog"], &scale["inflight"]), (200, &json!(3), &json!(0)));
    assert_eq!(exporter.get("/scale?queue=nobody").await.0, 404);

    fill(server, &queue).await;
    eventually("it looks again", PATIENCE, async || {
        exporter.shows(&gauge("ready_jobs", &queue)).await.as_deref() == Some("6")
    })
    .await;
    assert_eq!(exporter.ends(rustix::process::Signal::TERM).await, (0, String::new()));
    let exporter = Running::start(&server.url(), &[&queue]).await;
    assert_eq!(exporter.ends(rustix::process::Signal::INT).await, (0, String::new()));
}

#[tokio::test]
async fn exporter_says_when_the_server_goes_and_when_it_comes_back() {
    let (server, queue) = (Server::start().await, unique_queue("outage"));
    let exporter = Running::start(&server.url(), &[&queue]).await;
    exporter.becomes("/readyz", 200).await;
    server.kill9();
    exporter.becomes("/readyz", 503).await;
    let series = format!("chasquimq_queue_ready_jobs{{queue=\"{queue}\"}}");
    assert_eq!(exporter.shows(&series).await.as_deref(), Some("NaN"));
    assert_eq!(exporter.get("/livez").await.0, 200);
    server.restart().await;
    exporter.becomes("/readyz", 200).await;
    assert_eq!(exporter.shows(&series).await.as_deref(), Some("0"));
    let (code, err) = exporter.ends(rustix::process::Signal::TERM).await;
    let lines: Vec<_> = err.lines().collect();
    assert_eq!((code, lines.len()), (0, 2), "{err}");
    assert!(lines[0].starts_with(&format!("chasqui: queue {queue} cannot be counted")), "{err}");
    assert_eq!(lines[1], format!("chasqui: queue {queue} is counted again"));
}

#[tokio::test]
async fn exporter_fails_in_one_sentence() {
    let server = shared_server().await;
    let url = server.url();
    let nowhere = ["exporter", "--queue", "q", "--addr", "nowhere", "--url", &url];
    for (args, said) in [
        (&nowhere[..], "use HOST:PORT, such as 127.0.0.1:9090"),
        (&["exporter", "--queue", "a b", "--addr", "0", "--url", &url], "\"a b\" is not valid"),
        (
            &["exporter", "--queue", "q", "--addr", "0", "--url", "redis://127.0.0.1:1"],
            "connecting",
        ),
    ] {
        let (code, out, err) = run(args).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.starts_with("chasqui: ") && err.contains(said), "{err}");
    }
    assert_eq!(run(&["exporter"]).await.0, 2, "which queue?");
}
