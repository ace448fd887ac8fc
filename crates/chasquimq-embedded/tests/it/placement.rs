use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use chasquimq_embedded::{EmbeddedServer, Error, Options};

use crate::support::call;

/// Joins `embedded://<folder>` and checks that a second process with another environment agrees.
fn works_elsewhere(folder: &Path, runtime: &Path) {
    let url = format!("embedded://{}", folder.display());
    let options = Options::from_env().runtime_dir(Some(runtime.to_owned()));
    let server = EmbeddedServer::join(&url, &options).unwrap();
    assert!(server.socket_path().starts_with(runtime), "{}", server.url());
    assert_eq!(call(server.socket_path(), "SET kept yes"), "+OK");

    let others = Options::from_env().runtime_dir(None);
    let joined = EmbeddedServer::join(&url, &others).unwrap();
    assert_eq!((joined.pid(), joined.url()), (server.pid(), server.url()));
    drop(joined);
    let socket = server.socket_path().to_owned();
    assert!(server.leave().unwrap());
    assert!(!socket.exists() && !folder.join("server.sock").is_symlink());
}

#[test]
fn folder_with_a_long_path_gets_its_socket_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("deep".repeat(30)).join("project");
    works_elsewhere(&folder, root.path());
}

#[test]
fn folder_that_a_url_would_escape_gets_its_socket_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    works_elsewhere(&root.path().join("Application Support/ñandú"), root.path());
}

#[test]
fn copied_folder_has_a_server_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let (folder, copy) = (root.path().join("a b"), root.path().join("a copy"));
    let options = Options::from_env().runtime_dir(Some(root.path().to_owned()));
    let join = |folder: &Path| {
        EmbeddedServer::join(&format!("embedded://{}", folder.display()), &options).unwrap()
    };
    let server = join(&folder);
    DirBuilder::new().mode(0o700).create(&copy).unwrap();
    fs::write(copy.join("boot"), "").unwrap();
    fs::copy(folder.join("server.pid"), copy.join("server.pid")).unwrap();
    let link = fs::read_link(folder.join("server.sock")).unwrap();
    std::os::unix::fs::symlink(link, copy.join("server.sock")).unwrap();

    let other = join(&copy);
    assert_ne!(other.pid(), server.pid());
    assert!(other.leave().unwrap());
    assert_eq!(call(server.socket_path(), "PING"), "+PONG");
}

#[test]
fn folder_with_other_files_is_refused_untouched() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.path().join("data")).unwrap();
    let url = format!("embedded://{}", root.path().display());
    let error = EmbeddedServer::join(&url, &Options::from_env()).unwrap_err();
    assert!(matches!(error, Error::UnusableFolder { .. }), "{error}");
    assert!(!chasquimq_embedded::reset(&url, &Options::from_env(), true).unwrap());
    assert!(root.path().join("data").exists());
    assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn urls_name_instances() {
    let options = Options::from_env().home("/home/ana/state");
    let path = |url| chasquimq_embedded::path(url, &options);
    assert_eq!(path("embedded://").unwrap(), Path::new("/home/ana/state/default"));
    assert_eq!(path("embedded://shop_2").unwrap(), Path::new("/home/ana/state/shop_2"));
    assert_eq!(path("embedded:///srv/shop/.q").unwrap(), Path::new("/srv/shop/.q"));
    let long = format!("embedded://{}", "n".repeat(65));
    for url in ["embedded://.bin", "embedded://a/b", "embedded://../x", "redis://h", &long] {
        assert!(matches!(path(url), Err(Error::InvalidUrl { .. })), "{url}");
    }
}
