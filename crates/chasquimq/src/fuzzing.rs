//! What reads bytes from outside, for `chasquimq-fuzz` alone: nothing here is promised to anybody.
//!
//! A target takes any bytes, panics when what it promises does not hold, and answers with a number
//! that tells kinds of outcome apart: inputs with a new outcome are worth changing further.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::config::{ConnectionTuning, RetryConfig};
use crate::consumer::text::error_text;
use crate::dlq::{DlqEntry, resurrect};
use crate::events::{Cursor, unpack};
use crate::lifecycle::Outcome;
use crate::msgpack::check_payload;
use crate::store::keys::check_name;
use crate::store::moves::results;
use crate::store::packing::{MOST_PACKED, column, is_line};
use crate::store::transport::{Reply, prepare_url};
use crate::store::wire::{self, Item};
use crate::store::{redact, replies};
use crate::{job::JobRetryOverride, retry};

/// Something to fuzz.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]) -> u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "entry", run: entry },
    Target { name: "payload", run: payload },
    Target { name: "replies", run: replies },
    Target { name: "texts", run: texts },
    Target { name: "url", run: url },
];

fn outcome(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The value of a stream entry: its parts are all its bytes, and each job survives a retry.
fn entry(bytes: &[u8]) -> u64 {
    let value = Bytes::copy_from_slice(bytes);
    let parts = wire::take_apart(&value);
    let mut told = vec![];
    let mut size = 0;
    for part in &parts {
        match part {
            Ok(Item { record, raw, due_ms }) => {
                size += raw.len();
                let counted = wire::with_counts(raw, 7, 9).expect("a job can be counted");
                let due = due_ms.unwrap_or(u64::MAX);
                let again = wire::decode_all(&wire::with_due(&counted, due)).expect("it is a job");
                let [again] = &again[..] else { panic!("one job became {again:?}") };
                assert_eq!((again.record.attempt, again.record.lost), (7, 9));
                assert_eq!((&again.record.id, again.due_ms), (&record.id, Some(due)));
                assert_eq!(again.record.payload, record.payload);
                let own: Option<&JobRetryOverride> = record.retry.as_deref();
                let ms = retry::backoff_ms(own, &RetryConfig::default(), record.attempt, 0.5);
                assert!(retry::max_attempts(own, 3) > 0);
                told.push(outcome((record.unique, own.is_some(), due_ms.is_some(), ms > 30_000)));
            }
            Err(broken) => {
                size += broken.raw.len();
                told.push(outcome(broken.why.0));
            }
        }
    }
    assert!(size <= bytes.len() && !parts.is_empty(), "{size} of {} bytes", bytes.len());
    told.truncate(4);
    outcome(told)
}

/// A payload: what passes can be decoded to whatever nests, in little stack.
fn payload(bytes: &[u8]) -> u64 {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Tree {
        Leaf(()),
        Flag(bool),
        Number(f64),
        Text(String),
        List(Vec<Tree>),
        Map(BTreeMap<String, Option<Tree>>),
    }
    fn size(tree: &Tree) -> usize {
        match tree {
            Tree::Leaf(()) => 1,
            Tree::Flag(flag) => 1 + usize::from(*flag),
            Tree::Number(number) => 1 + usize::from(number.is_sign_negative()),
            Tree::Text(text) => text.len(),
            Tree::List(list) => 1 + list.iter().map(size).sum::<usize>(),
            Tree::Map(map) => 1 + map.values().flatten().map(size).sum::<usize>(),
        }
    }
    match check_payload(bytes) {
        Ok(()) => {
            let tree = rmp_serde::from_slice::<Tree>(bytes).map_err(|error| error.to_string());
            outcome(tree.map(|tree| size(&tree).min(64)).ok())
        }
        Err(invalid) => outcome((invalid.0, bytes.len().max(1).ilog2())),
    }
}

/// Replies of any shape, read by every verb that reads one.
fn replies(bytes: &[u8]) -> u64 {
    let reply = reply(&mut &bytes[..], 0);
    let dead = replies::dead(reply.items());
    let sound = dead.iter().filter(|entry| resurrect(entry).is_some()).count();
    let shown: Vec<DlqEntry> = dead.into_iter().map(DlqEntry::read).collect();
    let events: Vec<_> = replies::events(reply.clone()).into_iter().flat_map(unpack).collect();
    let claimed = replies::claimed(&reply);
    assert!(claimed.iter().flat_map(|claimed| &claimed.entries).all(|entry| entry.deliveries > 0));
    outcome((
        (sound, shown.len(), events.len(), replies::delivered(reply.clone()).len()),
        claimed.map(|claimed| (claimed.entries.len(), claimed.ghosts.min(2))),
        replies::tick(&reply).is_some(),
        replies::counts(&reply).is_some(),
        results(&reply, bytes.len() % 5).map(|(stored, _)| stored.len()).ok(),
    ))
}

/// A reply as the bytes say, none larger than they are.
fn reply(bytes: &mut &[u8], depth: usize) -> Reply {
    let mut next = || bytes.split_off_first().copied();
    match next() {
        None | Some(b'_') => Reply::Nil,
        Some(b':') => {
            let digits: Vec<u8> = (0..8).map_while(|_| next()).collect();
            Reply::Int(digits.iter().fold(0, |number, digit| number << 8 | i64::from(*digit)))
        }
        Some(b'$') => {
            let len = usize::from(next().unwrap_or(0)).min(bytes.len());
            Reply::Bytes(Bytes::copy_from_slice(bytes.split_off(..len).unwrap_or_default()))
        }
        Some(b'*') if depth < 8 => {
            let count = usize::from(next().unwrap_or(0)).min(bytes.len());
            Reply::List((0..count).map(|_| reply(bytes, depth + 1)).collect())
        }
        Some(other) => Reply::Int(other.into()),
    }
}

/// Texts that others are shown: errors, names, event ids, and columns of several events.
fn texts(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let error = text.clone().into_owned();
    let stored = error_text(&Outcome::Failed { panicked: false, unrecoverable: false, error });
    assert!(stored.len() <= 8 * 1024 && !stored.contains(['\r', '\0', '\u{1b}', '\u{202e}']));
    let cursor = Cursor::parse(&text).is_some();
    let name = check_name("name", &text).is_ok();
    assert!(!name || !text.contains(['{', '}', ' ', '\n']));
    let jobs: Vec<&str> = text.split('\0').take(MOST_PACKED).collect();
    let in_lines = jobs.iter().all(|id| is_line(id.as_bytes()));
    if let (true, 2..) = (in_lines, jobs.len()) {
        let ids = column(&jobs, |id, to| to.extend_from_slice(id.as_bytes()));
        let field = |name: &str, value: String| (name.to_owned(), value);
        let fields = vec![
            field("e", "x".into()),
            field("id", ids.into_string().expect("it is text")),
            field("k", jobs.len().to_string()),
        ];
        let read = unpack(("1-1".into(), fields));
        assert!(read.iter().map(|event| event.job_id.as_str()).eq(jobs.iter().copied()));
    }
    outcome((stored == text, cursor, name, in_lines, jobs.len().min(8)))
}

/// A server's URL: read without a panic, and shown without what may be a secret.
fn url(bytes: &[u8]) -> u64 {
    const SECRET: &str = "<sEcReT>";
    let text = String::from_utf8_lossy(bytes);
    let tuning = ConnectionTuning::default();
    let read = |url: &str| {
        prepare_url(url, &tuning, Duration::from_secs(1), false).map_err(|e| e.to_string())
    };
    let hidden = format!("{text}{SECRET}");
    for url in [
        format!("redis://user:{hidden}@host:1/0"),
        format!("valkey://{hidden}@host"),
        format!("redis-cluster://:{hidden}@a:1,b:2?node=c:3"),
        format!("redis-sentinel://u:p@a:1,b?sentinelServiceName=m&sentinelPassword={hidden}"),
        format!("redis+unix://u:{hidden}@/tmp/socket"),
        format!("http://:{hidden}@host"),
    ] {
        assert!(!redact(&url).contains(SECRET), "{url} is shown as {}", redact(&url));
        let error = read(&url).err().unwrap_or_default();
        assert!(!error.contains(SECRET), "{url}: {error}");
    }
    let shown = redact(&text);
    let refused = read(&text).err();
    let why = refused.as_deref().and_then(|error| error.rsplit_once("cannot be used: "));
    outcome((why.map(|(_, why)| why), shown.matches("***").count(), text.len().min(32)))
}
