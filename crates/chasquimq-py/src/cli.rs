//! The `chasqui` command line, carried by the wheel.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use chasquimq_cli::Host;
use pyo3::prelude::*;

/// Runs a command line (the program's name first); returns its exit code.
#[pyfunction]
pub fn run_cli(
    py: Python<'_>,
    argv: Vec<OsString>,
    server_binaries: Vec<PathBuf>,
    python: PathBuf,
) -> u8 {
    let host = Host::default().server_binaries(server_binaries).python(python);
    let code = py.detach(|| chasquimq_cli::run(argv, &host));
    // An exit code tells its number to nobody.
    (0..=u8::MAX).find(|&number| ExitCode::from(number) == code).unwrap_or(1)
}
