//! The Lua scripts, one verb a file; each begins with its KEYS, ARGV and reply.
//!
//! Every reply starts with an integer or is one: the client library takes some arrays that start
//! with a string for pub/sub messages.

use std::sync::LazyLock;

use super::transport::Script;

macro_rules! scripts {
    ($($name:ident = $($file:literal),+;)+) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+))
        });)+

        #[cfg(test)]
        pub(super) const FILES: &[&str] = &[$($($file),+),+];
    };
}

scripts! {
    ADD = "add";
    SCHEDULE = "schedule";
    PROMOTE = "promote";
    UNLOCK = "unlock";
    ENTER = "enter";
    LEAVE = "leave";
    CLAIM = "claim";
    RENEW = "renew";
    COMPLETE = "settling", "complete";
    RETRY = "settling", "retry";
    BURY = "settling", "bury";
    RELEASE = "settling", "release";
    CANCEL = "cancel";
    REPLAY = "replay";
}
