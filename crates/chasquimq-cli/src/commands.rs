//! The commands; each file is one: its arguments, and what it does with them.

mod acl;
mod demo;
mod dlq;
mod doctor;
mod embedded;
mod events;
mod exporter;
mod inspect;
mod worker;

use std::process::ExitCode;

use crate::{Host, Ui};

/// One variant a command; its text is the first line of the command's help.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Parse Python's standard library with background jobs, on the embedded server.
    Demo(demo::Args),
    /// Run the Python workers of a program until SIGTERM or Ctrl-C.
    ///
    /// Workers that were made with a `redis_url` of their own keep it, whatever --url says.
    Worker(worker::Args),
    /// Look after the development server that embedded:// URLs start.
    Embedded(embedded::Args),
    /// Follow what happens to the jobs of a queue.
    Events(events::Args),
    /// Count what a queue holds.
    Inspect(inspect::Args),
    /// Look at dead jobs, send them back, delete them.
    Dlq(dlq::Args),
    /// Examine a server: whether it can be trusted with jobs, and what to do if not.
    Doctor(doctor::Args),
    /// Say which rights a user of the server needs.
    Acl(acl::Args),
    /// Show the metrics of queues over HTTP, for Prometheus and autoscalers, without a worker.
    Exporter(exporter::Args),
}

impl Command {
    /// Does the command. A code other than 0 says that it worked and what it found is bad.
    pub(crate) fn run(self, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => demo::run(&args, host),
            Self::Worker(args) => worker::run(&args, host),
            Self::Embedded(args) => embedded::run(args, host, ui),
            Self::Events(args) => events::run(&args, host, ui),
            Self::Inspect(args) => inspect::run(&args, host, ui),
            Self::Dlq(args) => dlq::run(args, host, ui),
            Self::Doctor(args) => doctor::run(&args, host, ui),
            Self::Acl(args) => acl::run(args, host, ui),
            Self::Exporter(args) => exporter::run(&args, host, ui),
        }
    }
}
