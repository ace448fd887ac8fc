//! Who must have a job before it counts as added.

use std::time::{Duration, Instant};

use chasquimq::{AddOptions, ConnectionTuning, Durability, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{ChaosProxy, Server, eventually};
use futures::future::join_all;

use crate::support::key;

const PATIENCE: Duration = Duration::from_secs(15);

/// Waits as long as a busy machine may take.
fn config(durability: Durability) -> ProducerConfig {
    ProducerConfig {
        queue_name: "q".into(),
        durability,
        durability_timeout: Duration::from_secs(5),
        connection: ConnectionTuning {
            reconnect_max: Duration::from_millis(100),
            ..ConnectionTuning::default()
        },
        ..ProducerConfig::default()
    }
}

/// Waits not much longer than there is something to wait for.
fn hasty(durability: Durability) -> ProducerConfig {
    ProducerConfig { durability_timeout: Duration::from_secs(1), ..config(durability) }
}

/// A server and a replica of it that has caught up.
async fn pair() -> (Server, Server) {
    let primary = Server::builder().standalone().config("repl-diskless-sync-delay", "0");
    let primary = primary.start().await;
    let port = primary.port().to_string();
    let replica = Server::builder().standalone().config("replicaof", &format!("127.0.0.1 {port}"));
    let replica = replica.start().await;
    let online = || async { !primary.command(&["ROLE"]).await.array()[2].array().is_empty() };
    eventually("the replica is online", PATIENCE, online).await;
    // Online, it may not acknowledge for a second yet; and a write from before would count as acknowledged.
    primary.command(&["SET", "followed", "1"]).await;
    assert_eq!(primary.command(&["WAIT", "1", "8000"]).await.int(), 1);
    (primary, replica)
}

async fn held(server: &Server) -> i64 {
    server.command(&["XLEN", &key("q", "stream")]).await.int()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_added_when_a_replica_has_it() {
    let (primary, replica) = pair().await;
    let producer: Producer<u64> =
        Producer::connect(&primary.url(), config(Durability::Replica)).await.unwrap();
    for payload in 0..20 {
        producer.add(payload).await.unwrap();
        assert_eq!(held(&replica).await, payload as i64 + 1, "the replica lags behind");
    }
    producer.add_bulk((0..1200).collect()).await.unwrap();
    assert_eq!(held(&replica).await, 1220);
    producer.add_in(Duration::from_mins(1), 1).await.unwrap();
    assert_eq!(replica.command(&["ZCARD", &key("q", "delayed")]).await.int(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_acknowledgement_the_outcome_is_unknown_and_adding_again_assures_it() {
    let (primary, replica) = pair().await;
    let producer: Producer<u64> =
        Producer::connect(&primary.url(), hasty(Durability::Replica)).await.unwrap();
    producer.add(0).await.unwrap();
    replica.stop_signal();
    let begun = Instant::now();
    let errors = join_all((1..=20).map(|payload| producer.add(payload))).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "they wait together: {:?}", begun.elapsed());
    let mut ids = Vec::new();
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.job_ids().len()), (ErrorKind::Unknown, 1), "{error}");
        let told = "0 replicas acknowledged it of 1 asked within 1000 ms";
        assert!(error.to_string().contains(told), "{error}");
        ids.extend(error.job_ids().to_vec());
    }
    let again = producer.add_with_id(ids[0].clone(), 1).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Unknown, "still nobody has it: {again}");
    let options = || AddOptions::new().with_durability(Durability::None);
    producer.add_with_options(21, options()).await.unwrap();
    replica.cont();
    let caught_up = || async { held(&replica).await == 22 };
    eventually("the replica has caught up", PATIENCE, caught_up).await;
    for (payload, id) in (1..).zip(ids) {
        assert_eq!(producer.add_with_id(id.clone(), payload).await.unwrap(), id);
    }
    assert_eq!((held(&primary).await, held(&replica).await), (22, 22));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_never_makes_an_assurance_of_nothing() {
    let (primary, replica) = pair().await;
    let proxy = ChaosProxy::start(primary.port()).await;
    let producer: Producer<u64> =
        Producer::connect(&proxy.url(), config(Durability::Replica)).await.unwrap();
    producer.add(0).await.unwrap();
    let adding = join_all((0..4).map(async |_| {
        for payload in 0..50 {
            producer.add(payload).await.unwrap();
        }
    }));
    let cutting = async {
        for round in 1..=10 {
            let more = || async { held(&primary).await > round * 15 };
            eventually("more is added", PATIENCE, more).await;
            proxy.cut();
        }
    };
    tokio::join!(adding, cutting);
    assert_eq!((held(&primary).await, held(&replica).await), (201, 201));
    // A new connection has written nothing, so that any replica would have all of it.
    replica.stop_signal();
    let cut = async {
        eventually("it is stored", PATIENCE, || async { held(&primary).await == 202 }).await;
        proxy.cut();
    };
    let (added, ()) = tokio::join!(producer.add(1), cut);
    assert_eq!(added.unwrap_err().kind(), ErrorKind::Unknown);
    replica.cont();
    assert_eq!(held(&primary).await, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_server_ends_is_no_reason_to_add_again() {
    let (primary, replica) = pair().await;
    let producer: Producer<u64> =
        Producer::connect(&primary.url(), config(Durability::Replica)).await.unwrap();
    producer.add(0).await.unwrap();
    replica.stop_signal();
    // A primary that becomes a replica ends all waits like this.
    let unblocking = async {
        let one = || async {
            let clients = primary.command(&["CLIENT", "LIST"]).await.text();
            let waiting = clients.lines().find(|client| client.contains("cmd=wait"));
            let id = waiting.and_then(|client| client.strip_prefix("id=")?.split(' ').next());
            let Some(id) = id else { return false };
            primary.command(&["CLIENT", "UNBLOCK", id, "ERROR"]).await.int() == 1
        };
        eventually("the wait is ended", PATIENCE, one).await;
        replica.cont();
    };
    let (added, ()) = tokio::join!(producer.add(1), unblocking);
    added.unwrap();
    assert_eq!((held(&primary).await, held(&replica).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_added_when_the_append_only_file_has_it_where_the_server_can_tell() {
    let server = Server::builder().aof(true).config("appendfsync", "everysec").start().await;
    let url = server.url();
    let connected = Producer::<u64>::connect(&url, hasty(Durability::Aof)).await;
    let known = server.command(&["WAITAOF", "0", "0", "1"]).await.error().is_none();
    if !known {
        let error = connected.err().expect("it does not know WAITAOF");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("WAITAOF"), "{error}");
        let producer: Producer<u64> =
            Producer::connect(&url, config(Durability::None)).await.unwrap();
        let options = AddOptions::new().with_durability(Durability::Aof);
        let error = producer.add_with_options(1, options).await.unwrap_err();
        assert_eq!((error.kind(), held(&server).await), (ErrorKind::Unsupported, 0));
        return;
    }
    let producer = connected.unwrap();
    let patient: Producer<u64> = Producer::connect(&url, config(Durability::Aof)).await.unwrap();
    patient.add_bulk((0..100).collect()).await.unwrap();
    server.kill9();
    server.restart().await;
    assert_eq!(held(&server).await, 100);
    server.command(&["CONFIG", "SET", "appendonly", "no"]).await;
    assert_eq!(producer.add(1).await.unwrap_err().kind(), ErrorKind::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_no_file_is_refused() {
    let server = Server::start().await;
    let connected = Producer::<u64>::connect(&server.url(), config(Durability::Aof)).await;
    let error = connected.err().expect("there is no append-only file");
    let kinds = [ErrorKind::Config, ErrorKind::Unsupported];
    assert!(kinds.contains(&error.kind()), "{error}");
}
