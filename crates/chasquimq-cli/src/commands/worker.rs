//! `chasqui worker`: a process of Python workers.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::Host;
use crate::place::Url;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// MODULE:NAME of a Worker or of a list of them; NAME is `worker` when left out.
    workers: String,
    /// Seconds that running jobs may take after a signal; another hands them back at once.
    #[arg(long, default_value_t = 30)]
    grace: u32,
    #[command(flatten)]
    url: Url,
}

/// Becomes the process: Python imports the workers, runs them and has its exit code.
pub(crate) fn run(args: &Args, host: &Host) -> anyhow::Result<ExitCode> {
    let Some(mut python) = host.python_module("chasquimq._serve") else {
        bail!("Python workers need the Python package's chasqui: pip install chasquimq");
    };
    if let Some(url) = args.url.given() {
        python.env("CHASQUIMQ_URL", url);
    }
    let failed = python.args([&args.workers, &args.grace.to_string()]).exec();
    Err(failed).context("cannot start Python")
}
