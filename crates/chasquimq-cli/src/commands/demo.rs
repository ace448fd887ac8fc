//! `chasqui demo`: real work on the embedded server, in Python.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::Host;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        help = "Passed on to the demo: --url URL, --processes N"
    )]
    args: Vec<OsString>,
}

/// Becomes the demo: what it does is Python's part, and so is its exit code.
pub(crate) fn run(args: &Args, host: &Host) -> anyhow::Result<ExitCode> {
    let Some(mut demo) = host.python_module("chasquimq.demo") else {
        bail!(
            "the demo parses Python's standard library: run it with the Python package, pip install 'chasquimq[embedded]'"
        );
    };
    let failed = demo.args(&args.args).exec();
    Err(failed).context("cannot start Python")
}
