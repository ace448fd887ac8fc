//! `chasqui doctor`: whether a server can be trusted with jobs, and what to do if not.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use chasquimq::acl::Role;
use chasquimq::doctor::{Diagnosis, Finding, Verdict, examine};
use chasquimq::redact;
use serde_json::{Value, json};

use super::acl::RoleName;
use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

/// When nothing could be examined.
const UNREACHABLE: u8 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 all is green or yellow, 1 something is red, 2 no connection.")]
pub(crate) struct Args {
    /// The queue whose keys the user must be able to use; default: the queue named default.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// What the user must be able to do; may be given several times; default: producer and worker.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    url: Url,
}

pub(crate) fn run(args: &Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let place = args.url.find(host, ui)?;
    let mut roles: Vec<Role> = args.roles.iter().map(|role| role.role()).collect();
    if roles.is_empty() {
        roles = vec![Role::Producer, Role::Worker];
    }
    let mut code = ExitCode::SUCCESS;
    until_interrupted(async {
        match examine(&place.url, args.queue.as_deref(), &roles).await {
            Ok(diagnosis) => {
                code = ExitCode::from(u8::from(diagnosis.verdict() == Verdict::Red));
                if args.json { ui.line(as_json(&diagnosis)) } else { show(&diagnosis, ui) }
            }
            Err(error) => {
                code = ExitCode::from(UNREACHABLE);
                if args.json {
                    let (url, error) = (redact(&place.url), error.to_string());
                    ui.line(json!({"url": url, "verdict": "unreachable", "error": error}))
                } else {
                    ui.error(&error.into());
                    Ok(())
                }
            }
        }
    })?;
    Ok(code)
}

fn show(diagnosis: &Diagnosis, ui: &Ui) -> anyhow::Result<()> {
    let colours = Ui::colours();
    let user = diagnosis.user.as_ref().map(|user| format!(" as user {user}")).unwrap_or_default();
    ui.line(format!("{}{user}", diagnosis.url))?;
    for finding in &diagnosis.findings {
        ui.line(readable(finding, colours))?;
        if !finding.advice.is_empty() {
            ui.line(format!("{:22}{}", "", finding.advice))?;
        }
    }
    Ok(())
}

fn readable(finding: &Finding, colours: bool) -> String {
    let style = if colours { colour(finding.verdict) } else { Style::new() };
    let verdict = name(finding.verdict);
    format!("{style}{verdict:<6}{style:#}  {:<12}  {}", finding.check, finding.found)
}

fn as_json(diagnosis: &Diagnosis) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "check": finding.check,
            "verdict": name(finding.verdict),
            "found": finding.found,
            "advice": finding.advice,
        })
    };
    json!({
        "url": diagnosis.url,
        "server": diagnosis.server.server,
        "version": diagnosis.server.version,
        "user": diagnosis.user,
        "verdict": name(diagnosis.verdict()),
        "findings": diagnosis.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Green => "green",
        Verdict::Yellow => "yellow",
        Verdict::Red => "red",
    }
}

fn colour(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Green => AnsiColor::Green,
        Verdict::Yellow => AnsiColor::Yellow,
        Verdict::Red => AnsiColor::Red,
    };
    colour.on_default()
}
