//! PURE: which server it is, and what follows from its version.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Major, minor, patch.
pub(crate) type Numbers = (u32, u32, u32);

/// The oldest servers served: both have XAUTOCLAIM and consistent scripts.
const FLOOR_REDIS: Numbers = (6, 2, 0);
const FLOOR_VALKEY: Numbers = (7, 2, 0);

/// A server and its version, such as Redis 7.0.15. Reads from `redis-7.0` or `valkey-8.1.8`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerVersion {
    /// `redis` or `valkey`, as the server calls itself.
    pub server: String,
    /// Its own version, such as `8.1.8`.
    pub version: String,
}

impl ServerVersion {
    pub(crate) fn new(server: &str, version: &str) -> Self {
        Self { server: server.to_owned(), version: version.to_owned() }
    }

    pub(crate) fn is_valkey(&self) -> bool {
        self.server == "valkey"
    }

    /// Of `8.2.3` or `7.0.15-something`; what is missing counts as 0.
    pub(crate) fn numbers(&self) -> Numbers {
        let mut parts = self.version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next())
    }

    /// Whether it is new enough for the engine.
    pub(crate) fn is_served(&self) -> bool {
        self.numbers() >= if self.is_valkey() { FLOOR_VALKEY } else { FLOOR_REDIS }
    }

    /// Whether it knows WAITAOF.
    pub(crate) fn has_waitaof(&self) -> bool {
        self.numbers() >= (7, 2, 0)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.server, self.version)
    }
}

impl FromStr for ServerVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_version = |version: &str| version.split('.').all(|part| part.parse::<u32>().is_ok());
        match text.split_once('-') {
            Some((server @ ("redis" | "valkey"), version)) if is_version(version) => {
                Ok(Self::new(server, version))
            }
            _ => Err(Error::config(format!(
                "{text:?} is no server: say redis or valkey and a version, such as redis-7.0"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_server_and_its_version() {
        let server: ServerVersion = "redis-7.0".parse().unwrap();
        assert_eq!((server.to_string().as_str(), server.numbers()), ("redis 7.0", (7, 0, 0)));
        assert!("valkey-8.1.8".parse::<ServerVersion>().unwrap().is_valkey());
        for text in ["", "redis", "redis-", "redis-x", "7.0", "memcached-1.6", "redis-7.0-rc1"] {
            assert!(text.parse::<ServerVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_floor_is_redis_6_2_and_valkey_7_2() {
        let is_served = |server, version| ServerVersion::new(server, version).is_served();
        assert!(is_served("redis", "6.2.14") && !is_served("redis", "6.0.16"));
        assert!(is_served("valkey", "7.2.0") && !is_served("valkey", "7.0.0"));
        assert!(is_served("redis", "255.255.255") && !is_served("redis", ""));
    }
}
