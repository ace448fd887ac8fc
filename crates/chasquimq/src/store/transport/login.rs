//! Credentials as the client library asks for them.

use std::pin::Pin;

use fred::types::config::{CredentialProvider, Server};

use super::dial::word;
use crate::credentials::Credentials;

type Answer = Result<(Option<String>, Option<String>), fred::error::Error>;

/// Asks for user and password at each connection.
#[derive(Debug)]
pub struct Asking(pub Credentials);

impl CredentialProvider for Asking {
    fn fetch<'a, 'b, 'c>(
        &'a self,
        _: Option<&'b Server>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async {
            let login = self.0.ask().await.map_err(|error| {
                let why = format!("the credentials could not be had: {error}");
                fred::error::Error::new(fred::error::ErrorKind::Auth, why)
            })?;
            Ok((login.user.map(word), Some(word(login.password))))
        })
    }
}
