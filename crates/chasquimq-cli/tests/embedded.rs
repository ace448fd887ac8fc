//! The program as a shell runs it, on a server in `PATH` or in `CHASQUIMQ_EMBEDDED_SERVER`.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use chasquimq_embedded::{EmbeddedServer, Options};
use serde_json::Value;

fn chasqui(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chasqui"));
    command.args(args).env("CHASQUIMQ_EMBEDDED_HOME", home);
    command
}

/// Exit code, stdout, stderr.
fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = chasqui(home, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn join(home: &Path, url: &str) -> EmbeddedServer {
    EmbeddedServer::join(url, &Options::from_env().home(home)).unwrap()
}

fn status(home: &Path, args: &[&str]) -> Value {
    let (code, out, err) = run(home, &[&["embedded", "status", "--json"], args].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn status_shows_the_server_by_name_and_by_url() {
    let home = tempfile::tempdir().unwrap();
    let server = join(home.path(), "embedded://shop");
    for args in [["--name", "shop"].as_slice(), &["embedded://shop"]] {
        let found = status(home.path(), args);
        assert_eq!(found["state"], "running");
        assert_eq!(found["pid"], server.pid());
        assert_eq!(found["connect"], server.url());
    }
    assert_eq!(status(home.path(), &[])["state"], "stopped");

    let (code, out, _) = run(home.path(), &["embedded", "status", "--name", "shop"]);
    assert_eq!(code, 0);
    assert!(out.contains("running") && out.contains(&server.pid().to_string()), "{out}");
}

#[test]
fn stop_ends_the_server_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let _server = join(home.path(), "embedded://");
    let stopped = (0, "embedded:// is stopped\n".to_owned(), String::new());
    assert_eq!(run(home.path(), &["embedded", "stop"]), stopped);
    assert_eq!(status(home.path(), &[])["state"], "stopped");
    let idle = (0, "embedded:// was not running\n".to_owned(), String::new());
    assert_eq!(run(home.path(), &["embedded", "stop"]), idle);
}

#[test]
fn reset_of_a_used_server_fails_in_one_sentence_unless_forced() {
    let home = tempfile::tempdir().unwrap();
    let server = join(home.path(), "embedded://");
    let (code, out, err) = run(home.path(), &["embedded", "reset"]);
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1));
    assert!(err.starts_with("chasqui: ") && err.contains("in use"), "{err}");

    assert_eq!(run(home.path(), &["embedded", "reset", "--force"]).0, 0);
    assert!(!server.data_dir().join("data").exists());
}

#[test]
fn path_is_the_folder_alone() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("default");
    let expected = (0, format!("{}\n", folder.display()), String::new());
    assert_eq!(run(home.path(), &["embedded", "path"]), expected);
}

#[test]
fn version_and_help_succeed_on_stdout() {
    let home = tempfile::tempdir().unwrap();
    let version = format!("chasqui {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(home.path(), &["--version"]), (0, version, String::new()));
    let (code, out, _) = run(home.path(), &["--help"]);
    assert!(code == 0 && out.contains("embedded"), "{out}");
}

#[test]
fn wrong_command_line_is_code_2() {
    let home = tempfile::tempdir().unwrap();
    for args in [[].as_slice(), &["nonsense"], &["embedded"], &["embedded", "stop", "a", "b"]] {
        let (code, out, err) = run(home.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty());
    }
    let (code, _, err) = run(home.path(), &["embedded", "stop", "redis://h"]);
    assert!(code == 1 && err.contains("embedded://name"), "{err}");
}

#[test]
fn closed_output_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    for args in [["embedded", "path"].as_slice(), &["embedded", "status"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = chasqui(home.path(), args);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{args:?}");
    }
}
