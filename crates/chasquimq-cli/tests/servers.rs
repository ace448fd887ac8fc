//! The commands that look at a server: what users of it may do, on a real one.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::{Output, Stdio};

use chasquimq::{Error, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{Server, unique_queue};
use tokio::process::Command;

/// Exit code, stdout, stderr.
async fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chasqui"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Makes the user that `chasqui acl print` tells of: the URL to be it.
async fn become_user(server: &Server, options: &[&str]) -> String {
    let url = server.url();
    let args = [&["acl", "print", "--url", &url], options].concat();
    let (code, rule, note) = run(&args).await;
    assert_eq!((code, rule.lines().count(), note.lines().count()), (0, 1, 1), "{rule}{note}");
    let rule = rule.trim().replace(">PASSWORD", ">secret");
    let words: Vec<_> = rule.split(' ').collect();
    assert_eq!(server.command(&words).await.error(), None, "{rule}");
    url.replace("://", &format!("://{}:secret@", words[2]))
}

async fn add(url: &str, queue: &str) -> Result<(), Error> {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    Producer::connect(url, config).await?.add(1).await.map(drop)
}

#[tokio::test]
async fn a_printed_rule_makes_a_user_who_may_do_just_this() {
    let (server, queue) = (Server::start().await, unique_queue("acl"));
    let producer = become_user(&server, &["--role", "producer", "--queue", &queue]).await;
    assert!(producer.contains("://chasqui-producer:"), "{producer}");
    add(&producer, &queue).await.unwrap();
    assert_eq!(add(&producer, "another").await.unwrap_err().kind(), ErrorKind::Auth);

    let observer = become_user(&server, &["--role", "observer", "--user", "ops"]).await;
    assert!(observer.contains("://ops:"), "{observer}");
    let (code, out, err) = run(&["inspect", &queue, "--url", &observer]).await;
    assert!(code == 0 && out.starts_with("ready             1\n"), "{out}{err}");
    assert_eq!(run(&["dlq", "peek", &queue, "--url", &observer]).await.0, 0);
    assert_eq!(add(&observer, &queue).await.unwrap_err().kind(), ErrorKind::Auth);

    let both = become_user(&server, &["--role", "worker", "--role", "producer", "--all"]).await;
    add(&both, &queue).await.unwrap();
    let (code, out, err) = run(&["dlq", "replay", &queue, "--yes", "--url", &both]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[tokio::test]
async fn a_rule_for_a_named_server_takes_no_connection() {
    let nowhere = "redis://127.0.0.1:1";
    for (server, xackdel) in [("redis-6.2", false), ("redis-8.2", true), ("valkey-8.1", false)] {
        let args = ["acl", "print", "--role", "worker", "--for-server", server, "--url", nowhere];
        let (code, out, _) = run(&args).await;
        assert_eq!((code, out.contains(" +xackdel ")), (0, xackdel), "{out}");
    }
    let args = ["acl", "print", "--role", "worker", "--for-server", "oracle-9"];
    let (code, out, err) = run(&args).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("such as redis-7.0"), "{err}");
    assert_eq!(run(&["acl", "print"]).await.0, 2, "which role?");
    let (code, out, err) = run(&["acl", "print", "--role", "worker", "--url", nowhere]).await;
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
}
