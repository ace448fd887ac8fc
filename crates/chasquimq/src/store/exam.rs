//! Questions about a server, over a connection of their own. None of them changes anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;

use super::transport::{Arg, Link, Reply, bytes};
use super::{Hello, Keys};
use crate::acl::{KEY, Right};
use crate::config::ConnectionTuning;
use crate::error::{ErrorKind, Result};

/// A connection that asks.
pub(crate) struct Exam {
    link: Link,
    keys: Keys,
    probe: Bytes,
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Denied {
    Command,
    Keys,
    Channels,
}

impl Exam {
    /// Connects to the server that holds the queue.
    pub async fn connect(url: &str, queue: &str, tuning: &ConnectionTuning) -> Result<Self> {
        let keys = Keys::new(queue)?;
        let link = Link::connect(url, &keys.stream, tuning, Duration::ZERO).await?;
        let probe = Keys::probe(queue);
        Ok(Self { link, keys, probe })
    }

    pub async fn hello(&self) -> Result<Hello> {
        Hello::ask(&self.link).await
    }

    /// What INFO tells; nothing where the user may not ask.
    pub async fn info(&self) -> Result<HashMap<String, String>> {
        let Some(info) = self.ask("INFO", vec![]).await? else { return Ok(HashMap::new()) };
        let text = info.text();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A setting of the server; nothing where the user may not ask, as on most managed servers.
    pub async fn setting(&self, name: &'static str) -> Result<Option<String>> {
        let reply = self.ask("CONFIG", vec!["GET".into(), name.into()]).await?;
        Ok(reply.and_then(|reply| reply.items().get(1).map(Reply::text)))
    }

    /// The user's name; nothing where the user may not ask.
    pub async fn user(&self) -> Result<Option<String>> {
        Ok(self.ask("ACL", vec!["WHOAMI".into()]).await?.map(|reply| reply.text()))
    }

    /// The server's time since the epoch.
    pub async fn time(&self) -> Result<Duration> {
        let time = self.link.call("TIME", vec![]).await?;
        let part = |at: usize| time.items().get(at).map_or(0, Reply::int).max(0) as u64;
        Ok(Duration::from_secs(part(0)) + Duration::from_micros(part(1)))
    }

    /// How long a round trip takes.
    pub async fn ping(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.link.call("PING", vec![]).await?;
        Ok(begun.elapsed())
    }

    /// Which of these rights the user lacks.
    pub async fn denied(
        &self,
        rights: impl Iterator<Item = &'static Right>,
    ) -> Result<Vec<(&'static Right, Denied)>> {
        let asked = rights.map(async |right| Ok((right, self.try_out(right).await?)));
        let answers = try_join_all(asked).await?;
        Ok(answers.into_iter().filter_map(|(right, denied)| Some((right, denied?))).collect())
    }

    /// Uses a right in a way that does nothing. Whatever else the server answers, it let the user in.
    async fn try_out(&self, right: &Right) -> Result<Option<Denied>> {
        let mut words = right.command.split('|');
        let command = words.next().unwrap_or_default();
        let outcome = if command == "subscribe" {
            self.link.subscribe(&self.keys.wake).await.map(drop)
        } else {
            let word = |word| if word == KEY { bytes(&self.probe) } else { Arg::from(word) };
            let args = words.chain(right.harmless.split_whitespace()).map(word).collect();
            self.link.call(command, args).await.map(drop)
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Auth => Ok(Some(why(&error.to_string()))),
            Err(error) if error.kind().is_outcome_unknown() => Err(error),
            _ => Ok(None),
        }
    }

    /// Asks what a user may be forbidden to ask, or a server not know.
    async fn ask(&self, command: &'static str, args: Vec<Arg>) -> Result<Option<Reply>> {
        match self.link.call(command, args).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if matches!(error.kind(), ErrorKind::Auth | ErrorKind::Server) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn close(&self) {
        self.link.close().await;
    }
}

fn why(refusal: &str) -> Denied {
    if refusal.contains("channel") {
        Denied::Channels
    } else if refusal.contains(" key") {
        Denied::Keys
    } else {
        Denied::Command
    }
}
