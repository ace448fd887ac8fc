//! The ceiling: the commands that a queue cannot do without, pipelined over one plain socket.
//!
//! Nothing that is read is decoded, no handler runs, nothing is recorded: a real client can come close to
//! these figures, not reach them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const GROUP: &[u8] = b"raw";
/// Reads under way at once, so that the server has one before it while a batch is acknowledged.
const READS_AHEAD: u64 = 3;
/// A server that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that sends commands and reads their replies in order.
pub struct RawClient {
    replies: BufReader<TcpStream>,
    requests: Vec<u8>,
    line: Vec<u8>,
}

/// Ids of entries as arguments, ready to be sent.
#[derive(Default)]
struct Ids {
    count: usize,
    args: Vec<u8>,
}

impl RawClient {
    /// Connects to a server on this machine.
    ///
    /// # Errors
    /// When there is none on that port.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let replies = BufReader::with_capacity(256 * 1024, stream);
        Ok(Self { replies, requests: vec![], line: vec![] })
    }

    /// Adds entries of one field, `batch` a round trip.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn add(&mut self, stream: &str, value: &[u8], entries: u64, batch: u64) -> Result<()> {
        let mut left = entries;
        while left > 0 {
            let now = left.min(batch);
            for _ in 0..now {
                self.queue(&[b"XADD", stream.as_bytes(), b"*", b"j", value]);
            }
            self.send()?;
            for _ in 0..now {
                self.bulk(None)?;
            }
            left -= now;
        }
        Ok(())
    }

    /// Reads and deletes all entries of a stream, at most `batch` a command; how long that took. It takes
    /// XACKDEL where the server has it, else XACK and XDEL.
    ///
    /// # Errors
    /// When the server refuses or does not answer, or there are not as many `entries`.
    pub fn drain(&mut self, stream: &str, entries: u64, batch: u64) -> Result<Duration> {
        let ackdel = self.has_ackdel(stream)?;
        self.queue(&[b"XGROUP", b"CREATE", stream.as_bytes(), GROUP, b"0"]);
        self.send()?;
        self.reply_line()?;
        let begun = Instant::now();
        (0..READS_AHEAD).for_each(|_| self.queue_read(stream, batch));
        self.send()?;
        let (mut read, mut sent, mut settled, mut ids) = (0, READS_AHEAD, 0, Ids::default());
        while read < sent {
            // Every read but the first ones was sent behind an acknowledgement.
            if read >= READS_AHEAD {
                settled += self.acknowledged(ackdel)?;
            }
            self.entries(&mut ids)?;
            if ids.count > 0 {
                self.queue_acknowledge(stream, ackdel, &ids);
                self.queue_read(stream, batch);
                self.send()?;
                sent += 1;
            }
            read += 1;
        }
        ensure!(settled == entries, "{settled} of {entries} entries acknowledged");
        Ok(begun.elapsed())
    }

    /// Watches the server for a while: commands that clients sent, and those that scripts ran.
    ///
    /// # Errors
    /// When the server refuses or ends.
    pub fn watch(mut self, time: Duration) -> Result<(u64, u64)> {
        self.queue(&[b"MONITOR"]);
        self.send()?;
        self.reply_line()?;
        let end = Instant::now() + time;
        let (mut sent, mut inside) = (0, 0);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok((sent, inside));
            }
            self.replies.get_ref().set_read_timeout(Some(left))?;
            match self.reply_line() {
                Ok(_) if self.line.windows(5).any(|part| part == b" lua]") => inside += 1,
                Ok(_) => sent += 1,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn has_ackdel(&mut self, stream: &str) -> Result<bool> {
        self.queue(&[b"XACKDEL", stream.as_bytes(), GROUP, b"IDS", b"1", b"0-1"]);
        self.send()?;
        match self.reply_line() {
            Ok(_) => self.integer().map(|_| true),
            Err(_) => Ok(false),
        }
    }

    fn queue_read(&mut self, stream: &str, batch: u64) {
        let (stream, count) = (stream.as_bytes(), batch.to_string());
        let count = count.as_bytes();
        self.queue(&[
            b"XREADGROUP",
            b"GROUP",
            GROUP,
            b"c",
            b"COUNT",
            count,
            b"STREAMS",
            stream,
            b">",
        ]);
    }

    fn queue_acknowledge(&mut self, stream: &str, ackdel: bool, ids: &Ids) {
        let stream = stream.as_bytes();
        if ackdel {
            let count = ids.count.to_string();
            self.queue_with(&[b"XACKDEL", stream, GROUP, b"IDS", count.as_bytes()], ids);
        } else {
            self.queue_with(&[b"XACK", stream, GROUP], ids);
            self.queue_with(&[b"XDEL", stream], ids);
        }
    }

    fn queue(&mut self, args: &[&[u8]]) {
        self.queue_with(args, &Ids::default());
    }

    fn queue_with(&mut self, args: &[&[u8]], ids: &Ids) {
        // Writing to a `Vec` cannot fail.
        let _ = write!(self.requests, "*{}\r\n", args.len() + ids.count);
        for arg in args {
            argument(&mut self.requests, arg);
        }
        self.requests.extend_from_slice(&ids.args);
    }

    fn send(&mut self) -> Result<()> {
        self.replies.get_mut().write_all(&self.requests)?;
        self.requests.clear();
        Ok(())
    }

    /// Entries acknowledged and deleted.
    fn acknowledged(&mut self, ackdel: bool) -> Result<u64> {
        if !ackdel {
            self.integer()?;
            return Ok(self.integer()?.unsigned_abs());
        }
        let count = self.length()?;
        let mut settled = 0;
        for _ in 0..count {
            settled += u64::from(self.integer()? == 1);
        }
        Ok(settled)
    }

    /// Reads entries of one field; keeps their ids alone.
    fn entries(&mut self, ids: &mut Ids) -> Result<()> {
        ids.count = 0;
        ids.args.clear();
        if self.length()? == 0 {
            return Ok(());
        }
        self.length()?;
        self.bulk(None)?;
        ids.count = self.length()?;
        for _ in 0..ids.count {
            self.length()?;
            self.bulk(Some(&mut ids.args))?;
            for _ in 0..self.length()? {
                self.bulk(None)?;
            }
        }
        Ok(())
    }

    /// The length of an array, 0 of nil.
    fn length(&mut self) -> Result<usize> {
        match self.reply_line()? {
            (b'*', length) => Ok(usize::try_from(length).unwrap_or(0)),
            (kind, _) => bail!("an array was due, a {:?} came", char::from(kind)),
        }
    }

    fn integer(&mut self) -> Result<i64> {
        match self.reply_line()? {
            (b':', number) => Ok(number),
            (kind, _) => bail!("a number was due, a {:?} came", char::from(kind)),
        }
    }

    /// Reads a string; appends it as an argument where that is wanted.
    fn bulk(&mut self, into: Option<&mut Vec<u8>>) -> Result<()> {
        let (kind, length) = self.reply_line()?;
        ensure!(kind == b'$', "a string was due, a {:?} came", char::from(kind));
        let length = usize::try_from(length).context("a string was due, nil came")?;
        self.line.resize(length + 2, 0);
        self.replies.read_exact(&mut self.line)?;
        if let Some(args) = into {
            argument(args, &self.line[..length]);
        }
        Ok(())
    }

    /// Reads a line; its kind, and the number in it if there is one.
    fn reply_line(&mut self) -> Result<(u8, i64)> {
        self.line.clear();
        self.replies.read_until(b'\n', &mut self.line)?;
        let Some((&kind, rest)) = self.line.split_first() else {
            bail!("the connection was closed")
        };
        let text = || String::from_utf8_lossy(rest).trim_end().to_owned();
        ensure!(kind != b'-', "the server refuses: {}", text());
        Ok((kind, text().parse().unwrap_or(0)))
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn argument(out: &mut Vec<u8>, arg: &[u8]) {
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "${}\r\n", arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}
