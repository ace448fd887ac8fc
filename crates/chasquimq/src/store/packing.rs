//! Events of a kind of which several stand in one entry: each field holds a line for each.

use super::Store;
use super::transport::{Arg, bytes, int};
use crate::error::Result;

/// The most events that share an entry.
pub(crate) const MOST_PACKED: usize = 256;

/// A job that was delivered.
pub(crate) struct Active<'a> {
    pub id: &'a str,
    pub name: &'a str,
    /// The run that begins, from 1.
    pub run: u32,
}

impl Store {
    /// How many events may share an entry.
    pub(super) fn pack(&self) -> usize {
        self.events.pack.clamp(1, MOST_PACKED)
    }

    /// Whether deliveries are told of.
    pub fn tells_active(&self) -> bool {
        self.events.enabled && self.events.verbose
    }

    /// Tells of deliveries.
    pub async fn tell_active(&self, jobs: &[Active<'_>]) -> Result<()> {
        let is_told_in_lines =
            |job: &Active<'_>| is_line(job.id.as_bytes()) && is_line(job.name.as_bytes());
        let in_lines = jobs.iter().all(is_told_in_lines);
        let pack = if in_lines { self.pack() } else { 1 };
        for jobs in jobs.chunks(pack) {
            let mut args = vec![bytes(&self.keys().events), "MAXLEN".into(), "~".into()];
            args.extend([self.cap(true), "*".into(), "e".into(), "active".into()]);
            args.extend(["id".into(), column(jobs, |job, to| to.extend(job.id.as_bytes()))]);
            args.extend(["n".into(), column(jobs, |job, to| to.extend(job.name.as_bytes()))]);
            args.extend(["attempt".into(), column(jobs, |job, to| decimal(job.run.into(), to))]);
            if let several @ 2.. = jobs.len() {
                args.extend(["k".into(), int(several as u64)]);
            }
            self.call("active", "XADD", args).await?;
        }
        Ok(())
    }
}

/// A field of such an entry: what `write` writes of each item, joined by line ends.
pub(crate) fn column<T>(items: &[T], write: impl Fn(&T, &mut Vec<u8>)) -> Arg {
    let mut column = Vec::with_capacity(items.len() * 4);
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            column.push(b'\n');
        }
        write(item, &mut column);
    }
    bytes(&column.into())
}

/// Whether a text can be one of several in a field.
pub(crate) fn is_line(text: &[u8]) -> bool {
    !text.contains(&b'\n')
}

/// Writes a number.
pub(super) fn decimal(number: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
