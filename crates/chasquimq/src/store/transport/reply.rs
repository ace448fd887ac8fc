//! What is sent and what comes back, in words of our own.

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::errors::server_error;
use crate::error::Result;

/// One argument of a command. Bytes and texts convert into it.
pub type Arg = Value;

/// A number as an argument.
pub fn int(value: u64) -> Arg {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Shared bytes as an argument, not copied.
pub fn bytes(value: &Bytes) -> Arg {
    Value::Bytes(value.clone())
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A string of bytes.
    Bytes(Bytes),
    /// A list; maps are lists of alternating keys and values.
    List(Vec<Reply>),
}

impl Reply {
    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Reply] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The number, or the number a text spells; 0 for anything else.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(n) => *n,
            Self::Bytes(b) => std::str::from_utf8(b).ok().and_then(|s| s.parse().ok()).unwrap_or(0),
            _ => 0,
        }
    }

    /// The text, invalid UTF-8 replaced; empty for anything else.
    pub fn text(&self) -> String {
        if let Self::Bytes(b) = self {
            String::from_utf8_lossy(b).into_owned()
        } else {
            String::new()
        }
    }

    /// The bytes; empty for anything else.
    pub fn bytes(&self) -> Bytes {
        if let Self::Bytes(b) = self { b.clone() } else { Bytes::new() }
    }

    /// As [`Reply::items`], taken out.
    pub fn into_items(self) -> Vec<Reply> {
        if let Self::List(items) = self { items } else { vec![] }
    }

    /// As [`Reply::bytes`], taken out.
    pub fn into_bytes(self) -> Bytes {
        if let Self::Bytes(b) = self { b } else { Bytes::new() }
    }

    pub fn read(frame: Resp3Frame) -> Result<Self> {
        Ok(match frame {
            Resp3Frame::Number { data, .. } => Self::Int(data),
            Resp3Frame::BlobString { data, .. }
            | Resp3Frame::SimpleString { data, .. }
            | Resp3Frame::BigNumber { data, .. }
            | Resp3Frame::VerbatimString { data, .. } => Self::Bytes(data),
            Resp3Frame::Boolean { data, .. } => Self::Int(i64::from(data)),
            Resp3Frame::Double { data, .. } => Self::Bytes(data.to_string().into()),
            Resp3Frame::SimpleError { data, .. } => return Err(server_error(&data)),
            Resp3Frame::BlobError { data, .. } => {
                return Err(server_error(&String::from_utf8_lossy(&data)));
            }
            Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => {
                Self::List(data.into_iter().map(Self::read).collect::<Result<_>>()?)
            }
            Resp3Frame::Map { data, .. } => Self::List(
                data.into_iter()
                    .flat_map(|(k, v)| [k, v])
                    .map(Self::read)
                    .collect::<Result<_>>()?,
            ),
            Resp3Frame::Set { data, .. } => {
                Self::List(data.into_iter().map(Self::read).collect::<Result<_>>()?)
            }
            Resp3Frame::Null | Resp3Frame::Hello { .. } | Resp3Frame::ChunkedString(_) => Self::Nil,
        })
    }
}
