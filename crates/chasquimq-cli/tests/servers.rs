//! The commands that look at a server: what users of it may do, on a real one.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::{Output, Stdio};
use std::time::Duration;

use chasquimq::{Error, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{
    Authority, Reply, Server, ServerKind, eventually, shared_server, unique_queue,
};
use serde_json::Value;
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
    let dlq = format!("{{chasqui:{queue}}}:dlq");
    server.command(&["XADD", &dlq, "*", "id", "one", "j", "no job"]).await;
    let (code, out, err) = run(&["dlq", "peek", &queue, "--json", "--url", &server.url()]).await;
    let dead: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &dead["job_id"], &dead["data"]), (0, &"one".into(), &Value::Null), "{err}");
    for action in ["replay", "purge"] {
        let (code, _, err) = run(&["dlq", action, &queue, "--url", &server.url()]).await;
        assert_eq!((code, err.as_str()), (1, "chasqui: this changes the queue: say --yes\n"));
    }
    let worker = become_user(&server, &["--role", "worker", "--queue", &queue]).await;
    let (code, out, err) =
        run(&["dlq", "peek", &queue, "--name", "send", "--url", &server.url()]).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "no dead job fits\n"));
    let purge = ["dlq", "purge", &queue, "--yes", "--url", &worker];
    for other in [["--name", "send"], ["--job-id", "two"], ["--reason", "malformed"]] {
        let (code, out, err) = run(&[&purge[..], &other].concat()).await;
        let told = format!("0 dead jobs of {queue} deleted\n");
        assert_eq!((code, out, err.as_str()), (0, told, ""));
    }
    let (code, _, err) = run(&[&purge[..], &["--reason", "boredom"]].concat()).await;
    assert!(code == 2 && err.contains("retries_exhausted, decode_failed"), "{err}");
    let (code, _, err) = run(&[&purge[..], &["--job-id", ""]].concat()).await;
    assert!(code == 1 && err.contains("job_id is empty"), "{err}");
    let these = [&purge[..], &["--job-id", "two", "--job-id", "one"]].concat();
    let (code, out, err) = run(&these).await;
    let told = format!("1 dead jobs of {queue} deleted\n");
    assert_eq!((code, out, err.as_str()), (0, told, ""));
}

#[tokio::test]
async fn a_rule_for_a_named_server_takes_no_connection() {
    let nowhere = "redis://127.0.0.1:1";
    for (server, waitaof) in [("redis-6.2", false), ("redis-8.2", true), ("valkey-8.1", true)] {
        let args = ["acl", "print", "--role", "worker", "--for-server", server, "--url", nowhere];
        let (code, out, _) = run(&args).await;
        assert_eq!((code, out.contains(" +waitaof ")), (0, waitaof), "{out}");
    }
    let args = ["acl", "print", "--role", "worker", "--for-server", "oracle-9"];
    let (code, out, err) = run(&args).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("such as redis-7.0"), "{err}");
    assert_eq!(run(&["acl", "print"]).await.0, 2, "which role?");
    let (code, out, err) = run(&["acl", "print", "--role", "worker", "--url", nowhere]).await;
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
}

/// Exit code and what `chasqui doctor --json` says.
async fn doctor(url: &str, options: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(&[&["doctor", "--json", "--url", url], options].concat()).await;
    assert_eq!((out.lines().count(), err.as_str()), (1, ""), "{out}");
    (code, serde_json::from_str(&out).unwrap())
}

/// The findings of a check: verdict and text.
fn of(diagnosis: &Value, check: &str) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let all = diagnosis["findings"].as_array().unwrap().iter();
    let found = all.filter(|finding| finding["check"] == check);
    found.map(|finding| (text(finding, "verdict"), text(finding, "found"))).collect()
}

#[tokio::test]
async fn doctor_finds_a_plain_server_fit_and_leaves_no_trace() {
    let server = Server::start().await;
    let (code, told) = doctor(&server.url(), &[]).await;
    assert_eq!((code, &told["verdict"]), (0, &"yellow".into()), "{told}");
    assert_eq!(told["version"], server.version());
    assert!(server.name().starts_with(told["server"].as_str().unwrap()));
    for check in ["server", "capabilities", "eviction", "replicas", "clock", "latency", "rights"] {
        let found = of(&told, check);
        assert!(matches!(&found[..], [(verdict, _)] if verdict == "green"), "{check}: {found:?}");
    }
    let [(verdict, found)] = &of(&told, "persistence")[..] else { panic!("{told}") };
    assert!(verdict == "yellow" && found.contains("restart loses every job"), "{found}");
    let unknown = server.command(&["WAITAOF"]).await.error().unwrap().contains("unknown command");
    assert_eq!(of(&told, "capabilities")[0].1.starts_with("no WAITAOF"), unknown);
    let by_number = matches!(server.version(), "6.2.14" | "7.0.15" | "8.2.3");
    assert_eq!(of(&told, "advisories")[0].1.starts_with("CVE-"), by_number, "{told}");
    assert_eq!(server.command(&["DBSIZE"]).await, Reply::Int(0));
}

#[tokio::test]
async fn doctor_prints_a_line_a_check_and_what_to_do() {
    let server =
        Server::builder().aof(true).config("maxmemory-policy", "allkeys-lru").start().await;
    let (code, out, err) = run(&["doctor", "--url", &server.url()]).await;
    assert_eq!((code, err.as_str()), (1, ""));
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some(&*format!("{} as user default", server.url())));
    let eviction = lines.find(|line| line.contains("eviction")).unwrap();
    assert_eq!(eviction, "red     eviction      allkeys-lru");
    assert!(lines.next().unwrap().trim().starts_with("set maxmemory-policy noeviction"), "{out}");
    let persistence = lines.find(|line| line.contains("persistence")).unwrap();
    assert!(
        persistence.starts_with("green ") && persistence.contains("before each reply"),
        "{out}"
    );
}

#[tokio::test]
async fn doctor_names_the_rights_that_a_user_lacks() {
    let server = Server::start().await;
    let queue = unique_queue("doctor");
    let roles = ["--role", "producer", "--role", "worker", "--queue", &queue];
    let user = become_user(&server, &[&roles[..], &["--user", "u"]].concat()).await;
    let (code, told) = doctor(&user, &["--queue", &queue]).await;
    let all = ("green".to_owned(), "all that producer and worker needs".to_owned());
    assert_eq!((code, of(&told, "rights")), (0, vec![all]), "{told}");
    let unread = of(&told, "eviction").remove(0);
    assert!(unread.0 == "yellow" && unread.1.contains("INFO"), "{unread:?}");

    let (code, told) = doctor(&user, &[]).await;
    let (verdict, found) = of(&told, "rights").remove(0);
    assert_eq!((code, verdict.as_str()), (1, "red"));
    assert!(found.contains("may not touch") && found.contains("default"), "{found}");

    for (change, verdict, said) in [
        (&["-wait", "-client"][..], "yellow", "+client|id for a quick stop, +wait for jobs"),
        (&["-xadd", "-zrem"], "red", "this user lacks +xadd +zrem"),
    ] {
        let set = [&["ACL", "SETUSER", "u"], change].concat();
        assert_eq!(server.command(&set).await.error(), None);
        let (code, told) = doctor(&user, &["--queue", &queue]).await;
        let (found, text) = of(&told, "rights").remove(0);
        assert_eq!((found.as_str(), code), (verdict, i32::from(verdict == "red")), "{text}");
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(server.command(&["DBSIZE"]).await, Reply::Int(0));

    let observer = become_user(&server, &["--role", "observer"]).await;
    let (code, told) = doctor(&observer, &["--role", "observer"]).await;
    assert_eq!((code, of(&told, "rights")[0].0.as_str()), (0, "green"), "{told}");
    assert_eq!(of(&told, "eviction"), [("green".to_owned(), "noeviction".to_owned())]);
}

#[tokio::test]
async fn doctor_sees_replicas_and_what_they_cost() {
    let server = Server::builder()
        .config("min-replicas-to-write", "1")
        .config("repl-diskless-sync-delay", "0")
        .start()
        .await;
    let (code, told) = doctor(&server.url(), &[]).await;
    assert_eq!((code, of(&told, "replicas")[0].0.as_str()), (1, "red"), "{told}");
    let replica = Server::start().await;
    let port = server.port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.error(), None);
    eventually("it is in step", Duration::from_secs(20), async || {
        let info = replica.command(&["INFO", "replication"]).await;
        info.text().contains("master_link_status:up")
    })
    .await;
    let (code, told) = doctor(&replica.url(), &[]).await;
    let found = of(&told, "replicas");
    assert_eq!((code, found[0].1.as_str()), (1, "this is a replica, which takes no jobs"));
}

#[tokio::test]
async fn doctor_that_cannot_connect_is_code_2_and_shows_no_password() {
    let port = shared_server().await.port();
    for url in ["redis://u:hush@127.0.0.1:1", &format!("redis://u:hush@127.0.0.1:{port}"), "hush@u"]
    {
        let (code, told) = doctor(url, &[]).await;
        assert_eq!((code, &told["verdict"]), (2, &"unreachable".into()), "{told}");
        assert!(!told.to_string().contains("hush"), "{told}");
        let (code, out, err) = run(&["doctor", "--url", url]).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
        assert!(!err.contains("hush"), "{err}");
    }
    let user = ["ACL", "SETUSER", "u", "on", ">hush", "~*", "&*", "+@all"];
    let server = Server::start().await;
    assert_eq!(server.command(&user).await.error(), None);
    let url = server.url().replace("://", "://u:hush@");
    let (code, out, _) = run(&["doctor", "--url", &url]).await;
    assert!(code == 0 && out.contains(" as user u\n") && !out.contains("hush"), "{out}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that cannot run here says so")]
async fn a_server_is_looked_at_over_tls_by_who_trusts_it() {
    let kind = ServerKind::chosen().unwrap();
    if !kind.has_tls() {
        eprintln!("skipped: {} is built without TLS", kind.name());
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let identity = authority.issue("server", &["localhost", "127.0.0.1"]);
    let (server, queue) =
        (Server::builder().tls(&identity, None).start().await, unique_queue("tls"));
    let with_ca = |ca: &Authority| {
        let plain = server.url();
        let (_, place) = plain.split_once("://").unwrap();
        format!("rediss://{place}?ca={}", ca.file().display())
    };
    let url = with_ca(&authority);
    add(&url, &queue).await.unwrap();
    let (code, out, err) = run(&["inspect", &queue, "--url", &url]).await;
    assert!(code == 0 && out.starts_with("ready             1\n"), "{out}{err}");
    assert_eq!(doctor(&url, &[]).await.0, 0);
    let (code, told) = doctor(&with_ca(&stranger), &[]).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.to_string().contains("certificate is refused: UnknownIssuer"), "{told}");
}
