//! The checks, over what a server said of itself.

use std::time::Duration;

use super::advisories;
use super::{Facts, Finding, Verdict};
use crate::acl::{Right, Role};
use crate::store::{Denied, Keys};

use Verdict::{Green, Red, Yellow};

/// A clock that is off by more than this is worth a word.
const SKEW_MS: u64 = 1_000;
/// A round trip that is longer than this slows every single add.
const SLOW: Duration = Duration::from_millis(10);
/// One that is longer than this comes near what is taken for a dead connection.
const DEAD_SLOW: Duration = Duration::from_secs(1);

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![server(facts), capabilities(facts)];
    findings.extend(advisories(facts));
    findings.extend([eviction(facts), persistence(facts), replicas(facts), clock(facts)]);
    findings.extend([latency(facts), rights(facts)]);
    findings
}

fn finding(
    check: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { check, verdict, found: found.into(), advice: advice.into() }
}

impl Facts {
    /// What INFO says, as long as it says anything.
    fn said(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.said(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

fn server(facts: &Facts) -> Finding {
    let found = format!("{}, {}", facts.hello.server, facts.hello.mode);
    if facts.hello.server.is_served() {
        return finding("server", Green, found, "");
    }
    let advice = "use Redis 6.2 or later, or Valkey 7.2 or later: this one lacks XAUTOCLAIM, so jobs of \
                  dead workers could not be recovered";
    finding("server", Red, found, advice)
}

fn capabilities(facts: &Facts) -> Finding {
    let knows = facts.hello.server.has_waitaof();
    let found = if knows { "WAITAOF" } else { "no WAITAOF: no durability \"aof\"" };
    finding("capabilities", Green, found, "")
}

fn advisories(facts: &Facts) -> Vec<Finding> {
    let known: Vec<_> = advisories::of(&facts.hello.server)
        .map(|advisory| {
            let advice = format!(
                "update to {} or later, unless your distribution has mended it in this version",
                advisory.mended_in(&facts.hello.server)
            );
            finding("advisories", Yellow, format!("{}: {}", advisory.id, advisory.what), advice)
        })
        .collect();
    if known.is_empty() {
        return vec![finding("advisories", Green, "none that concerns queues is known", "")];
    }
    known
}

fn eviction(facts: &Facts) -> Finding {
    let Some(policy) = facts.said("maxmemory_policy") else {
        return unread("eviction", "INFO");
    };
    let (verdict, advice) = match policy {
        "noeviction" => (Green, ""),
        policy if policy.starts_with("allkeys") => (
            Red,
            "set maxmemory-policy noeviction: this one deletes whole queues when memory runs short",
        ),
        _ => (
            Yellow,
            "set maxmemory-policy noeviction: jobs are safe, which never expire; what keeps them from \
             being added twice, and the promoter's lock, are not",
        ),
    };
    finding("eviction", verdict, policy, advice)
}

fn unread(check: &'static str, command: &str) -> Finding {
    let found = format!("unknown: this user may not use {command}");
    finding(check, Yellow, found, "look again as a user who may, such as one of role observer")
}

fn persistence(facts: &Facts) -> Finding {
    const CHECK: &str = "persistence";
    const REFUSES: &str = "see the server's log: it refuses writes until it can store them";
    let Some(aof) = facts.said("aof_enabled") else { return unread(CHECK, "INFO") };
    let has_failed = |status: &str| facts.said(status).is_some_and(|status| status != "ok");
    if aof == "1" && has_failed("aof_last_write_status") {
        return finding(CHECK, Red, "the last write of the append-only file failed", REFUSES);
    }
    if has_failed("rdb_last_bgsave_status") {
        return finding(CHECK, Red, "the last snapshot failed", REFUSES);
    }
    if aof == "1" { appended(facts) } else { snapshots(facts) }
}

fn appended(facts: &Facts) -> Finding {
    let (verdict, found, advice) = match facts.settings.fsync.as_deref() {
        Some("always") => (Green, "append-only file, written before each reply", ""),
        Some("everysec") => {
            (Green, "append-only file, written every second: a crash loses that second", "")
        }
        Some(_) => (
            Yellow,
            "append-only file, written when the kernel wants to: a crash loses half a minute",
            "set appendfsync everysec or always",
        ),
        None => (Green, "append-only file; how often it is written may not be asked", ""),
    };
    finding("persistence", verdict, found, advice)
}

fn snapshots(facts: &Facts) -> Finding {
    let found = match facts.settings.save.as_deref() {
        Some("") => "none: a restart loses every job".to_owned(),
        Some(save) => {
            format!("snapshots alone (save {save}): a crash loses what came after the last")
        }
        None => "no append-only file; whether snapshots are taken may not be asked".to_owned(),
    };
    finding("persistence", Yellow, found, "set appendonly yes")
}

fn replicas(facts: &Facts) -> Finding {
    const CHECK: &str = "replicas";
    if facts.hello.role == "replica" {
        let advice = "connect to its primary, or to redis-sentinel:// or redis-cluster://";
        return finding(CHECK, Red, "this is a replica, which takes no jobs", advice);
    }
    let connected = facts.number("connected_slaves");
    let wanted = facts.settings.min_replicas.as_deref().map(|min| min.parse().unwrap_or(0));
    let found = match (connected, wanted) {
        (0, None | Some(0)) => "none".to_owned(),
        (some, None | Some(0)) => format!("{some} connected"),
        (some, Some(wanted)) => format!("{some} connected, min-replicas-to-write {wanted}"),
    };
    let (verdict, advice) = match wanted {
        Some(wanted) if facts.number("min_slaves_good_slaves") < wanted => {
            (Red, "bring replicas back, or lower min-replicas-to-write: now every write is refused")
        }
        Some(0) if connected > 0 => {
            (Yellow, "set min-replicas-to-write 1: a failover loses what was not replicated yet")
        }
        _ => (Green, ""),
    };
    finding(CHECK, verdict, found, advice)
}

fn clock(facts: &Facts) -> Finding {
    let off = facts.ahead_ms.unsigned_abs();
    let side = if facts.ahead_ms < 0 { "behind" } else { "ahead" };
    let found = format!("{off} ms {side} of this machine's");
    if off <= SKEW_MS {
        return finding("clock", Green, found, "");
    }
    let advice =
        "set both clocks by NTP: jobs that are due at a time of yours run by the server's clock";
    finding("clock", Yellow, found, advice)
}

fn latency(facts: &Facts) -> Finding {
    let found = format!("{:.2} ms a round trip", facts.latency.as_secs_f64() * 1e3);
    let (verdict, advice) = match facts.latency {
        quick if quick <= SLOW => (Green, ""),
        slow if slow <= DEAD_SLOW => (Yellow, "run workers nearer to the server, and add in bulk"),
        _ => (Red, "see what holds the server or the network up: commands will fail by time-out"),
    };
    finding("latency", verdict, found, advice)
}

fn rights(facts: &Facts) -> Finding {
    let of = |denied: Denied| facts.denied.iter().filter(move |(_, why)| *why == denied);
    let (needed, extra): (Vec<_>, Vec<_>) =
        of(Denied::Command).map(|(right, _)| *right).partition(|right| right.only_for.is_empty());
    if of(Denied::Keys).next().is_some() {
        let keys = Keys::pattern(Some(facts.queue.as_deref().unwrap_or("default")));
        let found = format!("this user may not touch {}", keys.unwrap_or_default());
        let other =
            if facts.queue.is_none() { "say --queue with a queue that it may, or " } else { "" };
        return finding("rights", Red, found, format!("{other}{}", make_anew(facts)));
    }
    if !needed.is_empty() {
        let found = format!("this user lacks {}", commands(&needed));
        return finding("rights", Red, found, make_anew(facts));
    }
    if !extra.is_empty() {
        let lost = extra.iter().map(|right| format!("+{} for {}", right.command, right.only_for));
        let found = format!("this user lacks {}", lost.collect::<Vec<_>>().join(", "));
        return finding("rights", Yellow, found, make_anew(facts));
    }
    if of(Denied::Channels).next().is_some() {
        let found = "this user may not use the queue's channel, so short delays may become longer";
        return finding("rights", Yellow, found, make_anew(facts));
    }
    finding("rights", Green, format!("all that {} needs", names(&facts.roles).join(" and ")), "")
}

fn commands(rights: &[&Right]) -> String {
    rights.iter().map(|right| format!("+{}", right.command)).collect::<Vec<_>>().join(" ")
}

fn make_anew(facts: &Facts) -> String {
    let roles = names(&facts.roles).join(" --role ");
    format!("make it anew with what this prints: chasqui acl print --role {roles}")
}

fn names(roles: &[Role]) -> Vec<&'static str> {
    let name = |role: &Role| match role {
        Role::Producer => "producer",
        Role::Worker => "worker",
        Role::Observer => "observer",
    };
    roles.iter().map(name).collect()
}

#[cfg(test)]
mod tests;
