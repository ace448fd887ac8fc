//! `chasqui embedded`: looks at the development server, ends it, deletes its data.

use std::process::ExitCode;

use chasquimq_embedded::{DEFAULT_URL, Options, State, Status};
use serde_json::{Value, json};

use crate::{Host, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether the server runs, and where.
    Status {
        #[command(flatten)]
        target: Target,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// End the server, whoever uses it; the data are kept.
    Stop(Target),
    /// End the server and delete its data.
    Reset {
        #[command(flatten)]
        target: Target,
        /// Also while other processes use the server.
        #[arg(long)]
        force: bool,
    },
    /// Print the folder that holds the data, the log and the socket.
    Path(Target),
}

/// Which server is meant; without arguments the user's default one.
#[derive(Debug, clap::Args)]
struct Target {
    #[arg(
        help = "The URL: embedded:// (default), embedded://name or embedded:///absolute/path",
        default_value = DEFAULT_URL,
        hide_default_value = true,
        conflicts_with = "name"
    )]
    url: String,
    #[arg(long, help = "The name, as in embedded://name")]
    name: Option<String>,
}

impl Target {
    fn url(&self) -> String {
        self.name.as_ref().map_or_else(|| self.url.clone(), |name| format!("{DEFAULT_URL}{name}"))
    }
}

pub(crate) fn run(args: Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let options = Options::from_env().candidates(host.server_binaries.iter().cloned());
    match args.action {
        Action::Status { target, json } => status(&target.url(), json, &options, ui)?,
        Action::Stop(target) => stop(&target.url(), &options, ui)?,
        Action::Reset { target, force } => reset(&target.url(), force, &options, ui)?,
        Action::Path(target) => {
            ui.line(chasquimq_embedded::path(&target.url(), &options)?.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(url: &str, as_json: bool, options: &Options, ui: &Ui) -> anyhow::Result<()> {
    let status = chasquimq_embedded::status(url, options)?;
    if as_json { ui.line(to_json(url, &status)) } else { ui.fields(&to_fields(url, &status)) }
}

fn stop(url: &str, options: &Options, ui: &Ui) -> anyhow::Result<()> {
    let ended = chasquimq_embedded::stop(url, options)?;
    ui.line(if ended { format!("{url} is stopped") } else { format!("{url} was not running") })
}

fn reset(url: &str, force: bool, options: &Options, ui: &Ui) -> anyhow::Result<()> {
    let deleted = chasquimq_embedded::reset(url, options, force)?;
    ui.line(if deleted {
        format!("{url} is stopped and its data are deleted")
    } else {
        format!("{url} has no data")
    })
}

fn state_name(state: &State) -> &'static str {
    match state {
        State::Running { .. } => "running",
        State::Loading => "loading",
        State::Stopped => "stopped",
        _ => "unresponsive",
    }
}

fn to_fields(url: &str, status: &Status) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("url", url.to_owned()),
        ("state", state_name(&status.state).to_owned()),
        ("folder", status.folder.display().to_string()),
    ];
    if let State::Running { url, info } = &status.state {
        fields.extend([
            ("connect", url.clone()),
            ("server", format!("{} {}", info.product, info.version)),
            ("pid", info.pid.to_string()),
            ("uptime", format!("{:?}", info.uptime)),
            ("clients", info.clients.to_string()),
            ("memory", format!("{:.1} MiB", info.memory as f64 / f64::from(1 << 20))),
        ]);
    }
    fields
}

fn to_json(url: &str, status: &Status) -> Value {
    let mut object = json!({
        "url": url,
        "state": state_name(&status.state),
        "folder": status.folder,
    });
    if let State::Running { url, info } = &status.state {
        object["connect"] = json!(url);
        object["server"] = json!(info.product);
        object["version"] = json!(info.version);
        object["pid"] = json!(info.pid);
        object["uptime_seconds"] = json!(info.uptime.as_secs());
        object["clients"] = json!(info.clients);
        object["memory_bytes"] = json!(info.memory);
    }
    object
}
