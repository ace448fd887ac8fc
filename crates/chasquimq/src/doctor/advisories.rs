//! Known vulnerabilities of servers in what the engine uses: streams, scripts, blocking reads.
//!
//! Sources: the release notes of Redis and Valkey, and the advisories by their number. Distributions
//! mend without a new version, so a number alone proves nothing.

use crate::version::{Numbers, ServerVersion};

/// A vulnerability, and the versions that have it.
pub(super) struct Advisory {
    pub id: &'static str,
    pub what: &'static str,
    redis: Affected,
    valkey: Affected,
}

/// From this version on, until the first mended version of each line of versions, oldest first.
struct Affected {
    since: Numbers,
    mended: &'static [Numbers],
}

const NEVER: Affected = Affected { since: (0, 0, 0), mended: &[] };

/// The releases of May 2026.
const REDIS_2026_05: &[Numbers] = &[(7, 2, 14), (7, 4, 9), (8, 2, 6), (8, 4, 3), (8, 6, 3)];
const VALKEY_2026_05: &[Numbers] = &[(7, 2, 13), (8, 0, 8), (8, 1, 7), (9, 0, 4)];

const ADVISORIES: &[Advisory] = &[
    Advisory {
        id: "CVE-2025-49844",
        what: "a script may run code on the server (use after free in Lua)",
        redis: Affected {
            since: (0, 0, 0),
            mended: &[(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
        },
        valkey: Affected { since: (0, 0, 0), mended: &[(7, 2, 11), (8, 0, 6), (8, 1, 4)] },
    },
    Advisory {
        id: "CVE-2025-62507",
        what: "XACKDEL with several ids may run code on the server; the engine does not use it",
        redis: Affected { since: (8, 2, 0), mended: &[(8, 2, 3)] },
        valkey: NEVER,
    },
    Advisory {
        id: "CVE-2026-23479",
        what: "a client that blocks may run code on the server, where clients are evicted",
        redis: Affected { since: (7, 2, 0), mended: REDIS_2026_05 },
        valkey: Affected { since: (7, 2, 0), mended: VALKEY_2026_05 },
    },
    Advisory {
        id: "CVE-2026-23631",
        what: "a replica that synchronises while a script is slow may run code (use after free in Lua)",
        redis: Affected { since: (7, 0, 0), mended: REDIS_2026_05 },
        valkey: Affected { since: (7, 2, 0), mended: VALKEY_2026_05 },
    },
];

/// The vulnerabilities that this server has by its version.
pub(super) fn of(server: &ServerVersion) -> impl Iterator<Item = &'static Advisory> {
    ADVISORIES.iter().filter(|advisory| advisory.of(server).includes(server.numbers()))
}

impl Advisory {
    fn of(&self, server: &ServerVersion) -> &Affected {
        if server.is_valkey() { &self.valkey } else { &self.redis }
    }

    /// The version to update to: the next of the same line, or of the next line that is mended.
    pub fn mended_in(&self, server: &ServerVersion) -> String {
        let next = self.of(server).mended.iter().find(|mended| **mended > server.numbers());
        next.map_or_else(String::new, |(major, minor, patch)| format!("{major}.{minor}.{patch}"))
    }
}

impl Affected {
    fn includes(&self, version: Numbers) -> bool {
        let line = |of: Numbers| (of.0, of.1);
        let is_mended = |mended: &Numbers| line(*mended) == line(version) && version >= *mended;
        version >= self.since
            && self.mended.last().is_some_and(|newest| version < *newest)
            && !self.mended.iter().any(is_mended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(server: &str) -> Vec<&'static str> {
        of(&server.parse().unwrap()).map(|advisory| advisory.id).collect()
    }

    #[test]
    fn each_version_has_its_own() {
        let (lua, xackdel) = ("CVE-2025-49844", "CVE-2025-62507");
        let may = ["CVE-2026-23479", "CVE-2026-23631"];
        assert_eq!(ids("redis-6.2.14"), [lua]);
        assert_eq!(ids("redis-6.2.20"), [""; 0]);
        assert_eq!(ids("redis-7.0.15"), [lua, may[1]]);
        assert_eq!(ids("redis-8.2.1"), [&[lua, xackdel], &may[..]].concat());
        assert_eq!(ids("redis-8.2.3"), may);
        assert_eq!(ids("redis-8.6.2"), may);
        assert_eq!(ids("redis-8.6.3"), [""; 0]);
        assert_eq!(ids("redis-8.10.0"), [""; 0]);
        assert_eq!(ids("valkey-8.1.3"), [&[lua], &may[..]].concat());
        assert_eq!(ids("valkey-8.1.8"), [""; 0]);
        assert_eq!(ids("valkey-9.1.0"), [""; 0]);
    }

    #[test]
    fn the_nearest_mended_version_is_named() {
        for (server, mended) in [
            ("redis-6.2.14", "6.2.20"),
            ("redis-7.0.15", "7.2.11"),
            ("redis-8.0.1", "8.0.4"),
            ("valkey-8.1.0", "8.1.4"),
        ] {
            let server = server.parse().unwrap();
            assert_eq!(of(&server).next().unwrap().mended_in(&server), mended);
        }
    }
}
