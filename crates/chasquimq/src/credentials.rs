//! User name and password that change while the program runs, as those of cloud services do.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Source = Box<dyn StdError + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<Login, Source>> + Send>>;

/// A user name and its password. Neither ever shows in `Debug`.
#[derive(Clone, Eq, PartialEq)]
pub struct Login {
    /// The user; `None` is the server's default user.
    pub user: Option<String>,
    /// The password, or the token that stands in its place.
    pub password: String,
}

/// Whom to ask for a [`Login`], before each connection and each reconnect. It takes the place of
/// the user and password in the URL; Sentinels go on being asked with those of the URL.
///
/// ```
/// use chasquimq::{ConnectionTuning, Credentials, Login};
///
/// async fn token() -> std::io::Result<Login> {
///     Ok(Login { user: Some("worker".into()), password: "a token of the next 15 minutes".into() })
/// }
/// let connection = ConnectionTuning {
///     credentials: Some(Credentials::new(token)),
///     ..Default::default()
/// };
/// ```
#[derive(Clone)]
pub struct Credentials(Arc<dyn Fn() -> Asked + Send + Sync>);

impl Credentials {
    /// Asks `ask`, which must answer within [`command_timeout`](crate::ConnectionTuning::command_timeout).
    /// Its error stands in the error of the connection, so it must not tell the password.
    pub fn new<F, R, E>(ask: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Login, E>> + Send + 'static,
        E: Into<Source>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async { asked.await.map_err(Into::into) })
        }))
    }

    pub(crate) async fn ask(&self) -> Result<Login, Source> {
        (self.0)().await
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}
