//! The few commands that the supervisor itself speaks, over one short-lived connection each.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest reply that is read; INFO has about 6 kB.
const REPLY_MAX: usize = 1 << 20;

/// What a running server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `Valkey` or `Redis`.
    pub product: &'static str,
    /// The product's version, such as `8.1.8`.
    pub version: String,
    /// The server's process id.
    pub pid: u32,
    /// Time since its start.
    pub uptime: Duration,
    /// Connections, the asking one included.
    pub clients: u64,
    /// Memory of the data in bytes.
    pub memory: u64,
}

/// The state of whatever listens, or does not, on a socket.
#[derive(Debug)]
pub(crate) enum Probe {
    Ready(ServerInfo),
    /// It answers, but still loads its data.
    Loading,
    Silent,
}

/// Asks the server on `socket` whether it is ready. No answer within `timeout` is an answer, too.
pub(crate) fn probe(socket: &Path, timeout: Duration) -> Probe {
    match try_probe(socket, timeout) {
        Ok(probe) => probe,
        Err(error) => {
            tracing::trace!(%error, socket = %socket.display(), "no answer");
            Probe::Silent
        }
    }
}

/// Asks the server to save and end. `Some`: its refusal.
pub(crate) fn shutdown(socket: &Path, timeout: Duration) -> io::Result<Option<String>> {
    match Connection::open(socket, timeout)?.call(&["SHUTDOWN"]) {
        Ok(Reply::Error(text)) => Ok(Some(text)),
        Ok(Reply::Text(_)) => Ok(None),
        // Success has no reply: the server closes the connection by ending.
        Err(error)
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn try_probe(socket: &Path, timeout: Duration) -> io::Result<Probe> {
    let mut connection = Connection::open(socket, timeout)?;
    match connection.call(&["PING"])? {
        Reply::Text(text) if text == "PONG" => {}
        Reply::Error(text) if text.starts_with("LOADING") => return Ok(Probe::Loading),
        other => return Err(unexpected(&other)),
    }
    match connection.call(&["INFO"])? {
        Reply::Text(text) => parse_info(&text).map(Probe::Ready),
        other @ Reply::Error(_) => Err(unexpected(&other)),
    }
}

fn parse_info(text: &str) -> io::Result<ServerInfo> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let number = |name| field(name).and_then(|value| value.parse().ok());
    let (product, version) = match field("valkey_version") {
        Some(version) => ("Valkey", Some(version)),
        None => ("Redis", field("redis_version")),
    };
    let missing = || io::Error::new(ErrorKind::InvalidData, "INFO without version or process_id");
    Ok(ServerInfo {
        product,
        version: version.ok_or_else(missing)?.to_owned(),
        pid: field("process_id").and_then(|value| value.parse().ok()).ok_or_else(missing)?,
        uptime: Duration::from_secs(number("uptime_in_seconds").unwrap_or_default()),
        clients: number("connected_clients").unwrap_or_default(),
        memory: number("used_memory").unwrap_or_default(),
    })
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("unexpected reply {reply:?}"))
}

#[derive(Debug)]
enum Reply {
    Text(String),
    Error(String),
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(socket: &Path, timeout: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn call(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = Vec::new();
        write!(request, "*{}\r\n", words.len())?;
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len())?;
        }
        self.0.get_mut().write_all(&request)?;
        self.read_reply()
    }

    fn read_reply(&mut self) -> io::Result<Reply> {
        let line = self.read_line()?;
        match line.split_at_checked(1) {
            Some(("+", text)) => Ok(Reply::Text(text.to_owned())),
            Some(("-", text)) => Ok(Reply::Error(text.to_owned())),
            Some(("$", length)) => self.read_bulk(length).map(Reply::Text),
            _ => Err(io::Error::new(ErrorKind::InvalidData, format!("unexpected reply {line:?}"))),
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.by_ref().take(REPLY_MAX as u64).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_bulk(&mut self, length: &str) -> io::Result<String> {
        let length = length.parse().ok().filter(|&length: &usize| length <= REPLY_MAX);
        let length =
            length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "bad bulk length"))?;
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_of_valkey_reads_its_own_version_not_the_one_it_is_compatible_with() {
        let text = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.8\r\n\
                    process_id:42\r\nuptime_in_seconds:7\r\nused_memory:1000\r\n";
        let info = parse_info(text).unwrap();
        assert_eq!((info.product, info.version.as_str(), info.pid), ("Valkey", "8.1.8", 42));
        assert_eq!((info.uptime, info.memory), (Duration::from_secs(7), 1000));
    }

    #[test]
    fn info_without_a_process_id_is_no_server() {
        assert!(parse_info("redis_version:7.0.15\r\n").is_err());
    }
}
