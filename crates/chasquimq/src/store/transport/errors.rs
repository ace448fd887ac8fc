//! What went wrong, told from the words of the server and of the client library.

use crate::error::{Error, ErrorKind};

/// Whether the server does not know the script.
pub fn is_noscript(error: &Error) -> bool {
    error.to_string().starts_with("NOSCRIPT")
}

/// Whether the server does not know a command that a script called, or its form.
pub fn is_unknown_command(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    error.kind() == ErrorKind::Server && text.contains("unknown") && text.contains("command")
}

/// A refusal that carried nothing out and that another server, or a little time, can mend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The slot is served by another node (`MOVED`).
    Moved,
    /// The slot is on its way to another node (`ASK`, `TRYAGAIN`).
    Moving,
    /// The server is a replica (`READONLY`, `MASTERDOWN`).
    NotPrimary,
}

impl Refusal {
    /// What this error is, if it is one of these.
    pub fn of(error: &Error) -> Option<Self> {
        let text = error.to_string();
        let refusals = [
            ("MOVED ", Self::Moved),
            ("ASK ", Self::Moving),
            ("TRYAGAIN", Self::Moving),
            ("READONLY", Self::NotPrimary),
            ("MASTERDOWN", Self::NotPrimary),
        ];
        refusals.into_iter().find(|(code, _)| spoken(&text, code)).map(|(_, refusal)| refusal)
    }
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
        // It closes the connection at CLUSTERDOWN and tells all that was under way of it.
        | Theirs::Cluster
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
    let words = plain(error.details());
    match words.strip_prefix("InvalidCertificate(").and_then(|words| words.strip_suffix(')')) {
        Some(why) => Error::new(kind, format!("the server's certificate is refused: {why}")),
        None => Error::new(kind, words.to_owned()),
    }
}

/// The words in an I/O error that the library has printed for programmers.
fn plain(details: &str) -> &str {
    let words = |key| details.split_once(key)?.1.rsplit_once('"').map(|(words, _)| words);
    let bare = || details.split_once("error: ")?.1.strip_suffix(" }");
    words("message: \"").or_else(|| words("error: \"")).or_else(bare).unwrap_or(details)
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
        ("MOVED ", ErrorKind::Unavailable),
        ("ASK ", ErrorKind::Unavailable),
        ("TRYAGAIN", ErrorKind::Unavailable),
        ("MISCONF", ErrorKind::Unavailable),
        ("NOREPLICAS", ErrorKind::Unavailable),
        ("BUSY ", ErrorKind::Unavailable),
        ("UNBLOCKED", ErrorKind::Unavailable),
        ("ERR max number of clients reached", ErrorKind::Unavailable),
    ];
    if let Some((_, kind)) = CODES.iter().find(|(code, _)| spoken(text, code)) {
        return *kind;
    }
    let denied = ["ACL failure in script", "can't run this command", "can't access"];
    if denied.iter().any(|words| text.contains(words)) {
        ErrorKind::Auth
    } else {
        ErrorKind::Server
    }
}

fn spoken(text: &str, code: &str) -> bool {
    text.trim_start_matches('-').starts_with(code)
        || text.split(": ").skip(1).any(|part| part.trim_start_matches('-').starts_with(code))
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
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Unavailable),
            ("CLUSTERDOWN Hash slot not served", ErrorKind::Unavailable),
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
    fn io_errors_read_like_sentences() {
        let refused = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(plain(refused), "Connection refused");
        assert_eq!(plain(r#"Custom { kind: Other, error: "unknown issuer" }"#), "unknown issuer");
        assert_eq!(plain("Custom { kind: InvalidData, error: Expired }"), "Expired");
        assert_eq!(plain("Connection closed."), "Connection closed.");
    }
}
