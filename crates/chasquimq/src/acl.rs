//! PURE: the rights that a user of the server needs, by what it does, and the rule that gives them.
//!
//! The server looks at the commands inside scripts, too, so each is listed. Keys are limited to
//! those of the queue, for observers as well: they may only read because they have no command that
//! writes. The server's read-only key patterns (`%R~`) would refuse them every script.

use crate::error::{Error, Result};
use crate::store::Keys;
use crate::version::ServerVersion;

use Role::{Observer, Producer, Worker};

/// Stands in the rule where the user's password belongs.
pub const PASSWORD: &str = "PASSWORD";

/// What a user of the server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Adds jobs and takes delayed ones back.
    Producer,
    /// Runs jobs: reads, settles, promotes and counts them. Deletes dead jobs. To send dead jobs
    /// back, or to add jobs from handlers, takes both `Producer` and `Worker`.
    Worker,
    /// Looks: counts, dead jobs, events, `chasqui doctor`. Changes nothing.
    Observer,
}

/// A command that a user needs.
#[derive(Debug)]
pub(crate) struct Right {
    roles: &'static [Role],
    /// As rules spell it: `xadd`, or `xgroup|create`.
    pub command: &'static str,
    /// Arguments with which it does nothing, [`KEY`] for a key that is not there.
    pub harmless: &'static str,
    /// What alone goes without it; empty where nothing goes.
    pub only_for: &'static str,
}

/// In [`Right::harmless`]: a key of the queue that is never there.
pub(crate) const KEY: &str = "K";

const P: &[Role] = &[Producer];
const W: &[Role] = &[Worker];
const O: &[Role] = &[Observer];
const PW: &[Role] = &[Producer, Worker];
const WO: &[Role] = &[Worker, Observer];
const PWO: &[Role] = &[Producer, Worker, Observer];

const fn right(roles: &'static [Role], command: &'static str, harmless: &'static str) -> Right {
    Right { roles, command, harmless, only_for: "" }
}

const fn extra(
    roles: &'static [Role],
    command: &'static str,
    harmless: &'static str,
    only_for: &'static str,
) -> Right {
    Right { roles, command, harmless, only_for }
}

const RIGHTS: &[Right] = &[
    right(PWO, "hello", ""),
    right(PWO, "ping", ""),
    right(PWO, "eval", "return 0"),
    right(PWO, "evalsha", "0000000000000000000000000000000000000000 0"),
    right(PWO, "time", ""),
    right(P, "hlen", "K"),
    right(P, "zscore", "K m"),
    right(P, "setbit", "K 0 no-bit"),
    right(P, "getbit", "K 0"),
    right(P, "pexpire", "K 1"),
    right(PW, "xadd", "K no-id f v"),
    right(PW, "publish", "K v"),
    right(PW, "hset", "K f v no-pair"),
    right(PW, "hget", "K f"),
    right(PW, "hdel", "K f"),
    right(PW, "zadd", "K no-number m"),
    right(PW, "zrem", "K m"),
    right(PW, "zrange", "K 0 0"),
    right(PW, "decrby", "K no-number"),
    right(PWO, "xlen", "K"),
    right(PWO, "zcard", "K"),
    right(W, "xreadgroup", "GROUP g c COUNT 1 STREAMS K >"),
    right(W, "xautoclaim", "K g c 0 0"),
    right(W, "xclaim", "K g c 0 0-1"),
    right(W, "xpending", "K g"),
    right(W, "xack", "K g 0-1"),
    right(W, "xdel", "K 0-1"),
    right(W, "xtrim", "K MINID 0"),
    right(W, "xgroup|create", "K g 0"),
    right(W, "xgroup|delconsumer", "K g c"),
    right(W, "set", "K v no-option"),
    right(W, "del", "K"),
    right(W, "pttl", "K"),
    right(W, "incrby", "K no-number"),
    right(W, "hmget", "K f"),
    right(W, "zrangebyscore", "K 0 0"),
    right(W, "zremrangebyrank", "K 0 0"),
    right(WO, "xrange", "K - + COUNT 1"),
    right(W, "xinfo|consumers", "K g"),
    right(WO, "xinfo|groups", "K"),
    right(WO, "exists", "K"),
    right(PWO, "get", "K"),
    right(O, "xread", "COUNT 1 STREAMS K 0"),
    right(WO, "xinfo|stream", "K"),
    extra(O, "info", "server", "chasqui doctor"),
    extra(W, "subscribe", "", "a short delay that begins while the promoter sleeps"),
    extra(W, "client|unblock", "0", "a quick stop"),
    extra(PWO, "client|id", "", "a quick stop"),
    extra(PW, "wait", "0 0", "jobs that are added with durability"),
    extra(PW, "waitaof", "0 0 0", "jobs that are added with durability"),
    extra(PWO, "cluster|slots", "", "a cluster"),
    extra(PWO, "asking", "", "a cluster"),
    extra(PWO, "role", "", "a server that Sentinels watch"),
];

impl Right {
    /// A rule that names a command which the server does not know is refused as a whole.
    fn is_known_to(&self, server: &ServerVersion) -> bool {
        match self.command {
            "waitaof" => server.has_waitaof(),
            _ => true,
        }
    }
}

/// The rights of a user that does all this, on this server.
pub(crate) fn rights(
    roles: &[Role],
    server: &ServerVersion,
) -> impl Iterator<Item = &'static Right> {
    RIGHTS.iter().filter(|right| {
        right.roles.iter().any(|role| roles.contains(role)) && right.is_known_to(server)
    })
}

/// The `ACL SETUSER …` command that makes a user who may do just this: with the keys of one queue, or
/// of all queues for `None`. [`PASSWORD`] in it stands for the password. The user is made anew: what
/// it was allowed before is forgotten.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) when the name of the user or the queue is not valid,
/// or no role is given.
///
/// # Examples
/// ```
/// use chasquimq::acl::{Role, rule};
///
/// let rule = rule("web", &[Role::Producer], Some("emails"), &"redis-7.0".parse()?)?;
/// assert!(rule.starts_with("ACL SETUSER web reset on >PASSWORD resetchannels ~{chasqui:emails}:* "));
/// # Ok::<(), chasquimq::Error>(())
/// ```
pub fn rule(
    user: &str,
    roles: &[Role],
    queue: Option<&str>,
    server: &ServerVersion,
) -> Result<String> {
    if user.is_empty() || user.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::config(format!("user name {user:?} is not valid: use no spaces")));
    }
    if roles.is_empty() {
        return Err(Error::config("a user needs a role: producer, worker or observer"));
    }
    let keys = Keys::pattern(queue)?;
    let publishes = roles.iter().any(|role| *role != Observer);
    let channels = if publishes { format!(" &{keys}") } else { String::new() };
    let commands: String = rights(roles, server).flat_map(|right| [" +", right.command]).collect();
    Ok(format!("ACL SETUSER {user} reset on >{PASSWORD} resetchannels ~{keys}{channels}{commands}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(roles: &[Role], queue: Option<&str>, server: &str) -> String {
        rule("u", roles, queue, &server.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_rule_names_only_commands_that_the_server_knows() {
        for (server, waitaof) in [
            ("redis-6.2", false),
            ("redis-7.0", false),
            ("redis-7.2", true),
            ("redis-8.2", true),
            ("valkey-7.2", true),
        ] {
            let rule = printed(PWO, None, server);
            assert_eq!(rule.contains(" +waitaof"), waitaof, "{server}");
        }
    }

    #[test]
    fn an_observer_has_no_command_that_writes_and_no_channel() {
        let rule = printed(O, Some("emails"), "redis-8.6");
        assert!(rule.contains(" ~{chasqui:emails}:* +") && !rule.contains(" &"), "{rule}");
        for command in ["xadd", "xdel", "xack", "set", "del", "hset", "hdel", "zadd", "zrem"] {
            assert!(!rule.contains(&format!("+{command} ")), "{command}: {rule}");
        }
    }

    #[test]
    fn a_producer_cannot_take_jobs() {
        let rule = printed(P, Some("emails"), "redis-8.6");
        for command in ["xreadgroup", "xread", "xrange", "xautoclaim", "xclaim", "del", "xdel"] {
            assert!(!rule.contains(&format!("+{command} ")), "{command}: {rule}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_rule() {
        let server = "redis-7.0".parse().unwrap();
        for (user, roles, queue) in [
            ("a b", P, None),
            ("", P, None),
            ("a\n", P, None),
            ("u", &[], None),
            ("u", P, Some("q}* +@all")),
        ] {
            assert!(rule(user, roles, queue, &server).is_err(), "{user:?} {queue:?}");
        }
    }
}
