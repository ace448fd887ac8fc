//! The Lua scripts, one verb a file; each begins with its KEYS, ARGV and reply.
//!
//! Every reply starts with an integer or is one: the client library takes some arrays that start
//! with a string for pub/sub messages.

use std::sync::LazyLock;

use super::transport::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal $(after $shared:literal)?;)+) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            let body = concat!(
                $(include_str!(concat!("scripts/", $shared, ".lua")),)?
                include_str!(concat!("scripts/", $file, ".lua"))
            );
            Script::new($file, body)
        });)+

        /// Makes all that have not been used yet.
        pub(crate) fn make_all() {
            $(LazyLock::force(&$name);)+
        }

        #[cfg(test)]
        pub(super) const FILES: &[&str] = &[$($($shared,)? $file),+];
    };
}

scripts! {
    PUT = "put" after "sending";
    ADD = "add" after "sending";
    SCHEDULE = "schedule" after "sending";
    WITHDRAW = "withdraw";
    PROMOTE = "promote" after "record";
    UNLOCK = "unlock";
    ENTER = "enter";
    LEAVE = "leave";
    CLAIM = "claim";
    MISSED = "missed";
    RENEW = "renew";
    FINISH = "finish" after "settling";
    COMPLETE = "complete" after "settling";
    RETRY = "retry" after "settling";
    BURY = "bury" after "settling";
    RELEASE = "release" after "settling";
    CANCEL = "cancel" after "record";
    DEAD = "dead" after "choosing";
    REPLAY = "replay";
    PURGE = "purge" after "choosing";
    INSPECT = "inspect";
    JANITOR = "janitor";
}
