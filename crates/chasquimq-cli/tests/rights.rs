//! Whole lives of jobs, and every single right, with the users that `chasqui acl print` makes, on every server.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chasquimq::{
    AddOptions, BackoffSpec, Consumer, ConsumerConfig, HandlerError, Job, JobRetryOverride,
    Producer, ProducerConfig,
};
use chasquimq_testkit::{Reply, Server, ServerKind, eventually};
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// Exit code, stdout, stderr.
async fn chasqui(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chasqui")).args(args).output().await.unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The rule of user `u` for this role on this queue.
async fn rule(server: &Server, roles: &[&str], queue: &str) -> String {
    let url = server.url();
    let mut args = vec!["acl", "print", "--user", "u", "--queue", queue, "--url", &url];
    args.extend(roles.iter().flat_map(|role| ["--role", role]));
    let (code, out, err) = chasqui(&args).await;
    assert_eq!((code, out.lines().count()), (0, 1), "{err}");
    out.trim_end().to_owned()
}

/// Gives the command, which the server must accept.
async fn give(server: &Server, command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!(server.command(&words).await.error(), None, "{}: {command}", server.name());
}

/// Counts by name, as an observer sees them.
async fn counts(observer: &str, queue: &str) -> Value {
    let (code, out, err) = chasqui(&["inspect", queue, "--json", "--url", observer]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

/// The commands that the server has denied to its users.
async fn denials(server: &Server) -> BTreeSet<String> {
    let log = server.command(&["ACL", "LOG", "128"]).await;
    let object = |entry: &Reply| {
        let mut pairs = entry.array().chunks_exact(2);
        pairs.find(|pair| pair[0].text() == "object").unwrap()[1].text().to_lowercase()
    };
    log.array().iter().map(object).collect()
}

#[tokio::test]
async fn printed_rights_are_enough_for_whole_lives() {
    for kind in ServerKind::all() {
        let server = Server::builder().kind(kind).start().await;
        let mut users = Vec::new();
        for role in ["producer", "worker", "observer"] {
            let rule = rule(&server, &[role], "lives").await;
            give(&server, &rule.replace(" u ", &format!(" {role} "))).await;
            users.push(server.url_as(&format!("{role}:PASSWORD")));
        }
        let [producer, worker, observer] = &users[..] else { unreachable!() };
        live(producer, worker, observer, "lives").await;
        let (code, out, err) = chasqui(&["dlq", "peek", "lives", "--url", observer]).await;
        assert!(code == 0 && out.contains("poison"), "{out}{err}");
        let mut denied = denials(&server).await;
        denied.remove("info"); // asked when connecting, and done without
        assert!(denied.is_empty(), "{}: {denied:?}", server.name());
    }
}

/// A job that succeeds, one that is delayed, one that is cancelled, one that fails and dies.
async fn live(producer: &str, worker: &str, observer: &str, queue: &str) {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    let producer: Producer<String> = Producer::connect(producer, config).await.unwrap();
    producer.add("plain".into()).await.unwrap();
    producer.add_in(Duration::from_millis(20), "delayed".into()).await.unwrap();
    let unique = AddOptions::new().with_id("one").with_name("unique");
    producer.add_with_options("unique".into(), unique).await.unwrap();
    let id = producer.add_in(Duration::from_hours(1), "cancelled".into()).await.unwrap();
    assert!(producer.cancel_delayed(&id).await.unwrap());
    let backoff = BackoffSpec::fixed(Duration::from_millis(10));
    let retry = JobRetryOverride { max_attempts: Some(2), backoff: Some(backoff) };
    let poison = AddOptions::new().with_name("poison").with_retry(retry);
    producer.add_with_options("poison".into(), poison).await.unwrap();

    let (stop, done) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let config = ConsumerConfig { queue_name: queue.into(), ..Default::default() };
    let handler = {
        let done = Arc::clone(&done);
        move |job: Job<String>| {
            let done = Arc::clone(&done);
            async move {
                if job.payload == "poison" {
                    return Err(HandlerError::new("it never works"));
                }
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    };
    let consumer = Consumer::new(worker.to_owned(), config);
    let running = tokio::spawn(consumer.run(handler, stop.clone()));
    eventually("all jobs have ended", PATIENCE, async || {
        let counts = counts(observer, queue).await;
        done.load(Ordering::Relaxed) == 3
            && counts["dead"] == 1
            && ["ready", "in_flight", "delayed"].iter().all(|state| counts[state] == 0)
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// The verdict on the user's rights, and what `chasqui doctor` says of them.
async fn judged(server: &Server) -> (String, String) {
    let url = server.url_as("u:PASSWORD");
    let args = ["doctor", "--json", "--queue", "q", "--url", &url];
    let (_, out, err) =
        chasqui(&[&args[..], &["--role", "producer", "--role", "worker"]].concat()).await;
    let report: Value = serde_json::from_str(&out).expect(&err);
    let mut findings = report["findings"].as_array().unwrap().iter();
    let rights = findings.find(|finding| finding["check"] == "rights").unwrap();
    (rights["verdict"].as_str().unwrap().into(), rights["found"].as_str().unwrap().into())
}

#[tokio::test]
async fn doctor_misses_each_right_that_is_taken_away() {
    // Nobody can be refused the first; without the others connecting or looking already fails.
    let untried = ["hello", "ping", "time", "cluster|slots", "asking", "role"];
    for kind in ServerKind::all() {
        let server = Server::builder().kind(kind).start().await;
        let rule = rule(&server, &["producer", "worker"], "q").await;
        give(&server, &rule).await;
        assert_eq!(judged(&server).await.0, "green", "{}", server.name());
        let every = rule.split(' ').filter_map(|word| word.strip_prefix('+'));
        for right in every.filter(|right| !untried.contains(right)) {
            // A server before 7.0 cannot take a subcommand alone.
            let rest: Vec<_> =
                rule.split(' ').filter(|word| word.strip_prefix('+') != Some(right)).collect();
            give(&server, &rest.join(" ")).await;
            let (verdict, found) = judged(&server).await;
            assert!(
                verdict != "green" && found.contains(&format!("lacks +{right}")),
                "{right}: {found}"
            );
        }
        assert_eq!(server.command(&["DBSIZE"]).await.int(), 0, "looking left something behind");
    }
}
