//! Passwords that change under a running producer and worker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chasquimq::{
    ConnectionTuning, ConsumerConfig, Credentials, ErrorKind, Login, Producer, ProducerConfig,
};
use chasquimq_testkit::{Server, eventually};

use crate::support::{Worker, config};

/// A safe whose password can be changed.
#[derive(Clone)]
struct Safe(Arc<Mutex<&'static str>>);

impl Safe {
    fn with(password: &'static str) -> Self {
        Self(Arc::new(Mutex::new(password)))
    }

    fn tuning(&self) -> ConnectionTuning {
        let safe = self.clone();
        let credentials = Credentials::new(move || {
            let password = (*safe.0.lock().unwrap()).to_owned();
            async move { std::io::Result::Ok(Login { user: Some("app".into()), password }) }
        });
        ConnectionTuning { credentials: Some(credentials), ..Default::default() }
    }
}

async fn set_password(server: &Server, password: &str) {
    let word = format!(">{password}");
    let user = ["ACL", "SETUSER", "app", "reset", "on", &word, "~*", "&*", "+@all"];
    assert_eq!(server.command(&user).await.error(), None);
}

fn producer(connection: ConnectionTuning) -> ProducerConfig {
    ProducerConfig { queue_name: "q".into(), connection, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changed_is_asked_for_again() {
    let server = Server::builder().config("requirepass", "admin").start().await;
    set_password(&server, "first word").await;
    let safe = Safe::with("first word");
    let adding = Producer::<u64>::connect(&server.url(), producer(safe.tuning())).await.unwrap();
    let config = ConsumerConfig { connection: safe.tuning(), ..config("q") };
    let worker = Worker::start(&server.url(), config, |_| async { Ok(()) });
    adding.add(1).await.unwrap();
    worker.ran(1).await;
    set_password(&server, "second").await;
    server.command(&["CLIENT", "KILL", "USER", "app"]).await;
    // For a while the safe still has the old one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    *safe.0.lock().unwrap() = "second";
    eventually("jobs are accepted again", Duration::from_secs(10), async || {
        adding.add(2).await.is_ok()
    })
    .await;
    eventually("and run", Duration::from_secs(10), async || worker.payloads().contains(&2)).await;
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_shows() {
    let server = Server::builder().config("requirepass", "admin").start().await;
    let safe = Safe::with("hush-hush");
    let error = Producer::<u64>::connect(&server.url(), producer(safe.tuning())).await.err();
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    let login = Login { user: Some("app".into()), password: "hush-hush".into() };
    let shown = format!("{error} {error:?} {:?} {login:?}", safe.tuning());
    assert!(!shown.contains("hush-hush"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_had_are_an_error_that_says_so() {
    let server = Server::start().await;
    let credentials = Credentials::new(|| async {
        Err::<Login, _>(std::io::Error::other("the token service is away"))
    });
    let tuning = ConnectionTuning { credentials: Some(credentials), ..Default::default() };
    let error = Producer::<u64>::connect(&server.url(), producer(tuning)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.to_string().contains("the token service is away"), "{error}");
}
