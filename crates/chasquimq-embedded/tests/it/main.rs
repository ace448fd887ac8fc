//! The embedded server as processes of one user meet it. Needs a server in `PATH` or in
//! `CHASQUIMQ_EMBEDDED_SERVER`.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod admin;
mod lifecycle;
mod placement;
mod race;
mod recovery;
mod search;
mod support;
