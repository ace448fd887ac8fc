//! `chasqui dlq`: looks at dead jobs, sends them back, deletes them.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use anyhow::bail;
use chasquimq::{Dlq, DlqEntry, DlqReason, Producer, ProducerConfig};
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the oldest dead jobs, and how many died of what.
    Peek {
        /// The queue.
        queue: String,
        /// Jobs to show, at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        url: Url,
        #[command(flatten)]
        choice: Choice,
    },
    /// Send the oldest dead jobs back to the queue, with fresh attempts.
    Replay(Change),
    /// Delete the oldest dead jobs for good, unreadable ones too.
    Purge(Change),
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The queue.
    queue: String,
    /// Jobs that it is done to, at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    url: Url,
    #[command(flatten)]
    choice: Choice,
}

// Which dead jobs are meant. As a doc comment this would take the place of the command's own.
#[derive(Clone, Debug, clap::Args)]
#[command(
    next_help_heading = "Only some dead jobs (what is named must all fit; repeat an option for alternatives)"
)]
struct Choice {
    /// Those of this id.
    #[arg(long, value_name = "ID")]
    job_id: Vec<String>,
    /// Those of this name.
    #[arg(long)]
    name: Vec<String>,
    /// Those that died of this.
    #[arg(long, value_parser = PossibleValuesParser::new(DlqReason::NAMES))]
    reason: Vec<String>,
}

impl Choice {
    fn of(self, producer: &Producer<()>) -> Dlq<'_> {
        let dlq = self.job_id.into_iter().fold(producer.dlq(), Dlq::with_job_id);
        let dlq = self.name.into_iter().fold(dlq, Dlq::with_name);
        self.reason.into_iter().fold(dlq, Dlq::with_reason)
    }

    fn is_any(&self) -> bool {
        self.job_id.is_empty() && self.name.is_empty() && self.reason.is_empty()
    }
}

/// The end of a question: nothing for any.
impl Display for Choice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kinds = [("job id", &self.job_id), ("name", &self.name), ("reason", &self.reason)];
        for (kind, values) in kinds.into_iter().filter(|(_, values)| !values.is_empty()) {
            write!(f, ", {kind} {}", values.join(" or "))?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Peek { queue, limit, json, url, choice } => {
            let place = url.find(host, ui)?;
            until_interrupted(async {
                let none = if choice.is_any() { "no dead jobs" } else { "no dead job fits" };
                let dead = choice.of(&connect(&place.url, &queue).await?).peek(limit).await?;
                if json {
                    dead.iter().try_for_each(|entry| ui.line(as_json(entry)))
                } else {
                    show(&dead, none, ui)
                }
            })
        }
        Action::Replay(Change { queue, limit, yes, url, choice }) => {
            let place = url.find(host, ui)?;
            if !yes {
                confirm(&format!("Send up to {limit} dead jobs back to {queue}{choice}?"), ui)?;
            }
            until_interrupted(async {
                let replayed = choice.of(&connect(&place.url, &queue).await?).replay(limit).await?;
                ui.line(format!("{replayed} jobs sent back to {queue}"))
            })
        }
        Action::Purge(Change { queue, limit, yes, url, choice }) => {
            let place = url.find(host, ui)?;
            if !yes {
                confirm(
                    &format!("Delete up to {limit} dead jobs of {queue} for good{choice}?"),
                    ui,
                )?;
            }
            until_interrupted(async {
                let purged = choice.of(&connect(&place.url, &queue).await?).purge(limit).await?;
                ui.line(format!("{purged} dead jobs of {queue} deleted"))
            })
        }
    }
}

async fn connect(url: &str, queue: &str) -> chasquimq::Result<Producer<()>> {
    let config = ProducerConfig { queue_name: queue.to_owned(), ..Default::default() };
    Producer::connect(url, config).await
}

fn confirm(question: &str, ui: &Ui) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("this changes the queue: say --yes");
    }
    ui.note(format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { bail!("nothing was changed") }
}

fn show(dead: &[DlqEntry], none: &str, ui: &Ui) -> anyhow::Result<()> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in dead {
        *reasons.entry(&entry.reason).or_default() += 1;
        let detail = entry.detail.as_deref().unwrap_or_default();
        let detail = detail.lines().next().unwrap_or_default();
        let (id, name) = (&entry.job_id, &entry.name);
        ui.line(format!(
            "{id:<26}  {name:<20}  {:<17}  run {}  {detail}",
            entry.reason, entry.attempt
        ))?;
    }
    let counts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    ui.note(if counts.is_empty() { none.to_owned() } else { counts.join(", ") });
    Ok(())
}

fn as_json(entry: &DlqEntry) -> Value {
    json!({
        "dlq_id": entry.dlq_id,
        "source_id": entry.source_id,
        "job_id": entry.job_id,
        "name": entry.name,
        "reason": entry.reason,
        "detail": entry.detail,
        "attempt": entry.attempt,
        "lost": entry.lost,
        "failed_at_ms": entry.failed_at_ms,
        "data": data(&entry.payload),
    })
}

/// Null where JSON cannot hold them, such as bytes, and where they are no msgpack.
fn data(mut payload: &[u8]) -> Value {
    let data = rmp_serde::from_read(&mut payload);
    data.ok().filter(|_| payload.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_what_is_chosen() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let mut choice = Choice { job_id: vec![], name: vec![], reason: vec![] };
        assert_eq!((choice.to_string().as_str(), choice.is_any()), ("", true));
        choice.name = texts(&["send", "pay"]);
        choice.reason = texts(&["malformed"]);
        let told = (choice.to_string(), choice.is_any());
        assert_eq!(told, (", name send or pay, reason malformed".to_owned(), false));
    }

    #[test]
    fn data_are_shown_where_json_can_hold_them() {
        assert_eq!(data(b"\x81\xa2to\xa3ada"), json!({"to": "ada"}));
        for payload in [&b""[..], b"no job", b"\xc4\x01x", b"\x81\x01\x02", b"\xc1"] {
            assert_eq!(data(payload), Value::Null, "{payload:?}");
        }
    }
}
