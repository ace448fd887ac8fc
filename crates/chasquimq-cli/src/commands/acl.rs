//! `chasqui acl`: the least rights that a user of the server needs.

use std::process::ExitCode;

use chasquimq::acl::{PASSWORD, Role, rule};
use chasquimq::{ServerVersion, doctor};

use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the ACL SETUSER command that makes a user who may do just this and no more.
    Print {
        /// What the user does; may be given several times.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<RoleName>,
        /// The only queue whose keys the user may touch.
        #[arg(long, value_name = "NAME")]
        queue: Option<String>,
        /// The keys of all queues, which is the default.
        #[arg(long, conflicts_with = "queue")]
        all: bool,
        /// The user's name; default: chasqui and the roles, such as chasqui-worker.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The server, such as redis-7.0 or valkey-8.1; default: the connected one is asked.
        #[arg(long, value_name = "VERSION", value_parser = str::parse::<ServerVersion>)]
        for_server: Option<ServerVersion>,
        #[command(flatten)]
        url: Url,
    },
}

/// What a user does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum RoleName {
    /// Adds jobs and takes delayed ones back.
    Producer,
    /// Runs jobs, deletes dead ones; sending them back takes both this and producer.
    Worker,
    /// Looks: inspect, dlq peek, events, exporter, doctor.
    Observer,
}

impl RoleName {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Producer => Role::Producer,
            Self::Worker => Role::Worker,
            Self::Observer => Role::Observer,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Observer => "observer",
        }
    }
}

pub(crate) fn run(args: Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let Action::Print { roles, queue, all: _, user, for_server, url } = args.action;
    let user = user.unwrap_or_else(|| user_of(&roles));
    let roles: Vec<Role> = roles.into_iter().map(RoleName::role).collect();
    let print = |server: &ServerVersion| {
        ui.line(rule(&user, &roles, queue.as_deref(), server)?)?;
        ui.note(format!("chasqui: for {server}; put the user's password in place of {PASSWORD}"));
        Ok(())
    };
    if let Some(server) = for_server {
        print(&server)?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = url.find(host, ui)?;
    until_interrupted(async { print(&doctor::server_version(&place.url).await?) })
}

fn user_of(roles: &[RoleName]) -> String {
    let names = roles.iter().map(|role| format!("-{}", role.name()));
    format!("chasqui{}", names.collect::<String>())
}
