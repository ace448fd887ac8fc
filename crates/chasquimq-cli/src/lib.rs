//! The `chasqui` command line, as a library: the binary and the Python package run the same commands.
//!
//! One file in `commands/` is one command: its clap `Args`, and a `run` that does it. Only this crate
//! prints, and only through [`Ui`].

mod commands;
mod host;
mod place;
mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

pub use host::Host;
pub use ui::Ui;

use ui::Closed;

/// Background jobs for Python and Rust on Redis and Valkey.
#[derive(Debug, Parser)]
#[command(name = "chasqui", bin_name = "chasqui", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

/// Runs one command line; the first of `args` is the program's name.
///
/// The exit code is 0 when the command did its work, 1 when it failed (one sentence on stderr says why)
/// and 2 when the command line is wrong. A reader that closes the output early, as `head` does, is no
/// failure.
pub fn run(args: impl IntoIterator<Item = OsString>, host: &Host) -> ExitCode {
    let ui = Ui::stdio();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&ui, &error),
    };
    match cli.command.run(host, &ui) {
        Ok(code) => code,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Help and version are answers, not errors: they go to stdout and succeed.
fn usage(ui: &Ui, error: &clap::Error) -> ExitCode {
    if let Err(unwritten) = error.print()
        && unwritten.kind() != std::io::ErrorKind::BrokenPipe
    {
        ui.error(&unwritten.into());
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Runs a command's work to its end, or until Ctrl-C or SIGTERM, which are no failure.
fn until_interrupted(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            done = work => done?,
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}
