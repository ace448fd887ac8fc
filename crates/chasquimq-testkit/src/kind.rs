//! Which servers there are on this machine, and which one the tests are to use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Pairs `name=path` joined as in `PATH`: the servers of a run of the whole matrix.
const SERVERS: &str = "CHASQUIMQ_TEST_SERVERS";
/// The name of the one to use.
const SERVER: &str = "CHASQUIMQ_TEST_SERVER";
/// What most people run; so it is the default.
const PREFERRED: &str = "redis-7.0";
const BINARIES: [&str; 2] = ["redis-server", "valkey-server"];

/// A server binary and the name by which the tests call it, such as `redis-7.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKind {
    name: String,
    path: PathBuf,
}

impl ServerKind {
    /// All servers of this machine: those that `CHASQUIMQ_TEST_SERVERS` lists (`name=path`, joined as in
    /// `PATH`); without it those of the cache folder (`CHASQUIMQ_CACHE`, default `.cache` of the
    /// repository); without any there those on `PATH`.
    pub fn all() -> Vec<Self> {
        if let Some(listed) = env::var_os(SERVERS) {
            return env::split_paths(&listed).filter_map(|pair| Self::parse(&pair)).collect();
        }
        let cached = Self::in_cache(&cache_folder());
        if cached.is_empty() { Self::on_path() } else { cached }
    }

    /// The server that the tests are to use: the one that `CHASQUIMQ_TEST_SERVER` names, else Redis 7.0,
    /// else the first of [`ServerKind::all`].
    ///
    /// # Errors
    /// When there is no server, or none of that name.
    pub fn chosen() -> Result<Self> {
        let mut all = Self::all();
        let names: Vec<_> = all.iter().map(|kind| kind.name.clone()).collect();
        let position = if let Ok(wanted) = env::var(SERVER) {
            let found = names.iter().position(|name| *name == wanted);
            found.with_context(|| format!("{SERVER} names {wanted:?}; there are {names:?}"))?
        } else if all.is_empty() {
            bail!("no Redis or Valkey server on this machine: run tests/servers/fetch");
        } else {
            names.iter().position(|name| name == PREFERRED).unwrap_or(0)
        };
        Ok(all.swap_remove(position))
    }

    /// Its name, such as `redis-7.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its binary.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is built with TLS: those from Debian are, those from Python's packages are not.
    pub fn has_tls(&self) -> bool {
        !["redis-6.2", "redis-8.2", "valkey-8.1"].contains(&&*self.name)
    }

    /// Its version as the binary tells it, such as `7.0.15`.
    ///
    /// # Errors
    /// When the binary does not run or tells none.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.path)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        version.map(ToOwned::to_owned).with_context(|| format!("no version in {text:?}"))
    }

    fn parse(pair: &Path) -> Option<Self> {
        let (name, path) = pair.to_str()?.split_once('=')?;
        Some(Self { name: name.to_owned(), path: path.into() })
    }

    fn in_cache(cache: &Path) -> Vec<Self> {
        let Ok(folders) = cache.join("servers").read_dir() else { return Vec::new() };
        let mut kinds: Vec<_> = folders
            .flatten()
            .flat_map(|folder| BINARIES.map(|binary| folder.path().join(binary)))
            .filter(|path| path.is_file())
            .filter_map(|path| {
                let name = path.parent()?.file_name()?.to_str()?.to_owned();
                Some(Self { name, path })
            })
            .collect();
        kinds.sort_by(|a, b| a.name.cmp(&b.name));
        kinds
    }

    fn on_path() -> Vec<Self> {
        let folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        BINARIES
            .iter()
            .filter_map(|binary| {
                let path =
                    folders.iter().map(|folder| folder.join(binary)).find(|path| path.is_file());
                path.map(|path| Self { name: (*binary).to_owned(), path })
            })
            .collect()
    }
}

fn cache_folder() -> PathBuf {
    let in_repository = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    env::var_os("CHASQUIMQ_CACHE").map_or_else(in_repository, PathBuf::from)
}
