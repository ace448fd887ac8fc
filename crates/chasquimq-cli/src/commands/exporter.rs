//! `chasqui exporter`: the metrics of queues over HTTP, for processes that have no worker.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chasquimq::{Producer, ProducerConfig};
use chasquimq_metrics::{Exporter, Inspector, Probe};
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use crate::place::Url;
use crate::{Host, Ui, until_interrupted};

/// How often each queue is counted.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A queue to count; may be given several times, or several names at once.
    #[arg(long = "queue", value_name = "NAME", required = true, num_args = 1..)]
    queues: Vec<String>,
    #[arg(
        long = "addr",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9090",
        help = "Where to listen; 0.0.0.0:PORT to be seen from outside, port 0 for any free one"
    )]
    address: String,
    #[command(flatten)]
    url: Url,
}

pub(crate) fn run(args: &Args, host: &Host, ui: &Ui) -> anyhow::Result<ExitCode> {
    let place = args.url.find(host, ui)?;
    until_interrupted(async {
        let exporter = Exporter::start(&args.address).await?;
        let mut watched = Vec::new();
        for queue in &args.queues {
            let config = ProducerConfig { queue_name: queue.clone(), ..Default::default() };
            let producer = Producer::connect(&place.url, config).await?;
            let inspector = Arc::new(Inspector::new(&exporter, producer));
            watched.push((exporter.watch(Arc::<Inspector>::clone(&inspector)), inspector));
        }
        let queues = args.queues.join(", ");
        ui.line(format!("metrics of {queues} on http://{}/metrics", exporter.address()))?;
        join_all(watched.iter().map(|(_, inspector)| count(inspector, ui))).await;
        Ok(())
    })
}

/// Counts a queue for ever; says when that begins to fail, and when it works again.
async fn count(inspector: &Inspector, ui: &Ui) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let queue = Probe::queue(inspector);
        match inspector.look().await {
            Err(error) if !failing => ui.note(format!(
                "chasqui: queue {queue} cannot be counted, its gauges are unknown until it can: {error}"
            )),
            Ok(_) if failing => ui.note(format!("chasqui: queue {queue} is counted again")),
            Ok(_) | Err(_) => {}
        }
        failing = !inspector.ready();
    }
}
