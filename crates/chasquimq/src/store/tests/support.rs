//! A queue on a real server, all of whose keys can be read back and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chasquimq_testkit::{Reply, Server, shared_server, unique_queue};

use crate::config::{ConnectionTuning, EventsConfig};
use crate::metrics::Guarded;
use crate::metrics::testing::InMemorySink;
use crate::store::{Burial, Retry};
use crate::store::{Completed, Completion, NewJob, Release, Released, Store, Stored};

pub const GROUP: &str = "workers";
pub const ME: &str = "w-1";
pub const OTHER: &str = "w-2";

/// A queue of its own and the store that is tested on it.
pub struct Queue<'s> {
    pub server: &'s Server,
    pub store: Store,
    /// What the store tells the metrics.
    pub told: Arc<InMemorySink>,
    prefix: String,
}

/// What all keys of a queue hold. Values that are no UTF-8 are shown with replacements, due times
/// behind records as `@` and the number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keyspace {
    /// Id and fields.
    pub stream: Vec<(String, String)>,
    /// Entry id, consumer, deliveries.
    pub pending: Vec<(String, String, i64)>,
    /// When they are due; half a millisecond less is written for retries.
    pub delayed: BTreeMap<String, i64>,
    pub jobs: BTreeMap<String, String>,
    pub retrying: i64,
    pub settled: BTreeMap<String, String>,
    pub lingering: usize,
    pub unique: BTreeSet<String>,
    /// `field=value …`; `failed_at_ms=now` when it is.
    pub dlq: Vec<String>,
    /// `field=value …`.
    pub events: Vec<String>,
    pub promoter: Option<String>,
    /// Keys that should not be, or not of this type; calls that are remembered for a while may be.
    pub odd: BTreeMap<String, String>,
}

impl Keyspace {
    /// The values of the stream's entries.
    pub fn values(&self) -> Vec<&str> {
        self.stream.iter().map(|(_, fields)| fields.strip_prefix("j=").unwrap_or(fields)).collect()
    }
}

impl Queue<'static> {
    /// A queue on the server that all tests share.
    pub async fn new() -> Self {
        Self::on(shared_server().await).await
    }

    /// The same, with every event published.
    pub async fn verbose() -> Self {
        let events = EventsConfig { verbose: true, ..EventsConfig::default() };
        Self::with(shared_server().await, events).await
    }
}

impl<'s> Queue<'s> {
    pub async fn on(server: &'s Server) -> Self {
        Self::with(server, EventsConfig::default()).await
    }

    pub async fn with(server: &'s Server, events: EventsConfig) -> Self {
        Self::connect(server, &server.url(), events).await
    }

    /// The store's user and password are `user:password`; the test itself has all rights.
    pub async fn as_user(server: &'s Server, user: &str) -> Self {
        let url = format!("redis://{user}@127.0.0.1:{}", server.port());
        Self::connect(server, &url, EventsConfig::default()).await
    }

    async fn connect(server: &'s Server, url: &str, events: EventsConfig) -> Self {
        let name = unique_queue("store");
        let tuning = ConnectionTuning::default();
        let told = Arc::new(InMemorySink::new());
        let metrics = Some(Arc::new(Guarded::new(told.clone())));
        let store = Store::connect(url, &name, &tuning, &events, metrics).await.unwrap();
        let stream = text(&store.keys().stream);
        let prefix = stream.strip_suffix("stream").unwrap().to_owned();
        Self { server, store, told, prefix }
    }

    /// The queue's name.
    pub fn name(&self) -> &str {
        let (_, name) = self.prefix.split_once(':').unwrap();
        name.strip_suffix("}:").unwrap()
    }

    /// The key of this suffix.
    pub fn key(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.prefix)
    }

    /// Runs a command; an error reply fails the test.
    pub async fn run(&self, command: &[&str]) -> Reply {
        let reply = self.server.command(command).await;
        assert_eq!(reply.error(), None, "{command:?}");
        reply
    }

    /// The server's clock, in ms since the epoch.
    pub async fn now(&self) -> i64 {
        let time = self.run(&["TIME"]).await;
        time.array()[0].int() * 1000 + time.array()[1].int() / 1000
    }

    /// Makes the group, appends entries of these values and delivers them to [`ME`]: their ids.
    pub async fn deliver(&self, values: &[&str]) -> Vec<Bytes> {
        let stream = self.key("stream");
        let _busy =
            self.server.command(&["XGROUP", "CREATE", &stream, GROUP, "0", "MKSTREAM"]).await;
        let mut ids = Vec::new();
        for value in values {
            let id = self.run(&["XADD", &stream, "*", "j", value]).await;
            ids.push(Bytes::from(id.text()));
        }
        self.run(&["XREADGROUP", "GROUP", GROUP, ME, "STREAMS", &stream, ">"]).await;
        ids
    }

    /// Gives a pending entry to another consumer.
    pub async fn hand_to(&self, consumer: &str, id: &Bytes) {
        self.run(&["XCLAIM", &self.key("stream"), GROUP, consumer, "0", &text(id), "JUSTID"]).await;
    }

    /// Lets a pending entry look as if nobody had touched it for a minute.
    pub async fn age(&self, id: &Bytes) {
        let (stream, id) = (self.key("stream"), text(id));
        let entry = self.run(&["XPENDING", &stream, GROUP, &id, &id, "1"]).await;
        let holder = entry.array()[0].array()[1].text();
        let claim = ["XCLAIM", &stream, GROUP, &holder, "0", &id, "IDLE", "60000", "JUSTID"];
        self.run(&claim).await;
    }

    /// Reads all keys back.
    pub async fn dump(&self) -> Keyspace {
        let mut all = Keyspace::default();
        for key in self.run(&["KEYS", &format!("{}*", self.prefix)]).await.array() {
            let key = key.text();
            let kind = self.run(&["TYPE", &key]).await.text();
            self.read(&key, &kind, &mut all).await;
        }
        all
    }

    async fn read(&self, key: &str, kind: &str, all: &mut Keyspace) {
        let suffix = key.strip_prefix(&self.prefix).unwrap().to_owned();
        match (&*suffix, kind) {
            ("stream", "stream") => {
                all.stream = self.entries(key).await;
                all.pending = self.pending(key).await;
            }
            ("delayed", "zset") => all.delayed = self.members(key).await,
            ("jobs", "hash") => all.jobs = self.fields(key).await,
            ("retrying", "string") => {
                all.retrying = self.run(&["GET", key]).await.text().parse().unwrap();
            }
            ("settled", "hash") => all.settled = self.fields(key).await,
            ("lingering", "string") => {
                let told = self.run(&["GET", key]).await.text();
                let (count, _) = told.split_once(' ').unwrap();
                all.lingering = count.parse().unwrap();
            }
            ("unique", "hash") => all.unique = self.fields(key).await.into_keys().collect(),
            ("dlq", "stream") => {
                let entries = self.entries(key).await.into_iter();
                let now = self.now().await;
                all.dlq = entries.map(|(_, fields)| without_clock(&fields, now)).collect();
            }
            ("events", "stream") => {
                all.events =
                    self.entries(key).await.into_iter().map(|(_, fields)| fields).collect();
            }
            ("promoter", "string") => {
                all.promoter = Some(self.run(&["GET", key]).await.text());
            }
            (sent, "string") if sent.starts_with("sent:") => {
                assert!(self.run(&["PTTL", key]).await.int() > 0, "remembered for ever: {key}");
            }
            _ => drop(all.odd.insert(suffix, kind.to_owned())),
        }
    }

    async fn entries(&self, key: &str) -> Vec<(String, String)> {
        let entries = self.run(&["XRANGE", key, "-", "+"]).await;
        let entry = |entry: &Reply| {
            let pairs = entry.array()[1].array().chunks_exact(2);
            let fields: Vec<_> = pairs
                .map(|pair| format!("{}={}", pair[0].text(), shown(pair[1].bytes())))
                .collect();
            (entry.array()[0].text(), fields.join(" "))
        };
        entries.array().iter().map(entry).collect()
    }

    async fn pending(&self, key: &str) -> Vec<(String, String, i64)> {
        if self.run(&["XINFO", "GROUPS", key]).await.array().is_empty() {
            return vec![];
        }
        let pending = self.run(&["XPENDING", key, GROUP, "-", "+", "10000"]).await;
        let entry = |entry: &Reply| {
            let entry = entry.array();
            (entry[0].text(), entry[1].text(), entry[3].int())
        };
        pending.array().iter().map(entry).collect()
    }

    async fn members(&self, key: &str) -> BTreeMap<String, i64> {
        let members = self.run(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).await;
        let due = |score: &Reply| score.text().parse::<f64>().unwrap().ceil() as i64;
        members.array().chunks_exact(2).map(|pair| (pair[0].text(), due(&pair[1]))).collect()
    }

    async fn fields(&self, key: &str) -> BTreeMap<String, String> {
        let fields = self.run(&["HGETALL", key]).await;
        fields.array().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
    }
}

/// Settling by [`ME`].
impl Queue<'_> {
    pub async fn complete(&self, batch: &[Completion]) -> Vec<Stored> {
        let batch: Vec<_> = batch.iter().collect();
        self.store.complete(GROUP, ME, &batch).await.unwrap()
    }

    pub async fn retry(&self, batch: &[Retry]) -> Vec<Stored> {
        self.store.retry(GROUP, ME, batch).await.unwrap()
    }

    pub async fn bury(&self, batch: &[Burial]) -> Vec<Stored> {
        self.store.bury(GROUP, ME, batch, 0).await.unwrap()
    }

    pub async fn release(&self, batch: &[Release]) -> Vec<Stored> {
        self.store.release(GROUP, ME, batch).await.unwrap()
    }
}

fn without_clock(fields: &str, now: i64) -> String {
    let word = |word: &str| match word.strip_prefix("failed_at_ms=") {
        Some(ms) if (now - ms.parse::<i64>().unwrap()).abs() < 60_000 => "failed_at_ms=now".into(),
        _ => word.to_owned(),
    };
    fields.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A value as text, a due time behind it as `@` and the number.
fn shown(value: &[u8]) -> String {
    let is_text = |byte: &u8| (0x20..0x80).contains(byte) || byte.is_ascii_whitespace();
    let end = value.iter().position(|byte| !is_text(byte)).unwrap_or(value.len());
    match rmp::decode::read_int::<u64, _>(&mut &value[end..]) {
        Ok(due_ms) => format!("{}@{due_ms}", String::from_utf8_lossy(&value[..end])),
        Err(_) => String::from_utf8_lossy(value).into_owned(),
    }
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A job to be added whose record is `record-<id>`.
pub fn job(id: &str, unique: bool) -> NewJob {
    let record = Bytes::from(format!("record-{id}"));
    NewJob { id: id.into(), name: "send".into(), unique, record }
}

/// Job `index` of `total` of an entry is done, its id is `job-<index>`.
pub fn done(entry: &Bytes, total: usize, indexes: &[usize]) -> Completion {
    let job = |&index: &usize| Completed {
        index,
        id: format!("job-{index}").into(),
        name: "send".into(),
        run: 1,
        duration_us: 250,
        unique: false,
    };
    let jobs = indexes.iter().map(job).collect();
    Completion { entry: entry.clone(), check_owner: true, total, size: 0, jobs }
}

/// Job `index` of `total` failed its second run and is due in 5 s.
pub fn failed(entry: &Bytes, total: usize, index: usize) -> Retry {
    Retry {
        entry: entry.clone(),
        total,
        index,
        id: format!("job-{index}").into(),
        name: "send".into(),
        record: Bytes::from(format!("retry-{index}")),
        backoff_ms: 5_000,
        run: 2,
        duration_us: 250,
        error: "boom".into(),
    }
}

/// Job `index` of `total` is given up after its third run.
pub fn hopeless(entry: &Bytes, total: usize, index: usize) -> Burial {
    Burial {
        entry: entry.clone(),
        total,
        index,
        id: format!("job-{index}").into(),
        name: "send".into(),
        unique: false,
        reason: "retries_exhausted",
        error: "boom".into(),
        run: 3,
        duration_us: 250,
        lost: 1,
        raw: vec!["j".into(), Bytes::from(format!("dead-{index}"))],
    }
}

/// These jobs of an entry go back.
pub fn unrun(entry: &Bytes, total: usize, indexes: &[usize]) -> Release {
    let job = |&index: &usize| Released {
        index,
        id: format!("job-{index}").into(),
        name: "send".into(),
        value: format!("back-{index}").into(),
    };
    let jobs = indexes.iter().map(job).collect();
    Release { entry: entry.clone(), total, jobs }
}

/// `y` stored, `n` not stored, `f` failed; one character an item.
pub fn verdicts(stored: &[Stored]) -> String {
    let one = |item: &Stored| match item {
        Stored::Yes => 'y',
        Stored::No => 'n',
        Stored::Failed(_) => 'f',
    };
    stored.iter().map(one).collect()
}
