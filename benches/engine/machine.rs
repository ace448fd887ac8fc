//! The machine: what it is, and which core runs what.

use std::fs;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// What figures were measured on; no name of a host.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Machine {
    /// The CPU's model.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The compiler's version.
    pub rustc: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |model| model.trim_start_matches(['\t', ' ', ':']));
        let rustc = Command::new("rustc").arg("--version").output();
        let rustc =
            rustc.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).into());
        Self {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rustc: rustc.split_whitespace().nth(1).unwrap_or("unknown").to_owned(),
        }
    }
}

/// Binds all threads of a process to one core; false where that cannot be done.
pub(crate) fn pin(pid: u32, core: usize) -> bool {
    let taskset = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    taskset.is_ok_and(|status| status.success())
}
