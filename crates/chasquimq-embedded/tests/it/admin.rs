use chasquimq_embedded::{Error, State};

use crate::support::{Home, Peer, URL, call};

#[test]
fn status_tells_what_runs() {
    let home = Home::new();
    assert!(home.is_stopped());
    assert_eq!(chasquimq_embedded::running(URL, &home.options()).unwrap(), None);
    assert!(!home.instance().exists(), "looking creates nothing");

    let server = home.join();
    let State::Running { url, info } = home.state() else { panic!("it runs") };
    assert_eq!(url, server.url());
    assert_eq!(info.pid, server.pid());
    assert!(info.clients >= 1 && info.memory > 0);
    assert_eq!(chasquimq_embedded::running(URL, &home.options()).unwrap(), Some(url));
}

#[test]
fn stop_keeps_the_data() {
    let home = Home::new();
    let server = home.join();
    assert_eq!(call(server.socket_path(), "SET kept yes"), "+OK");
    assert!(chasquimq_embedded::stop(URL, &home.options()).unwrap());
    assert!(home.is_stopped());
    drop(server);

    let server = home.join();
    assert_eq!(call(server.socket_path(), "GET kept"), "$3 yes");
}

#[test]
fn reset_refuses_while_others_work_unless_forced() {
    let home = Home::new();
    let mut peer = Peer::start(home.path());
    peer.joined();
    let refused = chasquimq_embedded::reset(URL, &home.options(), false);
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    assert!(matches!(home.state(), State::Running { .. }));

    assert!(chasquimq_embedded::reset(URL, &home.options(), true).unwrap());
    assert!(home.is_stopped());
    assert!(peer.leave(), "leaving an ended server is no error");
}

#[test]
fn reset_deletes_the_data() {
    let home = Home::new();
    let server = home.join();
    assert_eq!(call(server.socket_path(), "SET kept yes"), "+OK");
    assert!(server.leave().unwrap());
    assert!(chasquimq_embedded::reset(URL, &home.options(), false).unwrap());
    assert!(!chasquimq_embedded::reset(URL, &home.options(), false).unwrap());

    let server = home.join();
    assert_eq!(call(server.socket_path(), "GET kept"), "$-1");
}
