//! `chasqui inspect`: what a queue holds now.

use std::process::ExitCode;
use std::time::Duration;

use chasquimq::{Producer, ProducerConfig, QueueCounts};
use serde_json::json;

use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The queue.
    queue: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    url: Url,
}

pub(crate) fn run(args: &Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let place = args.url.find(host, ui)?;
    until_interrupted(async {
        let config = ProducerConfig { queue_name: args.queue.clone(), ..Default::default() };
        let counts = Producer::<()>::connect(&place.url, config).await?.counts().await?;
        if args.json { ui.line(as_json(&args.queue, counts)) } else { show(counts, ui) }
    })
}

fn as_json(queue: &str, counts: QueueCounts) -> serde_json::Value {
    json!({
        "queue": queue,
        "ready": counts.ready,
        "in_flight": counts.in_flight,
        "delayed": counts.delayed,
        "retrying": counts.retrying,
        "dead": counts.dead,
        "oldest_ready_age_ms": counts.oldest_ready_age_ms,
    })
}

fn show(counts: QueueCounts, ui: &Ui) -> anyhow::Result<()> {
    let age = Duration::from_millis(counts.oldest_ready_age_ms);
    ui.fields(&[
        ("ready", counts.ready.to_string()),
        ("in flight", counts.in_flight.to_string()),
        ("delayed", counts.delayed.to_string()),
        ("retrying", counts.retrying.to_string()),
        ("dead", counts.dead.to_string()),
        ("oldest ready for", humantime::format_duration(age).to_string()),
    ])
}
