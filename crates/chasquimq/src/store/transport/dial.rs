//! From a URL and the tuning to what builds clients.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::{Builder, Config, ReconnectPolicy};
use fred::types::RespVersion;

use super::login::Asking;
use super::tls::Tls;
use crate::config::ConnectionTuning;
use crate::error::{Error, Result};

/// What builds clients for this URL that wait `deadline` for a reply and reconnect for ever; `blocks`
/// for those of blocking commands.
pub fn prepare(
    url: &str,
    tuning: &ConnectionTuning,
    deadline: Duration,
    blocks: bool,
) -> Result<Builder> {
    let mut config = parse(url)?;
    // Replies to blocking commands are long and of simple types. The library begins a reply anew with each
    // 8 KiB of it that arrive, and reads the older protocol in two thirds of the time.
    let version = if blocks { RespVersion::RESP2 } else { RespVersion::RESP3 };
    config.username = config.username.map(|user| spelled(user, &version));
    config.password = config.password.map(|password| spelled(password, &version));
    config.fail_fast = false;
    if let Some(credentials) = &tuning.credentials {
        let (credentials, version) = (credentials.clone(), version.clone());
        config.credential_provider = Some(Arc::new(Asking { credentials, version }));
    }
    config.version = version;
    let (min, max) = (millis(tuning.reconnect_min), millis(tuning.reconnect_max));
    let mut policy = ReconnectPolicy::new_exponential(0, min, max, 2);
    policy.set_jitter(min);
    let mut builder = Builder::from_config(config);
    builder
        .set_policy(policy)
        .with_connection_config(|connection| {
            connection.connection_timeout = tuning.connect_timeout;
            connection.internal_command_timeout = tuning.command_timeout;
            connection.tcp.nodelay = Some(true);
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = tuning.max_in_flight + 64;
            connection.reconnect_on_auth_error = true;
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = deadline;
        });
    Ok(builder)
}

fn parse(url: &str) -> Result<Config> {
    let unusable =
        |why: &str| Error::config(format!("the URL {} cannot be used: {why}", redact(url)));
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let base = scheme.strip_prefix("redis").or_else(|| scheme.strip_prefix("valkey"));
    let kind = base.map(|rest| rest.strip_prefix('s').unwrap_or(rest));
    if !matches!(kind, Some("" | "-cluster" | "-sentinel" | "+unix")) {
        return Err(unusable(
            "it must begin with redis://, rediss:// (TLS), redis-cluster://, redis-sentinel:// or \
             redis+unix://",
        ));
    }
    let (plain, tls) = Tls::take(url).map_err(|error| unusable(&error.to_string()))?;
    let mut config = Config::from_url(&plain).map_err(|error| {
        // What it could not read, which may be a part of the password, stands behind the colon.
        let details = error.details();
        unusable(details.rsplit_once(": ").map_or(details, |(what, _)| what))
    })?;
    if let Some(tls) = tls {
        config.tls = Some(tls.connector().map_err(|error| unusable(&error.to_string()))?);
    }
    Ok(config)
}

/// A name or password as the library needs it: it sends RESP3's HELLO as a line, not as a list.
pub fn spelled(text: String, version: &RespVersion) -> String {
    if *version == RespVersion::RESP3 { word(text) } else { text }
}

/// A text as one word of a line.
fn word(text: String) -> String {
    let splits = |c: char| c.is_ascii_whitespace() || c.is_ascii_control() || "\"'".contains(c);
    if !text.contains(splits) {
        return text;
    }
    let mut word = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            c if c.is_ascii_control() => word.extend(format!("\\x{:02x}", u32::from(c)).chars()),
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A server's URL as it may be shown: without user, password and parameters.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".into() };
    if !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return "(not a URL)".into();
    }
    let (place, query) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?***"));
    match (rest[place.len()..].contains('@'), place.rsplit_once('@')) {
        // Whether it belongs to a parameter or to a password, only its owner knows.
        (true, _) => format!("{scheme}://***"),
        (false, Some((_, host))) => format!("{scheme}://***@{host}{query}"),
        (false, None) => format!("{scheme}://{place}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_part_of_a_password_shows_wherever_it_stands(
            before in "[^#]{0,8}", after in "[^#]{0,8}", user in "[a-z@:]{0,5}", more in "(,b:2|/0|)",
        ) {
            let secret = format!("{before}SECRET{after}");
            for url in [
                format!("redis://{user}:{secret}@host:1{more}"),
                format!("redis-cluster://{user}:{secret}@a:1,{user}:{secret}@host:1{more}"),
                format!("redis-sentinel://{user}:x@host:1{more}?sentinelPassword={secret}"),
                format!("rediss://host:1{more}?a=b&password={secret}"),
                secret,
            ] {
                let shown = redact(&url);
                prop_assert!(!shown.contains("SECRET"), "{url} -> {shown}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_of_a_url_is_not_shown() {
        let error = parse("redis-cluster://h:1?node=SECRET@a:1:2").unwrap_err().to_string();
        assert!(error.contains("cluster node") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn passwords_never_show() {
        assert_eq!(redact("redis://user:p@ss@host:1/0"), "redis://***@host:1/0");
        assert_eq!(redact("redis://host:1"), "redis://host:1");
        assert_eq!(redact("redis-sentinel://h?sentinelPassword=p"), "redis-sentinel://h?***");
        assert_eq!(redact("redis-sentinel://h?sentinelPassword=p@ss"), "redis-sentinel://***");
        assert_eq!(redact("redis://user:p?ss@host"), "redis://***");
        assert_eq!(redact("redis://u:p@host:1?sentinelPassword=p"), "redis://***@host:1?***");
        assert_eq!(redact("redis-cluster://u:p@a:1,u:q@b:2"), "redis-cluster://***@b:2");
        assert_eq!(redact("redis://u@x:p?ss@host"), "redis://***");
        assert_eq!(redact("user:secret"), "(not a URL)");
        assert_eq!(redact("user:secret@host://x"), "(not a URL)");
    }
}
