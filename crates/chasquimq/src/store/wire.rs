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

use bytes::Bytes;
use rmp::decode as de;
use rmp::encode as en;

use crate::config::MAX_NAME_BYTES;
use crate::job::{BackoffKind, BackoffSpec, JobRetryOverride};

/// The format written, and the only one read.
pub const FORMAT: u8 = 1;
/// The most records one entry may hold.
pub const MAX_RECORDS: usize = 4096;
/// How deep msgpack may nest in the options before a record is refused.
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
    pub id: String,
    /// The job's name, valid UTF-8, perhaps empty.
    pub name: Bytes,
    /// The caller's msgpack.
    pub payload: Bytes,
    /// Milliseconds since the epoch, producer's clock.
    pub created_at_ms: u64,
    /// The job's own retry rule.
    pub retry: Option<JobRetryOverride>,
    /// Whether the caller chose the id, which must be released when the job ends.
    pub unique: bool,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Invalid(pub &'static str);

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

/// Reads the records of an entry's value.
///
/// # Errors
/// [`Invalid`] when any of them is not a record of this format.
pub fn decode_all(value: &Bytes) -> Read<Vec<Item>> {
    let mut items = Vec::with_capacity(1);
    let mut at = 0;
    while at < value.len() {
        if items.len() == MAX_RECORDS {
            return Err(Invalid("more than 4096 records in one entry"));
        }
        let mut cursor = Cursor { bytes: value, at };
        let record = cursor.record()?;
        let raw = value.slice(at..cursor.at);
        items.push(Item { record, raw, due_ms: cursor.due()? });
        at = cursor.at;
    }
    if items.is_empty() { Err(Invalid("the entry is empty")) } else { Ok(items) }
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
    match ulid::Ulid::from_string(id) {
        Ok(ulid) if ulid.array_to_str(&mut [0; ulid::ULID_LEN]) == id => {
            infallible(en::write_bin(out, &ulid.to_bytes()));
        }
        _ => infallible(en::write_str(out, id)),
    }
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
    fn record(&mut self) -> Read<Record> {
        let (attempt, lost) = self.head()?;
        let id = self.id()?;
        let name = self.text(MAX_NAME_BYTES, "the job's name")?;
        let payload = self.bin()?;
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

    fn id(&mut self) -> Read<String> {
        if !matches!(self.peek()?, 0xc4) {
            let id = self.text(MAX_ID_BYTES, "the job's id")?;
            return match std::str::from_utf8(&id) {
                Ok(id) if !id.is_empty() => Ok(id.to_owned()),
                _ => Err(Invalid("the job's id is empty")),
            };
        }
        let bytes = self.bin()?;
        let ulid: [u8; 16] =
            bytes[..].try_into().map_err(|_| Invalid("the job's id is not 16 bytes"))?;
        Ok(ulid::Ulid::from_bytes(ulid).to_string())
    }

    fn text(&mut self, most: usize, what: &'static str) -> Read<Bytes> {
        let len = self.read(de::read_str_len)? as usize;
        if len > most {
            return Err(Invalid(what));
        }
        let text = self.take(len)?;
        if std::str::from_utf8(&text).is_err() { Err(Invalid(what)) } else { Ok(text) }
    }

    fn bin(&mut self) -> Read<Bytes> {
        let len = self.read(de::read_bin_len)? as usize;
        self.take(len)
    }

    fn options(&mut self) -> Read<(Option<JobRetryOverride>, bool)> {
        let (mut retry, mut unique) = (None, false);
        if self.nil()? {
            return Ok((retry, unique));
        }
        for _ in 0..self.read(de::read_map_len)? {
            let key = self.text(64, "an option's name")?;
            match &key[..] {
                b"r" => retry = Some(self.retry()?),
                b"u" => unique = self.read(de::read_bool)?,
                _ => self.skip()?,
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

    /// Passes over one value of any type: iterative, and no length is believed before it is there.
    fn skip(&mut self) -> Read<()> {
        let mut open = vec![1u64];
        while let Some(left) = open.last_mut() {
            if *left == 0 {
                open.pop();
                continue;
            }
            *left -= 1;
            let children = self.skip_one()?;
            if children > 0 {
                if open.len() == MAX_DEPTH {
                    return Err(Invalid("options nested too deep"));
                }
                open.push(children);
            }
        }
        Ok(())
    }

    fn skip_one(&mut self) -> Read<u64> {
        use rmp::Marker as M;
        let marker = M::from_u8(self.peek()?);
        let (len, children) = match marker {
            M::FixArray(n) => (1, u64::from(n)),
            M::FixMap(n) => (1, 2 * u64::from(n)),
            M::Array16 | M::Array32 => return self.read(de::read_array_len).map(u64::from),
            M::Map16 | M::Map32 => return self.read(de::read_map_len).map(|n| 2 * u64::from(n)),
            M::FixStr(_) | M::Str8 | M::Str16 | M::Str32 => {
                (self.read(de::read_str_len)? as usize, 0)
            }
            M::Bin8 | M::Bin16 | M::Bin32 => (self.read(de::read_bin_len)? as usize, 0),
            M::U8 | M::I8 => (2, 0),
            M::U16 | M::I16 | M::FixExt1 => (3, 0),
            M::FixExt2 => (4, 0),
            M::U32 | M::I32 | M::F32 => (5, 0),
            M::U64 | M::I64 | M::F64 => (9, 0),
            M::FixPos(_) | M::FixNeg(_) | M::Null | M::True | M::False => (1, 0),
            _ => return Err(Invalid("an extension type in the options")),
        };
        self.take(len)?;
        Ok(children)
    }

    fn nil(&mut self) -> Read<bool> {
        let nil = self.peek()? == 0xc0;
        self.at += usize::from(nil);
        Ok(nil)
    }

    fn peek(&self) -> Read<u8> {
        self.bytes.get(self.at).copied().ok_or(Invalid("cut short"))
    }

    fn take(&mut self, len: usize) -> Read<Bytes> {
        if len > self.bytes.len() - self.at {
            return Err(Invalid("cut short"));
        }
        let taken = self.bytes.slice(self.at..self.at + len);
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
