use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::support::{Home, Peer, URL, call, wait_for};

const RACERS: usize = 6;
const CROWD: usize = 20;

/// Rounds of the crowd, for a long run:
/// `CHASQUIMQ_EMBEDDED_ROUNDS=200 cargo test -p chasquimq-embedded --test it race:: -- --nocapture`
const ROUNDS: &str = "CHASQUIMQ_EMBEDDED_ROUNDS";

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
        assert!(Path::new(&format!("/proc/{}", found.server_pid)).exists());
        assert!(joiner.leave());
        assert!(home.is_stopped());
    }
}

#[test]
fn a_crowd_that_comes_goes_and_is_killed_has_one_server_and_keeps_its_data() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(3, |rounds| rounds.parse().unwrap());
    let home = Home::new();
    for round in 0..rounds {
        let told = format!("round {round} of {rounds}\n");
        std::io::Write::write_all(&mut std::io::stdout(), told.as_bytes()).unwrap();
        crowd(&home, round, &mut StdRng::seed_from_u64(round));
    }
}

/// Twenty processes come at a time, some are killed on the way; then the rest go in any order.
fn crowd(home: &Home, round: u64, rng: &mut StdRng) {
    let mut peers: Vec<Peer> = (0..CROWD).map(|_| Peer::start(home.path())).collect();
    for _ in 0..rng.random_range(0..CROWD / 2) {
        sleep(Duration::from_millis(rng.random_range(0..10)));
        peers.swap_remove(rng.random_range(0..peers.len())).kill();
    }
    let own = home.join();
    let pids: HashSet<u32> = peers.iter_mut().map(|peer| peer.joined().server_pid).collect();
    assert_eq!(pids, [own.pid()].into());
    assert_eq!(servers(home.path()), 1);
    if round > 0 {
        let kept = (round - 1).to_string();
        assert_eq!(call(own.socket_path(), "GET round"), format!("${} {kept}", kept.len()));
    }
    assert_eq!(call(own.socket_path(), &format!("SET round {round}")), "+OK");
    drop(own);
    peers.shuffle(rng);
    let last_is_killed = go(peers, rng);
    if last_is_killed {
        assert_eq!(servers(home.path()), 1, "nobody was left to end it");
        // The next round finds it, or it is ended by hand.
        if rng.random_bool(0.5) {
            assert!(chasquimq_embedded::stop(URL, &home.options()).unwrap());
        }
        return;
    }
    assert!(home.is_stopped());
    wait_for("no server is left", || servers(home.path()) == 0);
}

/// Lets all go, some by `kill -9`; whether the last one was.
fn go(peers: Vec<Peer>, rng: &mut StdRng) -> bool {
    let mut is_killed = false;
    let count = peers.len();
    for (n, peer) in peers.into_iter().enumerate() {
        is_killed = rng.random_bool(0.4);
        if is_killed {
            peer.kill();
        } else {
            assert_eq!(peer.leave(), n + 1 == count, "the last one ends it, and no other");
        }
    }
    is_killed
}

/// How many processes work in this folder, as servers do.
fn servers(home: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let folders = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    folders.filter(|folder| folder.starts_with(home)).count()
}
