//! One queue twice: on a server, and as a world. Each operation befalls both; afterwards they agree.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chasquimq_testkit::{shared_server, unique_queue};

use super::GROUP;
use super::adding::Packet;
use super::calls::Call;
use super::hands::{Worker, settlement};
use super::ops::{Case, How, Id, Op, Reply, WORKERS, When, Wish};
use super::seen::{LONG_AGO_MS, Seen};
use super::world::{Entry, World, jobs};
use crate::config::{ConnectionTuning, EventsConfig};
use crate::store::sending::Sendings;
use crate::store::transport::{Arg, bytes, int};
use crate::store::wire::Record;
use crate::store::{self, Due, Intake, Keys, NewJob, Search, Store, Terms, Tick};

/// Longer than a case takes, and shorter than [`LONG_AGO_MS`].
const LEASE: Duration = Duration::from_secs(30);
const DAY_MS: u64 = 86_400_000;

/// A connection that serves one case after the other.
pub struct Bench {
    store: Store,
    intake: Intake,
    world: World,
    workers: Vec<Worker>,
    /// All that were sent, in their order.
    history: Vec<Call>,
    last_event: String,
    now_ms: u64,
    /// Of the next call that adds, the next job, the next worker.
    next: (u64, u64, u64),
}

impl Bench {
    pub async fn new() -> Self {
        let (tuning, events) = (ConnectionTuning::default(), EventsConfig::default());
        let url = shared_server().await.url();
        let store = Store::connect(&url, "model", &tuning, &events, None).await.unwrap();
        let intake = store.intake(LEASE).await.unwrap();
        let (world, workers, history) = (World::default(), vec![], vec![]);
        let last_event = "0-0".into();
        Self { store, intake, world, workers, history, last_event, now_ms: 0, next: (0, 0, 0) }
    }

    /// Plays a case on a queue of its own, and clears up.
    pub async fn play(&mut self, case: &Case) -> Result<()> {
        self.begin(case).await?;
        for (n, op) in case.ops.iter().enumerate() {
            self.befall(op).await.with_context(|| format!("operation {n}, {op:?}"))?;
        }
        self.drain().await.context("while it was drained")?;
        let keys = self.keys().await?;
        let fixed = ["dlq", "events", "promoter", "stream"];
        let is_known = |key: &&String| fixed.contains(&key.as_str()) || key.starts_with("sent:");
        ensure!(keys.iter().all(|key| is_known(&key)), "keys are left: {keys:?}");
        for key in keys {
            self.command("DEL", vec![format!("{}{key}", self.prefix()).into()]).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, case: &Case) -> Result<()> {
        self.store.keys = Keys::new(&unique_queue("model"))?;
        self.store.events.verbose = case.verbose;
        self.store.sendings = Sendings::default();
        self.intake.stream = self.store.keys.stream.clone();
        self.world = World { verbose: case.verbose, ..World::default() };
        self.workers = (0..WORKERS).map(|_| self.hire()).collect();
        self.history.clear();
        self.last_event = "0-0".into();
        self.now_ms = 0;
        self.store.enter(GROUP).await?;
        self.look().await
    }

    fn hire(&mut self) -> Worker {
        self.next.2 += 1;
        Worker::new(format!("w-{}", self.next.2))
    }

    /// Server and world agree.
    async fn look(&mut self) -> Result<()> {
        let seen = Seen::look(&self.store, &self.last_event).await?;
        seen.agrees_with(&mut self.world, self.now_ms)?;
        self.now_ms = seen.now_ms;
        if let Some(last) = seen.last_event {
            self.last_event = last;
        }
        Ok(())
    }

    async fn befall(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Add { jobs, bound, pack, reply } => self.add(jobs, *bound, *pack, *reply).await?,
            Op::Backlog { count } => {
                let due = Wish { id: Id::Fresh, when: When::In(0) };
                self.add(&vec![due; *count], 0, 1, Reply::Heard).await?;
            }
            Op::Read { worker, count, reply } => self.read(*worker, *count, *reply).await?,
            Op::Claim { worker, count, reply } => self.claim(*worker, *count, *reply).await?,
            Op::Missed { worker } => self.missed(*worker).await?,
            Op::Settle { worker, how, picks, reply } => {
                self.settle(*worker, *how, picks, *reply).await?;
            }
            Op::Renew { worker, picks } => {
                let Worker { name: holder, hand, .. } = &self.workers[*worker];
                let ids = picked(hand, picks).map(|held| held.id.clone()).collect();
                self.make(Call::Renew { holder: holder.clone(), ids }).await?;
            }
            Op::Promote { promoter, count } => {
                self.promote(&format!("p-{promoter}"), *count).await?;
            }
            Op::Cancel { picks } => {
                let ids =
                    picked(&self.world.delayed, picks).map(|job| job.record.id.as_ref().into());
                let ids = ids.chain(["b".to_owned()]).collect();
                self.make(Call::Cancel { ids }).await?;
            }
            Op::Replay { count } => self.replay(*count).await?,
            Op::Purge { picks, count } => {
                let ids =
                    picked(&self.world.dead, picks).map(|dead| dead.record.id.as_ref().into());
                let ids = ids.collect();
                self.make(Call::Purge { ids, most: *count }).await?;
            }
            Op::Again { call } => {
                if !self.history.is_empty() {
                    let call = self.history.remove(usize::from(*call) % self.history.len());
                    self.make(call).await?;
                }
            }
            Op::Die { worker } => self.workers[*worker] = self.hire(),
            Op::Leave { worker } => self.leave(*worker).await?,
            // Which names it forgets the server knows alone; what they hold must stay.
            Op::Janitor => drop(self.store.forget_consumers(Duration::ZERO, 10).await?),
            Op::Inspect => self.inspect().await?,
            Op::LeasesRunOut { picks } => {
                let ids = picked(&self.world.entries, picks).filter_map(|entry| entry.id.clone());
                self.leases_run_out(ids.collect()).await?;
            }
            Op::DayPasses => self.day_passes().await?,
        }
        self.look().await
    }

    /// A call befalls both.
    async fn make(&mut self, call: Call) -> Result<()> {
        let foretold = call.foretell(&mut self.world);
        let answer = call.send(&self.store).await?;
        ensure!(answer == foretold, "answered {answer:?} instead of {foretold:?} to {call:#?}");
        self.history.push(call);
        Ok(())
    }

    async fn add(&mut self, wishes: &[Wish], bound: u64, pack: usize, reply: Reply) -> Result<()> {
        let mut jobs: Vec<_> = wishes.iter().map(|wish| self.job(*wish)).collect();
        let number = self.next.0;
        self.next.0 += 2;
        self.store.sendings.next_is(number);
        if reply == Reply::Heard {
            let (now, later): (Vec<_>, Vec<_>) =
                jobs.iter().cloned().partition(|(_, due)| due.is_none());
            let (now, later) = (
                now.into_iter().map(|(job, _)| job).collect::<Vec<_>>(),
                later.into_iter().filter_map(|(job, due)| Some((job, due?))).collect(),
            );
            let (foretold, sent) = self.world.add(&Packet { number, jobs, bound, pack });
            let terms = Terms { max_queue_len: bound, pack, ..Terms::default() };
            let answer = self.store.add_all(now, later, terms).await.map_err(|error| error.kind());
            ensure!(answer == foretold, "answered {answer:?} instead of {foretold:?}");
            self.history.extend(sent.into_iter().map(Call::Add));
            return Ok(());
        }
        // Of one kind, so one call, and none of them in doubt already.
        let is_delayed = jobs[0].1.is_some();
        jobs.retain(|(job, due)| {
            due.is_some() == is_delayed && !self.world.doubts.contains_key(&*job.id)
        });
        let packet = Packet { number, jobs, bound, pack };
        if packet.jobs.is_empty() {
            return Ok(());
        }
        self.world.doubt(&packet);
        let call = self.store.sendings.number();
        self.store.sendings.doubt(packet.jobs.iter().map(|(job, _)| (job, call)));
        if reply == Reply::Lost {
            return self.make(Call::Add(packet)).await;
        }
        self.history.push(Call::Add(packet));
        Ok(())
    }

    fn job(&mut self, Wish { id, when }: Wish) -> (NewJob, Option<Due>) {
        self.next.1 += 1;
        let serial = self.next.1;
        let doubted = |n: u8| {
            let count = self.world.doubts.len().max(1);
            self.world.doubts.keys().nth(usize::from(n) % count).cloned()
        };
        let chosen = match id {
            Id::Fresh => None,
            Id::Chosen(n) => Some(char::from(b'a' + n).to_string()),
            Id::Again(n) => doubted(n),
        };
        let unique = chosen.is_some();
        let id = chosen.unwrap_or_else(|| format!("job-{serial}"));
        let name = Bytes::from_static(b"send");
        let payload = Bytes::from(rmp_serde::to_vec(&serial).expect("a number"));
        let (created_at_ms, retry) = (serial, None);
        let record = Record {
            attempt: 0,
            lost: 0,
            id: id.as_str().into(),
            name,
            payload,
            created_at_ms,
            retry,
            unique,
        };
        let due = match when {
            When::Now => None,
            When::DueAt(ms) => Some(Due::At(ms.into())),
            When::In(ms) => Some(Due::In(ms)),
        };
        (NewJob { id: id.into(), name: "send".into(), unique, record: record.encode().into() }, due)
    }

    async fn read(&mut self, worker: usize, count: usize, reply: Reply) -> Result<()> {
        let name = self.workers[worker].name.clone();
        let foretold = self.world.read(&name, count);
        if foretold.is_empty() {
            // A server ends a wait for nothing only when its own clock ticks, tens of ms later.
            return Ok(());
        }
        let entries = self.intake.read(GROUP, &name, count, Duration::ZERO).await?;
        same(&entries, &foretold)?;
        self.workers[worker].take(entries, reply);
        Ok(())
    }

    async fn claim(&mut self, worker: usize, count: usize, reply: Reply) -> Result<()> {
        let (name, cursor) =
            (self.workers[worker].name.clone(), self.workers[worker].cursor.clone());
        let foretold = self.world.claim(&name, count, &cursor);
        let claimed = self.store.claim(GROUP, &name, LEASE, count, &cursor).await?;
        same(&claimed.entries, &foretold)?;
        ensure!(claimed.ghosts == 0, "{} ghosts", claimed.ghosts);
        if reply == Reply::Heard {
            self.workers[worker].cursor = claimed.cursor;
        }
        self.workers[worker].take(claimed.entries, reply);
        Ok(())
    }

    async fn missed(&mut self, worker: usize) -> Result<()> {
        let Worker { name, hand, .. } = &self.workers[worker];
        let known: Vec<_> = hand.iter().map(|held| held.id.clone()).collect();
        let foretold = self.world.missed(name, &known);
        let most_ms = LEASE.as_millis() as u64;
        let entries = self.store.missed(GROUP, name, most_ms, &known, 100).await?;
        same(&entries, &foretold)?;
        self.workers[worker].take(entries, Reply::Heard);
        Ok(())
    }

    async fn settle(
        &mut self,
        worker: usize,
        how: How,
        picks: &[(u8, u8)],
        reply: Reply,
    ) -> Result<()> {
        let chosen = self.workers[worker].choose(picks);
        if chosen.is_empty() {
            return Ok(());
        }
        let calls = settlement(&self.workers[worker], &self.world, how, &chosen);
        if reply == Reply::NeverSent {
            // On its way: it may arrive when others have the entry.
            self.history.extend(calls);
            return Ok(());
        }
        for call in calls {
            self.make(call).await?;
            let Some((holder, jobs)) = self.history.last().and_then(Call::settles) else {
                continue;
            };
            let open = jobs.iter().find(|(id, index)| self.world.is_open(id, *index, holder));
            ensure!(open.is_none(), "answered, and yet open: {open:?}");
        }
        if reply == Reply::Heard {
            self.workers[worker].forget(&chosen);
        }
        Ok(())
    }

    async fn promote(&mut self, holder: &str, count: usize) -> Result<()> {
        let foretold = self.world.promote(holder, count);
        let moved = match self.store.promote(holder, LEASE, count).await? {
            Tick::Held { .. } => None,
            Tick::Led { fault: Some(error), .. } => return Err(error.into()),
            Tick::Led { promoted, depth, .. } => {
                ensure!(depth == self.world.delayed.len() as u64, "{depth} are left");
                Some(promoted as usize)
            }
        };
        ensure!(moved == foretold, "moved {moved:?} instead of {foretold:?}");
        Ok(())
    }

    async fn replay(&mut self, count: usize) -> Result<()> {
        let dead = self.store.dead(&mut Search::new(vec![]), count).await?;
        let batch = dead.iter().filter_map(crate::dlq::resurrect).collect();
        self.make(Call::Replay { batch }).await
    }

    async fn leave(&mut self, worker: usize) -> Result<()> {
        let name = &self.workers[worker].name;
        let left = self.store.leave(GROUP, name).await?;
        ensure!(left == (self.world.held_by(name) == 0), "{name} left: {left}");
        Ok(())
    }

    async fn inspect(&self) -> Result<()> {
        let counts = self.store.inspect().await?;
        let World { entries, delayed, dead, .. } = &self.world;
        let in_flight = entries.iter().filter(|entry| entry.lease.is_some()).count();
        let retrying = delayed.iter().filter(|job| job.is_retry).count();
        let expected =
            [entries.len() - in_flight, in_flight, delayed.len() - retrying, retrying, dead.len()];
        let counted =
            [counts.ready, counts.in_flight, counts.delayed, counts.retrying, counts.dead];
        ensure!(counted == expected.map(|n| n as u64), "{counted:?} instead of {expected:?}");
        Ok(())
    }

    /// Makes leases old, as the server sees them.
    async fn leases_run_out(&mut self, ids: Vec<Bytes>) -> Result<()> {
        for id in ids {
            let Some(lease) = self.world.entry_mut(&id).and_then(|entry| entry.lease.as_mut())
            else {
                continue;
            };
            lease.ran_out = true;
            let args = vec![
                bytes(&self.store.keys.stream),
                GROUP.into(),
                lease.holder.as_str().into(),
                int(0),
                bytes(&id),
                "IDLE".into(),
                int(LONG_AGO_MS as u64),
                "JUSTID".into(),
            ];
            self.command("XCLAIM", args).await?;
        }
        Ok(())
    }

    async fn day_passes(&mut self) -> Result<()> {
        let pending = self.world.entries.iter().filter(|entry| entry.lease.is_some());
        self.leases_run_out(pending.filter_map(|entry| entry.id.clone()).collect()).await?;
        for job in self.world.delayed.iter_mut().filter(|job| !job.is_due) {
            job.is_due = true;
            job.due_ms = job.due_ms.map(|due_ms| due_ms - DAY_MS);
            let args = vec![
                bytes(&self.store.keys.delayed),
                format!("-{DAY_MS}").into(),
                (&*job.record.id).into(),
            ];
            self.store.link.call("ZINCRBY", args).await?;
        }
        self.world.leader = None;
        self.command("DEL", vec![bytes(&self.store.keys.promoter)]).await
    }

    /// All that is left is done by workers that make no mistake; then nothing is left.
    async fn drain(&mut self) -> Result<()> {
        self.befall(&Op::DayPasses).await?;
        while !self.world.dead.is_empty() {
            // Two dead jobs of one id cannot be live at once.
            self.befall(&Op::Replay { count: 500 }).await?;
            self.finish_all().await?;
        }
        self.finish_all().await?;
        for worker in 0..WORKERS {
            self.befall(&Op::Leave { worker }).await?;
        }
        self.befall(&Op::Janitor).await?;
        let left = &self.world;
        ensure!(left.entries.is_empty() && left.delayed.is_empty(), "not done: {left:#?}");
        ensure!(left.unique.is_empty(), "held for ever: {:?}", left.unique);
        let (stream, group) = (bytes(&self.store.keys.stream), GROUP.into());
        let names = self.store.link.call("XINFO", vec!["CONSUMERS".into(), stream, group]).await?;
        ensure!(names.items().is_empty(), "consumers are left: {names:?}");
        Ok(())
    }

    async fn finish_all(&mut self) -> Result<()> {
        self.workers[0] = self.hire();
        self.promote("p-last", 1000).await?;
        self.look().await?;
        self.claim(0, 1000, Reply::Heard).await?;
        self.read(0, 1000, Reply::Heard).await?;
        for held in 0..self.workers[0].hand.len() {
            let all = self.workers[0].hand[held].left.iter().map(|(index, _)| (held, *index));
            let all: Vec<_> = all.collect();
            for call in settlement(&self.workers[0], &self.world, How::Complete, &all) {
                self.make(call).await?;
            }
        }
        self.look().await
    }

    async fn command(&self, command: &'static str, args: Vec<Arg>) -> Result<()> {
        Ok(self.store.link.call(command, args).await.map(drop)?)
    }

    fn prefix(&self) -> String {
        let stream = String::from_utf8_lossy(&self.store.keys.stream);
        stream.trim_end_matches("stream").to_owned()
    }

    /// The suffixes of all keys.
    async fn keys(&self) -> Result<Vec<String>> {
        let prefix = self.prefix();
        let keys = self.store.link.call("KEYS", vec![format!("{prefix}*").into()]).await?;
        Ok(keys.items().iter().map(|key| key.text()[prefix.len()..].to_owned()).collect())
    }
}

/// These of the items, round and round.
fn picked<'a, T>(items: &'a [T], picks: &'a [u8]) -> impl Iterator<Item = &'a T> {
    let at = |pick: &u8| items.get(usize::from(*pick) % items.len().max(1));
    picks.iter().filter_map(at)
}

/// What was delivered is what should be.
fn same(entries: &[store::Entry], foretold: &[&Entry]) -> Result<()> {
    let shown = |entry: &store::Entry| {
        let settled = String::from_utf8_lossy(&entry.settled).into_owned();
        (Some(entry.id.clone()), jobs(&entry.fields[1]), entry.deliveries, settled)
    };
    let expected = |entry: &&Entry| {
        let deliveries = entry.lease.as_ref().map_or(0, |lease| lease.deliveries);
        let jobs = entry.slots.iter().map(|slot| slot.job.clone()).collect();
        (entry.id.clone(), jobs, deliveries, entry.bitmap().unwrap_or_default())
    };
    let there: Vec<_> = entries.iter().map(shown).collect();
    let expected: Vec<_> = foretold.iter().map(expected).collect();
    ensure!(there == expected, "delivered {there:#?} instead of {expected:#?}");
    Ok(())
}
