//! A job's life: added, run, failed once, run again.
//!
//! `cargo run -p chasquimq --example job_life -- redis://127.0.0.1:6379`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let queue_name = "job-life".to_owned();
    let config = ProducerConfig { queue_name: queue_name.clone(), ..Default::default() };
    let producer = Producer::connect(&url, config).await?;
    let id = producer.add_in(Duration::from_millis(50), "Ada".to_owned()).await?;
    println!("added {id}");

    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let greet = move |job: Job<String>| {
        let stopper = stopper.clone();
        async move {
            println!("run {} greets {}", job.attempt + 1, job.payload);
            if job.attempt == 0 {
                return Err(HandlerError::new("the first run fails"));
            }
            stopper.cancel();
            Ok(())
        }
    };
    let consumer = Consumer::new(url, ConsumerConfig { queue_name, ..Default::default() });
    println!("{:?}", consumer.run(greet, stop).await?);
    Ok(())
}
