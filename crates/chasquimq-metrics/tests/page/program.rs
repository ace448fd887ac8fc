//! The program around the snippets of the documentation's page "Observe the engine": each stands in
//! a function, as it is printed, and its configuration runs a worker.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn implement_metrics_sink() -> ConsumerConfig {
    // SNIPPET implement_metrics_sink
    cfg
}

fn prometheus_adapter() -> Result<ConsumerConfig, AnyError> {
    // SNIPPET prometheus_adapter
    Ok(cfg)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let url = std::env::args().nth(1).ok_or("which server?")?;
    tracing::subscriber::set_global_default(Stdout)?;
    work(&url, implement_metrics_sink()).await?;
    work(&url, prometheus_adapter()?).await?;
    println!("{}", tokio::task::spawn_blocking(scrape).await??);
    Ok(())
}

/// Runs three jobs: one succeeds, one fails for good, one panics once. That makes four runs.
async fn work(url: &str, config: ConsumerConfig) -> Result<(), AnyError> {
    let queue_name = config.queue_name.clone();
    let producer =
        Producer::connect(url, ProducerConfig { queue_name, ..Default::default() }).await?;
    producer.add_bulk(vec!["succeeds", "fails", "panics"]).await?;
    let (left, stop) = (Arc::new(AtomicU32::new(4)), CancellationToken::new());
    let stopped = stop.clone();
    let handler = move |job: Job<String>| {
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            stop.cancel();
        }
        async move {
            match (job.payload.as_str(), job.attempt) {
                ("fails", _) => Err(HandlerError::unrecoverable("for good")),
                ("panics", 0) => panic!("once"),
                _ => Ok(()),
            }
        }
    };
    Consumer::new(url, config).run(handler, stopped).await?;
    Ok(())
}

fn scrape() -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", 9090))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Prints what this program says: level, message, fields.
struct Stdout;

impl Subscriber for Stdout {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }
    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.insert_str(0, &format!("{value:?}"));
                } else {
                    self.0.push_str(&format!(" {}={value:?}", field.name()));
                }
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        println!("{} {}", event.metadata().level(), line.0);
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
