//! Producer: adds jobs, now or later, and takes delayed ones back.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use crate::config::{Durability, MAX_NAME_BYTES, ProducerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{AddOptions, JobId};
use crate::msgpack::check_payload;
use crate::store::wire::{MAX_ID_BYTES, Record, text_of};
use crate::store::{Assurance, Due, NewJob, Store, Terms};

/// The most jobs that may share an entry.
const MOST_PACKED: usize = 256;

/// A handle that adds jobs to one queue. Cheap to clone; clones share connections.
pub struct Producer<T> {
    pub(crate) inner: Arc<Inner>,
    payload: PhantomData<fn(T)>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) config: ProducerConfig,
}

/// When a job added through [`Producer::add_raw`] shall run.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    /// So long from now, by the server's clock.
    In(Duration),
    /// At this time, in milliseconds since the epoch.
    AtMs(u64),
}

/// A job whose payload is msgpack already.
#[derive(Clone, Debug)]
pub struct RawJob {
    /// The payload's msgpack, stored as it is.
    pub payload: Bytes,
    /// Id, name, retry rule.
    pub options: AddOptions,
    /// `None`: now.
    pub delay: Option<Delay>,
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), payload: PhantomData }
    }
}

impl<T> Producer<T> {
    /// Connects to `redis://`, `rediss://`, `redis+unix://`, `redis-sentinel://` or `redis-cluster://`.
    ///
    /// # Errors
    /// `Config` for a bad name or URL, `Connection`, `Timeout` or `Auth` when the server cannot be
    /// reached, `Unsupported` when it is too old, also for `Durability::Aof`, which is a `Config`
    /// error where the server keeps no append-only file.
    pub async fn connect(url: &str, config: ProducerConfig) -> Result<Self> {
        check_pack(config.pack)?;
        let (queue, events) = (&config.queue_name, &config.events);
        let store = Store::connect(url, queue, &config.connection, events, None).await?;
        store.warn_of_eviction().await;
        let disk = config.durability == Durability::Aof;
        store.check(&Assurance { disk, ..Assurance::default() }).await?;
        Ok(Self { inner: Arc::new(Inner { store, config }), payload: PhantomData })
    }

    /// Adds jobs whose payloads are encoded already, immediate and delayed ones mixed: two round
    /// trips at most for every 500. The ids come back in order.
    ///
    /// # Errors
    /// As [`Producer::add`].
    pub async fn add_raw(&self, jobs: Vec<RawJob>) -> Result<Vec<JobId>> {
        self.add_raw_packed(jobs, self.inner.config.pack).await
    }

    /// As [`Producer::add_raw`], with so many immediate jobs an entry instead of the configured
    /// [`pack`](ProducerConfig::pack).
    ///
    /// # Errors
    /// As [`Producer::add`], and `Config` when `pack` is not 1 to 256.
    pub async fn add_raw_packed(&self, jobs: Vec<RawJob>, pack: usize) -> Result<Vec<JobId>> {
        check_pack(pack)?;
        let created_at_ms = now_ms();
        let (mut ids, mut now, mut later) = (Vec::with_capacity(jobs.len()), vec![], vec![]);
        let mut assurance = Assurance::default();
        for job in jobs {
            self.check(&job)?;
            self.assure(&mut assurance, job.options.durability);
            let due = self.due(job.delay, created_at_ms)?;
            let id = job.options.id.clone().unwrap_or_else(|| fresh_id(created_at_ms));
            match due {
                None => now.push((Arc::from(&*id), job)),
                Some(due) => later.push((new_job(Arc::from(&*id), job, created_at_ms), due)),
            }
            ids.push(id);
        }
        let Inner { store, config } = &*self.inner;
        store.check(&assurance).await?;
        let terms = Terms { max_queue_len: config.max_queue_len, pack, assurance };
        // Encoded while those before them are on their way.
        let now = now.into_iter().map(|(id, job)| new_job(id, job, created_at_ms));
        match store.add_all(now, later, terms).await {
            Ok(()) => Ok(ids),
            Err(error) => {
                let ids = if error.job_ids().is_empty() { vec![] } else { ids };
                let act = format_args!("adding to queue {:?}", config.queue_name);
                Err(error.with_job_ids(ids.into()).context(act))
            }
        }
    }

    /// Adds what a job asks for.
    fn assure(&self, assurance: &mut Assurance, durability: Option<Durability>) {
        let config = &self.inner.config;
        match durability.unwrap_or(config.durability) {
            Durability::None => {}
            Durability::Replica => assurance.replicas = config.replicas.max(1),
            Durability::Aof => assurance.disk = true,
        }
        assurance.within = config.durability_timeout;
    }

    /// When a delayed job is due; `None` for one that is due already.
    fn due(&self, delay: Option<Delay>, now_ms: u64) -> Result<Option<Due>> {
        let (ahead_ms, due) = match delay {
            None => return Ok(None),
            Some(Delay::In(delay)) => {
                let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                (ms, Due::In(ms))
            }
            Some(Delay::AtMs(at)) => (at.saturating_sub(now_ms), Due::At(at)),
        };
        let most = self.inner.config.max_delay_secs;
        if most > 0 && ahead_ms > most.saturating_mul(1000) {
            return Err(Error::config(format!(
                "a delay of {} s is longer than max_delay_secs ({most}); raise it or add the job later",
                ahead_ms / 1000
            )));
        }
        Ok((ahead_ms > 0).then_some(due))
    }

    /// Refuses what no worker would take.
    fn check(&self, RawJob { payload, options, delay: _ }: &RawJob) -> Result<()> {
        let most = self.inner.config.max_payload_bytes;
        if payload.len() > most {
            return Err(Error::new(
                ErrorKind::Encode,
                format!(
                    "the payload is {} bytes and may be {most}: store it elsewhere and add its address",
                    payload.len()
                ),
            ));
        }
        check_payload(payload).map_err(|invalid| {
            let why = format!("the payload is not msgpack that a worker takes: {}", invalid.0);
            Error::new(ErrorKind::Encode, why)
        })?;
        check_length("the job's name", options.name.len(), 0, MAX_NAME_BYTES)?;
        if let Some(id) = &options.id {
            check_length("the job's id", id.len(), 1, MAX_ID_BYTES)?;
        }
        if options.retry.as_ref().is_some_and(|retry| retry.max_attempts == Some(0)) {
            return Err(Error::config("max_attempts is 0; a job runs at least once"));
        }
        Ok(())
    }

    /// Takes a delayed or retrying job back, by the id that `add` returned. `false` when there is
    /// none: it was promoted already, or never existed.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn cancel_delayed(&self, id: &str) -> Result<bool> {
        Ok(self.cancel_delayed_bulk(&[id.to_owned()]).await?.contains(&true))
    }

    /// Takes delayed or retrying jobs back; per id whether there was one.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn cancel_delayed_bulk(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        self.inner.store.cancel(ids).await
    }

    /// The queue that it adds to.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.inner.config.queue_name
    }

    /// Closes the connection after the replies that are due.
    pub async fn shutdown(&self) {
        self.inner.store.close().await;
    }

    /// The key of the stream of ready and running jobs.
    #[must_use]
    pub fn stream_key(&self) -> String {
        String::from_utf8_lossy(&self.inner.store.keys().stream).into_owned()
    }

    /// The key of the sorted set of delayed jobs.
    #[must_use]
    pub fn delayed_key(&self) -> String {
        String::from_utf8_lossy(&self.inner.store.keys().delayed).into_owned()
    }

    /// The key of the dead-letter queue.
    #[must_use]
    pub fn dlq_key(&self) -> String {
        String::from_utf8_lossy(&self.inner.store.keys().dlq).into_owned()
    }
}

impl<T: Serialize> Producer<T> {
    /// Adds a job; it is accepted when this returns its id.
    ///
    /// When the connection breaks before the reply, it is sent again until `command_timeout` is over,
    /// and added once all the same, even when it has been done meanwhile.
    ///
    /// # Errors
    /// `Encode` when the payload cannot be encoded or is too large, `QueueFull` at
    /// `max_queue_len`, `Unknown` when no reply came within
    /// [`command_timeout`](crate::ConnectionTuning::command_timeout): then the job may or may not have
    /// been added, and the error carries its [id](Error::job_ids), under which adding it again through
    /// this producer is safe.
    pub async fn add(&self, payload: T) -> Result<JobId> {
        self.add_with_options(payload, AddOptions::default()).await
    }

    /// Adds a job under an id of the caller's; does nothing while a job of this id is live.
    ///
    /// # Errors
    /// As [`Producer::add`].
    pub async fn add_with_id(&self, id: impl Into<JobId>, payload: T) -> Result<JobId> {
        self.add_with_options(payload, AddOptions::new().with_id(id)).await
    }

    /// Adds a job with options.
    ///
    /// # Errors
    /// As [`Producer::add`].
    pub async fn add_with_options(&self, payload: T, options: AddOptions) -> Result<JobId> {
        self.add_one(payload, options, None).await
    }

    /// Adds many jobs in few round trips; up to 500 are added all or none, and each script
    /// has `command_timeout` to be answered. An error in the midst of more carries all their
    /// [ids](Error::job_ids).
    ///
    /// # Errors
    /// As [`Producer::add`].
    pub async fn add_bulk(&self, payloads: Vec<T>) -> Result<Vec<JobId>> {
        let plain = |payload| (payload, AddOptions::default());
        self.add_bulk_with_options(payloads.into_iter().map(plain).collect()).await
    }

    /// As [`Producer::add_bulk`], with so many jobs an entry instead of the configured
    /// [`pack`](ProducerConfig::pack).
    ///
    /// # Errors
    /// As [`Producer::add`], and `Config` when `pack` is not 1 to 256.
    pub async fn add_bulk_packed(&self, payloads: Vec<T>, pack: usize) -> Result<Vec<JobId>> {
        let raw = |payload| {
            let payload = msgpack(&payload)?;
            Ok(RawJob { payload, options: AddOptions::default(), delay: None })
        };
        self.add_raw_packed(payloads.into_iter().map(raw).collect::<Result<_>>()?, pack).await
    }

    /// Adds many jobs, each with options of its own.
    ///
    /// # Errors
    /// As [`Producer::add`].
    pub async fn add_bulk_with_options(&self, jobs: Vec<(T, AddOptions)>) -> Result<Vec<JobId>> {
        self.add_each(jobs, None).await
    }

    /// Adds a job that becomes ready after `delay`; at once when it is zero.
    ///
    /// # Errors
    /// As [`Producer::add`], and `Config` beyond `max_delay_secs`.
    pub async fn add_in(&self, delay: Duration, payload: T) -> Result<JobId> {
        self.add_one(payload, AddOptions::default(), Some(Delay::In(delay))).await
    }

    /// As [`Producer::add_in`], under an id of the caller's.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_in_with_id(
        &self,
        delay: Duration,
        id: impl Into<JobId>,
        payload: T,
    ) -> Result<JobId> {
        self.add_one(payload, AddOptions::new().with_id(id), Some(Delay::In(delay))).await
    }

    /// As [`Producer::add_in`], with options.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_in_with_options(
        &self,
        delay: Duration,
        payload: T,
        options: AddOptions,
    ) -> Result<JobId> {
        self.add_one(payload, options, Some(Delay::In(delay))).await
    }

    /// Adds many jobs that become ready after the same delay.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_in_bulk(&self, delay: Duration, payloads: Vec<T>) -> Result<Vec<JobId>> {
        let plain = |payload| (payload, AddOptions::default());
        self.add_each(payloads.into_iter().map(plain).collect(), Some(Delay::In(delay))).await
    }

    /// Adds a job that becomes ready at `time`; at once when that is past.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_at(&self, time: SystemTime, payload: T) -> Result<JobId> {
        self.add_at_with_options(time, payload, AddOptions::default()).await
    }

    /// As [`Producer::add_at`], under an id of the caller's.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_at_with_id(
        &self,
        time: SystemTime,
        id: impl Into<JobId>,
        payload: T,
    ) -> Result<JobId> {
        self.add_at_with_options(time, payload, AddOptions::new().with_id(id)).await
    }

    /// As [`Producer::add_at`], with options.
    ///
    /// # Errors
    /// As [`Producer::add_in`].
    pub async fn add_at_with_options(
        &self,
        time: SystemTime,
        payload: T,
        options: AddOptions,
    ) -> Result<JobId> {
        self.add_one(payload, options, Some(Delay::AtMs(epoch_ms(time)))).await
    }

    async fn add_one(
        &self,
        payload: T,
        options: AddOptions,
        delay: Option<Delay>,
    ) -> Result<JobId> {
        let payload = msgpack(&payload)?;
        let ids = self.add_raw(vec![RawJob { payload, options, delay }]).await?;
        ids.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Server, "no id came back"))
    }

    async fn add_each(
        &self,
        jobs: Vec<(T, AddOptions)>,
        delay: Option<Delay>,
    ) -> Result<Vec<JobId>> {
        let raw = |(payload, options)| Ok(RawJob { payload: msgpack(&payload)?, options, delay });
        self.add_raw(jobs.into_iter().map(raw).collect::<Result<_>>()?).await
    }
}

fn fresh_id(created_at_ms: u64) -> JobId {
    text_of(ulid::Ulid::from_parts(created_at_ms, rand::random()))
}

fn new_job(id: Arc<str>, job: RawJob, created_at_ms: u64) -> NewJob {
    let RawJob {
        payload,
        options: AddOptions { id: chosen, retry, name, durability: _ },
        delay: _,
    } = job;
    let unique = chosen.is_some();
    let record = Record {
        attempt: 0,
        lost: 0,
        id,
        name: Bytes::copy_from_slice(name.as_bytes()),
        payload,
        created_at_ms,
        retry: retry.map(Box::new),
        unique,
    };
    let encoded = record.encode().into();
    NewJob { id: record.id, name, unique, record: encoded }
}

fn msgpack<T: Serialize>(payload: &T) -> Result<Bytes> {
    let encoded = rmp_serde::to_vec_named(payload).map_err(|error| {
        Error::new(ErrorKind::Encode, format!("the payload cannot be encoded: {error}"))
            .with_source(error)
    })?;
    Ok(encoded.into())
}

fn check_pack(pack: usize) -> Result<()> {
    if (1..=MOST_PACKED).contains(&pack) {
        return Ok(());
    }
    Err(Error::config(format!("pack is {pack}; it must be 1 to {MOST_PACKED} jobs an entry")))
}

fn check_length(what: &str, len: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&len) {
        return Ok(());
    }
    Err(Error::config(format!("{what} has {len} bytes; it must have {least} to {most}")))
}

fn now_ms() -> u64 {
    epoch_ms(SystemTime::now())
}

fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
