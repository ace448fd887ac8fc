//! What went wrong, told from the words of the server and of the client library.

use crate::error::{Error, ErrorKind};

/// The URL without its passwords.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".into() };
    let (place, query) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?***"));
    match (rest.rsplit_once('@'), place.rsplit_once('@')) {
        (None, _) => format!("{scheme}://{place}{query}"),
        (Some(_), Some((_, host))) => format!("{scheme}://***@{host}{query}"),
        // An @ behind a question mark: which of them belongs to a password, only its owner knows.
        (Some(_), None) => format!("{scheme}://***"),
    }
}

/// Whether the server does not know the script.
pub fn is_noscript(error: &Error) -> bool {
    error.to_string().starts_with("NOSCRIPT")
}

/// Whether the server does not know a command that a script called, or its form.
pub fn is_unknown_command(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    error.kind() == ErrorKind::Server && text.contains("unknown") && text.contains("command")
}

/// There was no connection to send it over, and its turn had come.
pub fn was_not_sent(error: &fred::error::Error) -> bool {
    error.details() == "Failed to route command."
}

/// An error of the library's, or one that it took from the server.
pub fn from_client(error: &fred::error::Error) -> Error {
    use fred::error::ErrorKind as Theirs;
    let kind = match error.kind() {
        Theirs::IO
        | Theirs::Canceled
        | Theirs::Tls
        | Theirs::Protocol
        | Theirs::Sentinel
        | Theirs::Routing => ErrorKind::Connection,
        Theirs::Timeout => ErrorKind::Timeout,
        Theirs::Backpressure => ErrorKind::Unavailable,
        Theirs::Auth => ErrorKind::Auth,
        Theirs::Config | Theirs::Url => ErrorKind::Config,
        _ => match classify(error.details()) {
            // Words of the library's own, which never has a server's code in front.
            ErrorKind::Server if !error.details().starts_with("ERR") => ErrorKind::Connection,
            kind => kind,
        },
    };
    Error::new(kind, error.details().to_owned())
}

/// An error reply.
pub fn server_error(text: &str) -> Error {
    Error::new(classify(text), text.to_owned())
}

/// The kind of an error reply, by the code in its text: at its start, or, inside a script on Redis
/// before 7, behind the script's own words.
pub fn classify(text: &str) -> ErrorKind {
    const CODES: &[(&str, ErrorKind)] = &[
        ("OOM", ErrorKind::OutOfMemory),
        ("NOGROUP", ErrorKind::NoGroup),
        ("UNBLOCKED the stream key no longer exists", ErrorKind::NoGroup),
        ("WRONGTYPE", ErrorKind::WrongType),
        ("NOAUTH", ErrorKind::Auth),
        ("WRONGPASS", ErrorKind::Auth),
        ("NOPERM", ErrorKind::Auth),
        ("READONLY", ErrorKind::Unavailable),
        ("LOADING", ErrorKind::Unavailable),
        ("MASTERDOWN", ErrorKind::Unavailable),
        ("CLUSTERDOWN", ErrorKind::Unavailable),
        ("TRYAGAIN", ErrorKind::Unavailable),
        ("MISCONF", ErrorKind::Unavailable),
        ("NOREPLICAS", ErrorKind::Unavailable),
        ("BUSY ", ErrorKind::Unavailable),
        ("UNBLOCKED", ErrorKind::Unavailable),
        ("ERR max number of clients reached", ErrorKind::Unavailable),
    ];
    let spoken = |code: &str| {
        text.trim_start_matches('-').starts_with(code)
            || text.split(": ").skip(1).any(|part| part.trim_start_matches('-').starts_with(code))
    };
    if let Some((_, kind)) = CODES.iter().find(|(code, _)| spoken(code)) {
        return *kind;
    }
    let denied = ["ACL failure in script", "can't run this command", "can't access"];
    if denied.iter().any(|words| text.contains(words)) {
        ErrorKind::Auth
    } else {
        ErrorKind::Server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_code_at_the_start_and_behind_a_script_s_words() {
        for (text, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::OutOfMemory),
            (
                "ERR Error running script (call to f_1): @user_script:3: -OOM command not allowed",
                ErrorKind::OutOfMemory,
            ),
            (
                "ERR Error running script (call to f_1): @user_script: 3: WRONGTYPE Operation",
                ErrorKind::WrongType,
            ),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable),
            ("BUSYGROUP Consumer Group name already exists", ErrorKind::Server),
            ("NOPERM this user has no permissions to run the 'xadd' command", ErrorKind::Auth),
            ("ERR ACL failure in script: User x has no permissions", ErrorKind::Auth),
            ("UNBLOCKED the stream key no longer exists", ErrorKind::NoGroup),
            ("UNBLOCKED force unblock from blocking operation", ErrorKind::Unavailable),
            ("ERR something new", ErrorKind::Server),
        ] {
            assert_eq!(classify(text), kind, "{text}");
        }
    }

    #[test]
    fn passwords_never_show() {
        assert_eq!(redact("redis://user:p@ss@host:1/0"), "redis://***@host:1/0");
        assert_eq!(redact("redis://host:1"), "redis://host:1");
        assert_eq!(redact("redis-sentinel://h?sentinelPassword=p"), "redis-sentinel://h?***");
        assert_eq!(redact("redis-sentinel://h?sentinelPassword=p@ss"), "redis-sentinel://***");
        assert_eq!(redact("redis://user:p?ss@host"), "redis://***");
        assert_eq!(redact("redis://u:p@host:1?sentinelPassword=p"), "redis://***@host:1?***");
        assert_eq!(redact("user:secret"), "(not a URL)");
    }
}
