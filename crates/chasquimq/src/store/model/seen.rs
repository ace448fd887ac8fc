//! All keys of a queue in one round trip, held against the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use super::GROUP;
use super::world::{Job, World, jobs, record};
use crate::store::Store;
use crate::store::replies;
use crate::store::transport::{Reply, Script};

/// As old as leases become when they run out.
pub const LONG_AGO_MS: i64 = 60_000;

static LOOK: LazyLock<Script> = LazyLock::new(|| {
    let body = "
        local stream, time, pending = KEYS[1], redis.call('TIME'), {}
        if redis.call('EXISTS', stream) == 1 and #redis.call('XINFO', 'GROUPS', stream) > 0 then
          pending = redis.call('XPENDING', stream, ARGV[1], '-', '+', 10000)
        end
        return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('XRANGE', stream, '-', '+'),
          pending, redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[3]),
          redis.call('GET', KEYS[4]) or '0', redis.call('HGETALL', KEYS[5]),
          redis.call('HKEYS', KEYS[6]), redis.call('XRANGE', KEYS[7], '-', '+'),
          redis.call('XRANGE', KEYS[8], '(' .. ARGV[2], '+'), redis.call('GET', KEYS[9]) or ''}";
    Script::new("look", body)
});

/// What the server holds.
pub struct Seen {
    pub now_ms: u64,
    /// The last event.
    pub last_event: Option<String>,
    parts: Vec<Reply>,
}

impl Seen {
    /// Looks; events only after this one.
    pub async fn look(store: &Store, last_event: &str) -> Result<Self> {
        let k = store.keys();
        let keys = [
            &k.stream,
            &k.delayed,
            &k.jobs,
            &k.retrying,
            &k.settled,
            &k.unique,
            &k.dlq,
            &k.events,
            &k.promoter,
        ];
        let reply = store.run(&LOOK, &keys, vec![GROUP.into(), last_event.into()]).await?;
        let parts = reply.items().to_vec();
        ensure!(parts.len() == 11, "a look in another shape: {reply:?}");
        let last_event = parts[9].items().last().map(|event| event.items()[0].text());
        Ok(Self { now_ms: parts[0].int() as u64, last_event, parts })
    }

    /// Teaches the world what only the server can know, and compares all the rest.
    pub fn agrees_with(&self, world: &mut World, before_ms: u64) -> Result<()> {
        self.stream(world).context("in the stream")?;
        self.leases(world).context("among the leases")?;
        self.delayed(world, before_ms).context("among the delayed jobs")?;
        self.dead(world).context("among the dead jobs")?;
        self.told(world).context("in the events")?;
        let unique: BTreeSet<_> = self.parts[7].items().iter().map(Reply::text).collect();
        ensure!(unique == world.unique, "live ids {unique:?} instead of {:?}", world.unique);
        let leader = Some(self.parts[10].text()).filter(|leader| !leader.is_empty());
        ensure!(leader == world.leader, "{leader:?} leads instead of {:?}", world.leader);
        Ok(())
    }

    fn stream(&self, world: &mut World) -> Result<()> {
        let there: Vec<(Bytes, Vec<Job>)> =
            entries(&self.parts[1]).map(|(id, fields)| (id, jobs(&fields[1]))).collect();
        let ids: Vec<_> = there.iter().map(|(id, _)| id).collect();
        ensure!(there.len() == world.entries.len(), "{ids:?} instead of {:#?}", world.entries);
        for ((id, jobs), entry) in there.iter().zip(&mut world.entries) {
            let known = entry.id.get_or_insert_with(|| id.clone());
            ensure!(known == id, "{id:?} where {known:?} was");
            let expected: Vec<_> = entry.slots.iter().map(|slot| &slot.job).collect();
            ensure!(jobs.iter().eq(expected.iter().copied()), "{jobs:#?} instead of {expected:#?}");
        }
        let settled = pairs(&self.parts[6]);
        let noted =
            |entry: &super::world::Entry| Some((entry.id.clone()?, Bytes::from(entry.bitmap()?)));
        let expected: BTreeMap<_, _> = world.entries.iter().filter_map(noted).collect();
        ensure!(settled == expected, "settled {settled:?} instead of {expected:?}");
        Ok(())
    }

    fn leases(&self, world: &World) -> Result<()> {
        let there = self.parts[2].items();
        let mut leased =
            world.entries.iter().filter_map(|entry| Some((&entry.id, entry.lease.as_ref()?)));
        for pending in there {
            let pending = pending.items();
            let (id, holder) = (pending[0].bytes(), pending[1].text());
            let (known, lease) = leased.next().with_context(|| format!("{id:?} is free"))?;
            ensure!(known.as_ref() == Some(&id), "{id:?} is leased instead of {known:?}");
            ensure!(holder == lease.holder, "{id:?} is held by {holder} instead of {lease:?}");
            let deliveries = pending[3].int();
            ensure!(
                deliveries == i64::from(lease.deliveries),
                "{id:?} {deliveries} times: {lease:?}"
            );
            let is_old = pending[2].int() >= LONG_AGO_MS;
            ensure!(is_old == lease.ran_out, "{id:?} idle for {} ms: {lease:?}", pending[2].int());
        }
        ensure!(leased.next().is_none(), "only {there:?} of {:#?}", world.entries);
        Ok(())
    }

    fn delayed(&self, world: &mut World, before_ms: u64) -> Result<()> {
        let scores = pairs(&self.parts[3]);
        let records = pairs(&self.parts[4]);
        let count = world.delayed.len();
        ensure!(scores.len() == count, "{scores:?} instead of {:#?}", world.delayed);
        ensure!(records.len() == count, "{} records of {count} jobs", records.len());
        for job in &mut world.delayed {
            let id = job.record.id.as_bytes();
            let score = scores.get(id).with_context(|| format!("{id:?} is not there"))?;
            let due: f64 = std::str::from_utf8(score)?.parse()?;
            ensure!(job.is_retry == (due.fract() != 0.0), "{due} of {job:?}");
            let due_ms = due.ceil() as u64;
            let span = before_ms + job.wait_ms..=self.now_ms + job.wait_ms;
            ensure!(job.due_ms.is_some() || span.contains(&due_ms), "due at {due_ms}: {job:?}");
            ensure!(*job.due_ms.get_or_insert(due_ms) == due_ms, "due at {due_ms}: {job:?}");
            let there = records.get(id).with_context(|| format!("no record of {id:?}"))?;
            ensure!(record(there) == job.record, "{:?} instead of {job:?}", record(there));
        }
        let (retrying, expected) =
            (self.parts[5].int(), world.delayed.iter().filter(|job| job.is_retry).count());
        ensure!(
            retrying == expected as i64,
            "{retrying} counted as retrying instead of {expected}"
        );
        Ok(())
    }

    fn dead(&self, world: &mut World) -> Result<()> {
        let there = replies::dead(self.parts[8].items());
        ensure!(there.len() == world.dead.len(), "{there:?} instead of {:#?}", world.dead);
        for (entry, dead) in there.iter().zip(&mut world.dead) {
            let id = Bytes::from(entry.dlq_id.clone());
            let known = dead.id.get_or_insert_with(|| id.clone());
            ensure!(*known == id, "{id:?} where {known:?} was");
            let mut fields: BTreeMap<_, _> = entry.fields.iter().cloned().collect();
            let value = fields.remove("j").context("no record")?;
            ensure!(record(&value) == dead.record, "{:?} instead of {dead:?}", record(&value));
            ensure!(fields.remove("failed_at_ms").is_some(), "no time of death");
            let text = |text: &str| Bytes::from(text.to_owned());
            let expected = BTreeMap::from([
                ("id".into(), text(&dead.record.id)),
                ("n".into(), dead.record.name.clone()),
                ("reason".into(), text(dead.reason)),
                ("error".into(), text(&dead.error)),
                ("attempt".into(), text(&dead.run.to_string())),
                ("lost".into(), text(&dead.lost.to_string())),
                ("source_id".into(), dead.source.clone()),
            ]);
            ensure!(fields == expected, "{fields:?} instead of {expected:?}");
        }
        Ok(())
    }

    /// The events as a set: those of one call may come in any order.
    fn told(&self, world: &mut World) -> Result<()> {
        let mut there = Vec::new();
        for (_, fields) in entries(&self.parts[9]) {
            let field = |name: &str| {
                let mut pairs = fields.chunks_exact(2);
                let value = pairs.find(|pair| pair[0] == name).map(|pair| &pair[1]);
                value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
            };
            there.extend(field("id").split('\n').map(|id| (field("e"), id.to_owned())));
        }
        there.sort_unstable();
        world.told.sort_unstable();
        let told = world.told.drain(..).map(|(kind, id)| (kind.to_owned(), id));
        let told: Vec<_> = told.collect();
        ensure!(there == told, "{there:?} instead of {told:?}");
        Ok(())
    }
}

/// Ids and fields of a stream's entries.
fn entries(reply: &Reply) -> impl Iterator<Item = (Bytes, Vec<Bytes>)> {
    reply.items().iter().map(|entry| {
        let fields = entry.items()[1].items().iter().map(Reply::bytes).collect();
        (entry.items()[0].bytes(), fields)
    })
}

fn pairs(reply: &Reply) -> BTreeMap<Bytes, Bytes> {
    reply.items().chunks_exact(2).map(|pair| (pair[0].bytes(), pair[1].bytes())).collect()
}
