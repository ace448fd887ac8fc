//! Whether memory stays flat and nothing goes astray when a worker is busy for minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use chasquimq::{
    AddOptions, ConsumerConfig, Delay, EventsConfig, HandlerError, Job, Producer, ProducerConfig,
    RawJob,
};
use chasquimq_benches::flat::{excess, growth};
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{
    Bench, Worker, consumer_config, drain, main as run, open_files, preload, resident_mb, within,
};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The share of what the worker can do that it is given to do.
const LOAD: f64 = 0.6;
const HANDLER: Duration = Duration::from_millis(8);
const TICK: Duration = Duration::from_millis(10);
/// Jobs of one call, at most.
const MOST: u64 = 1000;
/// The events stream reaches its bound before half-time.
const EVENTS: u64 = 10_000;
const MB: f64 = 1e6;

const SERVER: &str = "the server, used_memory";
const PROCESS: &str = "the process of producer and worker, RSS";
const FILES: &str = "its open files";
const JOBS: &str = "jobs";
const SERIES: &str = "each second";

fn main() -> Result<()> {
    let title = "A worker whose handlers take 8 ms is given 60% of what it can do, for minutes: 5% of the \
                 jobs are delayed by 1 to 3 s, 5% have ids of their own, 1% fail once. Memory in MB; it \
                 grows from the first to the last tenth of the second half.";
    run("soak", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(20_000, 2_000_000);
    let capacity = capacity(&bench, if bench.options.quick { 5_000 } else { 50_000 }).await?;
    bench.flush().await?;
    let before = used_memory(&bench).await?;
    let tally = Arc::new(Tally::of(jobs));
    let worker = tally.clone().start(&bench);
    let config = ProducerConfig {
        queue_name: consumer_config().queue_name,
        events: events(),
        ..ProducerConfig::default()
    };
    let producer = Producer::connect(&bench.server.url(), config).await?;
    let begun = Instant::now();
    let samples = soak(&bench, &producer, jobs, capacity * LOAD).await?;
    let rate = jobs as f64 / begun.elapsed().as_secs_f64();
    within("the last jobs", tally.ended()).await?;
    worker.drained(&bench, &producer.stream_key()).await?;
    worker.finish().await?;
    producer.shutdown().await;
    judge(&mut bench, &samples);
    let (lost, doubled) = tally.lost_and_doubled();
    for (unit, value) in [
        ("done", jobs as f64 - lost),
        ("a second", rate),
        ("of the capacity", rate / capacity),
        ("lost", lost),
        ("doubled", doubled),
    ] {
        bench.report.record(JOBS, unit, value);
    }
    bench.report.check("jobs lost or doubled", lost + doubled, Target::AtMost(0.0));
    remains(&mut bench, before).await?;
    Ok(bench)
}

fn worker_config() -> ConsumerConfig {
    ConsumerConfig { events: events(), ..consumer_config() }
}

fn events() -> EventsConfig {
    EventsConfig { max_stream_len: EVENTS, ..EventsConfig::default() }
}

/// Jobs a second that the worker does when there are always more.
async fn capacity(bench: &Bench, jobs: u64) -> Result<f64> {
    let (stream, _) = preload(bench, jobs).await?;
    let start = |left| Worker::resting(bench, worker_config(), HANDLER, left);
    let (cost, worker) = drain(bench, jobs, &stream, start).await?;
    worker.finish().await?;
    Ok(cost.jobs_per_second())
}

/// How often each job has ended well.
struct Tally {
    times: Vec<AtomicU8>,
    left: AtomicU64,
}

impl Tally {
    fn of(jobs: u64) -> Self {
        let times: Vec<_> = (0..jobs).map(|_| AtomicU8::new(0)).collect();
        // Zeroed memory is there only when it is written to: else this would count as growth.
        for times in &times {
            times.store(0, Ordering::Relaxed);
        }
        Self { times, left: AtomicU64::new(jobs) }
    }

    fn start(self: Arc<Self>, bench: &Bench) -> Worker {
        Worker::start(bench, worker_config(), move |job| {
            let tally = Arc::clone(&self);
            async move {
                sleep(HANDLER).await;
                tally.end(&job)
            }
        })
    }

    fn end(&self, job: &Job<u64>) -> Result<(), HandlerError> {
        if job.payload.is_multiple_of(100) && job.attempt == 0 {
            return Err(HandlerError::new("fails once"));
        }
        let times = self.times.get(job.payload as usize);
        let times = times.ok_or_else(|| HandlerError::unrecoverable("was never added"))?;
        if times.fetch_add(1, Ordering::Relaxed) == 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ended(&self) {
        while self.left.load(Ordering::Relaxed) > 0 {
            sleep(TICK).await;
        }
    }

    fn lost_and_doubled(&self) -> (f64, f64) {
        let count = |is: fn(u8) -> bool| {
            let times = self.times.iter().map(|times| times.load(Ordering::Relaxed));
            times.filter(|times| is(*times)).count() as f64
        };
        (count(|times| times == 0), count(|times| times > 1))
    }
}

/// What is in use at a moment.
struct Sample {
    server: f64,
    process: f64,
    files: f64,
}

/// Adds all jobs at this pace; what was in use each second.
async fn soak(
    bench: &Bench,
    producer: &Producer<u64>,
    jobs: u64,
    rate: f64,
) -> Result<Vec<Sample>> {
    let (mut samples, mut ticks) = (Vec::new(), interval(Duration::from_secs(1)));
    let adding = add(producer, jobs, rate);
    tokio::pin!(adding);
    loop {
        tokio::select! {
            added = &mut adding => return added.map(|()| samples),
            _ = ticks.tick() => samples.push(Sample {
                server: used_memory(bench).await? / MB,
                process: resident_mb(),
                files: open_files()?,
            }),
        }
        if samples.len() % 60 == 0 {
            say(&format!("{} s", samples.len()));
        }
    }
}

async fn add(producer: &Producer<u64>, jobs: u64, rate: f64) -> Result<()> {
    let (begun, mut ticks, mut added) = (Instant::now(), interval(TICK), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while added < jobs {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        let until = due.min(added + MOST).min(jobs);
        producer.add_raw((added..until).map(job).collect()).await?;
        added = until;
    }
    Ok(())
}

fn job(n: u64) -> RawJob {
    let mut payload = vec![0xcf];
    payload.extend_from_slice(&n.to_be_bytes());
    let options = match n % 20 {
        2 => AddOptions::new().with_id(format!("key-{n}")),
        _ => AddOptions::new(),
    };
    let delay = (n % 20 == 1).then(|| Delay::In(Duration::from_millis(1000 + n % 2000)));
    RawJob { payload: Bytes::from(payload), options, delay }
}

fn judge(bench: &mut Bench, samples: &[Sample]) {
    let series = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
    let report = &mut bench.report;
    for (row, series) in [(SERVER, series(|s| s.server)), (PROCESS, series(|s| s.process))] {
        for value in &series {
            report.record(row, SERIES, *value);
        }
        let growth = growth(&series);
        report.record(row, "growth %", growth);
        report.check(&format!("{row}: growth in the second half, %"), growth, Target::AtMost(5.0));
    }
    let files = series(|s| s.files);
    for value in &files {
        report.record(FILES, SERIES, *value);
    }
    report.check(
        "files open in the second half beyond the first",
        excess(&files),
        Target::AtMost(0.0),
    );
}

/// What is there when all is over, the events apart, which are to stay.
async fn remains(bench: &mut Bench, before: f64) -> Result<()> {
    let queue = consumer_config().queue_name;
    bench.server.command(&["DEL", &format!("{{chasqui:{queue}}}:events")]).await;
    let mut left = 0.0;
    for key in bench.server.command(&["KEYS", "*"]).await.array() {
        let key = key.text();
        let expires = bench.server.command(&["PTTL", &key]).await.int() > 0;
        left += f64::from(u8::from(!expires && !key.ends_with(":stream")));
    }
    bench.report.check("keys left behind", left, Target::AtMost(0.0));
    let most = before + before / 50.0 + 1024.0 * 1024.0;
    let mut after = used_memory(bench).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    // A server frees the buffers of connections that have gone when it comes to it.
    while after > most && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
        after = used_memory(bench).await?;
    }
    bench.report.record(SERVER, "before", before / MB);
    bench.report.record(SERVER, "after", after / MB);
    bench.report.check("MB that the server uses at the end", after / MB, Target::AtMost(most / MB));
    Ok(())
}

async fn used_memory(bench: &Bench) -> Result<f64> {
    Ok(bench.info("memory", "used_memory").await?.trim().parse()?)
}
