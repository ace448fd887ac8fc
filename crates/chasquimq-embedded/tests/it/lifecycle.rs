use std::os::unix::fs::PermissionsExt;

use chasquimq_embedded::{EmbeddedServer, State};

use crate::support::{Home, Peer, URL, call};

#[test]
fn last_one_out_ends_the_server() {
    let home = Home::new();
    let mut first = Peer::start(home.path());
    let mut second = Peer::start(home.path());
    assert_eq!(first.joined().server_pid, second.joined().server_pid);

    assert!(!first.leave());
    assert!(matches!(home.state(), State::Running { .. }));
    assert!(second.leave());
    assert!(home.is_stopped());
}

#[test]
fn handles_of_one_process_are_leases_of_their_own() {
    let home = Home::new();
    let (first, second) = (home.join(), home.join());
    assert!(first.started_here() && !second.started_here());
    assert_eq!(first.pid(), second.pid());

    drop(first);
    assert_eq!(call(second.socket_path(), "PING"), "+PONG");
    drop(second);
    assert!(home.is_stopped());
}

#[test]
fn data_survive_a_restart() {
    let home = Home::new();
    let server = home.join();
    assert_eq!(call(server.socket_path(), "SET kept yes"), "+OK");
    let first = server.pid();
    assert!(server.leave().unwrap());

    let server = home.join();
    assert_ne!(server.pid(), first);
    assert_eq!(call(server.socket_path(), "GET kept"), "$3 yes");
}

#[test]
fn server_is_configured_for_one_users_work() {
    let home = Home::new();
    let server = home.join();
    let setting = |name| {
        let reply = call(server.socket_path(), &format!("CONFIG GET {name}"));
        reply.split_once(&format!("{name} ")).unwrap().1.split_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(setting("port"), "0");
    assert_eq!(setting("appendonly"), "yes");
    assert_eq!(setting("appendfsync"), "everysec");
    assert_eq!(setting("maxmemory-policy"), "noeviction");
    assert_eq!(setting("maxmemory"), (256 << 20).to_string());
    assert_eq!(setting("save"), "");
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.data_dir()), 0o700);
    assert_eq!(mode(server.socket_path()), 0o700);
}

#[test]
fn attach_joins_what_runs_and_starts_nothing() {
    let home = Home::new();
    assert!(EmbeddedServer::attach(URL, &home.options()).unwrap().is_none());
    assert!(!home.instance().exists());

    let server = home.join();
    let attached = EmbeddedServer::attach(URL, &home.options()).unwrap().unwrap();
    assert!(!server.leave().unwrap());
    assert!(attached.leave().unwrap());
    assert!(EmbeddedServer::attach(URL, &home.options()).unwrap().is_none());
}

#[test]
fn notice_names_what_is_used() {
    let home = Home::new();
    let server = home.join();
    let notice = server.notice();
    let folder = home.instance().display().to_string();
    for part in ["started", "development server", URL, &folder, &server.pid().to_string()] {
        assert!(notice.contains(part), "{part} is not in {notice}");
    }
    assert_eq!(server.url(), format!("redis+unix://{}", server.socket_path().display()));
}

#[test]
fn production_is_refused_unless_forced() {
    let home = Home::new();
    let production = ("CHASQUIMQ_ENV", "production".as_ref());
    let mut refused = Peer::start_with(home.path(), [production]);
    assert!(refused.line().contains("CHASQUIMQ_EMBEDDED_FORCE=1"));

    let force = ("CHASQUIMQ_EMBEDDED_FORCE", "1".as_ref());
    let mut forced = Peer::start_with(home.path(), [production, force]);
    assert!(forced.joined().started);
    assert!(forced.leave());
}
