//! Every key of a queue, built here and nowhere else.
//!
//! All keys of a queue share the hash tag `{chasqui:<queue>}`, so that they live in one slot of a
//! cluster and one script may touch them all.
//!
//! | suffix | type | holds | written by | lives |
//! |---|---|---|---|---|
//! | `stream` | stream | ready and running jobs, one field `j` an entry | producer, promoter, release, replay | until settled |
//! | `delayed` | zset | job id by due time, ms since the epoch of the server | schedule, retry | until promoted or cancelled |
//! | `jobs` | hash | job id to record, of the delayed jobs | schedule, retry | as `delayed` |
//! | `retrying` | number | how many of the delayed jobs wait for a retry, for the counts; their scores end in .5 | retry | while any job is delayed |
//! | `settled` | hash | entry id to bitmap of settled jobs, of partly settled entries | settle | until the entry is settled |
//! | `lingering` | string | how many acknowledged entries are still in the stream, a space, the running entry they stand behind | settle | while there are any |
//! | `unique` | hash | job ids chosen by callers, while such a job is live | add, schedule | until the job ends |
//! | `sent:<session>:<n>` | bitmap | two bits a script call that added jobs, by which it is carried out once | add, put, schedule, withdraw | minutes after the last one |
//! | `dlq` | stream | dead jobs with reason and error text | bury | until replayed or purged |
//! | `events` | stream | what happened, plain string fields | every script that stores | bounded by length |
//! | `promoter` | string | id of the leading promoter | promote | lock time to live |
//!
//! `wake` is a pub/sub channel: the promoter is told that an earlier job was scheduled.

use bytes::Bytes;

use crate::error::{Error, Result};

/// The keys of one queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Ready and running jobs.
    pub stream: Bytes,
    /// Delayed job ids by due time.
    pub delayed: Bytes,
    /// Records of delayed jobs by id.
    pub jobs: Bytes,
    /// Ids of delayed jobs that wait for a retry.
    pub retrying: Bytes,
    /// Bitmaps of partly settled entries.
    pub settled: Bytes,
    /// How many acknowledged entries are still in the stream.
    pub lingering: Bytes,
    /// Live job ids chosen by callers.
    pub unique: Bytes,
    /// Dead jobs.
    pub dlq: Bytes,
    /// The events stream.
    pub events: Bytes,
    /// The promoter's lock.
    pub promoter: Bytes,
    /// The channel that wakes the promoter.
    pub wake: Bytes,
    /// What the keys of remembered calls begin with.
    sent: Bytes,
}

impl Keys {
    /// The keys of `queue`, whose name must be valid (`[A-Za-z0-9_.:-]{1,200}`).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the name is not valid.
    pub fn new(queue: &str) -> Result<Self> {
        check_name("queue name", queue)?;
        let key = |suffix: &str| Bytes::from(format!("{{chasqui:{queue}}}:{suffix}"));
        Ok(Self {
            stream: key("stream"),
            delayed: key("delayed"),
            jobs: key("jobs"),
            retrying: key("retrying"),
            settled: key("settled"),
            lingering: key("lingering"),
            unique: key("unique"),
            dlq: key("dlq"),
            events: key("events"),
            promoter: key("promoter"),
            wake: key("wake"),
            sent: key("sent"),
        })
    }

    /// A key of a valid queue name that nothing is ever stored at.
    pub(crate) fn probe(queue: &str) -> Bytes {
        format!("{{chasqui:{queue}}}:doctor").into()
    }

    /// The `number`th bitmap of the calls of a session.
    pub fn sent(&self, session: &str, number: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.sent.len() + session.len() + 8);
        key.extend_from_slice(&self.sent);
        key.extend_from_slice(format!(":{session}:{number}").as_bytes());
        key.into()
    }

    /// The pattern that all keys of a queue match, or those of all queues, as ACL rules spell it.
    pub(crate) fn pattern(queue: Option<&str>) -> Result<String> {
        let Some(queue) = queue else { return Ok("{chasqui:*".into()) };
        check_name("queue name", queue)?;
        Ok(format!("{{chasqui:{queue}}}:*"))
    }
}

/// Refuses names that a key, a group or a consumer cannot bear.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if (1..=200).contains(&name.len()) && name.bytes().all(valid) {
        return Ok(());
    }
    Err(Error::config(format!(
        "{what} {name:?} is not valid: use 1 to 200 of the characters A-Z a-z 0-9 _ . : -"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_queue_share_its_hash_tag() {
        let keys = Keys::new("emails").unwrap();
        assert_eq!(keys.stream, "{chasqui:emails}:stream");
        assert!(keys.promoter.starts_with(b"{chasqui:emails}:"));
    }

    #[test]
    fn refuses_names_that_would_break_out_of_the_tag() {
        for name in ["", "a{b", "a}b", "a b", "é", &"x".repeat(201)] {
            assert!(Keys::new(name).is_err(), "{name:?}");
        }
    }
}
