//! One plain connection, apart from the client library that the engine uses.

use std::io::{BufReader, ErrorKind, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::reply::Reply;

/// A server that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is opened at the first command and again after an error.
pub(crate) struct Client {
    socket: PathBuf,
    password: Option<String>,
    connection: Option<BufReader<UnixStream>>,
}

impl Client {
    pub(crate) fn new(socket: PathBuf, password: Option<String>) -> Self {
        Self { socket, password, connection: None }
    }

    pub(crate) fn command(&mut self, args: &[Vec<u8>]) -> Result<Reply> {
        let reused = self.connection.is_some();
        match self.exchange(args) {
            // The server of an idle connection may have been restarted since.
            Err(error) if reused && is_closed(error.kind()) => self.exchange(args),
            result => result,
        }
    }

    fn exchange(&mut self, args: &[Vec<u8>]) -> Result<Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let reply = send(&mut connection, args)?;
        self.connection = Some(connection);
        Ok(reply)
    }

    fn connect(&self) -> Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = BufReader::new(stream);
        if let Some(password) = &self.password {
            send(&mut connection, &[b"AUTH".to_vec(), password.clone().into_bytes()])?;
        }
        Ok(connection)
    }
}

fn send(connection: &mut BufReader<UnixStream>, args: &[Vec<u8>]) -> Result<Reply> {
    let mut request = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        request.extend_from_slice(arg);
        request.extend_from_slice(b"\r\n");
    }
    connection.get_mut().write_all(&request)?;
    Reply::read(connection)
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
