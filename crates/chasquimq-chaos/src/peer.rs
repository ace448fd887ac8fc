//! Another queue in our place: its processes play the same roles, take the same options and write the same
//! lines down.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

/// How long nobody may have written anything for a queue to count as empty: longer than a job of a dead
/// worker is left alone by any of them.
const QUIET: Duration = Duration::from_secs(30);
/// How long that may take.
const FINISHING: Duration = Duration::from_mins(10);

/// Whose processes are harmed. `Default` is our own queue.
#[derive(Clone, Debug, Default)]
pub struct Peer(Option<Other>);

#[derive(Clone, Debug)]
struct Other {
    name: String,
    program: Vec<OsString>,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    /// Reads `NAME=PROGRAM ARGUMENTS`; the role and its options are added to the arguments.
    fn from_str(text: &str) -> Result<Self> {
        let (name, program) = text.split_once('=').context("no = in it: NAME=PROGRAM")?;
        let program = program.split_whitespace().map(OsString::from).collect();
        Ok(Self(Some(Other { name: name.to_owned(), program })))
    }
}

impl Peer {
    /// The name of the queue.
    pub fn name(&self) -> &str {
        let ours = concat!("ChasquiMQ ", env!("CARGO_PKG_VERSION"));
        self.0.as_ref().map_or(ours, |other| &other.name)
    }

    /// Whether the queue is ours.
    pub fn is_ours(&self) -> bool {
        self.0.is_none()
    }

    /// What starts a process.
    pub fn command(&self) -> Result<Vec<OsString>> {
        match &self.0 {
            Some(other) => Ok(other.program.clone()),
            None => Ok(vec![std::env::current_exe()?.into()]),
        }
    }
}

/// Waits until no process writes anything any more; whether that comes in time.
pub async fn quiet(folder: &Path) -> Result<bool> {
    let begun = Instant::now();
    let (mut size, mut since) = (written(folder)?, Instant::now());
    while begun.elapsed() < FINISHING {
        if since.elapsed() > QUIET {
            return Ok(true);
        }
        sleep(Duration::from_millis(200)).await;
        let now = written(folder)?;
        if now != size {
            (size, since) = (now, Instant::now());
        }
    }
    Ok(false)
}

/// Bytes of all logs.
fn written(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in folder.read_dir().context("reading the logs")? {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "log") {
            sum += file.metadata()?.len();
        }
    }
    Ok(sum)
}
