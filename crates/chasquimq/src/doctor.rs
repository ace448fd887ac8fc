//! Looks at a server before jobs depend on it: each check is one small function over what it said.

mod advisories;
mod checks;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::acl::{Right, Role, rights};
use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::Result;
use crate::store::{Denied, Exam, Hello, Store, redact};
use crate::version::ServerVersion;

/// PINGs whose median is the latency.
const PINGS: usize = 10;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// As it should be.
    Green,
    /// Works, and may hurt some day.
    Yellow,
    /// Does not work, or loses jobs.
    Red,
}

/// What one check found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What was looked at: `server`, `capabilities`, `advisories`, `eviction`, `persistence`,
    /// `replicas`, `clock`, `latency` or `rights`.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
}

/// What was found out about a server.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Where it is, without passwords.
    pub url: String,
    /// Which one it is.
    pub server: ServerVersion,
    /// The user that looked, where it may know its name.
    pub user: Option<String>,
    /// One or more of each check.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The worst of all findings.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Green)
    }
}

/// All that the checks look at.
struct Facts {
    hello: Hello,
    info: HashMap<String, String>,
    settings: Settings,
    /// By how much the server's clock is ahead of ours, in milliseconds.
    ahead_ms: i64,
    latency: Duration,
    user: Option<String>,
    roles: Vec<Role>,
    queue: Option<String>,
    denied: Vec<(&'static Right, Denied)>,
}

/// What CONFIG tells; `None` where the user may not ask.
struct Settings {
    fsync: Option<String>,
    save: Option<String>,
    min_replicas: Option<String>,
}

/// Examines the server: whether it can be trusted with jobs, and whether this user may do what `roles`
/// need, with the keys of `queue` (default: `default`). Changes nothing. Takes some round trips.
///
/// # Errors
/// Those of the connection, and [`ErrorKind::Config`](crate::ErrorKind::Config) for a URL or a name of a
/// queue that cannot be.
pub async fn examine(url: &str, queue: Option<&str>, roles: &[Role]) -> Result<Diagnosis> {
    let exam = Exam::connect(url, queue.unwrap_or("default"), &ConnectionTuning::default()).await?;
    let facts = ask(&exam, queue, roles).await;
    exam.close().await;
    let facts = facts.map_err(|error| error.context(format_args!("examining {}", redact(url))))?;
    let findings = checks::all(&facts);
    Ok(Diagnosis { url: redact(url), server: facts.hello.server, user: facts.user, findings })
}

/// Asks a server which one it is.
///
/// # Errors
/// Those of the connection, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a server
/// that is too old.
pub async fn server_version(url: &str) -> Result<ServerVersion> {
    let (tuning, events) = (ConnectionTuning::default(), EventsConfig::default());
    let store = Store::connect(url, "default", &tuning, &events, None).await?;
    store.close().await;
    Ok(store.server().clone())
}

async fn ask(exam: &Exam, queue: Option<&str>, roles: &[Role]) -> Result<Facts> {
    let hello = exam.hello().await?;
    let settings = Settings {
        fsync: exam.setting("appendfsync").await?,
        save: exam.setting("save").await?,
        min_replicas: exam.setting("min-replicas-to-write").await?,
    };
    let mut pings = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        pings.push(exam.ping().await?);
    }
    pings.sort_unstable();
    Ok(Facts {
        info: exam.info().await?,
        settings,
        ahead_ms: ahead(exam).await?,
        latency: pings[PINGS / 2],
        user: exam.user().await?,
        roles: roles.to_vec(),
        queue: queue.map(ToOwned::to_owned),
        denied: exam.denied(rights(roles, &hello.server)).await?,
        hello,
    })
}

/// By how much the server's clock is ahead, its answer taken for one of the middle of its journey.
async fn ahead(exam: &Exam) -> Result<i64> {
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let asked = now();
    let told = exam.time().await?.as_millis() as i64;
    Ok(told - i64::midpoint(asked, now()))
}
