//! Where the server listens: `server.sock` in the folder, or a link of that name to the real socket.
//!
//! The path of a socket is limited by the kernel, and a URL carries it unescaped to the client. A folder
//! whose path is too long or needs escaping gets its socket elsewhere, under a name derived from the
//! folder; the link lets every process find it, whatever its own environment says.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::{Error, Options};

/// The kernel allows 104 (macOS) or 108 bytes; the server's temporary names need a few.
const PATH_MAX: usize = 100;

/// The socket of the server that runs, or ran last, in `folder`.
pub(crate) fn locate(folder: &Path) -> PathBuf {
    let own = own(folder);
    match fs::read_link(&own) {
        // A copied folder brings the link of its origin along: only a link to this folder's name counts.
        Ok(target) if target.file_name() == Some(elsewhere_name(folder).as_ref()) => target,
        _ => own,
    }
}

/// Clears what a killed server left and returns the path for the next one.
pub(crate) fn place(folder: &Path, options: &Options) -> Result<PathBuf, Error> {
    let own = own(folder);
    remove(&locate(folder))?;
    remove(&own)?;
    if is_usable(&own) {
        return Ok(own);
    }
    let target = elsewhere(folder, options)?;
    symlink(&target, &own).map_err(Error::io("create", &own))?;
    Ok(target)
}

/// Removes the socket and its link.
pub(crate) fn clear(folder: &Path) -> Result<(), Error> {
    remove(&locate(folder))?;
    remove(&own(folder))
}

fn own(folder: &Path) -> PathBuf {
    folder.join("server.sock")
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn elsewhere(folder: &Path, options: &Options) -> Result<PathBuf, Error> {
    let private = format!("chasquimq-{}", rustix::process::geteuid().as_raw());
    let bases = options
        .runtime_dir
        .iter()
        .filter(|base| base.is_dir())
        .map(|base| base.join("chasquimq"))
        .chain([std::env::temp_dir().join(&private), Path::new("/tmp").join(&private)]);
    let name = elsewhere_name(folder);
    for base in bases {
        let path = base.join(&name);
        if is_usable(&path) && ensure_private(&base) {
            return Ok(path);
        }
    }
    Err(Error::UnusableFolder {
        path: folder.to_owned(),
        reason: format!(
            "its path is too long for a socket and no private temporary folder is at hand; set \
             CHASQUIMQ_EMBEDDED_HOME to a folder whose path has at most {} plain bytes",
            PATH_MAX - "/default/server.sock".len()
        ),
    })
}

/// Makes the folder, and says whether it is there and really a private one of this user.
fn ensure_private(base: &Path) -> bool {
    if let Err(error) = DirBuilder::new().mode(0o700).create(base)
        && error.kind() != ErrorKind::AlreadyExists
    {
        tracing::debug!(%error, folder = %base.display(), "no sockets here");
        return false;
    }
    fs::symlink_metadata(base).is_ok_and(|found| {
        let ours = found.uid() == rustix::process::geteuid().as_raw();
        found.is_dir() && ours && found.mode() & 0o777 == 0o700
    })
}

/// Short enough for the kernel, and unchanged by any URL parser.
fn is_usable(path: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let bytes = path.as_os_str().as_bytes();
    bytes.len() <= PATH_MAX && bytes.iter().all(plain)
}

/// FNV-1a of the folder's path: programs built by different compilers must agree on it.
fn elsewhere_name(folder: &Path) -> String {
    let hash =
        folder.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_a_url_would_escape_are_not_usable() {
        assert!(is_usable(Path::new("/home/ana/.local/state/chasquimq/server.sock")));
        for path in ["/Application Support/s", "/a%20b/s", "/año/s", "/a?b/s", "/a#b/s"] {
            assert!(!is_usable(Path::new(path)), "{path}");
        }
        assert!(!is_usable(Path::new(&format!("/{}", "x".repeat(PATH_MAX)))));
    }

    #[test]
    fn name_elsewhere_is_the_published_hash() {
        // The reference value of FNV-1a 64 for "foobar".
        assert_eq!(elsewhere_name(Path::new("foobar")), "85944171f73967e8.sock");
    }
}
