//! TLS: whom the engine trusts, and what it says when it does not.

use std::path::Path;

use chasquimq::{Error, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{Authority, Identity, Server, ServerKind};

use crate::support::{Worker, config};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A server with this certificate; none where the server is built without TLS.
async fn server(identity: &Identity, clients: Option<&Authority>) -> Option<Server> {
    if !ServerKind::chosen().unwrap().has_tls() {
        return None;
    }
    Some(Server::builder().tls(identity, clients).start().await)
}

fn url(server: &Server, ca: &Path) -> String {
    let plain = server.url();
    let (scheme, place) = plain.split_once("://").unwrap();
    let scheme = scheme.replacen("redis", "rediss", 1);
    format!("{scheme}://{place}?ca={}", ca.display())
}

async fn connect(url: &str) -> Result<Producer<u64>, Error> {
    Producer::connect(url, ProducerConfig { queue_name: "q".into(), ..Default::default() }).await
}

async fn refusal(url: &str) -> String {
    let error = connect(url).await.err().expect("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_to_a_server_whose_authority_is_trusted() {
    let authority = Authority::new();
    let Some(server) = server(&authority.issue("server", &NAMES), None).await else { return };
    let url = url(&server, &authority.file());
    connect(&url).await.unwrap().add(7).await.unwrap();
    let worker = Worker::start(&url, config("q"), |_| async { Ok(()) });
    worker.ran(1).await;
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_trusted_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.issue("good", &NAMES);
    let other = authority.issue("other", &["elsewhere.test"]);
    let expired = authority.issue_expired("expired", &NAMES);
    let Some(trusted) = server(&good, None).await else { return };
    let unknown = refusal(&url(&trusted, &stranger.file())).await;
    assert!(unknown.contains("certificate is refused: UnknownIssuer"), "{unknown}");
    let elsewhere = server(&other, None).await.unwrap();
    let misnamed = refusal(&url(&elsewhere, &authority.file())).await;
    assert!(misnamed.contains("NotValidForName"), "{misnamed}");
    let stale = refusal(&url(&server(&expired, None).await.unwrap(), &authority.file())).await;
    assert!(stale.contains("Expired"), "{stale}");
    let blind = url(&elsewhere, &stranger.file()) + "&insecure=true";
    connect(&blind).await.unwrap().add(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_gets_the_client_s_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = authority.issue("server", &NAMES);
    let Some(server) = server(&identity, Some(&clients)).await else { return };
    let anonymous = url(&server, &authority.file());
    refusal(&anonymous).await;
    let as_whom = |identity: &Identity| {
        format!("{anonymous}&cert={}&key={}", identity.cert.display(), identity.key.display())
    };
    refusal(&as_whom(&authority.issue("stranger", &["client"]))).await;
    let known = as_whom(&clients.issue("known", &["client"]));
    connect(&known).await.unwrap().add(1).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let error = connect("rediss://localhost:1?ca=/nowhere/ca.pem").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
