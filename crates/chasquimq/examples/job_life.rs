//! A job's life: added, run, failed once, run again.
//!
//! `cargo run -p chasquimq --example job_life -- redis://127.0.0.1:6379`

use std::time::Duration;

use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let queue_name = format!("job-life-{}", std::process::id());
    let config = ProducerConfig { queue_name: queue_name.clone(), ..Default::default() };
    let producer = Producer::connect(&url, config).await?;
    let id = producer.add_in(Duration::from_millis(50), "Ada".to_owned()).await?;
    println!("added {id}");

    let (done, stop) = (CancellationToken::new(), CancellationToken::new());
    let handler = {
        let done = done.clone();
        move |job: Job<String>| {
            let done = done.clone();
            async move {
                println!("run {} greets {}", job.attempt + 1, job.payload);
                if job.attempt == 0 {
                    return Err(HandlerError::new("the first run fails"));
                }
                done.cancel();
                Ok(())
            }
        }
    };
    let consumer = Consumer::new(url, ConsumerConfig { queue_name, ..Default::default() });
    let running = tokio::spawn(consumer.run(handler, stop.clone()));
    done.cancelled().await;
    stop.cancel();
    println!("{:?}", running.await??);
    Ok(())
}
