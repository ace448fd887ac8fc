//! A producer process: adds jobs at a steady pace and writes down what each add answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chasquimq::{AddOptions, Error, JobId, Producer, ProducerConfig};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::log::{Answer, Line, Log, now};
use crate::process::patiently;
use crate::workload::{self, Kind, Order, Payload};

/// Adds that may await their answers at once.
const MOST_OPEN: usize = 64;
/// Jobs of one bulk, and of one entry of it.
const BULK: usize = 8;
const PACK: usize = 4;
/// Numbers of one producer's jobs begin here, times its own number.
const NUMBERS: u64 = 1_000_000_000;

/// What the runner tells a producer.
#[derive(Args)]
pub struct Task {
    #[arg(long)]
    url: String,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    number: u64,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    millis: u64,
    /// Jobs a second.
    #[arg(long)]
    rate: u64,
}

struct Adding {
    producer: Producer<Payload>,
    log: Log,
}

/// Adds until its time is over and every answer is written down.
pub async fn run(task: Task) -> Result<()> {
    let adding =
        Arc::new(Adding { producer: connect(&task.url).await?, log: Log::open(&task.log)? });
    let (begun, length) = (Instant::now(), Duration::from_millis(task.millis));
    let mut rng = StdRng::seed_from_u64(task.seed.wrapping_add(task.number));
    let mut ticks = interval(Duration::from_secs_f64(1.0 / task.rate as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Arc::new(Semaphore::new(MOST_OPEN));
    let (mut adds, mut bulk) = (JoinSet::new(), Vec::new());
    for n in task.number * NUMBERS.. {
        ticks.tick().await;
        if begun.elapsed() >= length {
            break;
        }
        let order = workload::order(&mut rng, n, begun.elapsed());
        let is_common = order.key.is_none() && order.delay.is_zero();
        let orders = match bulk.len() {
            _ if !is_common => vec![order],
            0 if rng.random_bool(0.8) => vec![order],
            len => {
                bulk.push(order);
                if len + 1 < BULK {
                    continue;
                }
                std::mem::take(&mut bulk)
            }
        };
        let permit = Arc::clone(&open).acquire_owned().await?;
        let adding = Arc::clone(&adding);
        adds.spawn(async move {
            let _permit = permit;
            adding.add(orders).await
        });
        while let Some(done) = adds.try_join_next() {
            done.context("an add panicked")??;
        }
    }
    while let Some(done) = adds.join_next().await {
        done.context("an add panicked")??;
    }
    adding.producer.shutdown().await;
    Ok(())
}

async fn connect(url: &str) -> Result<Producer<Payload>> {
    let config = ProducerConfig {
        queue_name: workload::QUEUE.into(),
        connection: workload::tuning(),
        ..ProducerConfig::default()
    };
    patiently(|| Producer::connect(url, config.clone())).await
}

impl Adding {
    async fn add(&self, orders: Vec<Order>) -> Result<()> {
        let answer = self.send(&orders).await?;
        let [Order { payload: Payload { kind: Kind::Keyed, .. }, .. }] = &orders[..] else {
            return Ok(());
        };
        if answer == Answer::Unknown {
            // An id of one's own makes it safe to add again.
            sleep(Duration::from_millis(100)).await;
            self.send(&orders).await?;
        }
        Ok(())
    }

    async fn send(&self, orders: &[Order]) -> Result<Answer> {
        for Order { payload, key, delay } in orders {
            let Payload { n, kind, .. } = *payload;
            let (key, hash) = (key.clone(), payload.fingerprint());
            let delay_ms = delay.as_millis() as u64;
            self.log.write(&Line::Sent { n, key, hash, kind, delay_ms, at: now() })?;
        }
        let answer = match self.store(orders).await {
            Ok(_) => Answer::Ok,
            Err(error) if error.kind().is_outcome_unknown() => Answer::Unknown,
            Err(_) => Answer::Error,
        };
        for order in orders {
            self.log.write(&Line::Answered { n: order.payload.n, answer, at: now() })?;
        }
        Ok(answer)
    }

    async fn store(&self, orders: &[Order]) -> Result<Vec<JobId>, Error> {
        let [Order { payload, key, delay }] = orders else {
            let payloads = orders.iter().map(|order| order.payload.clone()).collect();
            return self.producer.add_bulk_packed(payloads, PACK).await;
        };
        let options = AddOptions { id: key.clone(), ..AddOptions::new() };
        let payload = payload.clone();
        let added = if delay.is_zero() {
            self.producer.add_with_options(payload, options).await
        } else {
            self.producer.add_in_with_options(*delay, payload, options).await
        };
        added.map(|id| vec![id])
    }
}
