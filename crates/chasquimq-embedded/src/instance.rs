//! An instance: what an `embedded://` URL names, and the folder that holds it.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::{DEFAULT_URL, Error, Options};

const DEFAULT_NAME: &str = "default";
const NAME_MAX: usize = 64;

/// One embedded server's place. The folder need not exist.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    url: String,
    folder: PathBuf,
}

impl Instance {
    /// Resolves a URL without touching the disk, but for symbolic links of an existing folder.
    pub(crate) fn resolve(url: &str, options: &Options) -> Result<Self, Error> {
        let invalid = || Error::InvalidUrl { url: url.to_owned() };
        let rest = url.strip_prefix(DEFAULT_URL).ok_or_else(invalid)?;
        let folder = if rest.starts_with('/') {
            PathBuf::from(rest)
        } else {
            let name = if rest.is_empty() { DEFAULT_NAME } else { rest };
            if !is_name(name) {
                return Err(invalid());
            }
            options.home.as_ref().ok_or(Error::NoHome)?.join(name)
        };
        // Two spellings of one folder must agree on the socket, whose name derives from the path.
        let folder = fs::canonicalize(&folder).unwrap_or(folder);
        Ok(Self { url: url.to_owned(), folder })
    }

    /// Makes the folder ready for a server: created, private, on a local disk, and not somebody else's.
    pub(crate) fn prepare(url: &str, options: &Options) -> Result<Self, Error> {
        let folder = Self::resolve(url, options)?.folder;
        if !folder.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(Error::io("create", &folder))?;
        }
        let instance = Self::resolve(url, options)?;
        instance.refuse_foreign_folder()?;
        refuse_network_disk(&instance.folder)?;
        fs::set_permissions(&instance.folder, Permissions::from_mode(0o700))
            .map_err(Error::io("make private", &instance.folder))?;
        Ok(instance)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn boot(&self) -> PathBuf {
        self.folder.join("boot")
    }

    pub(crate) fn lease(&self) -> PathBuf {
        self.folder.join("lease")
    }

    pub(crate) fn alive(&self) -> PathBuf {
        self.folder.join("alive")
    }

    /// What the server writes; a folder of its own, so that a reset leaves the lock files in place.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.join("server.pid")
    }

    /// Whether a server was ever started here.
    pub(crate) fn exists(&self) -> bool {
        self.boot().exists()
    }

    fn refuse_foreign_folder(&self) -> Result<(), Error> {
        let refuse = |reason: &str| {
            Err(Error::UnusableFolder { path: self.folder.clone(), reason: reason.to_owned() })
        };
        let metadata = fs::metadata(&self.folder).map_err(Error::io("inspect", &self.folder))?;
        if !metadata.is_dir() {
            return refuse("it is not a folder");
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return refuse("it belongs to another user");
        }
        let mut entries = fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))?;
        // In this order: another starter makes the boot lock before any other file.
        if entries.next().is_some() && !self.exists() {
            return refuse(
                "it holds other files; name a folder of its own, such as one named .chasquimq inside it",
            );
        }
        Ok(())
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// A name that is one path component and never hidden: `.bin` beside the instances is ours.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= NAME_MAX && !name.starts_with(['.', '-']) && name.bytes().all(plain)
}

/// File locks are unreliable on network disks, and two servers on one append-only file destroy it.
fn refuse_network_disk(folder: &Path) -> Result<(), Error> {
    let found = rustix::fs::statfs(folder).map_err(Error::io("inspect the disk of", folder))?;
    match network_disk(&found) {
        None => Ok(()),
        Some(kind) => Err(Error::UnusableFolder {
            path: folder.to_owned(),
            reason: format!(
                "it is on a network disk ({kind}), where file locks are unreliable; set \
                 CHASQUIMQ_EMBEDDED_HOME to a folder on a local disk"
            ),
        }),
    }
}

#[cfg(target_os = "linux")]
fn network_disk(found: &rustix::fs::StatFs) -> Option<&'static str> {
    // The magic numbers of statfs(2); the width of the field depends on the architecture.
    match found.f_type as u32 {
        0x6969 => Some("NFS"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB"),
        0x517b => Some("SMB 1"),
        _ => None,
    }
}

#[cfg(target_vendor = "apple")]
fn network_disk(found: &rustix::fs::StatFs) -> Option<&'static str> {
    let name: Vec<u8> =
        found.f_fstypename.iter().map(|&unit| unit as u8).take_while(|&unit| unit != 0).collect();
    match name.as_slice() {
        b"nfs" => Some("NFS"),
        b"smbfs" => Some("SMB"),
        b"afpfs" => Some("AFP"),
        _ => None,
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn network_disk(_: &rustix::fs::StatFs) -> Option<&'static str> {
    None
}
