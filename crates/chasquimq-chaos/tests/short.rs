//! Short runs on the server that `CHASQUIMQ_TEST_SERVER` names, each from a fixed seed.

use std::process::Command;

/// Runs it; what it says is the message where it fails.
#[track_caller]
fn run(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_chasquimq-chaos")).args(args).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
    said
}

#[test]
fn faults_of_the_network_and_killed_workers_lose_nothing() {
    let said = run(&["--seed", "3", "--minutes", "0.3"]);
    assert!(said.contains("| network, workers |"), "{said}");
}

#[test]
fn other_faults_lose_nothing_either() {
    run(&["--seed", "12", "--minutes", "0.3"]);
}

#[test]
fn a_server_that_syncs_each_write_loses_nothing_when_it_is_killed() {
    run(&["--seed", "1", "--minutes", "0.25", "--crash-server", "always", "--rate", "100"]);
}

#[test]
fn without_faults_nothing_runs_twice() {
    let said = run(&["--seed", "1", "--minutes", "0.1", "--faults", "none"]);
    assert!(said.contains("| none | 0.1 |"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_told_of() {
    let output = Command::new(env!("CARGO_BIN_EXE_chasquimq-chaos"))
        .args(["--server", "redis-1.0"])
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no server \"redis-1.0\""));
}
