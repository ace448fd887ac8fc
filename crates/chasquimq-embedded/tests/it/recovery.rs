use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use chasquimq_embedded::{EmbeddedServer, Error, State};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Home, Peer, URL, call, wait_for};

fn kill_server(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn killed_starter_leaves_a_server_for_the_next_one() {
    let home = Home::new();
    let mut starter = Peer::start(home.path());
    let first = starter.joined();
    starter.kill();
    assert!(matches!(home.state(), State::Running { .. }));

    let mut next = Peer::start(home.path());
    let second = next.joined();
    assert_eq!((second.server_pid, second.started), (first.server_pid, false));
    assert!(next.leave());
    assert!(home.is_stopped());
}

#[test]
fn orphan_is_ended_by_stop() {
    let home = Home::new();
    let mut starter = Peer::start(home.path());
    starter.joined();
    starter.kill();
    assert!(chasquimq_embedded::stop(URL, &home.options()).unwrap());
    assert!(home.is_stopped());
    assert!(!chasquimq_embedded::stop(URL, &home.options()).unwrap());
}

#[test]
fn killed_server_is_started_again_with_its_data() {
    let home = Home::new();
    let server = home.join();
    assert_eq!(call(server.socket_path(), "SET kept yes"), "+OK");
    // The file is written with each command; only its fsync waits for the second.
    kill_server(server.pid(), Signal::KILL);
    wait_for("the server is gone", || home.is_stopped());
    assert!(server.socket_path().exists(), "the socket file is stale");

    let again = home.join();
    assert!(again.started_here());
    assert_eq!(call(again.socket_path(), "GET kept"), "$3 yes");
}

#[test]
fn stale_socket_of_another_listener_is_replaced() {
    let home = Home::new();
    let server = home.join();
    let socket = server.socket_path().to_owned();
    assert!(server.leave().unwrap());
    drop(UnixListener::bind(&socket).unwrap());

    let server = home.join();
    assert_eq!(call(server.socket_path(), "PING"), "+PONG");
}

#[test]
fn process_id_that_is_used_again_is_left_alone() {
    let home = Home::new();
    drop(home.join());
    fs::write(home.instance().join("server.pid"), std::process::id().to_string()).unwrap();
    assert!(home.is_stopped());
    assert!(!chasquimq_embedded::stop(URL, &home.options()).unwrap());
    let server = home.join();
    assert_ne!(server.pid(), std::process::id());
}

#[test]
fn server_without_a_socket_is_never_doubled_and_can_be_stopped() {
    let home = Home::new();
    let server = home.join();
    fs::remove_file(server.socket_path()).unwrap();
    assert!(matches!(home.state(), State::Unresponsive));

    let hasty = home.options().start_timeout(Duration::from_millis(100));
    match EmbeddedServer::join(URL, &hasty) {
        Err(error @ Error::Unresponsive { .. }) => {
            assert!(error.to_string().contains(&server.pid().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(chasquimq_embedded::stop(URL, &home.options()).unwrap());
    assert!(home.is_stopped());
}

#[test]
fn hung_server_fails_by_the_deadline() {
    let home = Home::new();
    let server = home.join();
    kill_server(server.pid(), Signal::STOP);
    let hasty = home.options().start_timeout(Duration::from_millis(100));
    let joined = EmbeddedServer::join(URL, &hasty.clone());
    let stopped = chasquimq_embedded::stop(URL, &hasty.stop_timeout(Duration::from_millis(100)));
    kill_server(server.pid(), Signal::CONT);
    assert!(matches!(joined, Err(Error::Unresponsive { .. })), "{joined:?}");
    assert!(matches!(stopped, Err(Error::StillRunning { .. })), "{stopped:?}");
    // The signal that was sent is obeyed once the process runs again.
    wait_for("the server ends", || home.is_stopped());
}

#[test]
fn broken_data_are_named_with_the_servers_own_words() {
    let home = Home::new();
    drop(home.join());
    let data = home.instance().join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("appendonly.aof"), "this is no append-only file").unwrap();

    let error = EmbeddedServer::join(URL, &home.options()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::StartFailed { .. }), "{text}");
    assert!(text.contains("Bad file format") && text.contains("chasqui embedded reset"), "{text}");

    assert!(chasquimq_embedded::reset(URL, &home.options(), false).unwrap());
    assert!(home.join().started_here());
}
