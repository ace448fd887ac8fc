//! A user with just the rights that `acl.rs` gives its role can do all of that role's work.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use chasquimq_testkit::Server;

use super::support::{GROUP, ME, Queue, done, failed, hopeless, job, unrun, verdicts};
use crate::acl::{PASSWORD, Role, rights, rule};
use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::ErrorKind;
use crate::store::feed::Feed;
use crate::store::scripts::FILES;
use crate::store::{Due, Replay, Search, Store, Tick};
use crate::version::ServerVersion;

const ALL: &[Role] = &[Role::Producer, Role::Worker, Role::Observer];

/// Makes user `u` with password `PASSWORD`, with all queues.
async fn make_user(server: &Server, roles: &[Role]) {
    let version = crate::doctor::server_version(&server.url()).await.unwrap();
    let rule = rule("u", roles, None, &version).unwrap();
    let words: Vec<_> = rule.split(' ').collect();
    assert_eq!(server.command(&words).await.error(), None, "{rule}");
}

async fn as_user<'s>(server: &'s Server, roles: &[Role]) -> Queue<'s> {
    make_user(server, roles).await;
    Queue::as_user(server, &format!("u:{PASSWORD}")).await
}

/// Who runs a script.
fn roles_of(script: &str) -> &'static [Role] {
    match script {
        "put" | "add" | "schedule" | "sending" | "withdraw" | "cancel" | "record" => {
            &[Role::Producer]
        }
        "inspect" | "choosing" | "dead" => &[Role::Worker, Role::Observer],
        "promote" | "unlock" | "enter" | "leave" | "claim" | "renew" | "settling" | "finish"
        | "complete" | "janitor" | "missed" | "retry" | "bury" | "release" | "purge" => {
            &[Role::Worker]
        }
        // It takes both.
        "replay" => &[],
        _ => panic!("say here who runs {script}.lua, and in acl.rs what that takes"),
    }
}

/// The commands in a script's text, as rules spell them.
fn commands_in(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("-- ").next().unwrap()).collect();
    let starts = ["call('", "{'"].iter().flat_map(|start| code.split(start).skip(1));
    let mut found = BTreeSet::new();
    for rest in starts {
        let mut words = rest.split('\'').map(str::to_lowercase);
        let (word, _, second) = (words.next().unwrap(), words.next(), words.next());
        let is_container = ["xgroup", "xinfo", "client"].contains(&word.as_str());
        let name = if is_container { format!("{word}|{}", second.unwrap()) } else { word };
        if rest.starts_with(|c: char| c.is_ascii_uppercase()) {
            found.insert(name);
        }
    }
    found
}

/// What is called without a script, or by the client library.
const DIRECT: &[&str] = &[
    "hello",
    "ping",
    "eval",
    "evalsha",
    "xread",
    "xreadgroup",
    "xinfo|stream",
    "info",
    "subscribe",
    "client|unblock",
    "client|id",
    "wait",
    "waitaof",
    "cluster|slots",
    "asking",
    "role",
];

fn commands_of(script: &str) -> BTreeSet<String> {
    let file = format!("src/store/scripts/{script}.lua");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    commands_in(&text)
}

#[test]
fn every_command_in_a_script_is_a_right_of_those_who_run_it() {
    let newest = ServerVersion::new("redis", "255.0");
    for script in FILES {
        for command in commands_of(script) {
            for role in roles_of(script) {
                let has = rights(&[*role], &newest).any(|right| right.command == command);
                assert!(has, "{role:?} has no right to {command}, which {script}.lua calls");
            }
        }
    }
}

#[test]
fn no_right_is_given_that_nothing_takes() {
    let newest = ServerVersion::new("redis", "255.0");
    let called: BTreeSet<_> = FILES.iter().flat_map(|script| commands_of(script)).collect();
    for right in rights(ALL, &newest) {
        let command = right.command;
        assert!(called.contains(command) || DIRECT.contains(&command), "who calls {command}?");
    }
}

/// Finishes some jobs at once; ends three of four others, each in another way; the entries of these.
async fn settles(queue: &Queue<'_>) -> Vec<Bytes> {
    let store = &queue.store;
    let mut wakes = store.wakes().await.unwrap();
    store.enter(GROUP).await.unwrap();
    let some: Vec<_> = queue.deliver(&["x"; 8]).await.iter().map(|id| done(id, 1, &[0])).collect();
    let finished = store.finish(GROUP, ME, &some.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(verdicts(&finished), "yyyyyyyy");
    let ids = queue.deliver(&["a", "b", "c", "d"]).await;
    assert_eq!(verdicts(&queue.complete(&[done(&ids[0], 1, &[0])]).await), "y");
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[1], 1, 0)]).await), "y");
    assert!(!wakes.next().await.is_empty());
    let buried = store.bury(GROUP, ME, &[hopeless(&ids[2], 1, 0)], 5).await.unwrap();
    assert_eq!(verdicts(&buried), "y");
    ids
}

#[tokio::test]
async fn who_has_every_role_can_do_everything() {
    let server = Server::start().await;
    let queue = as_user(&server, ALL).await;
    let store = &queue.store;
    let ids = settles(&queue).await;
    assert_eq!(store.renew(GROUP, ME, &ids[3..]).await.unwrap(), [true]);
    store.claim(GROUP, ME, Duration::ZERO, 5, &"0-0".into()).await.unwrap();
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[3], 1, &[0])]).await), "y");
    assert_eq!(store.add(&[job("e", false)], 0, 1).await.unwrap(), [true]);
    assert_eq!(store.add(&[job("f", true)], 99, 1).await.unwrap(), [true]);
    let later = [(job("g", true), Due::At(1)), (job("h", true), Due::In(60_000))];
    assert_eq!(store.schedule(&later, 0).await.unwrap(), [true, true]);
    assert_eq!(store.cancel(&["h".to_owned()]).await.unwrap(), [true]);
    let tick = store.promote("p", Duration::from_secs(5), 10).await.unwrap();
    assert!(matches!(tick, Tick::Led { promoted: 1, fault: None, .. }), "{tick:?}");
    store.unlock("p").await.unwrap();
    let dlq_id = store.dead(&mut Search::new(vec![]), 1).await.unwrap().remove(0).dlq_id;
    let replay = Replay { dlq_id, job: job("i", true) };
    assert_eq!(store.replay(&[replay]).await.unwrap(), [true]);
    assert_eq!(store.purge(&mut Search::new(vec![]), 1).await.unwrap(), 0);
    let intake = store.intake(Duration::from_secs(1)).await.unwrap();
    assert_eq!(intake.read(GROUP, ME, 9, Duration::from_secs(1)).await.unwrap().len(), 5);
    store.wake(&intake).await;
    store.inspect().await.unwrap();
    assert!(store.leave(GROUP, "nobody").await.unwrap());
}

#[tokio::test]
async fn a_producer_adds_and_takes_back_and_takes_no_jobs() {
    let server = Server::start().await;
    let queue = as_user(&server, &[Role::Producer]).await;
    let store = &queue.store;
    assert_eq!(store.add(&[job("a", false)], 0, 1).await.unwrap(), [true]);
    assert_eq!(store.add(&[job("b", true)], 9, 1).await.unwrap(), [true]);
    let later = [(job("c", true), Due::In(60_000))];
    assert_eq!(store.schedule(&later, 9).await.unwrap(), [true]);
    assert_eq!(store.cancel(&["c".to_owned()]).await.unwrap(), [true]);
    assert_eq!(queue.dump().await.values(), ["record-a", "record-b"]);
    assert_eq!(store.enter(GROUP).await.unwrap_err().kind(), ErrorKind::Auth);
    assert_eq!(store.dead(&mut Search::new(vec![]), 1).await.unwrap_err().kind(), ErrorKind::Auth);
    let promoted = store.promote("p", Duration::from_secs(5), 10).await;
    assert_eq!(promoted.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn a_worker_that_is_no_producer_does_all_of_its_work() {
    let server = Server::start().await;
    let queue = as_user(&server, &[Role::Worker]).await;
    let store = &queue.store;
    let ids = settles(&queue).await;
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[3], 1, &[0])]).await), "y");
    let tick = store.promote("p", Duration::from_secs(5), 10).await.unwrap();
    assert!(matches!(tick, Tick::Led { depth: 1, fault: None, .. }), "{tick:?}");
    assert_eq!(store.inspect().await.unwrap().dead, 1);
    assert!(store.leave(GROUP, "nobody").await.unwrap());
}

#[tokio::test]
async fn an_observer_looks_and_changes_nothing() {
    let server = Server::start().await;
    let queue = as_user(&server, &[Role::Observer]).await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.run(&["XADD", &queue.key("dlq"), "*", "id", "x"]).await;
    queue.run(&["XADD", &queue.key("events"), "5-0", "e", "completed"]).await;
    let before = queue.dump().await;
    let store = &queue.store;
    let counts = store.inspect().await.unwrap();
    assert_eq!((counts.in_flight, counts.dead), (2, 1));
    assert_eq!(store.dead(&mut Search::new(vec![]), 9).await.unwrap().len(), 1);
    let url = format!("redis://u:{PASSWORD}@127.0.0.1:{}", server.port());
    let feed =
        Feed::connect(&url, queue.name(), &ConnectionTuning::default(), Duration::ZERO).await;
    let feed = feed.unwrap();
    assert_eq!(feed.newest().await.unwrap(), "5-0");
    assert!(feed.has("5-0").await.unwrap());
    assert_eq!(feed.read("0", 9, Duration::from_millis(1)).await.unwrap().len(), 1);
    for refused in [
        store.add(&[job("a", false)], 0, 1).await.map(drop),
        store.add(&[job("a", true)], 0, 1).await.map(drop),
        store.cancel(&["a".into()]).await.map(drop),
        store.renew(GROUP, ME, &ids).await.map(drop),
        store.promote("p", Duration::from_secs(5), 1).await.map(drop),
        store.bury(GROUP, ME, &[hopeless(&ids[0], 1, 0)], 5).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Auth);
    }
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn a_user_of_one_queue_cannot_touch_another() {
    let server = Server::start().await;
    let version = crate::doctor::server_version(&server.url()).await.unwrap();
    let rule = rule("u", ALL, Some("mine"), &version).unwrap();
    let words: Vec<_> = rule.split(' ').collect();
    assert_eq!(server.command(&words).await.error(), None);
    let url = format!("redis://u:{PASSWORD}@127.0.0.1:{}", server.port());
    for (queue, is_allowed) in [("mine", true), ("mine2", false), ("min", false)] {
        let tuning = ConnectionTuning::default();
        let events = EventsConfig::default();
        let store = Store::connect(&url, queue, &tuning, &events, None).await.unwrap();
        for unique in [false, true] {
            assert_eq!(store.add(&[job("a", unique)], 0, 1).await.is_ok(), is_allowed, "{queue}");
        }
        assert_eq!(store.wakes().await.is_ok(), is_allowed, "{queue}");
        assert_eq!(store.inspect().await.is_ok(), is_allowed, "{queue}");
    }
}
