//! The example runs as its head says.

use std::process::Command;

use chasquimq_testkit::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_lives_a_job_s_life() {
    let server = Server::start().await;
    let binary = std::env::current_exe().unwrap();
    let example = binary.parent().unwrap().parent().unwrap().join("examples/job_life");
    let output = Command::new(example).arg(server.url()).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("added "), "{told}");
    assert_eq!(lines[1..3], ["run 1 greets Ada", "run 2 greets Ada"]);
    assert_eq!(lines[3], "Report { finished: 2, released: 0, abandoned: 0 }");
    let text = include_str!("../../examples/job_life.rs");
    assert!(text.lines().count() < 40, "it is to be read in one look");
}
