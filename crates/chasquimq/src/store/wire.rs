//! PURE: the bytes of a job, format version 1. `tests/vectors/records.json` freezes it.
//!
//! A stream entry has one field, `j`, whose value is one or more *records*, one after the other.
//! A record is a msgpack array of eight elements:
//!
//! ```text
//! 0  format version   1
//! 1  attempt          uint, runs that ended in an error so far
//! 2  lost             uint, deliveries whose worker died so far, before this entry
//! 3  id               bin of 16 (a ULID, big endian) or str of 1 to 256 bytes
//! 4  name             str of 0 to 256 bytes
//! 5  payload          bin, the caller's own msgpack
//! 6  created_at       uint, ms since the epoch, producer's clock
//! 7  options          nil, or a map of
//!        "r"  [max_attempts | nil, nil | [kind, delay_ms, max_ms|nil, multiplier|nil, jitter_ms|nil]]
//!             kind 0 = fixed, 1 = exponential
//!        "u"  true when the id was chosen by the caller and must be released when the job ends
//!        others are kept as they are
//! ```
//!
//! Behind a record may stand a uint: when the job was due, in ms since the epoch by the server's
//! clock. The promoter writes it, and it is no part of the record: a job that is delayed again or
//! dies leaves it behind, one that is handed back unrun keeps it.
//!
//! The counters stand in front so that a retry replaces them and copies the rest unread
//! ([`with_counts`]). Every length is checked against what is there before anything is taken.

use std::sync::Arc;

use bytes::Bytes;
use rmp::decode as de;
use rmp::encode as en;
use smallvec::SmallVec;

use crate::config::MAX_NAME_BYTES;
use crate::job::{BackoffKind, BackoffSpec, JobRetryOverride};
use crate::msgpack::{self, CUT_SHORT, Invalid, TOO_DEEP};

/// The format written, and the only one read.
pub const FORMAT: u8 = 1;
/// The most records one entry may hold.
pub const MAX_RECORDS: usize = 4096;
/// How deep msgpack may nest in the options, or in what is passed over.
const MAX_DEPTH: usize = 16;
const FIELDS: u32 = 8;
/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// A job as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Runs that ended in an error so far.
    pub attempt: u32,
    /// Deliveries whose worker died so far.
    pub lost: u32,
    /// The job's id.
    pub id: Arc<str>,
    /// The job's name, valid UTF-8, perhaps empty.
    pub name: Bytes,
    /// The caller's msgpack.
    pub payload: Bytes,
    /// Milliseconds since the epoch, producer's clock.
    pub created_at_ms: u64,
    /// The job's own retry rule; few have one.
    pub retry: Option<Box<JobRetryOverride>>,
    /// Whether the caller chose the id, which must be released when the job ends.
    pub unique: bool,
}

type Read<T> = Result<T, Invalid>;

impl Record {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.name.len() + self.payload.len());
        counts(&mut out, self.attempt, self.lost);
        write_id(&mut out, &self.id);
        infallible(en::write_str_len(&mut out, self.name.len() as u32));
        out.extend_from_slice(&self.name);
        infallible(en::write_bin(&mut out, &self.payload));
        infallible(en::write_uint(&mut out, self.created_at_ms));
        self.write_options(&mut out);
        out
    }

    fn write_options(&self, out: &mut Vec<u8>) {
        let len = u32::from(self.retry.is_some()) + u32::from(self.unique);
        if len == 0 {
            return infallible(en::write_nil(out));
        }
        infallible(en::write_map_len(out, len));
        if let Some(retry) = &self.retry {
            infallible(en::write_str(out, "r"));
            write_retry(out, retry);
        }
        if self.unique {
            infallible(en::write_str(out, "u"));
            infallible(en::write_bool(out, true));
        }
    }
}

/// A record as it stands in an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The job.
    pub record: Record,
    /// The bytes it was read from, without the due time.
    pub raw: Bytes,
    /// When it was due, in ms since the epoch, server's clock; `None` when it was not delayed.
    pub due_ms: Option<u64>,
}

/// A stretch of an entry's value that is no job.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// What is wrong with it.
    pub why: Invalid,
    /// All its bytes.
    pub raw: Bytes,
}

/// Reads an entry's value. A record that is not of this format costs the others nothing where its
/// end shows; else it is broken together with all that follows. Whoever reads finds the same parts
/// at the same places: the bitmap of the settled ones counts on it.
#[must_use]
pub fn take_apart(value: &Bytes) -> SmallVec<[Result<Item, Broken>; 1]> {
    let mut parts = SmallVec::<[_; 1]>::new();
    let mut at = 0;
    while at < value.len() || parts.is_empty() {
        let start = at;
        let part = Cursor { bytes: value, at }.item(parts.len());
        at = match &part {
            Ok((_, end)) => *end,
            Err(_) => end_of_broken(value, start, parts.len()),
        };
        let broken = |why| Broken { why, raw: value.slice(start..at) };
        parts.push(part.map(|(item, _)| item).map_err(broken));
        if let [Ok(_)] = parts[..] {
            // The others are likely to be as long.
            parts.reserve(((value.len() - at) / at).min(MAX_RECORDS));
        }
    }
    parts
}

/// The records of an entry's value, if each of them is one.
///
/// # Errors
/// [`Invalid`] when any of them is not a record of this format.
pub fn decode_all(value: &Bytes) -> Read<Vec<Item>> {
    take_apart(value).into_iter().map(|part| part.map_err(|broken| broken.why)).collect()
}

/// Behind what is broken, where it is an array as records are; else the end of the value.
fn end_of_broken(value: &Bytes, start: usize, before: usize) -> usize {
    let is_array = matches!(value.get(start), Some(0x90..=0x9f | 0xdc | 0xdd));
    let mut cursor = Cursor { bytes: value, at: start };
    let ends = is_array && before < MAX_RECORDS;
    if ends && cursor.skip().is_ok() && cursor.due().is_ok() { cursor.at } else { value.len() }
}

/// The record with its due time behind it.
#[must_use]
pub fn with_due(record: &[u8], due_ms: u64) -> Bytes {
    let mut out = Vec::with_capacity(record.len() + 9);
    out.extend_from_slice(record);
    infallible(en::write_uint(&mut out, due_ms));
    out.into()
}

/// The same record with other counters, the rest copied unread.
///
/// # Errors
/// [`Invalid`] when the bytes do not begin as a record.
pub fn with_counts(record: &[u8], attempt: u32, lost: u32) -> Read<Vec<u8>> {
    let bytes = Bytes::copy_from_slice(record);
    let mut cursor = Cursor { bytes: &bytes, at: 0 };
    cursor.head()?;
    let mut out = Vec::with_capacity(record.len() + 8);
    counts(&mut out, attempt, lost);
    out.extend_from_slice(&record[cursor.at..]);
    Ok(out)
}

fn counts(out: &mut Vec<u8>, attempt: u32, lost: u32) {
    infallible(en::write_array_len(out, FIELDS));
    infallible(en::write_uint(out, u64::from(FORMAT)));
    infallible(en::write_uint(out, u64::from(attempt)));
    infallible(en::write_uint(out, u64::from(lost)));
}

fn write_id(out: &mut Vec<u8>, id: &str) {
    // Of the texts that are read as the same ULID, only one comes back: the first digit is 7 at
    // most, for there are 128 bits, and no letter is small.
    let is_the_one =
        id.starts_with(|first| first <= '7') && !id.contains(|c: char| c.is_ascii_lowercase());
    match ulid::Ulid::from_string(id) {
        Ok(ulid) if is_the_one => infallible(en::write_bin(out, &ulid.to_bytes())),
        _ => infallible(en::write_str(out, id)),
    }
}

/// The text of an id, made faster than by `to_string`.
pub(crate) fn text_of<T: for<'a> From<&'a str>>(ulid: ulid::Ulid) -> T {
    T::from(ulid.array_to_str(&mut [0; ulid::ULID_LEN]))
}

fn write_retry(out: &mut Vec<u8>, retry: &JobRetryOverride) {
    infallible(en::write_array_len(out, 2));
    write_optional(out, retry.max_attempts.map(u64::from));
    let Some(spec) = &retry.backoff else { return infallible(en::write_nil(out)) };
    infallible(en::write_array_len(out, 5));
    infallible(en::write_uint(out, u64::from(spec.kind == BackoffKind::Exponential)));
    infallible(en::write_uint(out, spec.delay_ms));
    write_optional(out, spec.max_delay_ms);
    match spec.multiplier {
        Some(multiplier) => infallible(en::write_f64(out, multiplier)),
        None => infallible(en::write_nil(out)),
    }
    write_optional(out, spec.jitter_ms);
}

fn write_optional(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => infallible(en::write_uint(out, value)),
        None => infallible(en::write_nil(out)),
    }
}

/// Writing to a `Vec` cannot fail.
fn infallible<T, E: std::fmt::Debug>(written: Result<T, E>) {
    debug_assert!(written.is_ok(), "{:?}", written.err());
}

/// A place in the bytes. Everything it takes is bounded by what is there.
struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The item that begins here, the one after so many others, and where it ends.
    fn item(mut self, before: usize) -> Read<(Item, usize)> {
        if self.bytes.is_empty() {
            return Err(Invalid("the entry is empty"));
        }
        if before == MAX_RECORDS {
            return Err(Invalid("more than 4096 records in one entry"));
        }
        let start = self.at;
        let record = self.record()?;
        let raw = self.bytes.slice(start..self.at);
        let item = Item { record, raw, due_ms: self.due()? };
        Ok((item, self.at))
    }

    fn record(&mut self) -> Read<Record> {
        let (attempt, lost) = self.head()?;
        let id = self.id()?;
        let name = self.text(MAX_NAME_BYTES, "the job's name")?;
        let name = self.bytes.slice_ref(name.as_bytes());
        let payload = self.bytes.slice_ref(self.bin()?);
        let created_at_ms = self.uint()?;
        let (retry, unique) = self.options()?;
        Ok(Record { attempt, lost, id, name, payload, created_at_ms, retry, unique })
    }

    /// The uint behind a record, if there is one.
    fn due(&mut self) -> Read<Option<u64>> {
        match self.bytes.get(self.at) {
            Some(0x00..=0x7f | 0xcc..=0xcf) => self.uint().map(Some),
            _ => Ok(None),
        }
    }

    fn head(&mut self) -> Read<(u32, u32)> {
        if self.read(de::read_array_len)? != FIELDS {
            return Err(Invalid("not an array of 8"));
        }
        if self.uint()? != u64::from(FORMAT) {
            return Err(Invalid("unknown format version"));
        }
        Ok((self.count()?, self.count()?))
    }

    fn id(&mut self) -> Read<Arc<str>> {
        if !matches!(self.peek()?, 0xc4) {
            let id = self.text(MAX_ID_BYTES, "the job's id")?;
            return if id.is_empty() {
                Err(Invalid("the job's id is empty"))
            } else {
                Ok(id.into())
            };
        }
        let bytes = self.bin()?;
        let ulid: [u8; 16] =
            bytes.try_into().map_err(|_| Invalid("the job's id is not 16 bytes"))?;
        Ok(text_of(ulid::Ulid::from_bytes(ulid)))
    }

    fn text(&mut self, most: usize, what: &'static str) -> Read<&'a str> {
        let len = self.read(de::read_str_len)? as usize;
        if len > most {
            return Err(Invalid(what));
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| Invalid(what))
    }

    fn bin(&mut self) -> Read<&'a [u8]> {
        let len = self.read(de::read_bin_len)? as usize;
        self.take(len)
    }

    fn options(&mut self) -> Read<(Option<Box<JobRetryOverride>>, bool)> {
        let (mut retry, mut unique) = (None, false);
        if self.nil()? {
            return Ok((retry, unique));
        }
        for _ in 0..self.read(de::read_map_len)? {
            let key = self.text(64, "an option's name")?;
            match key {
                "r" => retry = Some(Box::new(self.retry()?)),
                "u" => unique = self.read(de::read_bool)?,
                _ => self.skip_option()?,
            }
        }
        Ok((retry, unique))
    }

    fn retry(&mut self) -> Read<JobRetryOverride> {
        self.array_of(2)?;
        let max_attempts = if self.nil()? { None } else { Some(self.count()?) };
        if self.nil()? {
            return Ok(JobRetryOverride { max_attempts, backoff: None });
        }
        self.array_of(5)?;
        let kind = if self.uint()? == 0 { BackoffKind::Fixed } else { BackoffKind::Exponential };
        let delay_ms = self.uint()?;
        let max_delay_ms = self.optional()?;
        let multiplier = if self.nil()? { None } else { Some(self.read(de::read_f64)?) };
        let jitter_ms = self.optional()?;
        let backoff = Some(BackoffSpec { kind, delay_ms, max_delay_ms, multiplier, jitter_ms });
        Ok(JobRetryOverride { max_attempts, backoff })
    }

    fn array_of(&mut self, len: u32) -> Read<()> {
        if self.read(de::read_array_len)? == len { Ok(()) } else { Err(Invalid("a retry rule")) }
    }

    fn optional(&mut self) -> Read<Option<u64>> {
        if self.nil()? { Ok(None) } else { self.uint().map(Some) }
    }

    fn count(&mut self) -> Read<u32> {
        u32::try_from(self.uint()?).map_err(|_| Invalid("a counter above 2^32"))
    }

    fn uint(&mut self) -> Read<u64> {
        self.read(de::read_int::<u64, _>)
    }

    /// Passes over one value of any type but an extension.
    fn skip_option(&mut self) -> Read<()> {
        if matches!(self.peek()?, 0xc7..=0xc9 | 0xd4..=0xd8) {
            return Err(Invalid("an extension type in the options"));
        }
        let too_deep = |why| if why == TOO_DEEP { Invalid("options nested too deep") } else { why };
        self.skip().map_err(too_deep)
    }

    /// Passes over one value.
    fn skip(&mut self) -> Read<()> {
        self.at += msgpack::measure(&self.bytes[self.at..], MAX_DEPTH)?;
        Ok(())
    }

    fn nil(&mut self) -> Read<bool> {
        let nil = self.peek()? == 0xc0;
        self.at += usize::from(nil);
        Ok(nil)
    }

    fn peek(&self) -> Read<u8> {
        self.bytes.get(self.at).copied().ok_or(CUT_SHORT)
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..len).ok_or(CUT_SHORT)?;
        self.at += len;
        Ok(taken)
    }

    fn read<T, E>(&mut self, read: impl FnOnce(&mut &'a [u8]) -> Result<T, E>) -> Read<T> {
        let mut rest: &'a [u8] = &self.bytes[self.at..];
        let before = rest.len();
        let value = read(&mut rest).map_err(|_| Invalid("not the type expected here"))?;
        self.at += before - rest.len();
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
