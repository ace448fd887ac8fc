//! Counts what a process does by valgrind's callgrind: the instructions of its user space, and the
//! memory it asks for.

use std::collections::HashSet;
use std::ops::Sub;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// The C library's functions that all allocations of a Rust program end in.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// What a process did in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Instructions of all its threads.
    pub instructions: f64,
    /// Blocks of memory it asked for; one that grows counts again.
    pub allocations: f64,
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            instructions: self.instructions - less.instructions,
            allocations: self.allocations - less.allocations,
        }
    }
}

/// Runs a program to its end, about fifty times slower than it is.
///
/// # Errors
/// When valgrind is not there, or the program fails.
pub async fn count(program: &Path, args: &[&str]) -> Result<Count> {
    let dir = tempfile::tempdir()?;
    let profile = dir.path().join("profile");
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(args)
        .kill_on_drop(true)
        .status()
        .await
        .context("valgrind was not started: install it, on Debian with apt-get install valgrind")?;
    ensure!(status.success(), "{} failed under valgrind: {status}", program.display());
    read(&std::fs::read_to_string(&profile)?)
}

/// Reads a profile. A function is written with its name once, `(12) malloc`, and then as `(12)`.
fn read(profile: &str) -> Result<Count> {
    let (mut allocators, mut callee_allocates) = (HashSet::new(), false);
    let (mut allocations, mut instructions) = (0.0, None);
    for line in profile.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        match key {
            "fn" | "cfn" => {
                let (id, name) = value.split_once(' ').unwrap_or((value, ""));
                if ALLOCATORS.contains(&name) {
                    allocators.insert(id);
                }
                callee_allocates = allocators.contains(id);
            }
            "calls" if callee_allocates => {
                let (calls, _) = value.split_once(' ').context("calls without a target")?;
                allocations += calls.parse::<f64>()?;
            }
            "summary" => instructions = Some(value.trim().parse()?),
            _ => {}
        }
    }
    let instructions = instructions.context("callgrind's profile has no summary")?;
    Ok(Count { instructions, allocations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read() -> Result<()> {
        let profile = "events: Ir\nfn=(1) main\n3 10\ncfn=(2) malloc\ncalls=3 0\n3 60\ncfn=(3) free\n\
                       calls=4 0\n3 20\n\nfn=(2)\n0 60\n\nfn=(4) grow\ncfn=(2)\ncalls=2 +4\n* 40\n\
                       summary: 190\ntotals: 190\n";
        assert_eq!(read(profile)?, Count { instructions: 190.0, allocations: 5.0 });
        assert!(read("events: Ir\n").is_err());
        Ok(())
    }
}
