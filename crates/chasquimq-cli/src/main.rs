//! The `chasqui` program.

use std::process::ExitCode;

use chasquimq_cli::Host;

fn main() -> ExitCode {
    chasquimq_cli::run(std::env::args_os(), &Host::default())
}
