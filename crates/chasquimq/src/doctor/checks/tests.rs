use super::*;
use crate::acl::rights as rights_of;
use crate::doctor::Settings;
use crate::store::Hello;
use crate::version::ServerVersion;

/// A server as it should be.
fn healthy() -> Facts {
    let info = [
        ("maxmemory_policy", "noeviction"),
        ("aof_enabled", "1"),
        ("aof_last_write_status", "ok"),
        ("rdb_last_bgsave_status", "ok"),
        ("connected_slaves", "1"),
        ("min_slaves_good_slaves", "1"),
    ];
    let known = |text: &str| Some(text.to_owned());
    Facts {
        hello: Hello {
            server: ServerVersion::new("redis", "8.6.3"),
            mode: "standalone".into(),
            role: "master".into(),
        },
        info: info.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        settings: Settings { fsync: known("everysec"), save: known(""), min_replicas: known("1") },
        ahead_ms: -3,
        latency: Duration::from_micros(100),
        user: known("default"),
        roles: vec![Role::Producer, Role::Worker],
        queue: None,
        denied: vec![],
    }
}

fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = healthy();
    change(&mut facts);
    facts
}

fn with(name: &str, value: &str) -> Facts {
    facts(|facts| drop(facts.info.insert(name.into(), value.into())))
}

fn denied(why: Denied, commands: &[&str]) -> Facts {
    facts(|facts| {
        let rights = rights_of(&facts.roles, &facts.hello.server);
        let denied = rights.filter(|right| commands.contains(&right.command));
        facts.denied = denied.map(|right| (right, why)).collect();
    })
}

#[test]
fn a_healthy_server_is_green_and_leaves_nothing_to_do() {
    for finding in all(&healthy()) {
        assert_eq!((finding.verdict, finding.advice.as_str()), (Green, ""), "{finding:?}");
    }
}

#[test]
fn whatever_is_not_green_says_what_to_do() {
    let unknown = facts(|facts| {
        facts.info.clear();
        facts.settings = Settings { fsync: None, save: None, min_replicas: None };
    });
    for facts in [
        unknown,
        with("maxmemory_policy", "volatile-lru"),
        with("aof_enabled", "0"),
        with("aof_last_write_status", "err"),
        facts(|facts| facts.hello.server = ServerVersion::new("redis", "6.0.16")),
        facts(|facts| facts.ahead_ms = 90_000),
        facts(|facts| facts.latency = Duration::from_secs(2)),
        denied(Denied::Command, &["wait"]),
        denied(Denied::Channels, &["publish"]),
    ] {
        let bad: Vec<_> = all(&facts).into_iter().filter(|one| one.verdict != Green).collect();
        assert!(!bad.is_empty() && bad.iter().all(|one| !one.advice.is_empty()), "{bad:?}");
    }
}

#[test]
fn eviction_that_may_delete_queues_is_red() {
    for (policy, verdict) in [
        ("noeviction", Green),
        ("allkeys-lru", Red),
        ("allkeys-random", Red),
        ("volatile-ttl", Yellow),
    ] {
        assert_eq!(eviction(&with("maxmemory_policy", policy)).verdict, verdict, "{policy}");
    }
}

#[test]
fn persistence_is_red_when_it_fails_and_yellow_when_it_is_weak() {
    let fsync = |policy: &str| facts(|facts| facts.settings.fsync = Some(policy.into()));
    for (facts, verdict) in [
        (fsync("always"), Green),
        (fsync("no"), Yellow),
        (with("aof_enabled", "0"), Yellow),
        (with("aof_last_write_status", "err"), Red),
        (with("rdb_last_bgsave_status", "err"), Red),
    ] {
        let found = persistence(&facts);
        assert_eq!(found.verdict, verdict, "{found:?}");
    }
}

#[test]
fn replicas_are_red_where_writes_are_refused() {
    let min = |min: &str| facts(|facts| facts.settings.min_replicas = Some(min.into()));
    for (facts, verdict) in [
        (min("1"), Green),
        (min("2"), Red),
        (min("0"), Yellow),
        (facts(|facts| facts.hello.role = "replica".into()), Red),
    ] {
        let found = replicas(&facts);
        assert_eq!(found.verdict, verdict, "{found:?}");
    }
}

#[test]
fn a_missing_right_is_named() {
    let found = rights(&denied(Denied::Command, &["xadd", "zadd", "wait"]));
    assert_eq!((found.verdict, found.found.as_str()), (Red, "this user lacks +xadd +zadd"));
    let found = rights(&denied(Denied::Command, &["wait"]));
    assert_eq!(found.verdict, Yellow);
    assert!(found.found.contains("+wait for jobs"), "{found:?}");
    let found = rights(&denied(Denied::Keys, &["xadd"]));
    assert_eq!(found.verdict, Red);
    assert!(found.found.contains(":default}:*") && found.advice.contains("--queue"), "{found:?}");
}
