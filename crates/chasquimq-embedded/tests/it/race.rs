use std::collections::HashSet;

use crate::support::{Home, Peer};

const RACERS: usize = 6;

#[test]
fn six_racing_starters_give_one_server() {
    for _ in 0..5 {
        let home = Home::new();
        let mut peers: Vec<Peer> = (0..RACERS).map(|_| Peer::start(home.path())).collect();
        let joined: Vec<_> = peers.iter_mut().map(Peer::joined).collect();
        let servers: HashSet<u32> = joined.iter().map(|joined| joined.server_pid).collect();
        assert_eq!(servers.len(), 1, "{joined:?}");
        assert_eq!(joined.iter().filter(|joined| joined.started).count(), 1, "{joined:?}");

        let last = peers.into_iter().map(Peer::leave).filter(|&last| last).count();
        assert_eq!(last, 1);
        assert!(home.is_stopped());
    }
}

#[test]
fn joining_while_the_last_one_leaves_finds_a_server() {
    let home = Home::new();
    for _ in 0..10 {
        let mut leaver = Peer::start(home.path());
        leaver.joined();
        let mut joiner = Peer::start(home.path());
        leaver.leave();
        let found = joiner.joined();
        assert!(std::path::Path::new(&format!("/proc/{}", found.server_pid)).exists());
        assert!(joiner.leave());
        assert!(home.is_stopped());
    }
}
