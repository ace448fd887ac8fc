//! A reply of the server and the RESP2 bytes it is made of.

use std::io::{BufRead, Error, ErrorKind, Result};

/// A reply as RESP2 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status such as `OK`.
    Simple(String),
    /// An error the server answered, with its prefix: `WRONGTYPE …`.
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes of any kind.
    Bulk(Vec<u8>),
    /// Replies in a row.
    Array(Vec<Reply>),
    /// The absence of either.
    Nil,
}

impl Reply {
    /// The number.
    ///
    /// # Panics
    /// When it is none, nor text that spells one.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            _ => self.text().parse().unwrap_or_else(|_| panic!("not a number: {self:?}")),
        }
    }

    /// The text of a status or of bytes; what is not UTF-8 is replaced.
    ///
    /// # Panics
    /// When it is something else.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The bytes.
    ///
    /// # Panics
    /// When it is something else.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bulk(bytes) => bytes,
            other => panic!("not bytes: {other:?}"),
        }
    }

    /// The replies in a row; none for nil.
    ///
    /// # Panics
    /// When it is something else.
    pub fn array(&self) -> &[Reply] {
        match self {
            Self::Array(replies) => replies,
            Self::Nil => &[],
            other => panic!("not an array: {other:?}"),
        }
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is nil.
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    pub(crate) fn read(source: &mut impl BufRead) -> Result<Self> {
        let line = read_line(source)?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed(&line))?;
        let length = || rest.parse::<i64>().map_err(|_| malformed(&line));
        Ok(match kind {
            "+" => Self::Simple(rest.to_owned()),
            "-" => Self::Error(rest.to_owned()),
            ":" => Self::Int(length()?),
            "$" | "*" if length()? < 0 => Self::Nil,
            "$" => {
                let mut bytes = vec![0; length()? as usize + 2];
                source.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Self::Bulk(bytes)
            }
            "*" => Self::Array((0..length()?).map(|_| Self::read(source)).collect::<Result<_>>()?),
            _ => return Err(malformed(&line)),
        })
    }
}

fn read_line(source: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    source.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
    }
}

fn malformed(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not RESP2: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_reply() {
        let mut bytes: &[u8] =
            b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*1\r\n$0\r\n\r\n";
        let expected = Reply::Array(vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-7),
            Reply::Bulk(b"a\r\nb".into()),
            Reply::Nil,
            Reply::Array(vec![Reply::Bulk(Vec::new())]),
        ]);
        assert_eq!(Reply::read(&mut bytes).unwrap(), expected);
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_reply_cut_short_is_an_error() {
        for mut bytes in [&b""[..], b":12", b"$5\r\nab", b"*2\r\n:1\r\n"] {
            assert_eq!(Reply::read(&mut bytes).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}
