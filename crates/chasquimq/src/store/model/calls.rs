//! The calls of the store, which may arrive more than once: each is made of the world and of the server.

use anyhow::{Result, bail};
use bytes::Bytes;

use super::GROUP;
use super::adding::{Added, Packet};
use super::world::World;
use crate::error::Error;
use crate::store::{Burial, Completion, Release, Replay, Retry, Search, Store, Stored};

/// A call, and all that it carries.
#[derive(Debug)]
pub enum Call {
    Add(Packet),
    Finish { holder: String, batch: Vec<Completion> },
    Complete { holder: String, batch: Vec<Completion> },
    Retry { holder: String, batch: Vec<Retry> },
    Bury { holder: String, batch: Vec<Burial>, keep: usize },
    Release { holder: String, batch: Vec<Release> },
    Renew { holder: String, ids: Vec<Bytes> },
    Cancel { ids: Vec<String> },
    Replay { batch: Vec<Replay> },
    Purge { ids: Vec<String>, most: usize },
}

impl Call {
    /// What should become of it.
    pub fn foretell(&self, world: &mut World) -> Added {
        Ok(match self {
            Self::Add(packet) => return world.arrive(packet),
            Self::Finish { batch, .. } => world.finish(batch),
            Self::Complete { holder, batch } => world.complete(holder, batch),
            Self::Retry { holder, batch } => world.retry(holder, batch),
            Self::Bury { holder, batch, keep } => world.bury(holder, batch, *keep),
            Self::Release { holder, batch } => world.release(holder, batch),
            Self::Renew { holder, ids } => world.renew(holder, ids),
            Self::Cancel { ids } => world.cancel(ids),
            Self::Replay { batch } => world.replay(batch),
            Self::Purge { ids, most } => world.purge(ids, *most),
        })
    }

    /// What becomes of it.
    pub async fn send(&self, store: &Store) -> Result<Added> {
        let stored = match self {
            Self::Add(packet) => return Ok(add(store, packet).await.map_err(|error| error.kind())),
            Self::Finish { holder, batch } => {
                store.finish(GROUP, holder, &batch.iter().collect::<Vec<_>>()).await?
            }
            Self::Complete { holder, batch } => {
                store.complete(GROUP, holder, &batch.iter().collect::<Vec<_>>()).await?
            }
            Self::Retry { holder, batch } => store.retry(GROUP, holder, batch).await?,
            Self::Bury { holder, batch, keep } => {
                store.bury(GROUP, holder, batch, *keep as u64).await?
            }
            Self::Release { holder, batch } => store.release(GROUP, holder, batch).await?,
            Self::Renew { holder, ids } => return Ok(Ok(store.renew(GROUP, holder, ids).await?)),
            Self::Cancel { ids } => return Ok(Ok(store.cancel(ids).await?)),
            Self::Replay { batch } => return Ok(Ok(store.replay(batch).await?)),
            Self::Purge { ids, most } => {
                let conditions = ids.iter().map(|id| ("id", id.clone())).collect();
                let mut search = Search::new(conditions);
                return Ok(Ok(vec![true; store.purge(&mut search, *most).await?]));
            }
        };
        let mut answer = Vec::with_capacity(stored.len());
        for stored in stored {
            match stored {
                Stored::Failed(error) => bail!(error),
                stored => answer.push(matches!(stored, Stored::Yes)),
            }
        }
        Ok(Ok(answer))
    }

    /// Who settles, and what: entry and job.
    pub fn settles(&self) -> Option<(&str, Vec<(&Bytes, usize)>)> {
        Some(match self {
            Self::Finish { holder, batch } | Self::Complete { holder, batch } => {
                let jobs = |done: &'_ Completion| -> Vec<usize> {
                    done.jobs.iter().map(|job| job.index).collect()
                };
                let each = batch
                    .iter()
                    .flat_map(|done| jobs(done).into_iter().map(|index| (&done.entry, index)));
                (holder, each.collect())
            }
            Self::Retry { holder, batch } => {
                (holder, batch.iter().map(|job| (&job.entry, job.index)).collect())
            }
            Self::Bury { holder, batch, .. } => {
                (holder, batch.iter().map(|job| (&job.entry, job.index)).collect())
            }
            Self::Release { holder, batch } => {
                let each = batch
                    .iter()
                    .flat_map(|back| back.jobs.iter().map(|job| (&back.entry, job.index)));
                (holder, each.collect())
            }
            _ => return None,
        })
    }
}

async fn add(store: &Store, packet: &Packet) -> Result<Vec<bool>, Error> {
    store.sendings.next_is(packet.number);
    let now = || packet.jobs.iter().map(|(job, _)| job.clone()).collect::<Vec<_>>();
    let later = packet.jobs.iter().filter_map(|(job, due)| Some((job.clone(), (*due)?)));
    if packet.is_delayed() {
        store.schedule(&later.collect::<Vec<_>>(), packet.bound).await
    } else {
        store.add(&now(), packet.bound, packet.pack).await
    }
}
