//! `chasqui events`: follows what happens to the jobs of a queue.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use chasquimq::events::{Event, From, Tail, TailOptions, Tailed, tail};
use serde_json::{Map, Value, json};

use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

/// Values of the readable form are cut to so many characters.
const MOST_CHARS: usize = 80;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The queue.
    queue: String,
    #[arg(
        long,
        value_name = "ID",
        default_value = "$",
        help = "Where to begin: $ = now, 0 = the oldest kept, or the id of the last event seen"
    )]
    from: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Print only events of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    #[command(flatten)]
    url: Url,
}

pub(crate) fn run(args: &Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let place = args.url.find(host, ui)?;
    until_interrupted(async {
        let options = TailOptions { from: from(&args.from), ..Default::default() };
        let tail = tail(&place.url, &args.queue, options).await?;
        tokio::select! {
            failed = follow(tail, args, ui) => failed,
            closed = ui.closed() => Err(closed),
        }
    })
}

fn from(place: &str) -> From {
    match place {
        "$" => From::Now,
        "0" | "0-0" => From::Beginning,
        id => From::After(id.to_owned()),
    }
}

async fn follow(mut tail: Tail, args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let colours = Ui::colours();
    loop {
        match tail.next().await? {
            Tailed::Event(event) if !args.name.is_empty() && !args.name.contains(&event.name) => {}
            Tailed::Event(event) if args.json => ui.line(as_json(&event))?,
            Tailed::Event(event) => ui.line(readable(&event, colours))?,
            Tailed::Gap { after } => ui.note(format!(
                "chasqui: events after {after} may be missing: the stream keeps only the newest"
            )),
        }
    }
}

fn as_json(event: &Event) -> Value {
    let fields = event.fields.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    json!({
        "id": event.id,
        "name": event.name,
        "job_id": event.job_id,
        "job_name": event.job_name,
        "fields": fields.collect::<Map<String, Value>>(),
    })
}

fn readable(event: &Event, colours: bool) -> String {
    let style = if colours { colour(&event.name) } else { Style::new() };
    let mut parts = vec![
        time(&event.id),
        format!("{style}{:<15}{style:#}", event.name),
        event.job_id.clone(),
        event.job_name.clone(),
    ];
    parts.extend(event.fields.iter().map(|(name, value)| format!("{name}={}", cut(value))));
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// The time in an event's id, as RFC 3339.
fn time(id: &str) -> String {
    let ms = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// One line, at most 80 characters, so that an error text does not fill the screen.
fn cut(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(MOST_CHARS).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    if short.contains(' ') { format!("{short:?}") } else { short }
}

fn colour(name: &str) -> Style {
    let colour = match name {
        "completed" => AnsiColor::Green,
        "failed" | "retry-scheduled" => AnsiColor::Yellow,
        "dlq" => AnsiColor::Red,
        _ => AnsiColor::Cyan,
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "1700000000123-4".into(),
            name: "failed".into(),
            job_id: "42".into(),
            job_name: "send".into(),
            fields: vec![
                ("attempt".into(), "1".into()),
                ("reason".into(), "no route\nat line 1".into()),
            ],
        }
    }

    #[test]
    fn a_readable_line_holds_all_in_one_line() {
        let line = readable(&event(), false);
        assert_eq!(
            line,
            "2023-11-14T22:13:20.123Z failed          42 send attempt=1 reason=\"no route…\""
        );
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = as_json(&event()).to_string();
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["fields"]["reason"], "no route\nat line 1");
    }
}
